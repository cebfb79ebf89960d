"""Tile sizes and launch options of the fused kernels: a static table, nothing is tuned at run time.

A kernel is launched with its file's default options, over which TUNED lays what a measurement found better.  The keys
are (op, arch, D, bucket, dtype): the name of the op, the architecture as `arch_of` gives it, the channels, the length
of the long axis rounded up to a power of two, and the storage dtype ("int8", "float16", ...).  `tools/gpu_check.py
--only sweep` prints entries; none has been measured yet, so the defaults are those of a study of registers and memory.

Every fused file also lists its kernels for ahead-of-time compilation:

    aot_cases() -> iterator of AotCase

one per kernel, storage and size that matters, with a Budget for each architecture it is shipped for.  A test compiles
them without a GPU and holds the budgets:

    for case in fused_pool.aot_cases():
        for arch, budget in case.budgets.items():
            binary = triton.compile(case.source(), target=GPUTarget("cuda", arch, 32), options=case.options)
"""

from typing import NamedTuple

import torch
import triton
from triton.compiler import ASTSource

TUNED = {}

# Shared memory one program can have, in bytes.  86 stands for the small ones: sm_86, sm_89, sm_120.
SHARED = {80: 163 * 1024, 86: 99 * 1024, 90: 227 * 1024, 100: 227 * 1024}


def arch_of(device):
    """80, 86, 90 or 100: the column of the tables that a device belongs to; 0 for the interpreter."""
    if torch.device(device).type != "cuda":
        return 0
    major, minor = torch.cuda.get_device_capability(device)
    if (major, minor) in ((8, 6), (8, 9)) or major >= 12:
        return 86
    return 80 if major < 9 else 90 if major == 9 else 100


def options(op, arch, D, size, dtype, default):
    """`default`, a dict of launch options, with what was measured for this key laid over it."""
    return {**default, **TUNED.get(key(op, arch, D, size, dtype), {})}


def key(op, arch, D, size, dtype):
    """Of TUNED."""
    return op, arch, D, triton.next_power_of_2(max(1, size)), str(dtype).removeprefix("torch.")


def chunks(D, most=4, widest=256):
    """(DC, count): D channels as at most so many chunks of a power of two, with as little padding as possible.

    384 is 3 x 128 and 768 is 3 x 256; one padded tile of 1024 channels would spill.
    """
    sizes = [(dc, -(-D // dc)) for dc in (16 << i for i in range(27)) if -(-D // dc) <= most]
    return min(sizes, key=lambda size: (size[0] * size[1], size[0] > widest, -size[0]))


class Budget(NamedTuple):
    """Ceilings of one compiled kernel.  Stack and spills are never allowed any."""

    registers: int  # per thread
    shared: int  # bytes per program
    instructions: tuple = ()  # substrings of SASS instructions of which each must occur: "HMMA", "UTMALDG", ...


class AotCase(NamedTuple):
    """One kernel as it is compiled without a device."""

    name: str
    kernel: object  # a triton.jit function
    types: dict  # argument -> Triton type: "*fp32", "i64", "fp32", "tensordesc<i8[1,32,256]>"
    constants: dict  # argument -> value of a constexpr, None for pointers that are left out
    options: dict  # num_warps, num_stages
    budgets: dict  # arch (80, 90, 100) -> Budget

    def source(self):
        """What triton.compile takes.  Pointers and 64-bit integers are multiples of 16, as they are in a launch."""
        names = self.kernel.arg_names
        signature = {name: "constexpr" if name in self.constants else self.types[name] for name in names}
        aligned = [i for i, name in enumerate(names) if signature[name].startswith("*") or signature[name] == "i64"]
        return ASTSource(
            self.kernel,
            signature,
            constexprs={(names.index(name),): value for name, value in self.constants.items()},
            attrs={(i,): [["tt.divisibility", 16]] for i in aligned},
        )


def short(dtype):
    """Triton's name of a torch dtype in a signature."""
    return {torch.int8: "i8", torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32"}[dtype]
