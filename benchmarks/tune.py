"""Launch options of the kernels, tried one by one: what `python benchmarks/ops.py --tune` prints.

Forward and backward kernels are tuned apart: the options of one are laid into configs.TUNED, all else stays as it is,
and forward and backward are timed together.  Options that give other numbers, or do not compile, are left out.
"""

import itertools
import sys

import torch
from ops import clip, gap, milliseconds, pool, run

from fastzss.kernels import configs

STORAGES, LENGTHS, CHANNELS = (torch.int8, torch.float16), (256, 1024), (128, 192, 384, 768, 1024)
LAUNCH = {"num_warps": (4, 8), "num_stages": (2, 3, 4)}
POOLING = {"BN": (16, 32, 64), "TMA": (False, True), **LAUNCH}
PRODUCT = {"BM": (64, 128), "BN": (64, 128), "BD": (32, 64), **LAUNCH}
ALIKE = 1e-2  # relative error that half precision may have


def plan():
    """(op, maker of its case, size, storage, D, length of the long axis, options to try)."""
    for storage, N, D in itertools.product(STORAGES, LENGTHS, CHANNELS):
        for op in ("pool_forward", "pool_backward"):
            yield op, pool, (storage, 4096 * 256 // N, N, D, 574), storage, D, N, POOLING
    for op in ("clip_forward", "clip_backward"):
        yield op, clip, (8192, 768), torch.bfloat16, 768, 8192, PRODUCT


def entries(device, trials, plan=plan):
    """Yield (key, best options or None where the default is best, its milliseconds, theirs)."""
    arch = configs.arch_of(device)
    for op, maker, size, storage, D, length, choices in plan():
        torch.manual_seed(0)
        case = maker(*size, device)
        if maker is clip:
            half = lambda t: t.to(storage) if t.dim() else t  # noqa: B023, E731
            case = case._replace(
                inputs={name: half(t) for name, t in case.inputs.items()},
                leaves={name: half(t) for name, t in case.leaves.items()},
            )
        key = (op, arch, D, 1 << (length - 1).bit_length(), str(storage).removeprefix("torch."))
        yield key, *best(key, case, choices, trials)


def best(key, case, choices, trials):
    shipped = configs.TUNED.pop(key, None)
    try:
        usual = run(case.ours, case)
        found = [(milliseconds([case.ours], case, trials)[0], None)]
        for values in itertools.product(*choices.values()):
            configs.TUNED[key] = options = dict(zip(choices, values, strict=True))
            try:
                if max(map(gap, run(case.ours, case), usual)) <= ALIKE:
                    found.append((milliseconds([case.ours], case, trials)[0], options))
            except Exception as problem:  # more shared memory or registers than there are
                print(f"  {key} {options}: {type(problem).__name__}", file=sys.stderr)
    finally:
        configs.TUNED.pop(key, None)
        if shipped is not None:
            configs.TUNED[key] = shipped
    milliseconds_of_best, options = min(found, key=lambda pair: pair[0])
    return options, found[0][0], milliseconds_of_best
