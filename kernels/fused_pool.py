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
from fastzss.kernels.configs import SHARED, AotCase, Budget
from fastzss.kernels.patch_tiles import MENTIONS, STORAGES, arguments, fits, groups, launch_options, pool_case


@triton.jit
def patch_tile(
    tokens, image, start, c: tl.constexpr, image_stride, patch_stride,
    N: tl.constexpr, D: tl.constexpr, BN: tl.constexpr, DC: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """[BN, DC]: patches from `start` on, channels of chunk c, as they are stored; zero outside."""
    if TMA:
        tile = tokens.load([image.to(tl.int32), start, c * DC]).reshape([BN, DC])
    else:
        n = start + tl.arange(0, BN)[:, None]
        d = c * DC + tl.arange(0, DC)[None, :]
        at = tokens + image * image_stride + n.to(tl.int64) * patch_stride + d
        if N % BN == 0 and D % DC == 0:
            tile = tl.load(at)
        else:
            tile = tl.load(at, mask=(n < N) & (d < D), other=0)
    return tile


@triton.jit
def channel_row(vector, c: tl.constexpr, D: tl.constexpr, DC: tl.constexpr):
    """[1, DC]: chunk c of a [D] vector."""
    d = c * DC + tl.arange(0, DC)[None, :]
    return tl.load(vector + d, mask=d < D, other=0).to(tl.float32)


@triton.jit
def channel_rows(matrix, rows, real, c: tl.constexpr, D: tl.constexpr, DC: tl.constexpr):
    """[BM, DC] float32: chunk c of some rows of a [*, D] matrix; zero where not real."""
    d = c * DC + tl.arange(0, DC)[None, :]
    return tl.load(matrix + rows[:, None] * D + d, mask=real[:, None] & (d < D), other=0).to(tl.float32)


@triton.jit
def store_rows(matrix, rows, real, c: tl.constexpr, D: tl.constexpr, DC: tl.constexpr, values):
    d = c * DC + tl.arange(0, DC)[None, :]
    tl.store(matrix + rows[:, None] * D + d, values, mask=real[:, None] & (d < D))


@triton.jit
def patch_scales(scale, image, start, scale_stride, N: tl.constexpr, BN: tl.constexpr):
    """[1, BN] float32."""
    n = start + tl.arange(0, BN)[None, :]
    return tl.load(scale + image * scale_stride + n, mask=n < N, other=0).to(tl.float32)


@triton.jit
def query_chunk(classes, std, k, real, c: tl.constexpr, D: tl.constexpr, DC: tl.constexpr, COMPUTE: tl.constexpr):
    """[BM, DC]: chunk c of class vectors k, times std."""
    query = channel_rows(classes, k, real, c, D, DC)
    if std is not None:
        query *= channel_row(std, c, D, DC)
    return query.to(COMPUTE)


@triton.jit
def gradient_chunk(upstream, std, m, real, c: tl.constexpr, D: tl.constexpr, DC: tl.constexpr):
    """[BM, DC] float32: chunk c of std g."""
    g = channel_rows(upstream, m, real, c, D, DC)
    if std is not None:
        g *= channel_row(std, c, D, DC)
    return g


@triton.jit
def power_of_two(x):
    """The largest one that is at most x, so that dividing by it rounds nothing; 1 where there is none."""
    power = (x.to(tl.int32, bitcast=True) & 0x7F800000).to(tl.float32, bitcast=True)
    return tl.where(power > 0, power, 1.0)


@triton.jit
def attend(
    tokens, scale, std, classes, image, k, m, real, scores, image_stride, patch_stride, scale_stride, sharpness,
    N: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, DC: tl.constexpr, CHUNKS: tl.constexpr,
    COMPUTE: tl.constexpr, TMA: tl.constexpr, LEAN: tl.constexpr,
):  # fmt: skip
    """(sums, top, total): sum_n a_n sigma_n q_n in chunks [BM, DC], largest score, sum of exp((score - top) / t).

    `sharpness` is log2(e) / t.  It multiplies differences only, and the two numbers are never joined to one logarithm:
    the rounding of large numbers would be a relative error of the softmax.

    LEAN reads queries and tiles again each time they are used, for want of registers to hold them.
    """
    queries = ()
    sums = ()
    for c in tl.static_range(CHUNKS):
        if not LEAN:
            queries = queries + (query_chunk(classes, std, k, real, c, D, DC, COMPUTE),)
        sums = sums + (tl.zeros([BM, DC], tl.float32),)
    top = tl.full([BM], -1e30, tl.float32)
    total = tl.zeros([BM], tl.float32)
    for start in tl.range(0, N, BN):
        score = tl.zeros([BM, BN], tl.float32)
        tiles = ()
        for c in tl.static_range(CHUNKS):
            tile = patch_tile(tokens, image, start, c, image_stride, patch_stride, N, D, BN, DC, TMA).to(COMPUTE)
            if LEAN:
                query = query_chunk(classes, std, k, real, c, D, DC, COMPUTE)
            else:
                query = queries[c]
                tiles = tiles + (tile,)
            score = tl.dot(query, tl.trans(tile), score, input_precision="ieee")
        n = start + tl.arange(0, BN)[None, :]
        if scale is not None:
            sigma = patch_scales(scale, image, start, scale_stride, N, BN)
            score *= sigma
        if N % BN != 0:
            score = tl.where(n < N, score, -1e30)
        if scores is not None:
            tl.store(scores + m[:, None] * N + n, score, mask=real[:, None] & (n < N))
        higher = tl.maximum(top, tl.max(score, 1))
        shrink = tl.exp2((top - higher) * sharpness)
        top = higher
        weight = tl.exp2((score - top[:, None]) * sharpness)
        total = total * shrink + tl.sum(weight, 1)
        if scale is not None:
            weight *= sigma
        grown = ()
        for c in tl.static_range(CHUNKS):
            if LEAN:
                tile = patch_tile(tokens, image, start, c, image_stride, patch_stride, N, D, BN, DC, TMA).to(COMPUTE)
            else:
                tile = tiles[c]
            part = sums[c] * shrink[:, None]
            grown = grown + (tl.dot(weight.to(COMPUTE), tile, part, input_precision="ieee"),)
        sums = grown
    pooled = ()
    for c in tl.static_range(CHUNKS):
        pooled = pooled + (sums[c] / total[:, None],)
    return pooled, top, total


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
        sums = ()
        for c in tl.static_range(CHUNKS):
            x = channel_rows(pooled, m, real, c, D, DC)
            if std is not None:
                x -= channel_row(mean, c, D, DC)
            delta += tl.sum(channel_rows(upstream, m, real, c, D, DC) * x, 1)
            biggest = tl.maximum(biggest, tl.max(tl.abs(gradient_chunk(upstream, std, m, real, c, D, DC)), 1))
            sums = sums + (tl.zeros([BM, DC], tl.float32),)
        # a gradient of 1e-6 would vanish in float16: the loop works on a multiple whose largest channel is near 1
        unit = power_of_two(biggest)
        delta = delta / unit
        g = ()
        for c in tl.static_range(CHUNKS):
            g = g + ((gradient_chunk(upstream, std, m, real, c, D, DC) / unit[:, None]).to(COMPUTE),)
        slack = tl.zeros([BM], tl.float32)
        for start in tl.range(0, N, BN):
            d = tl.zeros([BM, BN], tl.float32)
            tiles = ()
            for c in tl.static_range(CHUNKS):
                tile = patch_tile(tokens, image, start, c, image_stride, patch_stride, N, D, BN, DC, TMA).to(COMPUTE)
                tiles = tiles + (tile,)
                d = tl.dot(g[c], tl.trans(tile), d, input_precision="ieee")
            n = start + tl.arange(0, BN)[None, :]
            score = tl.load(scores + m[:, None] * N + n, mask=real[:, None] & (n < N), other=-1e30)
            attention = tl.exp2((score - top[:, None]) * sharpness)  # times total
            if scale is not None:
                sigma = patch_scales(scale, image, start, scale_stride, N, BN)
                e = attention * (d * sigma - delta[:, None])
                slack += tl.sum(e, 1)
                e = (e * sigma).to(COMPUTE)
            else:
                e = (attention * (d - delta[:, None])).to(COMPUTE)
                slack += tl.sum(e.to(tl.float32), 1)
            grown = ()
            for c in tl.static_range(CHUNKS):
                grown = grown + (tl.dot(e, tiles[c], sums[c], input_precision="ieee"),)
            sums = grown
        tl.debug_barrier()  # so that nothing below is loaded before the loop, and held through it
        for c in tl.static_range(CHUNKS):
            # the e_n sum to zero; what rounding left of their sum pulls towards x, and is taken back
            grad = sums[c]
            x = channel_rows(pooled, m, real, c, D, DC)
            if std is not None:
                grad *= channel_row(std, c, D, DC)
                x -= channel_row(mean, c, D, DC)
            grad = (grad - slack[:, None] * x) * (unit / total * inverse_temperature)[:, None]
            store_rows(gradient, m, real, c, D, DC, grad)


@triton.jit
def _sum_by_class(values, order, first, sums, D: tl.constexpr, BR: tl.constexpr, BD: tl.constexpr):
    """sums[k] = sum of the rows values[order[first[k] : first[k + 1]]], in that order."""
    k = tl.program_id(0).to(tl.int64)
    begin = tl.load(first + k)
    end = tl.load(first + k + 1)
    d = tl.program_id(1) * BD + tl.arange(0, BD)[None, :]
    total = tl.zeros([BR, BD], tl.float32)
    for at in range(begin, end, BR):
        slot = at + tl.arange(0, BR)
        real = slot < end
        m = tl.load(order + slot, mask=real, other=0)
        total += tl.load(values + m[:, None] * D + d, mask=real[:, None] & (d < D), other=0)
    d = tl.program_id(1) * BD + tl.arange(0, BD)
    tl.store(sums + k * D + d, tl.sum(total, 0), mask=d < D)


def sum_by_class(values, name, names):
    """[M, D] float32 rows -> [names, D]: the sums of the rows of each name, in the order of the rows."""
    D = values.shape[1]
    order = name.argsort(stable=True)
    first = torch.searchsorted(name[order], torch.arange(names + 1, device=name.device))
    sums = torch.empty(names, D, dtype=torch.float32, device=values.device)
    if names:
        _sum_by_class[(names, triton.cdiv(D, 128))](values, order, first, sums, D, BR=16, BD=128, num_warps=4)
    return sums


class _ConceptPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx, classes, tokens, scale, mean, std, row, name, temperature, group, forced):
        patches = (tokens, scale, mean, std)
        (M, (_, N, D)), device = (len(row), tokens.shape), classes.device
        name, row = name.long().contiguous(), row.long().contiguous()
        order, first = groups(row, group)
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
        ctx.save_for_backward(tokens, scale, mean, std, row, name, order, first, pooled, scores, tops, totals)
        ctx.sizes, ctx.dtype, ctx.temperature, ctx.forced = (len(classes), N, D), classes.dtype, temperature, forced
        return pooled.to(classes.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream):
        *patches, row, name, order, first, pooled, scores, tops, totals = ctx.saved_tensors
        (K, N, D), M = ctx.sizes, len(row)
        gradient = torch.empty(M, D, dtype=torch.float32, device=upstream.device)
        if M:
            launch = launch_options("pool_backward", patches[0], ctx.forced)
            held, strides = arguments(patches, launch)
            _backward[(M,)](
                *held, row, order, first, pooled, scores, tops, totals, upstream.contiguous(), gradient,
                *strides, math.log2(math.e) / ctx.temperature, 1 / ctx.temperature, N, D, **launch,
            )  # fmt: skip
        return sum_by_class(gradient, name, K).to(ctx.dtype), *[None] * 9


def concept_pool(classes, patches, row, name, temperature, *, group=MENTIONS, **forced):
    """reference.concept_pool on a GPU: [M, D] in the dtype of `classes`.

    `group` (mentions of one program, at most 16) and further launch options (BN=, TMA=, num_warps=, ...) are for tests
    and tuning.
    """
    if not fits(patches, classes.device):
        return chunked.concept_pool(classes, patches, row, name, temperature)
    return _ConceptPool.apply(classes, *patches, row, name, temperature, group, forced)


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
    yield AotCase(
        "sum_by_class-D768",
        _sum_by_class,
        dict(values="*fp32", order="*i64", first="*i64", sums="*fp32"),
        dict(D=768, BR=16, BD=128),
        dict(num_warps=4, num_stages=3),
        {arch: Budget(128, SHARED[80]) for arch in (80, 90, 100)},
    )
