"""What lies between the matrix products of a transformer block, in Triton: one pass over memory each.

    linear_residual_norm    s = x + y + bias        out = (s - mean) / sqrt(var + eps) * gain + shift      over channels
    linear_gelu             out = gelu(y + bias)    y of the matrix product, without its bias

Going back, with n the normalised s, e the gradient of out times gain and r that of s itself,

    g = r + (e - mean(e) - n mean(e n)) / sqrt(var + eps)      the gradient of x, of y and, summed, of bias

s and y are all that is kept.  The sums over rows for bias, gain and shift are taken in the same pass: each of PROGRAMS
programs adds up its rows, and the programs' sums are added in their order; equal inputs give equal bits.

Sizes: T tokens, W channels of the stream, V of the hidden layer.
"""

import torch
import torch.nn.functional as F
import triton
import triton.language as tl

from fastzss.kernels.configs import AotCase, Budget, short
from fastzss.kernels.products import compute_dtype
from fastzss.kernels.reference import NORM_EPS

PROGRAMS = 512  # of a backward pass


@triton.jit
def _norm_forward(
    y, bias, x, gain, shift, stream, out, T, W: tl.constexpr, BT: tl.constexpr, BW: tl.constexpr, EPS: tl.constexpr
):
    t = tl.program_id(0) * BT + tl.arange(0, BT)
    w = tl.arange(0, BW)
    inside = (t < T)[:, None] & (w < W)[None, :]
    at = t.to(tl.int64)[:, None] * W + w[None, :]
    total = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    total += tl.load(y + at, mask=inside, other=0.0).to(tl.float32)
    total += tl.load(bias + w, mask=w < W, other=0.0).to(tl.float32)[None, :]
    total = total.to(stream.dtype.element_ty).to(tl.float32)  # as the backward pass will find it
    tl.store(stream + at, total.to(stream.dtype.element_ty), mask=inside)
    centred = tl.where(inside, total - (tl.sum(total, 1) / W)[:, None], 0.0)
    spread = tl.sqrt_rn(tl.sum(centred * centred, 1) / W + EPS)
    normal = centred / spread[:, None]
    normal *= tl.load(gain + w, mask=w < W, other=0.0).to(tl.float32)[None, :]
    normal += tl.load(shift + w, mask=w < W, other=0.0).to(tl.float32)[None, :]
    tl.store(out + at, normal.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _norm_backward(
    stream, gain, upstream, residual, g_x, g_y, sums, T, STEP: tl.constexpr, W: tl.constexpr, BT: tl.constexpr,
    BW: tl.constexpr, EPS: tl.constexpr,
):  # fmt: skip
    w = tl.arange(0, BW)
    weights = tl.load(gain + w, mask=w < W, other=0.0).to(tl.float32)[None, :]
    g_bias = tl.zeros([BT, BW], tl.float32)
    g_gain = tl.zeros([BT, BW], tl.float32)
    g_shift = tl.zeros([BT, BW], tl.float32)
    for start in range(tl.program_id(0) * BT, T, STEP):
        t = start + tl.arange(0, BT)
        inside = (t < T)[:, None] & (w < W)[None, :]
        at = t.to(tl.int64)[:, None] * W + w[None, :]
        total = tl.load(stream + at, mask=inside, other=0.0).to(tl.float32)
        centred = tl.where(inside, total - (tl.sum(total, 1) / W)[:, None], 0.0)
        spread = tl.sqrt_rn(tl.sum(centred * centred, 1) / W + EPS)[:, None]
        normal = centred / spread
        e = tl.load(upstream + at, mask=inside, other=0.0).to(tl.float32)
        g_shift += e
        g_gain += e * normal
        e *= weights
        g = (e - (tl.sum(e, 1) / W)[:, None] - normal * (tl.sum(e * normal, 1) / W)[:, None]) / spread
        if residual is not None:
            g += tl.load(residual + at, mask=inside, other=0.0).to(tl.float32)
        g = tl.where(inside, g, 0.0)
        g_bias += g
        tl.store(g_x + at, g.to(g_x.dtype.element_ty), mask=inside)
        tl.store(g_y + at, g.to(g_y.dtype.element_ty), mask=inside)
    at = sums + tl.program_id(0) * (3 * W) + w
    tl.store(at, tl.sum(g_bias, 0), mask=w < W)
    tl.store(at + W, tl.sum(g_gain, 0), mask=w < W)
    tl.store(at + 2 * W, tl.sum(g_shift, 0), mask=w < W)


@triton.jit
def _gelu_forward(y, bias, out, T, V: tl.constexpr, BT: tl.constexpr, BV: tl.constexpr, QUICK: tl.constexpr):
    t = tl.program_id(0) * BT + tl.arange(0, BT)
    v = tl.program_id(1) * BV + tl.arange(0, BV)
    inside = (t < T)[:, None] & (v < V)[None, :]
    at = t.to(tl.int64)[:, None] * V + v[None, :]
    z = tl.load(y + at, mask=inside, other=0.0).to(tl.float32)
    z += tl.load(bias + v, mask=v < V, other=0.0).to(tl.float32)[None, :]
    if QUICK:
        value = z / (1 + tl.exp(-1.702 * z))
    else:
        value = 0.5 * z * (1 + tl.erf(z * 0.7071067811865476))
    tl.store(out + at, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _gelu_backward(
    y, bias, upstream, g_y, sums, T, STEP: tl.constexpr, V: tl.constexpr, BT: tl.constexpr, BV: tl.constexpr,
    QUICK: tl.constexpr,
):  # fmt: skip
    v = tl.program_id(1) * BV + tl.arange(0, BV)
    shift = tl.load(bias + v, mask=v < V, other=0.0).to(tl.float32)[None, :]
    g_bias = tl.zeros([BT, BV], tl.float32)
    for start in range(tl.program_id(0) * BT, T, STEP):
        t = start + tl.arange(0, BT)
        inside = (t < T)[:, None] & (v < V)[None, :]
        at = t.to(tl.int64)[:, None] * V + v[None, :]
        z = tl.load(y + at, mask=inside, other=0.0).to(tl.float32) + shift
        if QUICK:
            share = 1 / (1 + tl.exp(-1.702 * z))
            slope = share + 1.702 * z * share * (1 - share)
        else:
            slope = 0.5 * (1 + tl.erf(z * 0.7071067811865476)) + z * 0.3989422804014327 * tl.exp(-0.5 * z * z)
        g = tl.load(upstream + at, mask=inside, other=0.0).to(tl.float32) * slope
        g_bias += g
        tl.store(g_y + at, g.to(g_y.dtype.element_ty), mask=inside)
    tl.store(sums + tl.program_id(0) * V + v, tl.sum(g_bias, 0), mask=v < V)


def norm_tiles(W):
    block = triton.next_power_of_2(W)
    return {"W": W, "BT": max(1, 1024 // block), "BW": block, "EPS": NORM_EPS}


def gelu_tiles(V):
    return {"V": V, "BT": 8, "BV": min(256, triton.next_power_of_2(V))}


def programs(T, BT):
    return max(1, min(PROGRAMS, triton.cdiv(T, BT)))


class _ResidualNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, y, bias, x, gain, shift, dtype):
        ctx.set_materialize_grads(False)
        W = x.shape[-1]
        T, tiles = x.numel() // W, norm_tiles(W)
        stream, out = torch.empty_like(x), torch.empty_like(x, dtype=dtype)
        if T:
            _norm_forward[(triton.cdiv(T, tiles["BT"]),)](y, bias, x, gain, shift, stream, out, T, **tiles, num_warps=4)
        ctx.save_for_backward(stream, gain)
        ctx.dtypes = y.dtype, bias.dtype, shift.dtype
        return stream, out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, residual, upstream):
        stream, gain = ctx.saved_tensors
        W = stream.shape[-1]
        T, tiles = stream.numel() // W, norm_tiles(W)
        upstream = torch.zeros_like(stream) if upstream is None else upstream.contiguous()
        residual = None if residual is None else residual.contiguous()
        g_x, g_y = torch.empty_like(stream), torch.empty_like(stream, dtype=ctx.dtypes[0])
        count = programs(T, tiles["BT"])
        sums = torch.empty(count, 3, W, dtype=torch.float32, device=stream.device)
        _norm_backward[(count,)](
            stream, gain, upstream, residual, g_x, g_y, sums, T, STEP=count * tiles["BT"], **tiles, num_warps=4
        )
        g_bias, g_gain, g_shift = sums.sum(0)
        return g_y, g_bias.to(ctx.dtypes[1]), g_x, g_gain.to(gain.dtype), g_shift.to(ctx.dtypes[2]), None


class _Gelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, y, bias, quick):
        V = y.shape[-1]
        T, tiles = y.numel() // V, gelu_tiles(V)
        out = torch.empty_like(y)
        if T:
            grid = (triton.cdiv(T, tiles["BT"]), triton.cdiv(V, tiles["BV"]))
            _gelu_forward[grid](y, bias, out, T, **tiles, QUICK=quick, num_warps=4)
        ctx.save_for_backward(y, bias)
        ctx.quick = quick
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream):
        y, bias = ctx.saved_tensors
        V = y.shape[-1]
        T, tiles = y.numel() // V, gelu_tiles(V)
        g_y, count = torch.empty_like(y), programs(T, tiles["BT"])
        sums = torch.empty(count, V, dtype=torch.float32, device=y.device)
        grid = (count, triton.cdiv(V, tiles["BV"]))
        options = {**tiles, "STEP": count * tiles["BT"], "QUICK": ctx.quick}
        _gelu_backward[grid](y, bias, upstream.contiguous(), g_y, sums, T, **options, num_warps=4)
        return g_y, sums.sum(0).to(bias.dtype), None


