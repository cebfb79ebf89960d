"""The symmetric contrastive loss over frozen images, in Triton: no [B, B] matrix, and a rank sees its own texts only.

With logits S_ij = scale <image_i, text_j>, sums over j != own text of i, and sums over i != own image of j,

    row_i = log sum_j exp(S_ij)      column_j = log sum_i exp(S_ij)      m_j = S of the pair
    loss  = sum_pairs softplus(row - m) + softplus(column - m), over 2 B

which is the mean of the two cross-entropies, written so that neither a loss near zero nor its gradient cancels.  One
pass over the tiles of S yields both sums as partials [tiles, B], added in a fixed order.  Ranks exchange three numbers
a row going forward, and none going back: the loss is the sum of their shares, so the gradient of all shares is one
number g.  The backward pass forms, for some texts at a time,

    G_ij = exp(S_ij) / (exp(row_i) + exp(m_i)) + exp(S_ij) / (exp(column_j) + exp(m_j))
    G_pair = - sigmoid(row - m) - sigmoid(column - m)

times g scale / 2 B as a tile of the compute dtype, and leaves G images to a matrix product.  With `same`, other pairs
of the same image are left out of all sums.

Sizes: B images of the whole batch, b texts of this rank, D channels.
"""

import torch
import triton
import triton.language as tl

from fastzss.kernels import chunked_losses
from fastzss.kernels.configs import AotCase, Budget
from fastzss.kernels.products import (
    LOW,
    compute_dtype,
    dots,
    grouped,
    launch_options,
    precise,
    product_cases,
    softplus,
    summed,
)
from fastzss.kernels.reference import identity

HELD = 300_000_000  # bytes of a backward pass: its gradient, the short texts, and a tile [texts, images]
PAIRS, JOINED = 1024, 64  # a program goes over so many pairs at a time; joins the tiles of so many


