"""Smoothing over the patches of an image in Triton: attention of the patches to themselves, without [N, N].

A program has some patches and some columns of their values, and walks over all patches of the image: the similarities
of a tile, their weights under a running top, and the weighted sum of a tile of values, as concept_pool does.  Where
there are more columns than one program holds, the similarities are made once for each BV of them.

Sizes: B images of N patches, D channels, V values a patch.
"""

import torch
import torch.nn.functional as F
import triton
import triton.language as tl

from fastzss.kernels.configs import SHARED, AotCase, Budget, arch_of, options, short
from fastzss.kernels.products import LOW, arithmetic, dots

LOG2E = 1.4426950408889634


@triton.jit(do_not_specialize=["N"])
def _smooth(
    centred, values, sharpness, smooth, N, V,
    D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr, BV: tl.constexpr, COMPUTE: tl.constexpr,
    PRECISION: tl.constexpr, LOW: tl.constexpr,
):  # fmt: skip
    tiles = tl.cdiv(N, BM)
    image = tl.program_id(0) // tiles
    i = tl.program_id(0) % tiles * BM + tl.arange(0, BM)
    v = tl.program_id(1) * BV + tl.arange(0, BV)
    begin = image.to(tl.int64) * N
    columns = (v < V)[None, :]
    own = centred + begin * D
    sharp = tl.load(sharpness + image)
    top = tl.full([BM], LOW, tl.float32)
    total = tl.zeros([BM], tl.float32)
    mean = tl.zeros([BM, BV], tl.float32)
    for start in range(0, N, BN):
        j = start + tl.arange(0, BN)
        logit = dots(own, own, i, j, N, N, D, BM, BN, BD, COMPUTE, PRECISION) * sharp
        logit = tl.where((j < N)[None, :], logit, LOW)
        higher = tl.maximum(top, tl.max(logit, 1))
        weight = tl.exp2(logit - higher[:, None])
        falling = tl.exp2(top - higher)
        total = total * falling + tl.sum(weight, 1)
        at = values + (begin + j)[:, None] * V + v[None, :]
        tile = tl.load(at, mask=(j < N)[:, None] & columns, other=0.0)
        mean = tl.dot(weight.to(COMPUTE), tile.to(COMPUTE), mean * falling[:, None], input_precision=PRECISION)
        top = higher
    mean = mean / total[:, None]
    at = smooth + (begin + i)[:, None] * V + v[None, :]
    tl.store(at, mean.to(smooth.dtype.element_ty), mask=(i < N)[:, None] & columns)


def launch_options(arch, D, V, N, dtype):
    """Constexprs and launch options, for operands of a dtype."""
    BV = min(128, max(16, triton.next_power_of_2(V)))
    if dtype == torch.float32:  # each product is three, and their operands are in registers
        default = dict(BM=64, BN=32, BD=32, BV=BV, num_warps=8, num_stages=2)
    else:
        default = dict(BM=64, BN=64, BD=32 if arch in (80, 86) else 64, BV=BV, num_warps=4, num_stages=2)
    return {**options("smooth", arch, D, N, dtype, default), "D": D, "LOW": LOW}


def smooth_patches(patches, values, temperature, **forced):
    """reference.smooth_patches on a GPU.  `forced`: launch options, for tests and tuning."""
    (B, N, D), V = patches.shape, values.shape[2]
    if values.numel() == 0:
        return torch.empty_like(values)
    values = F.pad(values, (0, -V % 16)).contiguous()  # rows that can be read 16 bytes at a time
    smooth = torch.empty_like(values)
    wide = patches.float()
    centred = F.normalize(wide - wide.mean(1, keepdim=True), dim=-1).to(patches.dtype)
    if torch.is_tensor(temperature):
        sharpness = (LOG2E / temperature.to(wide)).expand(B).contiguous()
    else:
        sharpness = wide.new_full((B,), LOG2E / temperature)
    launch = launch_options(arch_of(patches.device), D, V, N, patches.dtype) | arithmetic(patches.dtype) | forced
    grid = (B * triton.cdiv(N, launch["BM"]), triton.cdiv(V, launch["BV"]))
    _smooth[grid](centred.contiguous(), values, sharpness, smooth, N, values.shape[2], **launch)
    return smooth[..., :V].contiguous()


def aot_cases():
    """The kernel of this file as configs.AotCase."""
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        kind, half = short(dtype), dtype.itemsize == 2
        types = dict(centred=f"*{kind}", values=f"*{kind}", smooth=f"*{kind}", sharpness="*fp32", N="i32", V="i64")
        compute = {"bf16": tl.bfloat16, "fp16": tl.float16, "fp32": tl.float32}[kind]
        for D, V in ((128, 32), (384, 384), (768, 150), (1000, 768)):
            for arch, product in ((80, "HMMA"), (90, "HGMMA"), (100, "UTCHMMA")):
                launch = launch_options(arch, D, V, 1024, dtype)
                constants = launch | dict(COMPUTE=compute, PRECISION="ieee" if half else "tf32x3")
                yield AotCase(
                    f"smooth-{kind}-D{D}-V{V}",
                    _smooth,
                    types,
                    {name: value for name, value in constants.items() if name in _smooth.arg_names},
                    dict(num_warps=launch["num_warps"], num_stages=launch["num_stages"]),
                    {arch: Budget(255, SHARED[arch], (product,))},
                )
