"""The whole local loss of an image in one program, gradient included: pool, normalise, classify, and back.

    x_m = pooled patches of mention m (fused_pool.py)      u = x / |x|
    z_k = scale <u, W_k>      over the present classes k   p = softmax(z)      y = the mention's class, or the largest z
    loss = sum_m weight_m (log sum_k exp z_k - z_y) / sum_m weight_m

The class vectors W are known before anything is pooled, so the gradient of x,

    g_u = scale (sum_k p_k W_k - W_y)      g_x = (g_u - <g_u, u> u) / |x|

is at hand as soon as the last patch and the last class have been seen, while the patches still lie in the L2 cache: the
second walk over them, for the gradient of the query, needs no second read from memory.  sum_k p_k W_k is an online
softmax over tiles of classes, like the pooling itself.  The classes' own gradient, scale sum_m (p - onehot)_m u_m, is a
matrix product over the whole batch, and left to it: the kernel writes u and z.

Every program reads all the class vectors from the L2 cache, so this pays only where they are few against the patches of
an image.  concept_pool and concept_loss are the default; FASTZSS_FUSED_STEP=1 chooses this kernel.

Sizes: as in fused_pool.py.
"""

import math
import os

import torch
import triton
import triton.language as tl

from fastzss.kernels import chunked
from fastzss.kernels.configs import Budget, options
from fastzss.kernels.fused_pool import (
    MENTIONS,
    STORAGES,
    attend,
    channel_row,
    channel_rows,
    concept_pool,
    fits,
    groups,
    launch_options,
    patch_scales,
    patch_tile,
    pool_case,
    query_chunk,
    store_rows,
    stored,
    sum_by_class,
)
from fastzss.kernels.reference import identity


