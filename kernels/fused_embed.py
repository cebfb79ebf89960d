"""The beginning of a transformer on packed captions, in Triton: word, place and norm in one pass.

    x_t = words[index_t] + places[p_t]        p_t: how many tokens of its caption are before t; 0 in free slots
    out_t = norm(x_t)

A program finds the places of its tokens from the row they are in, which is short.  Going back, the norm's gradient is
fused_block.py's, and that of the tables PyTorch's sum by sorted rows, in a fixed order.

Sizes: R rows of L tokens, T = R L, W channels.
"""

import torch
import triton
import triton.language as tl

from fastzss.kernels.configs import AotCase, Budget, short
from fastzss.kernels.fused_block import empty_sums, norm_of, norm_tiles, residual_norm_gradients
from fastzss.kernels.products import compute_dtype


@triton.jit
def _embed_norm(
    words, places, index, segment, gain, shift, stream, out, place, T, L: tl.constexpr, W: tl.constexpr,
    BT: tl.constexpr, BL: tl.constexpr, BW: tl.constexpr, EPS: tl.constexpr,
):  # fmt: skip
    t = tl.program_id(0) * BT + tl.arange(0, BT)
    i = t % L
    j = tl.arange(0, BL)
    so_far = (t < T)[:, None] & (j[None, :] <= i[:, None])  # [BT, BL] of the row
    row = segment + (t - i)[:, None] + j[None, :]
    own = tl.load(row, mask=so_far, other=-1)
    before = tl.load(row - 1, mask=so_far & (j > 0)[None, :], other=-1)
    begin = tl.max(tl.where(so_far & (own != before), j[None, :], 0), 1)
    caption = tl.load(segment + t, mask=t < T, other=-1)
    p = tl.where(caption >= 0, i - begin, 0)
    tl.store(place + t, p, mask=t < T)
    w = tl.arange(0, BW)
    inside = (t < T)[:, None] & (w < W)[None, :]
    word = tl.load(index + t, mask=t < T, other=0).to(tl.int64)
    total = tl.load(words + word[:, None] * W + w[None, :], mask=inside, other=0.0).to(tl.float32)
    total += tl.load(places + p[:, None] * W + w[None, :], mask=inside, other=0.0).to(tl.float32)
    total = total.to(stream.dtype.element_ty).to(tl.float32)  # as the backward pass will find it
    at = t.to(tl.int64)[:, None] * W + w[None, :]
    tl.store(stream + at, total.to(stream.dtype.element_ty), mask=inside)
    normal = norm_of(total, gain, shift, inside, w, W, EPS)
    tl.store(out + at, normal.to(out.dtype.element_ty), mask=inside)


def tiles_of(L, W):
    return {"L": L, "BL": triton.next_power_of_2(L), **norm_tiles(W)}


class _EmbedNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, words, places, index, segment, gain, shift, dtype):
        ctx.set_materialize_grads(False)
        (R, L), W = index.shape, words.shape[1]
        stream = torch.empty(R, L, W, dtype=words.dtype, device=words.device)
        out, place = torch.empty_like(stream, dtype=dtype), torch.empty_like(segment)
        if R * L:
            tiles = tiles_of(L, W)
            arguments = words, places, index, segment, gain, shift, stream, out, place, R * L
            _embed_norm[(triton.cdiv(R * L, tiles["BT"]),)](*arguments, **tiles, num_warps=4)
        ctx.save_for_backward(stream, gain, index, place)
        ctx.tables, ctx.dtype = (len(words), len(places)), shift.dtype
        return stream, out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, residual, upstream):
        stream, gain, index, place = ctx.saved_tensors
        residual, upstream = (None if g is None else g.contiguous() for g in (residual, upstream))
        sums = empty_sums(place.numel(), 3, stream.shape[-1], device=stream.device)
        g, _ = residual_norm_gradients(stream, gain, upstream, residual, sums)
        _, g_gain, g_shift = sums.sum(0)
        tables = [
            torch.ops.aten.embedding_dense_backward(g, rows, count, -1, False) if wanted else None
            for rows, count, wanted in zip((index, place), ctx.tables, ctx.needs_input_grad, strict=False)
        ]
        return *tables, None, None, g_gain.to(gain.dtype), g_shift.to(ctx.dtype), None


def embed_norm(words, places, index, segment, gain, shift):
    """See reference_tower.embed_norm; the second result is of the dtype in which products are computed."""
    tables, rows = (words.contiguous(), places.contiguous()), (index.contiguous(), segment.int().contiguous())
    return _EmbedNorm.apply(*tables, *rows, gain, shift, compute_dtype(words))


def aot_cases():
    """The kernel of this file as configs.AotCase."""
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        types = dict.fromkeys(("words", "places", "gain", "shift", "stream"), "*fp32") | {"out": f"*{short(dtype)}"}
        types |= {"index": "*i32", "segment": "*i32", "place": "*i32", "T": "i32"}
        for L, W in ((64, 512), (128, 512), (64, 384), (64, 1024)):
            yield AotCase(
                f"embed_norm-{short(dtype)}-L{L}-W{W}",
                _embed_norm,
                types,
                tiles_of(L, W),
                {"num_warps": 4},
                dict.fromkeys((80, 90, 100), Budget(160, 16 * 1024)),
            )
