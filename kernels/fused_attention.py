"""Attention inside packed captions, in Triton: a row of tokens is one tile, and no mask is ever formed.

With q, k, v = qkv + bias of one row and head, and scores where token i sees token j of its own caption, j <= i,

    P_ij = softmax_j( <q_i, k_j> / sqrt(C) )        o_i = sum_j P_ij v_j

and with the gradient g of o,

    dP = g v^T      dS_ij = P_ij (dP_ij - sum_j P_ij dP_ij)
    dv = P^T g      dq = dS k / sqrt(C)      dk = dS^T q / sqrt(C)

One program has one row and one head: it reads q, k and v once, going forward and again going backward, and every
output has one owner.  The backward pass makes P anew from them, so nothing else is kept.  The gradient of the bias is
summed per row in the same pass, and over rows in their order.

A free slot (a negative caption) sees the free slots before it, so no softmax is empty.

Sizes: R rows of L tokens, H heads of C channels; W = H C.
"""

import math

import torch
import torch.nn.functional as F
import triton
import triton.language as tl

from fastzss.kernels import reference
from fastzss.kernels.configs import SHARED, AotCase, Budget, arch_of, short
from fastzss.kernels.products import LOW, arithmetic, compute_dtype


@triton.jit
def _load(qkv, bias, r, h, part: tl.constexpr, L: tl.constexpr, H: tl.constexpr, C: tl.constexpr,
          BL: tl.constexpr, BC: tl.constexpr, COMPUTE: tl.constexpr):  # fmt: skip
    """[BL, BC] of q, k or v of a row and head, with the bias."""
    i = tl.arange(0, BL)
    c = tl.arange(0, BC)
    inside = (i < L)[:, None] & (c < C)[None, :]
    at = (r * L + i)[:, None] * (3 * H * C) + part * H * C + h * C + c[None, :]
    tile = tl.load(qkv + at, mask=inside, other=0.0)
    if bias is not None:
        row = tl.load(bias + part * H * C + h * C + c, mask=c < C, other=0.0).to(tl.float32)
        tile = tl.where((i < L)[:, None], tile.to(tl.float32) + row[None, :], 0.0)
    return tile.to(COMPUTE)


@triton.jit
def _weights(q, k, segment, r, sharpness, L: tl.constexpr, BL: tl.constexpr, PRECISION: tl.constexpr,
             LOW: tl.constexpr):  # fmt: skip
    """[BL, BL] float32: P; rows beyond L see themselves."""
    i = tl.arange(0, BL)
    own = tl.load(segment + r * L + i, mask=i < L, other=-2)
    scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * sharpness
    seen = (own[:, None] == own[None, :]) & (i[:, None] >= i[None, :])
    scores = tl.where(seen, scores, LOW)
    weights = tl.where(seen, tl.exp2(scores - tl.max(scores, 1)[:, None]), 0.0)
    return weights / tl.sum(weights, 1)[:, None]


@triton.jit
def _attention_forward(
    qkv, bias, segment, out, sharpness, L: tl.constexpr, H: tl.constexpr, C: tl.constexpr, BL: tl.constexpr,
    BC: tl.constexpr, COMPUTE: tl.constexpr, PRECISION: tl.constexpr, LOW: tl.constexpr,
):  # fmt: skip
    r = tl.program_id(0).to(tl.int64)
    h = tl.program_id(1)
    q = _load(qkv, bias, r, h, 0, L, H, C, BL, BC, COMPUTE)
    k = _load(qkv, bias, r, h, 1, L, H, C, BL, BC, COMPUTE)
    v = _load(qkv, bias, r, h, 2, L, H, C, BL, BC, COMPUTE)
    weights = _weights(q, k, segment, r, sharpness, L, BL, PRECISION, LOW)
    mixed = tl.dot(weights.to(COMPUTE), v, input_precision=PRECISION)
    i = tl.arange(0, BL)
    c = tl.arange(0, BC)
    at = out + (r * L + i)[:, None] * (H * C) + h * C + c[None, :]
    tl.store(at, mixed.to(out.dtype.element_ty), mask=(i < L)[:, None] & (c < C)[None, :])


@triton.jit
def _store(gradient, bias_rows, tile, r, h, part: tl.constexpr, L: tl.constexpr, H: tl.constexpr, C: tl.constexpr,
           BL: tl.constexpr, BC: tl.constexpr):  # fmt: skip
    """A gradient of q, k or v, and its sum over the row."""
    i = tl.arange(0, BL)
    c = tl.arange(0, BC)
    at = (r * L + i)[:, None] * (3 * H * C) + part * H * C + h * C + c[None, :]
    tl.store(gradient + at, tile.to(gradient.dtype.element_ty), mask=(i < L)[:, None] & (c < C)[None, :])
    if bias_rows is not None:
        total = tl.sum(tl.where((i < L)[:, None], tile, 0.0), 0)
        tl.store(bias_rows + r * (3 * H * C) + part * H * C + h * C + c, total, mask=c < C)


