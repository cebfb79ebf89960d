"""Only the tokens a loss looks at: gathered, projected and brought to length 1.

    u_i = unit( tokens[index_i] P )        unit(x) = x / max(|x|, 1e-12)
    g_x = (g - <g, u> u) / |x|             (g / 1e-12 where |x| is below)

A token may be used several times (the end of a caption is often a mention's last token): its gradient is a sum by
lists in a fixed order (fused_sums.sum_rows), not a scatter.  The products are PyTorch's.

Sizes: U used tokens, W width of the tower, D channels.
"""

import torch
import triton
import triton.language as tl

from fastzss.kernels import reference
from fastzss.kernels.configs import AotCase, Budget, short
from fastzss.kernels.fused_sums import sum_rows
from fastzss.kernels.lists import Lists, lists_of
from fastzss.kernels.products import compute_dtype, precise

SHORTEST = 1e-12  # torch.nn.functional.normalize's eps


@triton.jit
def _forward(x, index, y, length, scale, R, D: tl.constexpr, SHORTEST: tl.constexpr, BLOCK_R: tl.constexpr,
             BLOCK_D: tl.constexpr):  # fmt: skip
    r = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    d = tl.arange(0, BLOCK_D)
    inside = (r < R)[:, None] & (d < D)[None, :]
    place = r.to(tl.int64)[:, None] * D + d[None, :]
    source = place
    if index is not None:
        source = tl.load(index + r, mask=r < R, other=0).to(tl.int64)[:, None] * D + d[None, :]
    row = tl.load(x + source, mask=inside, other=0.0).to(tl.float32)  # [BLOCK_R, BLOCK_D]
    norm = tl.sqrt_rn(tl.sum(row * row, 1))
    if length is not None:
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


def unit_forward(x, scale=1.0, dtype=None, index=None, keep=True):
    """([R, D] scale * x / |x| row by row, rounded once, to `dtype`; |x|, None unless to `keep`); zeros stay zeros.

    With `index` [R], of those rows of x.
    """
    x = x.contiguous()
    R, D = len(x if index is None else index), x.shape[1]
    y = torch.empty(R, D, dtype=dtype or x.dtype, device=x.device)
    length = torch.empty(R, dtype=torch.float32, device=x.device) if keep else None
    if y.numel():
        tiles = _tiles(D)
        _forward[(triton.cdiv(R, tiles["BLOCK_R"]),)](x, index, y, length, scale, R, D, **tiles)
    return y, length


def unit_backward(x, length, gradient, scale=1.0):
    """Gradient of the x of unit_forward, in its dtype."""
    x, out = x.contiguous(), torch.empty(x.shape, dtype=x.dtype, device=x.device)
    R, D = x.shape
    if out.numel():
        tiles = _tiles(D)
        grid = (triton.cdiv(R, tiles["BLOCK_R"]),)
        _backward[grid](x, gradient.contiguous(), length, out, scale, R, D, **tiles)
    return out


class _Unit(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, dtype):
        y, length = unit_forward(x, dtype=dtype)
        ctx.save_for_backward(x, length)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return unit_backward(*ctx.saved_tensors, gradient), None


def unit(x, dtype=None):
    """[R, D] rows at length 1."""
    return _Unit.apply(x, dtype)


def unit_rows(vectors, index, dtype):
    """See reference.unit_rows; under autocast it rounds to what products are computed in, and only once."""
    dtype = compute_dtype(vectors, dtype)
    if dtype == torch.float64:
        return reference.unit_rows(vectors, index, dtype)
    return unit_forward(vectors, dtype=dtype, index=index.contiguous(), keep=False)[0]


class _UsedUnits(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tokens, index, projection, uses):
        dtype = compute_dtype(tokens)
        rows, matrix = tokens.index_select(0, index).to(dtype), projection.to(dtype)
        projected = rows @ matrix
        # under autocast the product is short, and what comes of it is not, as with torch.nn.functional.normalize
        short = torch.is_autocast_enabled(tokens.device.type)
        units, length = unit_forward(projected, dtype=torch.float32 if short else dtype)
        ctx.save_for_backward(index, rows, matrix, projected, length, *(uses or ()))
        ctx.tokens, ctx.dtypes = len(tokens), (tokens.dtype, projection.dtype)
        return units

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        index, rows, matrix, projected, length, *uses = ctx.saved_tensors
        along = unit_backward(projected, length, gradient)
        for_matrix = precise(rows.T, along).to(ctx.dtypes[1])
        lists = Lists(*uses) if uses else lists_of(index, ctx.tokens)
        for_tokens = sum_rows(along @ matrix.T, lists, long=False, dtype=ctx.dtypes[0])
        return for_tokens, None, for_matrix, None


def used_units(tokens, index, projection, uses=None):
    """See reference.used_units."""
    return _UsedUnits.apply(tokens.flatten(0, -2), index.contiguous(), projection, uses)


def aot_cases():
    """The kernels of this file as configs.AotCase."""
    ops = {"forward": (_forward, {"index": None}), "rows": (_forward, {"length": None}), "backward": (_backward, {})}
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        for op, (kernel, constants) in ops.items():
            for D in (768, 1000):
                tiles = _tiles(D)
                types = dict.fromkeys(("x", "y", "gradient", "out"), f"*{short(dtype)}")
                types |= {"index": "*i64", "length": "*fp32", "scale": "fp32", "R": "i32"}
                if op == "rows":
                    types["x"] = "*fp32"
                yield AotCase(
                    f"unit_{op}-{short(dtype)}-D{D}",
                    kernel,
                    {k: t for k, t in types.items() if k in kernel.arg_names},
                    {"D": D, **constants, **{k: v for k, v in tiles.items() if k != "num_warps"}},
                    {"num_warps": tiles["num_warps"]},
                    dict.fromkeys((80, 90, 100), Budget(128, 16 * 1024)),
                )
