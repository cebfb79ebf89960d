"""Concept pooling in Triton: every patch is read once going forward and once going backward.

With a stored patch v_n = mean + std sigma_n q_n (float storage: v_n = q_n), class vector w and temperature t,

    s_n = sigma_n <std w, q_n>        a_n = softmax_n(s_n / t)        x = mean + std sum_n a_n sigma_n q_n

(<w, mean> is the same for all patches of an image, so the softmax does not see it), and with the gradient g of x

    d_n = sigma_n <std g, q_n>            delta = <g, x - mean>       e_n = a_n (d_n - delta)
    gradient of w = std / t sum_n e_n sigma_n q_n

The scores s stay from the forward pass (float32, 0.5 % of the patches' bytes), so the backward needs no w.

One program has the mentions of one image, BM at most (an image with more has several programs), and walks over its
patches in tiles [BN, D], D in chunks of a power of two.  Scales multiply scores and probabilities, never a tile.
All sums have one owner and a fixed order: equal inputs give equal bits.

Sizes: n images in the store, N patches, D channels, M mentions, K classes, G <= M groups of mentions.
"""

import math

import torch
import triton
import triton.language as tl

from fastzss.kernels import chunked
from fastzss.kernels.fused_sums import sum_rows
from fastzss.kernels.lists import MENTIONS, Lists, mention_lists
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
    tokens, scale, mean, std, classes, name, row, order, first, pooled, scores, tops, totals,
    image_stride, patch_stride, scale_stride, sharpness,
    N: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, DC: tl.constexpr, CHUNKS: tl.constexpr,
    COMPUTE: tl.constexpr, TMA: tl.constexpr, LEAN: tl.constexpr,
):  # fmt: skip
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
        for c in tl.static_range(CHUNKS):
            x = sums[c]
            if std is not None:
                x = channel_row(mean, c, D, DC) + channel_row(std, c, D, DC) * x
            store_rows(pooled, m, real, c, D, DC, x)


@triton.jit
def _backward(
    tokens, scale, mean, std, row, order, first, pooled, scores, tops, totals, upstream, gradient,
    image_stride, patch_stride, scale_stride, sharpness, inverse_temperature,
    N: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, DC: tl.constexpr, CHUNKS: tl.constexpr,
    COMPUTE: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    begin = tl.load(first + tl.program_id(0))
    end = tl.load(first + tl.program_id(0) + 1)
    if begin < end:
        slot = begin + tl.arange(0, BM)
        real = slot < end
        m = tl.load(order + slot, mask=real, other=0)
        image = tl.load(row + tl.load(order + begin))
        top = tl.load(tops + m, mask=real, other=0)
        total = tl.load(totals + m, mask=real, other=1)
        delta = tl.zeros([BM], tl.float32)
        biggest = tl.zeros([BM], tl.float32)
        for c in tl.static_range(CHUNKS):
            x = channel_rows(pooled, m, real, c, D, DC)
            if std is not None:
                x -= channel_row(mean, c, D, DC)
            delta += tl.sum(channel_rows(upstream, m, real, c, D, DC) * x, 1)
            biggest = tl.maximum(biggest, tl.max(tl.abs(gradient_chunk(upstream, std, m, real, c, D, DC)), 1))
        # a gradient of 1e-6 would vanish in float16: the loop works on a multiple whose largest channel is near 1
        unit = power_of_two(biggest)
        delta = delta / unit
        g = ()
        for c in tl.static_range(CHUNKS):
            g = g + ((gradient_chunk(upstream, std, m, real, c, D, DC) / unit[:, None]).to(COMPUTE),)
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


class _ConceptPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx, classes, tokens, scale, mean, std, row, name, temperature, lists, forced):
        patches = (tokens, scale, mean, std)
        (M, (_, N, D)), device = (len(row), tokens.shape), classes.device
        name, row = name.long().contiguous(), row.long().contiguous()
        order, first = lists.image
        pooled = torch.empty(M, D, dtype=torch.float32, device=device)
        scores = torch.empty(M, N, dtype=torch.float32, device=device)
        tops, totals = torch.empty(2, M, dtype=torch.float32, device=device)
        if M:
            launch = launch_options("pool_forward", tokens, forced)
            held, strides = arguments(patches, launch)
            _forward[(M,)](
                *held, classes.contiguous(), name, row, order, first, pooled, scores, tops, totals,
                *strides, math.log2(math.e) / temperature, N, D, **launch,
            )  # fmt: skip
        ctx.save_for_backward(tokens, scale, mean, std, row, order, first, pooled, scores, tops, totals, *lists.name)
        ctx.dtype, ctx.temperature, ctx.forced = classes.dtype, temperature, forced
        return pooled.to(classes.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream):
        *patches, row, order, first, pooled, scores, tops, totals, by_name, start = ctx.saved_tensors
        M, N, D = len(row), *patches[0].shape[1:]
        gradient = torch.empty(M, D, dtype=torch.float32, device=upstream.device)
        if M:
            launch = launch_options("pool_backward", patches[0], ctx.forced)
            held, strides = arguments(patches, launch)
            _backward[(M,)](
                *held, row, order, first, pooled, scores, tops, totals, upstream.contiguous(), gradient,
                *strides, math.log2(math.e) / ctx.temperature, 1 / ctx.temperature, N, D, **launch,
            )  # fmt: skip
        return sum_rows(gradient, Lists(by_name, start), dtype=ctx.dtype), *[None] * 9


def concept_pool(classes, patches, row, name, temperature, lists=None, *, group=MENTIONS, **forced):
    """reference.concept_pool on a GPU: [M, D] in the dtype of `classes`.

    `group` (mentions of one program, at most MENTIONS) and further launch options (BN=, TMA=, num_warps=, ...) are for
    tests and tuning.
    """
    if not fits(patches, classes.device):
        return chunked.concept_pool(classes, patches, row, name, temperature)
    lists = lists or mention_lists(row, name, len(classes), group)
    return _ConceptPool.apply(classes, *patches, row, name, temperature, lists, forced)


def aot_cases():
    """The kernels of this file as configs.AotCase."""
    for storage in STORAGES:
        for D in (128, 192, 384, 768, 1024):
            for arch in (80, 90, 100):
                for op, kernel in (("forward", _forward), ("backward", _backward)):
                    yield pool_case(f"pool_{op}", kernel, storage, 256, D, arch)
    for op, kernel in (("forward", _forward), ("backward", _backward)):  # a store that no descriptor can describe
        for arch in (90, 100):
            yield pool_case(f"pool_{op}", kernel, torch.int8, 250, 768, arch, TMA=False, BN=16)