@triton.jit
def _step(
    tokens, scale, mean, std, classes, candidates, present, name, row, order, first,
    units, logits, lse, best, gradient, image_stride, patch_stride, scale_stride, sharpness, logit_scale, inverse_temperature, K,
    N: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, DC: tl.constexpr,
    CHUNKS: tl.constexpr, COMPUTE: tl.constexpr, TMA: tl.constexpr, LEAN: tl.constexpr, ARGMAX: tl.constexpr,
):  # fmt: skip
    begin = tl.load(first + tl.program_id(0))
    end = tl.load(first + tl.program_id(0) + 1)
    if begin < end:
        slot = begin + tl.arange(0, BM)
        real = slot < end
        m = tl.load(order + slot, mask=real, other=0)
        image = tl.load(row + tl.load(order + begin))
        own = tl.load(name + m, mask=real, other=0)

        # pool and normalise
        sums, log_total = attend(
            tokens, scale, std, classes, image, own, m, real, None, image_stride, patch_stride, scale_stride, sharpness,
            N, D, BM, BN, DC, CHUNKS, COMPUTE, TMA, LEAN,
        )  # fmt: skip
        square = tl.zeros([BM], tl.float32)
        delta = tl.zeros([BM], tl.float32)
        x = ()
        for c in tl.static_range(CHUNKS):
            part = sums[c]
            if std is not None:
                part = channel_row(mean, c, D, DC) + channel_row(std, c, D, DC) * part
            x = x + (part,)
            square += tl.sum(part * part, 1)
        length = tl.maximum(tl.sqrt(square), 1e-12)
        u = ()
        for c in tl.static_range(CHUNKS):
            unit_chunk = x[c] / length[:, None]
            store_rows(units, m, real, c, D, DC, unit_chunk)
            u = u + (unit_chunk.to(COMPUTE),)

        # classify: the expected class vector under the softmax, in base 2
        top = tl.full([BM], -1e30, tl.float32)
        total = tl.zeros([BM], tl.float32)
        expected = ()
        for _ in tl.static_range(CHUNKS):
            expected = expected + (tl.zeros([BM, DC], tl.float32),)
        target = own
        for start in tl.range(0, K, BK, num_stages=1):
            k = start + tl.arange(0, BK)
            there = tl.load(present + k, mask=k < K, other=0) != 0
            z = tl.zeros([BM, BK], tl.float32)
            for c in tl.static_range(CHUNKS):
                d = c * DC + tl.arange(0, DC)
                inside = (k[:, None] < K) & (d[None, :] < D)
                w = tl.load(candidates + k[:, None] * D + d[None, :], mask=inside, other=0)
                z = tl.dot(u[c], tl.trans(w), z, input_precision="ieee")
            z = tl.where(there[None, :], z * logit_scale, -1e30)
            tl.store(logits + m[:, None] * K + k[None, :], z, mask=real[:, None] & (k[None, :] < K))
            here = tl.max(z, 1)
            if ARGMAX:
                target = tl.where(here > top, start + tl.argmax(z, 1), target)
            higher = tl.maximum(top, here)
            shrink = tl.exp2(top - higher)
            top = higher
            p = tl.where(there[None, :], tl.exp2(z - top[:, None]), 0.0)
            total = total * shrink + tl.sum(p, 1)
            grown = ()
            for c in tl.static_range(CHUNKS):
                d = c * DC + tl.arange(0, DC)
                inside = (k[:, None] < K) & (d[None, :] < D)
                w = tl.load(candidates + k[:, None] * D + d[None, :], mask=inside, other=0)
                part = expected[c] * shrink[:, None]
                grown = grown + (tl.dot(p.to(COMPUTE), w, part, input_precision="ieee"),)
            expected = grown
        tl.store(lse + m, top + tl.log2(total), mask=real)
        tl.store(best + m, target.to(tl.int64), mask=real)

        # gradient of x, of a loss that is log sum exp(z) - z_y over the logit scale
        along = tl.zeros([BM], tl.float32)
        towards = ()
        for c in tl.static_range(CHUNKS):
            g = expected[c] / total[:, None] - channel_rows(candidates, target, real, c, D, DC)
            towards = towards + (g,)
            along += tl.sum(g * u[c].to(tl.float32), 1)
        biggest = tl.zeros([BM], tl.float32)
        wide = ()
        for c in tl.static_range(CHUNKS):
            g = (towards[c] - along[:, None] * u[c].to(tl.float32)) / length[:, None]
            shift = u[c].to(tl.float32) * length[:, None]
            if std is not None:
                shift -= channel_row(mean, c, D, DC)
            delta += tl.sum(g * shift, 1)
            if std is not None:
                g *= channel_row(std, c, D, DC)
            wide = wide + (g,)
            biggest = tl.maximum(biggest, tl.max(tl.abs(g), 1))
        unit = tl.where(biggest > 0, biggest, 1.0)
        delta = delta / unit
        narrow = ()
        for c in tl.static_range(CHUNKS):
            narrow = narrow + ((wide[c] / unit[:, None]).to(COMPUTE),)

        # the second walk: scores again, then the gradient of the query
        back = ()
        for _ in tl.static_range(CHUNKS):
            back = back + (tl.zeros([BM, DC], tl.float32),)
        for start in tl.range(0, N, BN):
            score = tl.zeros([BM, BN], tl.float32)
            slope = tl.zeros([BM, BN], tl.float32)
            for c in tl.static_range(CHUNKS):
                tile = patch_tile(tokens, image, start, c, image_stride, patch_stride, N, D, BN, DC, TMA).to(COMPUTE)
                query = query_chunk(classes, std, own, real, sharpness, c, D, DC, COMPUTE)
                score = tl.dot(query, tl.trans(tile), score, input_precision="ieee")
                slope = tl.dot(narrow[c], tl.trans(tile), slope, input_precision="ieee")
            n = start + tl.arange(0, BN)[None, :]
            if scale is not None:
                sigma = patch_scales(scale, image, start, scale_stride, N, BN)
                attention = tl.exp2(score * sigma - log_total[:, None])
                e = attention * (slope * sigma - delta[:, None]) * sigma
            else:
                e = tl.exp2(score - log_total[:, None]) * (slope - delta[:, None])
            if N % BN != 0:
                e = tl.where(n < N, e, 0.0)
            grown = ()
            for c in tl.static_range(CHUNKS):
                tile = patch_tile(tokens, image, start, c, image_stride, patch_stride, N, D, BN, DC, TMA).to(COMPUTE)
                grown = grown + (tl.dot(e.to(COMPUTE), tile, back[c], input_precision="ieee"),)
            back = grown
        for c in tl.static_range(CHUNKS):
            grad = back[c] * (unit * inverse_temperature)[:, None]
            if std is not None:
                grad *= channel_row(std, c, D, DC)
            store_rows(gradient, m, real, c, D, DC, grad)


