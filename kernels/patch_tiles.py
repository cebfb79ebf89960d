"""How kernels are launched on stored patches: which mentions a program takes, and in which tiles it reads.

A program holds up to MENTIONS mentions of one image and goes over its patches in tiles of BN rows, each in CHUNKS
pieces of DC channels, by TMA descriptors where there are any.
"""

import os

import torch
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from fastzss.kernels.configs import SHARED, AotCase, Budget, arch_of, chunks, options, short
from fastzss.kernels.lists import MENTIONS

STORAGES = (torch.int8, torch.float16, torch.float32)


def describable(tokens, DC):
    """Whether a descriptor for TMA can be made of a tensor: all in multiples of 16 bytes."""
    strides = tokens.stride(0) * tokens.itemsize, tokens.stride(1) * tokens.itemsize
    return tokens.data_ptr() % 16 == 0 and not any(s % 16 for s in strides) and tokens.stride(2) == 1 and DC <= 256


def arguments(patches, launch):
    """(tensors, strides): the patches as the kernels take them."""
    tokens, scale, mean, std = patches
    if tokens.stride(2) != 1:
        tokens = tokens.contiguous()
    if scale is not None:
        scale = scale if scale.stride(1) == 1 else scale.contiguous()
        mean, std = mean.contiguous(), std.contiguous()
    strides = tokens.stride(0), tokens.stride(1), 0 if scale is None else scale.stride(0)
    if launch["TMA"]:
        tokens = TensorDescriptor(tokens, list(tokens.shape), list(tokens.stride()), [1, launch["BN"], launch["DC"]])
    return (tokens, scale, mean, std), strides


def defaults(op, arch, storage, D):
    """Launch options where nothing was measured: what neither spills nor exceeds the shared memory."""
    # for want of registers: int8 is widened in them, and the step holds more
    few = D > 384 if op == "step" else storage == torch.int8 and D > 768
    wide = storage == torch.float32 or storage == torch.int8 and op == "pool_backward"
    narrow = op != "step" and (few or wide and 384 < D <= 768)
    DC, count = chunks(D, 8, 128) if narrow else chunks(D)
    row, queries = storage.itemsize * DC * count, MENTIONS * 2 * DC * count  # bytes
    if storage == torch.float32:
        BN, stages = 16, 1 if arch in (80, 86) and op != "pool_backward" else 2
    else:
        sizes = [(32, 3), (32, 2), (16, 3), (16, 2), (16, 1)]
        if few:
            sizes = sizes[2:]
        limit = SHARED.get(arch, SHARED[90])
        BN, stages = next((s for s in sizes if s[0] * s[1] * row + queries <= limit), sizes[-1])
    # descriptors from sm_90 on; the interpreter has them too
    tma = arch not in (80, 86) and storage != torch.float32 and DC <= 256
    # where maxnreg is given, the assembler would else aim at more programs at a time, and spill a little for it
    launch = dict(BN=BN, DC=DC, CHUNKS=count, TMA=tma, num_warps=8, num_stages=stages)
    if op != "pool_backward":
        launch["LEAN"] = storage == torch.float32
    if op == "step":
        launch["BK"] = 32 if storage != torch.float32 and D <= 384 else 16
        if D <= 192 or D <= 384 and storage == torch.float16:
            launch["maxnreg"] = 248
    elif storage == torch.float32:
        if D <= 128:
            launch["maxnreg"] = 128
        elif D <= 384:
            launch["num_warps"] = 4
        elif op == "pool_backward" and D <= 768:
            launch["maxnreg"] = 168
    elif 192 < D <= 384 and (storage == torch.int8 or op == "pool_backward"):
        launch["maxnreg"] = 255
    return launch


def launch_options(op, tokens, forced):
    """All constexprs and launch options of a kernel that reads patches, apart from their sizes."""
    storage, (_, N, D), arch = tokens.dtype, tokens.shape, arch_of(tokens.device)
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    # the interpreter is wrong on bfloat16 and rounds float16 products: there everything is float32
    half = storage.itemsize <= 2 and not interpreted
    launch = options(op, arch, D, N, storage, defaults(op, arch, storage, D))
    launch |= dict(BM=MENTIONS, COMPUTE=tl.float16 if half else tl.float32) | forced
    if launch["TMA"] and not describable(tokens, launch["DC"]):
        launch |= dict(TMA=False, BN=min(launch["BN"], 16))  # pointers take more registers
    return launch


def fits(patches, device):
    """Whether the kernels hold this storage; else the chunked form serves it."""
    D, small = patches.tokens.shape[2], arch_of(device) == 86
    if patches.tokens.dtype == torch.float32:
        return D <= (512 if small else 1024)
    return patches.tokens.dtype in STORAGES and D <= (1024 if small else 1536)


def pool_case(op, kernel, storage, N, D, arch, kind="", **more):
    """AotCase of a kernel that reads patches."""
    launch = {**options(op, arch, D, N, storage, defaults(op, arch, storage, D)), **more}
    half = storage.itemsize <= 2
    types = dict.fromkeys(("image_stride", "patch_stride", "scale_stride"), "i64")
    types |= dict.fromkeys(("name", "row", "order", "first", "chosen"), "*i64") | {"present": "*i1", "K": "i32"}
    types["candidates"] = "*fp16" if half else "*fp32"
    types |= dict.fromkeys(("sharpness", "inverse_temperature", "logit_scale", "length"), "fp32")
    types = dict.fromkeys(kernel.arg_names, "*fp32") | types | {"tokens": f"*{short(storage)}", "scale": "*fp16"}
    if launch["TMA"]:
        types["tokens"] = f"tensordesc<{short(storage)}[1,{launch['BN']},{launch['DC']}]>"
    constants = dict(N=N, D=D, BM=MENTIONS, **launch)
    constants |= dict(COMPUTE=tl.float16 if half else tl.float32)
    if storage != torch.int8:
        constants |= dict(scale=None, mean=None, std=None)
    name = f"{op}{kind}-{short(storage)}-N{N}-D{D}"
    return AotCase(
        name,
        kernel,
        {k: t for k, t in types.items() if k in kernel.arg_names},
        {k: v for k, v in constants.items() if k in kernel.arg_names},
        {k: v for k, v in launch.items() if k in ("num_warps", "num_stages", "maxnreg")},
        {arch: Budget(255, SHARED[arch], ("HMMA",) * half + ("UTMALDG",) * launch["TMA"])},
    )
