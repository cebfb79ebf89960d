"""Attention inside packed captions, in Triton: a row of tokens is one tile, and no mask is ever formed.

With q, k, v = qkv + bias of one row and head, and scores where token i sees token j of its own caption, j <= i,

    P_ij = softmax_j( <q_i, k_j> / sqrt(C) )        o_i = sum_j P_ij v_j

and with the gradient g of o,

    dP = g v^T      dS_ij = P_ij (dP_ij - sum_j P_ij dP_ij)
    dv = P^T g      dq = dS k / sqrt(C)      dk = dS^T q / sqrt(C)

One program has one row and one head: it reads q, k and v once, going forward and again going backward, and every
output has one owner.  The backward pass makes P anew from them, so nothing else is needed.  In the same pass it sums
the gradient of the bias over the tokens of each row; who asks for it adds up the rows, of many layers at once.

A free slot (a negative caption) sees the free slots before it, so no softmax is empty.

Sizes: R rows of L tokens, H heads of C channels; W = H C.
"""

import math

import torch
import triton
import triton.language as tl

from fastzss.kernels.configs import SHARED, AotCase, Budget, short
from fastzss.kernels.products import LOW, arithmetic


@triton.jit
def _load(qkv, bias, r, h, part: tl.constexpr, L: tl.constexpr, H: tl.constexpr, C: tl.constexpr,
          BL: tl.constexpr, BC: tl.constexpr, COMPUTE: tl.constexpr):  # fmt: skip
    """[BL, BC] of q, k or v of a row and head, with the bias."""
    i = tl.arange(0, BL)
    c = tl.arange(0, BC)
    inside = (i < L)[:, None] & (c < C)[None, :]
    at = (r * L + i)[:, None] * (3 * H * C) + part * H * C + h * C + c[None, :]
    tile = tl.load(qkv + at, mask=inside, other=0.0).to(tl.float32)
    row = tl.load(bias + part * H * C + h * C + c, mask=c < C, other=0.0).to(tl.float32)
    return tl.where((i < L)[:, None], tile + row[None, :], 0.0).to(COMPUTE)


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
def _store(gradient, sums, tile, r, h, part: tl.constexpr, ROW: tl.constexpr, L: tl.constexpr, H: tl.constexpr,
           C: tl.constexpr, BL: tl.constexpr, BC: tl.constexpr):  # fmt: skip
    """A gradient of q, k or v, and its sum over the row."""
    i = tl.arange(0, BL)
    c = tl.arange(0, BC)
    at = (r * L + i)[:, None] * (3 * H * C) + part * H * C + h * C + c[None, :]
    tl.store(gradient + at, tile.to(gradient.dtype.element_ty), mask=(i < L)[:, None] & (c < C)[None, :])
    total = tl.sum(tl.where((i < L)[:, None], tile, 0.0), 0)
    tl.store(sums + r * ROW + part * H * C + h * C + c, total, mask=c < C)


@triton.jit
def _attention_backward(
    qkv, bias, segment, upstream, gradient, sums, sharpness, scale, ROW: tl.constexpr, L: tl.constexpr,
    H: tl.constexpr, C: tl.constexpr, BL: tl.constexpr, BC: tl.constexpr, COMPUTE: tl.constexpr,
    PRECISION: tl.constexpr, LOW: tl.constexpr,
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
    _store(gradient, sums, dv, r, h, 2, ROW, L, H, C, BL, BC)
    v = _load(qkv, bias, r, h, 2, L, H, C, BL, BC, COMPUTE)
    slope = tl.dot(g, tl.trans(v), input_precision=PRECISION)
    slope = weights * (slope - tl.sum(weights * slope, 1)[:, None])
    short = slope.to(COMPUTE)
    dq = tl.dot(short, k, input_precision=PRECISION) * scale
    _store(gradient, sums, dq, r, h, 0, ROW, L, H, C, BL, BC)
    dk = tl.dot(tl.trans(short), q, input_precision=PRECISION) * scale
    _store(gradient, sums, dk, r, h, 1, ROW, L, H, C, BL, BC)


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


def launch_options(dtype, L, C, heads, backward):
    return {**tiles(L, C), "H": heads, "LOW": LOW, **arithmetic(dtype), **defaults(dtype, L, C, backward)}


def attention(qkv, bias, segment, heads):
    """[R, L, W] of qkv [R, L, 3 W], without their bias, and segment [R, L] int32."""
    R, L, wide = qkv.shape
    C, out = wide // 3 // heads, torch.empty(R, L, wide // 3, dtype=qkv.dtype, device=qkv.device)
    if R:
        launch = launch_options(qkv.dtype, L, C, heads, False)
        _attention_forward[(R, heads)](qkv, bias, segment, out, math.log2(math.e) / math.sqrt(C), **launch)
    return out


def attention_gradient(qkv, bias, segment, heads, upstream, sums):
    """[R, L, 3 W]: the gradient of qkv.  Writes `sums` [R, 3 W], of the bias."""
    R, L, wide = qkv.shape
    C, gradient = wide // 3 // heads, torch.empty_like(qkv)
    if R:
        launch = {**launch_options(qkv.dtype, L, C, heads, True), "ROW": sums.stride(0)}
        scales = math.log2(math.e) / math.sqrt(C), C**-0.5
        _attention_backward[(R, heads)](qkv, bias, segment, upstream, gradient, sums, *scales, **launch)
    return gradient


def aot_cases():
    """The kernels of this file as configs.AotCase."""
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        half = dtype.itemsize == 2
        compute = {torch.float16: tl.float16, torch.bfloat16: tl.bfloat16, torch.float32: tl.float32}[dtype]
        sizes = (64, 64), (64, 32), (64, 128), (128, 64), (128, 32), (77, 64)
        kernels = ("forward", _attention_forward), ("backward", _attention_backward)
        for L, C, op, kernel in [(*size, *each) for size in sizes for each in kernels]:
            types = dict.fromkeys(("qkv", "out", "upstream", "gradient"), f"*{short(dtype)}")
            types |= {"bias": "*fp32", "sums": "*fp32", "segment": "*i32", "sharpness": "fp32", "scale": "fp32"}
            constants = {**tiles(L, C), "H": 8, "COMPUTE": compute, "PRECISION": "ieee" if half else "tf32x3"}
            constants |= {"LOW": LOW, "ROW": 12 * 3 * 8 * C}  # 3 W of 12 blocks
            for arch, product in ((80, "HMMA"), (90, "HGMMA"), (100, "UTCHMMA")):
                if fits(dtype, L, C, arch):
                    yield AotCase(
                        f"attention_{op}-{short(dtype)}-L{L}-C{C}",
                        kernel,
                        {k: t for k, t in types.items() if k in kernel.arg_names},
                        {k: v for k, v in constants.items() if k in kernel.arg_names},
                        defaults(dtype, L, C, op == "backward"),
                        {arch: Budget(255, SHARED[arch], (product,))},
                    )