@triton.jit(do_not_specialize=["first"])
def _forward(
    images, texts, scale, same, row_top, row_sum, column_top, column_sum, matched, first, B, b,
    D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr, GROUP: tl.constexpr,
    COMPUTE: tl.constexpr, PRECISION: tl.constexpr, LOW: tl.constexpr,
):  # fmt: skip
    tile_m, tile_n = grouped(tl.program_id(0), tl.cdiv(B, BM), tl.cdiv(b, BN), GROUP)
    i = tile_m * BM + tl.arange(0, BM)
    j = tile_n * BN + tl.arange(0, BN)
    own = first + j  # image of text j
    logit = dots(images, texts, i, j, B, b, D, BM, BN, BD, COMPUTE, PRECISION) * tl.load(scale)
    pair = i[:, None] == own[None, :]
    tl.store(matched + j, tl.sum(tl.where(pair, logit, 0.0), 0), mask=(j < b) & (own // BM == tile_m))
    others = (i < B)[:, None] & (j < b)[None, :] & ~pair
    if same is not None:
        image_i = tl.load(same + i, mask=i < B, other=-1)
        image_j = tl.load(same + own, mask=j < b, other=-2)
        others &= image_i[:, None] != image_j[None, :]
    logit = tl.where(others, logit, LOW)
    top = tl.max(logit, 1)
    place = tile_n.to(tl.int64) * B + i
    tl.store(row_top + place, top, mask=i < B)
    tl.store(row_sum + place, tl.sum(tl.exp(logit - top[:, None]), 1), mask=i < B)
    top = tl.max(logit, 0)
    place = tile_m.to(tl.int64) * b + j
    tl.store(column_top + place, top, mask=j < b)
    tl.store(column_sum + place, tl.sum(tl.exp(logit - top[None, :]), 0), mask=j < b)


@triton.jit
def joined(tops, sums, i, n, tiles, LOW: tl.constexpr):
    """(top, sum) of the columns i of [tiles, n]: sums of exp(S - top) of many tiles, as one."""
    top = tl.full(i.shape, LOW, tl.float32)
    total = tl.zeros(i.shape, tl.float32)
    place = i.to(tl.int64)
    for _ in range(tiles):
        one = tl.load(tops + place, mask=i < n, other=LOW)
        more = tl.load(sums + place, mask=i < n, other=0.0)
        higher = tl.maximum(top, one)
        total = total * tl.exp(top - higher) + more * tl.exp(one - higher)
        top = higher
        place += n
    return top, total


@triton.jit(do_not_specialize=["first"])
def _join(
    row_tops, row_sums, column_tops, column_sums, matched, row_top, shared, column_top, column_sum, first, B, b,
    rows, columns, BLOCK: tl.constexpr, LOW: tl.constexpr,
):  # fmt: skip
    """Of each image and each text one top and one sum; `shared` [2, B]: the images' sums, and their pairs' logits."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    if tl.program_id(1) == 0:
        top, total = joined(row_tops, row_sums, i, B, columns, LOW)
        tl.store(row_top + i, top, mask=i < B)
        tl.store(shared + i, total, mask=i < B)
        own = (i >= first) & (i < first + b)
        tl.store(shared + B + i, tl.load(matched + (i - first), mask=own, other=0.0), mask=i < B)
    else:
        top, total = joined(column_tops, column_sums, i, b, rows, LOW)
        tl.store(column_top + i, top, mask=i < b)
        tl.store(column_sum + i, total, mask=i < b)


@triton.jit
def share(tops, shares, k, real, top, total, matched, FOLDED: tl.constexpr):
    """Store x and y so that y exp(S - x) is the softmax of S among the others and the pair; FOLDED: x with a y of 1."""
    whole = total + tl.exp(matched - top)
    if FOLDED:
        tl.store(tops + k, top + tl.log(whole), mask=real)
    else:
        tl.store(tops + k, top, mask=real)
        tl.store(shares + k, 1 / whole, mask=real)


@triton.jit(do_not_specialize=["first"])
def _pairs(
    row_top, shared, column_top, column_sum, row_x, row_y, column_x, column_y, g_pair, loss, first, B, b,
    BLOCK: tl.constexpr, FOLDED: tl.constexpr,
):  # fmt: skip
    """The loss, and what the backward pass makes a softmax of."""
    for start in range(0, B, BLOCK):
        i = start + tl.arange(0, BLOCK)
        real = i < B
        top, sums = tl.load(row_top + i, mask=real, other=0.0), tl.load(shared + i, mask=real, other=1.0)
        share(row_x, row_y, i, real, top, sums, tl.load(shared + B + i, mask=real, other=0.0), FOLDED)
    total = tl.zeros([BLOCK], tl.float64)
    for start in range(0, b, BLOCK):
        j = start + tl.arange(0, BLOCK)
        real = j < b
        matched = tl.load(shared + B + first + j, mask=real, other=0.0)
        top, sums = tl.load(column_top + j, mask=real, other=0.0), tl.load(column_sum + j, mask=real, other=1.0)
        share(column_x, column_y, j, real, top, sums, matched, FOLDED)
        by_text = tl.log(sums) + (top - matched)
        sums = tl.load(shared + first + j, mask=real, other=1.0)
        by_image = tl.log(sums) + (tl.load(row_top + first + j, mask=real, other=0.0) - matched)
        tl.store(g_pair + j, -tl.sigmoid(by_image) - tl.sigmoid(by_text), mask=real)
        total += tl.where(real, softplus(by_image).to(tl.float64) + softplus(by_text).to(tl.float64), 0.0)
    tl.store(loss, (tl.sum(total, 0) / (2.0 * B)).to(tl.float32))


@triton.jit(do_not_specialize=["first", "start", "stop"])
def _backward(
    images, texts, scale, same, matched, row_x, row_y, column_x, column_y, g_pair, upstream, gradient, along, stride,
    first, start, stop, B, b,
    D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr, GROUP: tl.constexpr,
    COMPUTE: tl.constexpr, PRECISION: tl.constexpr, LOW: tl.constexpr,
):  # fmt: skip
    """upstream scale / 2 B G of the texts start..stop, [stop - start, B] in rows of `stride`; without `upstream` G.

    `along`: of each tile the sum of G S, as that of G (S - m) + m G, of which less cancels.  The y may be left out:
    registers are short in large tiles.
    """
    tile_m, tile_n = grouped(tl.program_id(0), tl.cdiv(stop - start, BM), tl.cdiv(B, BN), GROUP)
    t = tile_m * BM + tl.arange(0, BM)
    j = start + t
    i = tile_n * BN + tl.arange(0, BN)
    own = first + j
    logit = dots(texts, images, j, i, b, B, D, BM, BN, BD, COMPUTE, PRECISION) * tl.load(scale)
    there = j < stop
    pair = i[None, :] == own[:, None]
    others = there[:, None] & (i < B)[None, :] & ~pair
    if same is not None:
        image_i = tl.load(same + i, mask=i < B, other=-1)
        image_j = tl.load(same + own, mask=there, other=-2)
        others &= image_i[None, :] != image_j[:, None]
    logit = tl.where(others, logit, LOW)
    by_image = tl.exp(logit - tl.load(row_x + i, mask=i < B, other=0.0)[None, :])
    by_text = tl.exp(logit - tl.load(column_x + j, mask=there, other=0.0)[:, None])
    if row_y is not None:
        by_image *= tl.load(row_y + i, mask=i < B, other=0.0)[None, :]
        by_text *= tl.load(column_y + j, mask=there, other=0.0)[:, None]
    value = by_image + by_text
    of_pair = tl.load(g_pair + j, mask=there, other=0.0)
    m = tl.load(matched + own, mask=there, other=0.0)
    beside = tl.sum(value, 1) + tl.where(own // BN == tile_n, of_pair, 0.0)
    tl.store(along + tl.program_id(0), tl.sum(tl.sum(value * (logit - m[:, None]), 1) + m * beside, 0))
    value = tl.where(pair, of_pair[:, None], value)
    if upstream is not None:
        value *= tl.load(upstream) * tl.load(scale) / (2.0 * B)
    place = t.to(tl.int64)[:, None] * stride + i[None, :]
    tl.store(gradient + place, value.to(gradient.dtype.element_ty), mask=there[:, None] & (i < B)[None, :])


@triton.jit
def _scale_gradient(along, upstream, out, tiles, B, BLOCK: tl.constexpr):
    """Of the logarithm of the scale: the sum of all G S."""
    tl.store(out, (summed(along, tiles, BLOCK) * tl.load(upstream) / (2.0 * B)).to(tl.float32))


class _ClipLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, images, texts, log_scale, first, all_sum, all_max, same, chunk, forced):
        ctx.dtype, dtype = texts.dtype, compute_dtype(texts)
        images, texts, scale = images.to(dtype).contiguous(), texts.to(dtype).contiguous(), log_scale.float().exp()
        (B, D), b = images.shape, len(texts)
        new = lambda *shape: torch.empty(shape, dtype=torch.float32, device=texts.device)  # noqa: E731
        launch = {**launch_options("clip_forward", texts.device, D, B, dtype, same is not None), **forced}
        rows, columns = triton.cdiv(B, launch["BM"]), triton.cdiv(b, launch["BN"])
        partials, matched = (*new(2, columns, B), *new(2, rows, b)), new(b)
        _forward[(rows * columns,)](images, texts, scale, same, *partials, matched, first, B, b, LOW=LOW, **launch)
        own_top, shared, (column_top, column_sum) = new(B), new(2, B), new(2, b)
        _join[(triton.cdiv(B, JOINED), 2)](
            *partials, matched, own_top, shared, column_top, column_sum, first, B, b, rows, columns, JOINED, LOW,
            num_warps=2,
        )  # fmt: skip
        del partials
        row_top = all_max(own_top)
        if row_top is not own_top:  # other ranks have other tops
            shared[0] *= (own_top - row_top).exp()
        shared = all_sum(shared)
        ctx.folded = dtype.itemsize == 2
        softmax, g_pair, loss = (*new(2, B), *new(2, b)), new(b), new()
        _pairs[(1,)](
            row_top, shared, column_top, column_sum, *softmax, g_pair, loss, first, B, b, PAIRS, ctx.folded, num_warps=8
        )
        ctx.save_for_backward(images, texts, scale, same, shared[1], *softmax, g_pair)
        ctx.first, ctx.chunk, ctx.forced = first, chunk, forced
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream):
        images, texts, scale, same, matched, *softmax, g_pair = ctx.saved_tensors
        if ctx.folded:
            softmax[1] = softmax[3] = None
        (B, D), b, dtype, device = images.shape, len(texts), texts.dtype, texts.device
        launch = {**launch_options("clip_backward", device, D, B, dtype), **ctx.forced}
        BM, stride = launch["BM"], triton.cdiv(B, 16) * 16
        chunk = ctx.chunk or texts_at_once(b, D, stride * dtype.itemsize, BM)
        tile = torch.empty(min(chunk, b), stride, dtype=dtype, device=device)
        g_texts = torch.empty(b, D, dtype=torch.float32, device=device)
        across = triton.cdiv(B, launch["BN"])
        along = torch.empty(triton.cdiv(b, BM) * across, dtype=torch.float32, device=device)
        small = dtype == torch.float16  # where a gradient of 1e-6 would vanish: there it is scaled afterwards
        for start in range(0, b, chunk):
            stop = min(start + chunk, b)
            _backward[(triton.cdiv(stop - start, BM) * across,)](
                images, texts, scale, same, matched, *softmax, g_pair, None if small else upstream, tile,
                along[start // BM * across :], stride, ctx.first, start, stop, B, b, LOW=LOW, **launch,
            )  # fmt: skip
            precise(tile[: stop - start, :B], images, g_texts[start:stop])
        if small:
            g_texts *= upstream * scale / (2 * B)
        g_scale = None
        if ctx.needs_input_grad[2]:
            g_scale = torch.empty_like(scale)
            _scale_gradient[(1,)](along, upstream, g_scale, len(along), B, PAIRS, num_warps=8)
        return None, g_texts.to(ctx.dtype), g_scale, *[None] * 6


def texts_at_once(b, D, size, BM):
    """How many texts, of `size` bytes a row of the tile, a part of the backward pass has: equal parts, few of them."""
    most = max(1, (HELD - 6 * b * D) // (size * BM)) * BM
    return triton.cdiv(triton.cdiv(b, triton.cdiv(b, most)), BM) * BM


def clip_loss(
    images, texts, log_scale, first=0, all_sum=identity, all_max=identity, same=None, *, chunk=None, **forced
):
    """reference.clip_loss on a GPU: float32.

    `chunk` (texts of one backward tile, a multiple of BM) and launch options (BM=, BN=, num_warps=, ...) are for tests
    and tuning.
    """
    if (dtype := compute_dtype(texts)) == torch.float64:
        return chunked_losses.clip_loss(images.to(dtype), texts, log_scale, first, all_sum, all_max, same)
    if same is not None:  # any 64-bit numbers, as numbers below B: where each stands first in their sorted list
        same = torch.searchsorted(same.sort().values, same).int()
    return _ClipLoss.apply(images, texts, log_scale, first, all_sum, all_max, same, chunk, forced)


def aot_cases():
    """The kernels of this file as configs.AotCase."""
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        for D in (768, 1000):
            for same, constants in (("alone", {"same": None}), ("same", {})):
                yield from product_cases(f"clip_forward-{same}", _forward, dtype, D, constants)
                if dtype.itemsize == 2:
                    constants = constants | {"row_y": None, "column_y": None}
                yield from product_cases(f"clip_backward-{same}", _backward, dtype, D, constants)
    integers = dict.fromkeys(("first", "B", "b", "rows", "columns", "tiles"), "i32")
    for name, kernel, constants, warps in (
        ("clip_join", _join, {"BLOCK": JOINED, "LOW": LOW}, 2),
        ("clip_pairs-folded", _pairs, {"BLOCK": PAIRS, "FOLDED": True}, 8),
        ("clip_pairs", _pairs, {"BLOCK": PAIRS, "FOLDED": False}, 8),
        ("clip_scale", _scale_gradient, {"BLOCK": PAIRS}, 8),
    ):
        types = dict.fromkeys(kernel.arg_names, "*fp32") | integers
        types = {k: t for k, t in types.items() if k in kernel.arg_names}
        budgets = dict.fromkeys((80, 90, 100), Budget(128, 16 * 1024))
        yield AotCase(name, kernel, types, constants, {"num_warps": warps}, budgets)