def linear_residual_norm(y, weight, bias, x, norm_weight, norm_bias):
    """See reference.linear_residual_norm; the second result is of the dtype in which products are computed."""
    product = F.linear(y, weight).contiguous()
    return _ResidualNorm.apply(product, bias, x.contiguous(), norm_weight, norm_bias, compute_dtype(x))


def linear_gelu(x, weight, bias, quick=False):
    """See reference.linear_gelu."""
    return _Gelu.apply(F.linear(x, weight).contiguous(), bias, quick)


def aot_cases():
    """The kernels of this file as configs.AotCase."""
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        types = dict.fromkeys(("y", "out", "upstream", "g_y"), f"*{short(dtype)}") | {"T": "i32"}
        for W in (512, 384, 1024):
            for op, kernel in (("norm_forward", _norm_forward), ("norm_backward", _norm_backward)):
                yield case(f"{op}-{short(dtype)}-W{W}", kernel, types, norm_tiles(W))
        for quick in (False, True):
            for op, kernel in (("gelu_forward", _gelu_forward), ("gelu_backward", _gelu_backward)):
                name = f"{'quick_' * quick}{op}-{short(dtype)}-V2048"
                yield case(name, kernel, types, gelu_tiles(2048) | {"QUICK": quick})


def case(name, kernel, types, constants):
    types = dict.fromkeys(kernel.arg_names, "*fp32") | types
    constants = constants | {"STEP": PROGRAMS * constants["BT"]}
    return AotCase(
        name,
        kernel,
        {k: t for k, t in types.items() if k in kernel.arg_names},
        {k: v for k, v in constants.items() if k in kernel.arg_names},
        {"num_warps": 4},
        dict.fromkeys((80, 90, 100), Budget(160, 16 * 1024)),
    )
