"""Only the tokens a loss looks at: gathered, projected and brought to length 1.

    u_i = unit( tokens[index_i] P )        unit(x) = x / max(|x|, 1e-12)
    g_x = (g - <g, u> u) / |x|             (g / 1e-12 where |x| is below)

A token may be used several times (the end of a caption is often a mention's last token): its gradient is a sum by
lists in a fixed order (fused_sums.sum_rows), not a scatter.  The product with P is PyTorch's.

Sizes: U used tokens, W width of the tower, D channels.
"""

import torch
import triton
import triton.language as tl

from fastzss.kernels.configs import AotCase, Budget, short
from fastzss.kernels.fused_sums import sum_rows

SHORTEST = 1e-12  # torch.nn.functional.normalize's eps


@triton.jit
def _forward(x, y, length, scale, R, D: tl.constexpr, SHORTEST: tl.constexpr, BLOCK_R: tl.constexpr,
             BLOCK_D: tl.constexpr):  # fmt: skip
    r = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    d = tl.arange(0, BLOCK_D)
    inside = (r < R)[:, None] & (d < D)[None, :]
    place = r.to(tl.int64)[:, None] * D + d[None, :]
    row = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)  # [BLOCK_R, BLOCK_D]
    norm = tl.sqrt_rn(tl.sum(row * row, 1))
    tl.store(length + r, norm, mask=r < R)
    unit = tl.div_rn(row, tl.maximum(norm, SHORTEST)[:, None] + tl.zeros_like(row)) * scale
    tl.store(y + place, unit.to(y.dtype.element_ty), mask=inside)


@triton.jit
def _backward(x, gradient, length, out, scale, R, D: tl.constexpr, SHORTEST: tl.constexpr,
              BLOCK_R: tl.constexpr, BLOCK_D: tl.constexpr):  # fmt: skip
    r = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    d = tl.arange(0, BLOCK_D)
    inside = (r < R)[:, None] & (d < D)[None, :]
    place = r.to(tl.int64)[:, None] * D + d[None, :]
    row = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    g = tl.load(gradient + place, mask=inside, other=0.0).to(tl.float32)
    norm = tl.load(length + r, mask=r < R, other=1.0)
    short = norm <= SHORTEST
    norm = tl.maximum(norm, SHORTEST)[:, None] + tl.zeros_like(row)
    u = tl.div_rn(row, norm)
    along = tl.where(short, 0.0, tl.sum(g * u, 1))
    tl.store(out + place, tl.div_rn((g - along[:, None] * u) * scale, norm).to(out.dtype.element_ty), mask=inside)


def _tiles(D):
    block = triton.next_power_of_2(D)
    return {"SHORTEST": SHORTEST, "BLOCK_R": max(1, 4096 // block), "BLOCK_D": block, "num_warps": 4}


class _Unit(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, scale, dtype):
        R, D = x.shape
        y = torch.empty(R, D, dtype=dtype, device=x.device)
        length = torch.empty(R, dtype=torch.float32, device=x.device)
        if y.numel():
            tiles = _tiles(D)
            _forward[(triton.cdiv(R, tiles["BLOCK_R"]),)](x, y, length, scale, R, D, **tiles)
        ctx.save_for_backward(x, length)
        ctx.scale = scale
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        x, length = ctx.saved_tensors
        R, D = x.shape
        out = torch.empty_like(x)
        if out.numel():
            tiles = _tiles(D)
            grid = (triton.cdiv(R, tiles["BLOCK_R"]),)
            _backward[grid](x, gradient.contiguous(), length, out, ctx.scale, R, D, **tiles)
        return out, None, None


def unit(x, scale=1.0, dtype=None):
    """[R, D] scale * x / |x| row by row, rounded once, to `dtype`; a row of zeros stays zero."""
    return _Unit.apply(x.contiguous(), float(scale), dtype or x.dtype)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows, index):
        ctx.save_for_backward(index)
        ctx.rows = len(rows)
        return rows.index_select(0, index)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):

        (index,) = ctx.saved_tensors
        place = torch.arange(len(index), device=index.device)
        return sum_rows(gradient.contiguous(), place, index, ctx.rows), None


def used_units(tokens, index, projection):
    """See reference.used_units."""
    projected = _Gather.apply(tokens.reshape(-1, tokens.shape[-1]), index.reshape(-1)) @ projection
    # under autocast the product is short, and what comes of it is not, as with torch.nn.functional.normalize
    return unit(projected, dtype=torch.float32 if torch.is_autocast_enabled(tokens.device.type) else None)


def aot_cases():
    """The kernels of this file as configs.AotCase."""
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        for op, kernel in (("forward", _forward), ("backward", _backward)):
            for D in (768, 1000):
                tiles = _tiles(D)
                types = dict.fromkeys(("x", "y", "gradient", "out"), f"*{short(dtype)}")
                types |= {"length": "*fp32", "scale": "fp32", "R": "i32"}
                yield AotCase(
                    f"unit_{op}-{short(dtype)}-D{D}",
                    kernel,
                    {k: t for k, t in types.items() if k in kernel.arg_names},
                    {"D": D, **{k: v for k, v in tiles.items() if k != "num_warps"}},
                    {"num_warps": tiles["num_warps"]},
                    dict.fromkeys((80, 90, 100), Budget(128, 16 * 1024)),
                )
