"""Walking over an image's patches, and over classes, tile by tile: shared by the kernels of pooling and of the step.

Patches are read in tiles [BN, D], D in CHUNKS chunks of DC channels, a power of two.  Scales multiply scores and
probabilities, never a tile.  Sizes: as in fused_pool.py.
"""

import triton
import triton.language as tl


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
def gradient_chunk(upstream, pooled, along, factor, m, real, c: tl.constexpr, D: tl.constexpr, DC: tl.constexpr):
    """[BM, DC] float32: chunk c of g; with a `factor`, `upstream` is the gradient of factor times the unit vectors."""
    g = channel_rows(upstream, m, real, c, D, DC)
    if factor is not None:
        g = (g - along[:, None] * channel_rows(pooled, m, real, c, D, DC)) * factor[:, None]
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
def retrace(
    tokens, scale, g, image, m, real, scores, top, delta, image_stride, patch_stride, scale_stride, sharpness,
    N: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, DC: tl.constexpr, CHUNKS: tl.constexpr,
    COMPUTE: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """(sums, slack): sum_n e_n sigma_n q_n in chunks [BM, DC], and sum_n e_n, both times the total of `attend`.

    `g` are chunks of std times the gradient of what was pooled; scores and top are those of `attend`.
    """
    sums = ()
    for _ in tl.static_range(CHUNKS):
        sums = sums + (tl.zeros([BM, DC], tl.float32),)
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
    tl.debug_barrier()  # so that nothing behind the loop is loaded before it, and held through it
    return sums, slack


@triton.jit
def class_tile(candidates, start, c: tl.constexpr, K, D: tl.constexpr, BK: tl.constexpr, DC: tl.constexpr):
    """[BK, DC]: chunk c of the class vectors from `start` on."""
    k = start + tl.arange(0, BK)[:, None]
    d = c * DC + tl.arange(0, DC)[None, :]
    return tl.load(candidates + k * D + d, mask=(k < K) & (d < D), other=0)


@triton.jit
def class_cosines(
    candidates, present, u, start, K,
    D: tl.constexpr, BM: tl.constexpr, BK: tl.constexpr, DC: tl.constexpr, CHUNKS: tl.constexpr,
):  # fmt: skip
    """[BM, BK] cosines, -1e30 for classes that are no candidates."""
    z = tl.zeros([BM, BK], tl.float32)
    for c in tl.static_range(CHUNKS):
        z = tl.dot(u[c], tl.trans(class_tile(candidates, start, c, K, D, BK, DC)), z, input_precision="ieee")
    k = start + tl.arange(0, BK)
    there = tl.load(present + k, mask=k < K, other=0) != 0
    return tl.where(there[None, :], z, -1e30)