@triton.jit
def _attention_backward(
    qkv, bias, segment, upstream, gradient, bias_rows, sharpness, scale, L: tl.constexpr, H: tl.constexpr,
    C: tl.constexpr, BL: tl.constexpr, BC: tl.constexpr, COMPUTE: tl.constexpr, PRECISION: tl.constexpr,
    LOW: tl.constexpr,
):  # fmt: skip
    r = tl.program_id(0).to(tl.int64)
    h = tl.program_id(1)
    q = _load(qkv, bias, r, h, 0, L, H, C, BL, BC, COMPUTE)
    k = _load(qkv, bias, r, h, 1, L, H, C, BL, BC, COMPUTE)
    weights = _weights(q, k, segment, r, sharpness, L, BL, PRECISION, LOW)
    i = tl.arange(0, BL)
    c = tl.arange(0, BC)
    inside = (i < L)[:, None] & (c < C)[None, :]
    at = upstream + (r * L + i)[:, None] * (H * C) + h * C + c[None, :]
    g = tl.load(at, mask=inside, other=0.0).to(COMPUTE)
    dv = tl.dot(tl.trans(weights.to(COMPUTE)), g, input_precision=PRECISION)
    _store(gradient, bias_rows, dv, r, h, 2, L, H, C, BL, BC)
    v = _load(qkv, bias, r, h, 2, L, H, C, BL, BC, COMPUTE)
    slope = tl.dot(g, tl.trans(v), input_precision=PRECISION)
    slope = weights * (slope - tl.sum(weights * slope, 1)[:, None])
    short = slope.to(COMPUTE)
    dq = tl.dot(short, k, input_precision=PRECISION) * scale
    _store(gradient, bias_rows, dq, r, h, 0, L, H, C, BL, BC)
    dk = tl.dot(tl.trans(short), q, input_precision=PRECISION) * scale
    _store(gradient, bias_rows, dk, r, h, 1, L, H, C, BL, BC)


def tiles(L, C):
    return {"L": L, "C": C, "BL": max(16, triton.next_power_of_2(L)), "BC": max(16, triton.next_power_of_2(C))}


def fits(dtype, L, C, arch):
    """Whether a row and head is one tile that no register spills for; float32 needs the tensor cores of sm_90."""
    sizes = tiles(L, C)
    if sizes["BL"] > 128 or sizes["BL"] * sizes["BC"] > 128 * 64:
        return False
    return dtype.itemsize == 2 or arch == 0 or arch >= 90 and sizes["BL"] <= 64 and sizes["BC"] <= 64


def defaults(dtype, L, C, backward):
    """A tile of 128 tokens and its gradient, and one of float32, do not fit in the registers of four warps."""
    sizes = tiles(L, C)
    narrow = sizes["BL"] <= 64 and sizes["BC"] <= 64 or sizes["BC"] <= 32 and not backward
    return {"num_warps": 4 if narrow and dtype.itemsize == 2 else 8, "num_stages": 1}


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, qkv, bias, segment, heads):
        R, L, wide = qkv.shape
        C = wide // 3 // heads
        out = torch.empty(R, L, heads * C, dtype=qkv.dtype, device=qkv.device)
        ctx.save_for_backward(qkv, bias, segment)
        ctx.launch = {**tiles(L, C), "H": heads, "LOW": LOW, **arithmetic(qkv.dtype)}
        ctx.sharpness = math.log2(math.e) / math.sqrt(C)
        if R:
            launch = {**ctx.launch, **defaults(qkv.dtype, L, C, False)}
            _attention_forward[(R, heads)](qkv, bias, segment, out, ctx.sharpness, **launch)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream):
        qkv, bias, segment = ctx.saved_tensors
        R, L, wide = qkv.shape
        gradient = torch.empty_like(qkv)
        wanted = bias is not None and ctx.needs_input_grad[1]
        rows = torch.empty(R, wide, dtype=torch.float32, device=qkv.device) if wanted else None
        if R:
            launch = {**ctx.launch, **defaults(qkv.dtype, L, ctx.launch["C"], True)}
            _attention_backward[(R, launch["H"])](
                qkv, bias, segment, upstream.contiguous(), gradient, rows, ctx.sharpness, launch["C"] ** -0.5, **launch
            )
        return gradient, rows.sum(0).to(bias.dtype) if wanted else None, None, None


def packed_attention(x, weight, bias, segment, heads):
    """See reference.packed_attention."""
    if not fits(compute_dtype(x), x.shape[1], x.shape[2] // heads, arch_of(x.device)):
        return reference.packed_attention(x, weight, bias, segment, heads)
    return _Attention.apply(F.linear(x, weight).contiguous(), bias, segment.int().contiguous(), heads)


def aot_cases():
    """The kernels of this file as configs.AotCase."""
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        half = dtype.itemsize == 2
        compute = {torch.float16: tl.float16, torch.bfloat16: tl.bfloat16, torch.float32: tl.float32}[dtype]
        sizes = (64, 64), (64, 32), (64, 128), (128, 64), (128, 32), (77, 64)
        kernels = ("forward", _attention_forward), ("backward", _attention_backward)
        for L, C, op, kernel in [(*size, *each) for size in sizes for each in kernels]:
            types = dict.fromkeys(("qkv", "out", "upstream", "gradient"), f"*{short(dtype)}")
            types |= {"bias": "*fp32", "bias_rows": "*fp32", "segment": "*i32", "sharpness": "fp32", "scale": "fp32"}
            constants = {**tiles(L, C), "H": 8, "COMPUTE": compute, "PRECISION": "ieee" if half else "tf32x3"}
            for arch, product in ((80, "HMMA"), (90, "HGMMA"), (100, "UTCHMMA")):
                if fits(dtype, L, C, arch):
                    yield AotCase(
                        f"attention_{op}-{short(dtype)}-L{L}-C{C}",
                        kernel,
                        {k: t for k, t in types.items() if k in kernel.arg_names},
                        constants | {"LOW": LOW},
                        defaults(dtype, L, C, op == "backward"),
                        {arch: Budget(255, SHARED[arch], (product,))},
                    )
