"""Quantising in Triton: one read of the vectors, one write of the codes.

    c = (v - mean) / std        scale = float16(max |c| / 127)        q = round(c / scale), halves to the even side

Bit for bit what reference.quantise gives.  A vector with a value that is no finite number gets the scale NaN, which no
finite vector has; the launcher looks for it and refuses, since a code cannot say that it stands for nothing.

Sizes: R vectors, D channels.
"""

import torch
import triton
import triton.language as tl

from fastzss.kernels import chunked
from fastzss.kernels.configs import AotCase, Budget, arch_of, options, short

INPUTS = (torch.float16, torch.bfloat16, torch.float32)


@triton.jit
def _quantise(vectors, mean, std, codes, scale, R, D: tl.constexpr, BR: tl.constexpr, DP: tl.constexpr):
    r = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)
    d = tl.arange(0, DP)[None, :]
    at = r[:, None] * D + d
    inside = (r[:, None] < R) & (d < D)
    value = tl.load(vectors + at, mask=inside, other=0).to(tl.float32)
    centre = tl.load(mean + d, mask=d < D, other=0).to(tl.float32)
    spread = tl.load(std + d, mask=d < D, other=1).to(tl.float32)
    value = tl.where(inside, tl.div_rn(value - centre, tl.broadcast_to(spread, [BR, DP])), 0.0)
    # x - x is 0 for finite numbers and NaN for all others; comparing to 0 is what a maximum cannot do with NaN
    broken = tl.sum(tl.where(value - value == 0, 0, 1), 1) > 0
    largest = tl.max(tl.abs(value), 1)
    unit = tl.maximum(tl.div_rn(largest, tl.full([BR], 127, tl.float32)), 5.9604644775390625e-08)
    unit = unit.to(tl.float16)  # rounded first, so that the codes are the best for the scale that is stored
    code = tl.div_rn(value, tl.broadcast_to(unit.to(tl.float32)[:, None], [BR, DP]))
    code = tl.minimum(tl.maximum(code, -127.0), 127.0)
    code = (code + 12582912.0) - 12582912.0  # 1.5 * 2^23: the sum has no room for a fraction
    tl.store(codes + at, code.to(tl.int8), mask=inside)
    tl.store(scale + r, tl.where(broken, float("nan"), unit.to(tl.float32)).to(tl.float16), mask=r < R)


def launch_options(arch, D, dtype):
    width = triton.next_power_of_2(max(16, D))
    default = dict(BR=2 if width <= 1024 else 1, num_warps=4, num_stages=1)
    return {**options("quantise", arch, D, 1, dtype, default), "DP": width}


def quantise(vectors, mean, std):
    """reference.quantise on a GPU.  Waits for the result, to refuse vectors that are not finite."""
    if vectors.dtype not in INPUTS:
        return chunked.quantise(vectors, mean, std)
    D = vectors.shape[-1]
    rows = vectors.reshape(-1, D).contiguous()
    codes = torch.empty(rows.shape, dtype=torch.int8, device=rows.device)
    scale = torch.empty(len(rows), dtype=torch.float16, device=rows.device)
    if len(rows):
        launch = launch_options(arch_of(rows.device), D, rows.dtype)
        grid = (triton.cdiv(len(rows), launch["BR"]),)
        _quantise[grid](rows, mean.contiguous(), std.contiguous(), codes, scale, len(rows), D, **launch)
    if scale.isnan().any():
        raise ValueError("quantise: vectors hold NaN or infinite values; expected finite unit vectors")
    return codes.view(vectors.shape), scale.view(vectors.shape[:-1])


def aot_cases():
    """The quantiser as configs.AotCase."""
    for dtype in (torch.float16, torch.float32):
        for D in (128, 384, 768, 1024):
            launch = launch_options(90, D, dtype)
            types = dict(vectors=f"*{short(dtype)}", mean="*fp32", std="*fp32", codes="*i8", scale="*fp16", R="i32")
            yield AotCase(
                f"quantise-{short(dtype)}-D{D}",
                _quantise,
                types,
                dict(D=D, BR=launch["BR"], DP=launch["DP"]),
                dict(num_warps=launch["num_warps"], num_stages=launch["num_stages"]),
                dict.fromkeys((80, 90, 100), Budget(80, 8192)),
            )
