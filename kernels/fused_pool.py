"""Concept pooling in Triton: every patch is read once going forward and once going backward.

With a stored patch v_n = mean + std sigma_n q_n (float storage: v_n = q_n), class vector w and temperature t,

    s_n = sigma_n <std w, q_n>        a_n = softmax_n(s_n / t)        x = mean + std sum_n a_n sigma_n q_n

(<w, mean> is the same for all patches of an image, so the softmax does not see it), and with the gradient g of x

    d_n = sigma_n <std g, q_n>            delta = <g, x - mean>       e_n = a_n (d_n - delta)
    gradient of w = std / t sum_n e_n sigma_n q_n

The scores s stay from the forward pass (float32, 0.5 % of the patches' bytes), so the backward needs no w.  For the
local loss x is also brought to a length l, u = l x / |x|, and g comes from the gradient of that:

    g = (l / |x|) (g_u - <g_u, x> x / |x|^2)

One program has the mentions of one image, BM at most (an image with more has several programs), and walks over its
patches in tiles [BN, D], D in chunks of a power of two.  Scales multiply scores and probabilities, never a tile.
All sums have one owner and a fixed order: equal inputs give equal bits.

Sizes: n images in the store, N patches, D channels, M mentions, K classes, G <= M groups of mentions.
"""

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from fastzss.kernels import chunked
from fastzss.kernels.fused_sums import sum_rows
from fastzss.kernels.lists import MENTIONS, MentionLists, mention_lists
from fastzss.kernels.patch_tiles import STORAGES, arguments, fits, launch_options, pool_case
from fastzss.kernels.patch_walk import (
    attend,
    channel_row,
    channel_rows,
    gradient_chunk,
    power_of_two,
    retrace,
    store_rows,
)


@triton.jit
def _forward(
    tokens, scale, mean, std, classes, name, row, order, first, pooled, units, lengths, scores, tops, totals,
    image_stride, patch_stride, scale_stride, sharpness, length,
    N: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, DC: tl.constexpr, CHUNKS: tl.constexpr,
    COMPUTE: tl.constexpr, TMA: tl.constexpr, LEAN: tl.constexpr,
):  # fmt: skip
    """With `units`, also the pooled vectors brought to a length."""
    begin = tl.load(first + tl.program_id(0))
    end = tl.load(first + tl.program_id(0) + 1)
    if begin < end:
        slot = begin + tl.arange(0, BM)
        real = slot < end
        m = tl.load(order + slot, mask=real, other=0)
        image = tl.load(row + tl.load(order + begin))
        k = tl.load(name + m, mask=real, other=0)
        sums, top, total = attend(
            tokens, scale, std, classes, image, k, m, real, scores, image_stride, patch_stride, scale_stride, sharpness,
            N, D, BM, BN, DC, CHUNKS, COMPUTE, TMA, LEAN,
        )  # fmt: skip
        tl.store(tops + m, top, mask=real)
        tl.store(totals + m, total, mask=real)
        square = tl.zeros([BM], tl.float32)
        xs = ()
        for c in tl.static_range(CHUNKS):
            x = sums[c]
            if std is not None:
                x = channel_row(mean, c, D, DC) + channel_row(std, c, D, DC) * x
            store_rows(pooled, m, real, c, D, DC, x)
            square += tl.sum(x * x, 1)
            xs = xs + (x,)
        if units is not None:
            norm = tl.sqrt_rn(square)
            tl.store(lengths + m, norm, mask=real)
            factor = length / tl.maximum(norm, 1e-12)
            for c in tl.static_range(CHUNKS):
                store_rows(units, m, real, c, D, DC, (xs[c] * factor[:, None]).to(units.dtype.element_ty))