@triton.jit
def _slopes(logits, lse, best, weight, K, BK: tl.constexpr):
    """In place: base-2 logits of a mention -> weight (softmax - onehot)."""
    m = tl.program_id(0).to(tl.int64)
    k = tl.program_id(1) * BK + tl.arange(0, BK)
    p = tl.exp2(tl.load(logits + m * K + k, mask=k < K, other=-1e30) - tl.load(lse + m))
    p = tl.where(k == tl.load(best + m), p - 1, p)
    tl.store(logits + m * K + k, p * tl.load(weight + m), mask=k < K)


class _Step(torch.autograd.Function):
    """Sum of weighted losses; the gradient is made on the way forward and only scaled on the way back."""

    @staticmethod
    def forward(ctx, classes, tokens, scale, mean, std, row, name, present, weight, knobs):
        temperature, logit_scale, target, group, forced = knobs
        M, (K, D), N, device = len(row), classes.shape, tokens.shape[1], classes.device
        if M == 0:
            ctx.save_for_backward(torch.zeros_like(classes))
            return torch.zeros((), dtype=torch.float32, device=device)
        name, row, weight = name.long(), row.long(), weight.float().contiguous()
        order, first = groups(row, group)
        new = lambda *shape, dtype=torch.float32: torch.empty(shape, dtype=dtype, device=device)  # noqa: E731
        units, gradient, logits, lse, best = new(M, D), new(M, D), new(M, K), new(M), new(M, dtype=torch.long)
        launch = {**launch_options("step", device, tokens.dtype, N, D), "BK": 32, **forced}
        if tokens.dtype == torch.float32:
            launch["BK"] = 16
        held, strides, launch["TMA"] = stored(
            (tokens, scale, mean, std), (launch["BN"], launch["DC"]), launch["TMA"]
        )
        classes = classes.contiguous()
        candidates = classes.to(torch.float16 if launch["COMPUTE"] == tl.float16 else torch.float32)
        base = math.log2(math.e)
        _step[(M,)](
            *held, classes, candidates, present.contiguous(), name, row, order, first, units, logits, lse, best, gradient,
            *strides, base / temperature, base * logit_scale, 1 / temperature, K,
            N, D, LEAN=tokens.dtype == torch.float32, ARGMAX=target == "argmax", **launch,
        )  # fmt: skip
        matched = logits.gather(1, best.unsqueeze(1)).squeeze(1)
        loss = ((lse - matched) * weight).sum() * math.log(2)
        if ctx.needs_input_grad[0]:
            _slopes[(M, triton.cdiv(K, 1024))](logits, lse, best, weight, K, BK=1024, num_warps=4)
            total = logits.T @ units
            total += sum_by_class(gradient * weight.unsqueeze(1), name, K)
            ctx.save_for_backward((total * logit_scale).to(classes.dtype))
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream):
        return ctx.saved_tensors[0] * upstream.to(ctx.saved_tensors[0].dtype), *[None] * 9


def local_loss(
    classes, patches, row, name, present, weight, *, temperature, scale, target="label", all_sum=identity,
    fused=None, group=MENTIONS, **forced,
):  # fmt: skip
    """reference.local_loss on a GPU: in one kernel if `fused` (FASTZSS_FUSED_STEP=1 when left out), else in two.

    `group` and further launch options are for tests and tuning.
    """
    fused = os.environ.get("FASTZSS_FUSED_STEP") == "1" if fused is None else fused
    if not fits(patches, classes.device):
        return chunked.local_loss(
            classes, patches, row, name, present, weight,
            temperature=temperature, scale=scale, target=target, all_sum=all_sum,
        )  # fmt: skip
    if not fused:
        from fastzss.kernels.fused_concept import concept_loss

        pooled = concept_pool(classes, patches, row, name, temperature, group=group, **forced)
        return concept_loss(pooled, classes, present, name, weight, scale, target, all_sum)
    total = all_sum(weight.float().sum().detach())
    knobs = (float(temperature), float(scale), target, group, forced)
    loss = _Step.apply(classes, *patches, row, name, present, weight, knobs)
    # a batch without a mention has the loss zero, and waits for nobody to say so
    return (loss / torch.where(total > 0, total, 1.0)).to(classes.dtype)


BUDGETS = {}


def aot_cases():
    """The fused step as configs.AotCase."""
    for storage in STORAGES:
        for D in (128, 192, 384, 768, 1024):
            for arch in (80, 90, 100):
                yield pool_case("step", _step, storage, 256, D, arch, BUDGETS, BK=16 if storage.itemsize == 4 else 32, ARGMAX=False)