@triton.jit
def _backward(
    tokens, scale, mean, std, row, order, first, pooled, lengths, scores, tops, totals, upstream, gradient,
    image_stride, patch_stride, scale_stride, sharpness, inverse_temperature, length,
    N: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, DC: tl.constexpr, CHUNKS: tl.constexpr,
    COMPUTE: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """With `lengths`, `upstream` is the gradient of the vectors that were brought to a length."""
    begin = tl.load(first + tl.program_id(0))
    end = tl.load(first + tl.program_id(0) + 1)
    if begin < end:
        slot = begin + tl.arange(0, BM)
        real = slot < end
        m = tl.load(order + slot, mask=real, other=0)
        image = tl.load(row + tl.load(order + begin))
        top = tl.load(tops + m, mask=real, other=0)
        total = tl.load(totals + m, mask=real, other=1)
        along = None
        factor = None
        if lengths is not None:
            norm = tl.load(lengths + m, mask=real, other=1)
            along = tl.zeros([BM], tl.float32)
            for c in tl.static_range(CHUNKS):
                x = channel_rows(pooled, m, real, c, D, DC)
                along += tl.sum(channel_rows(upstream, m, real, c, D, DC) * x, 1)
            along = tl.where(norm <= 1e-12, 0.0, along / (norm * norm))
            factor = length / tl.maximum(norm, 1e-12)
        delta = tl.zeros([BM], tl.float32)
        biggest = tl.zeros([BM], tl.float32)
        for c in tl.static_range(CHUNKS):
            part = gradient_chunk(upstream, pooled, along, factor, m, real, c, D, DC)
            x = channel_rows(pooled, m, real, c, D, DC)
            if std is not None:
                x -= channel_row(mean, c, D, DC)
            delta += tl.sum(part * x, 1)
            if std is not None:
                part *= channel_row(std, c, D, DC)
            biggest = tl.maximum(biggest, tl.max(tl.abs(part), 1))
        # a gradient of 1e-6 would vanish in float16: the loop works on a multiple whose largest channel is near 1
        unit = power_of_two(biggest)
        delta = delta / unit
        g = ()
        for c in tl.static_range(CHUNKS):
            part = gradient_chunk(upstream, pooled, along, factor, m, real, c, D, DC)
            if std is not None:
                part *= channel_row(std, c, D, DC)
            g = g + ((part / unit[:, None]).to(COMPUTE),)
        sums, slack = retrace(
            tokens, scale, g, image, m, real, scores, top, delta, image_stride, patch_stride, scale_stride, sharpness,
            N, D, BM, BN, DC, CHUNKS, COMPUTE, TMA,
        )  # fmt: skip
        for c in tl.static_range(CHUNKS):
            # the e_n sum to zero; what rounding left of their sum pulls towards x, and is taken back
            grad = sums[c]
            x = channel_rows(pooled, m, real, c, D, DC)
            if std is not None:
                grad *= channel_row(std, c, D, DC)
                x -= channel_row(mean, c, D, DC)
            grad = (grad - slack[:, None] * x) * (unit / total * inverse_temperature)[:, None]
            store_rows(gradient, m, real, c, D, DC, grad)


class Walk(NamedTuple):
    """How a pooling goes over its patches."""

    patches: tuple
    temperature: float
    lists: MentionLists
    forced: dict  # launch options
    length: float | None = None  # to which the pooled vectors are brought; None: left as they are


def pool(walk, classes, row, name, dtype=None):
    """(units, or None without a length; what pool_gradient needs): pooled [M, D] stands first there, float32."""
    tokens = walk.patches[0]
    (M, (_, N, D)), device = (len(row), tokens.shape), classes.device
    new = lambda *shape: torch.empty(shape, dtype=torch.float32, device=device)  # noqa: E731
    pooled, scores, (tops, totals) = new(M, D), new(M, N), new(2, M)
    units, lengths = None, None
    if walk.length is not None:
        units, lengths = torch.empty(M, D, dtype=dtype, device=device), new(M)
    if M:
        launch = launch_options("pool_forward", tokens, walk.forced)
        held, strides = arguments(walk.patches, launch)
        _forward[(M,)](
            *held, classes.contiguous(), name, row, *walk.lists.image, pooled, units, lengths, scores, tops, totals,
            *strides, math.log2(math.e) / walk.temperature, walk.length or 0.0, N, D, **launch,
        )  # fmt: skip
    return units, (pooled, lengths, scores, tops, totals)


def pool_gradient(walk, row, kept, upstream):
    """[M, D] float32: what the class vector of each mention gets of the gradient of the pooled vectors, or units."""
    tokens = walk.patches[0]
    M, N, D = len(row), *tokens.shape[1:]
    gradient = torch.empty(M, D, dtype=torch.float32, device=upstream.device)
    if M:
        launch = launch_options("pool_backward", tokens, walk.forced)
        held, strides = arguments(walk.patches, launch)
        _backward[(M,)](
            *held, row, *walk.lists.image, *kept, upstream.contiguous(), gradient, *strides,
            math.log2(math.e) / walk.temperature, 1 / walk.temperature, walk.length or 0.0, N, D, **launch,
        )  # fmt: skip
    return gradient


class _ConceptPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx, classes, row, name, walk):
        _, kept = pool(walk, classes, row, name)
        ctx.save_for_backward(row, *kept)
        ctx.walk, ctx.dtype = walk, classes.dtype
        return kept[0].to(classes.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream):
        row, *kept = ctx.saved_tensors
        gradient = pool_gradient(ctx.walk, row, kept, upstream)
        return sum_rows(gradient, ctx.walk.lists.name, dtype=ctx.dtype), None, None, None


def concept_pool(classes, patches, row, name, temperature, lists=None, *, group=MENTIONS, **forced):
    """reference.concept_pool on a GPU: [M, D] in the dtype of `classes`.

    `group` (mentions of one program, at most MENTIONS) and further launch options (BN=, TMA=, num_warps=, ...) are for
    tests and tuning.
    """
    if not fits(patches, classes.device):
        return chunked.concept_pool(classes, patches, row, name, temperature)
    name, row = name.long().contiguous(), row.long().contiguous()
    lists = lists or mention_lists(row, name, len(classes), group)
    return _ConceptPool.apply(classes, row, name, Walk(patches, temperature, lists, forced))


def aot_cases():
    """The kernels of this file as configs.AotCase."""
    for storage in STORAGES:
        for D in (128, 192, 384, 768, 1024):
            for arch in (80, 90, 100):
                for op, kernel in (("forward", _forward), ("backward", _backward)):
                    yield pool_case(f"pool_{op}", kernel, storage, 256, D, arch, units=None, lengths=None)
                    yield pool_case(f"pool_{op}", kernel, storage, 256, D, arch, "-units")
    for op, kernel in (("forward", _forward), ("backward", _backward)):  # a store that no descriptor can describe
        for arch in (90, 100):
            yield pool_case(f"pool_{op}", kernel, torch.int8, 250, 768, arch, "-units", TMA=False, BN=16)
