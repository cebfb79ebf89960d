"""The whole local loss of an image in one program, gradient included: pool, normalise, classify, and back.

    x_m = pooled patches of mention m (fused_pool.py)      u = x / |x|
    z_k = scale <u, W_k>      over the present classes k   p = softmax(z)      y = the mention's class, or the largest z
    loss = sum_m weight_m (log sum_k exp z_k - z_y) / sum_m weight_m

The class vectors W are known before anything is pooled, so the gradient of x,

    g_u = scale (sum_k p_k W_k - W_y)      g_x = (g_u - <g_u, u> u) / |x|

is at hand as soon as the last patch and the last class have been seen, while the patches still lie in the L2 cache: the
second walk over them, for the gradient of the query, needs no second read from memory, and no query, since the scores
of the first are kept.  sum_k p_k W_k is an online softmax over tiles of classes, like the pooling itself.  The classes'
own gradient, scale sum_m (p - onehot)_m u_m, is a matrix product over the whole batch, and left to it: the kernel
writes u and z.

Every program reads all the class vectors from the L2 cache, so this pays only where they are few against the patches of
an image.  The kernels of fused_local.py are the default; FASTZSS_FUSED_STEP=1 chooses this one.

Sizes: as in fused_pool.py.
"""

import math
import os

import torch
import triton
import triton.language as tl

from fastzss.kernels import chunked
from fastzss.kernels.configs import AotCase, Budget
from fastzss.kernels.fused_concept import concept_loss
from fastzss.kernels.fused_local import LocalLoss
from fastzss.kernels.fused_pool import Walk, concept_pool
from fastzss.kernels.fused_sums import sum_rows
from fastzss.kernels.lists import MENTIONS, mention_lists
from fastzss.kernels.patch_tiles import STORAGES, arguments, fits, launch_options, pool_case
from fastzss.kernels.patch_walk import (
    attend,
    channel_row,
    channel_rows,
    class_cosines,
    class_tile,
    power_of_two,
    retrace,
    store_rows,
)
from fastzss.kernels.reference import identity


@triton.jit
def _step(
    tokens, scale, mean, std, classes, candidates, present, name, row, order, first,
    scores, units, logits, behind, excesses, missed, tops, chosen, gradient,
    image_stride, patch_stride, scale_stride, sharpness, logit_scale, inverse_temperature, K,
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
        sums, pool_top, pool_total = attend(
            tokens, scale, std, classes, image, own, m, real, scores, image_stride, patch_stride, scale_stride,
            sharpness, N, D, BM, BN, DC, CHUNKS, COMPUTE, TMA, LEAN,
        )  # fmt: skip
        square = tl.zeros([BM], tl.float32)
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
            part = x[c] / length[:, None]
            store_rows(units, m, real, c, D, DC, part)
            u = u + (part.to(COMPUTE),)

        # classify: what the classes other than the target pull to under the softmax
        target = own
        if ARGMAX:
            best = tl.full([BM], -1e30, tl.float32)
            for start in tl.range(0, K, BK, num_stages=1):
                z = class_cosines(candidates, present, u, start, K, D, BM, BK, DC, CHUNKS)
                here = tl.max(z, 1)
                target = tl.where(here > best, (start + tl.argmax(z, 1)).to(tl.int64), target)
                best = tl.maximum(best, here)
        top = tl.full([BM], -1e30, tl.float32)
        matched = tl.zeros([BM], tl.float32)
        others = tl.zeros([BM], tl.float32)
        expected = ()
        for _ in tl.static_range(CHUNKS):
            expected = expected + (tl.zeros([BM, DC], tl.float32),)
        for start in tl.range(0, K, BK, num_stages=1):
            k = start + tl.arange(0, BK)
            z = class_cosines(candidates, present, u, start, K, D, BM, BK, DC, CHUNKS)
            tl.store(logits + m[:, None] * K + k[None, :], z, mask=real[:, None] & (k[None, :] < K))
            higher = tl.maximum(top, tl.max(z, 1))
            shrink = tl.exp2((top - higher) * logit_scale)
            top = higher
            mine = k[None, :] == target[:, None]
            matched += tl.sum(tl.where(mine, z, 0.0), 1)
            # the target stays out of the sums: (1 - p_y) W_y would drown the rest when p_y is nearly 1
            p = tl.where(mine | (z <= -1e30), 0.0, tl.exp2((z - top[:, None]) * logit_scale))
            others = others * shrink + tl.sum(p, 1)
            grown = ()
            for c in tl.static_range(CHUNKS):
                w = class_tile(candidates, start, c, K, D, BK, DC)
                part = expected[c] * shrink[:, None]
                grown = grown + (tl.dot(p.to(COMPUTE), w, part, input_precision="ieee"),)
            expected = grown
        excess = others + (tl.exp2((matched - top) * logit_scale) - 1)  # others, where the target has the largest logit
        total = 1 + excess
        tl.store(behind + m, top - matched, mask=real)
        tl.store(excesses + m, excess, mask=real)
        tl.store(missed + m, others / total, mask=real)
        tl.store(tops + m, top, mask=real)
        tl.store(chosen + m, target, mask=real)

        # gradient of x, of a loss that is log sum exp(z) - z_y over the logit scale
        tl.debug_barrier()  # the unit vectors written above are read again: the registers cannot hold them
        along = tl.zeros([BM], tl.float32)
        for c in tl.static_range(CHUNKS):
            g = (expected[c] - others[:, None] * channel_rows(candidates, target, real, c, D, DC)) / total[:, None]
            along += tl.sum(g * channel_rows(units, m, real, c, D, DC), 1)
        delta = tl.zeros([BM], tl.float32)
        biggest = tl.zeros([BM], tl.float32)
        wide = ()
        for c in tl.static_range(CHUNKS):
            tl.debug_barrier()  # one chunk at a time, or all are loaded at once and overflow the registers
            g = (expected[c] - others[:, None] * channel_rows(candidates, target, real, c, D, DC)) / total[:, None]
            part = channel_rows(units, m, real, c, D, DC)
            g = (g - along[:, None] * part) / length[:, None]
            part *= length[:, None]
            if std is not None:
                part -= channel_row(mean, c, D, DC)
            delta += tl.sum(g * part, 1)
            if std is not None:
                g *= channel_row(std, c, D, DC)
            wide = wide + (g,)
            biggest = tl.maximum(biggest, tl.max(tl.abs(g), 1))
        unit = power_of_two(biggest)
        delta = delta / unit
        narrow = ()
        for c in tl.static_range(CHUNKS):
            narrow = narrow + ((wide[c] / unit[:, None]).to(COMPUTE),)

        tl.debug_barrier()
        back, slack = retrace(
            tokens, scale, narrow, image, m, real, scores, pool_top, delta, image_stride, patch_stride, scale_stride,
            sharpness, N, D, BM, BN, DC, CHUNKS, COMPUTE, TMA,
        )  # fmt: skip
        for c in tl.static_range(CHUNKS):
            grad = back[c]
            part = channel_rows(units, m, real, c, D, DC) * length[:, None]
            if std is not None:
                grad *= channel_row(std, c, D, DC)
                part -= channel_row(mean, c, D, DC)
            grad = (grad - slack[:, None] * part) * (unit / pool_total * inverse_temperature)[:, None]
            store_rows(gradient, m, real, c, D, DC, grad)


@triton.jit
def _slopes(logits, tops, excesses, missed, chosen, weight, logit_scale, K, BK: tl.constexpr):
    """In place: cosines of a mention -> weight (softmax - onehot)."""
    m = tl.program_id(0).to(tl.int64)
    k = tl.program_id(1) * BK + tl.arange(0, BK)
    p = tl.exp2((tl.load(logits + m * K + k, mask=k < K, other=-1e30) - tl.load(tops + m)) * logit_scale)
    p /= 1 + tl.load(excesses + m)
    p = tl.where(k == tl.load(chosen + m), -tl.load(missed + m), p)
    tl.store(logits + m * K + k, p * tl.load(weight + m), mask=k < K)


class _Step(torch.autograd.Function):
    """Sum of weighted losses; the gradient is made on the way forward and only scaled on the way back."""

    @staticmethod
    def forward(ctx, classes, row, name, present, weight, walk, argmax):
        patches, temperature, lists, forced, logit_scale = walk
        M, (K, D), N, device = len(row), classes.shape, patches.tokens.shape[1], classes.device
        new = lambda *shape, dtype=torch.float32: torch.empty(shape, dtype=dtype, device=device)  # noqa: E731
        scores, units, gradient, logits = new(M, N), new(M, D), new(M, D), new(M, K)
        (behind, excesses, missed, tops), chosen = new(4, M), new(M, dtype=torch.long)
        launch = launch_options("step", patches.tokens, forced)
        held, strides = arguments(patches, launch)
        classes = classes.contiguous()
        candidates = classes.to(torch.float16 if launch["COMPUTE"] == tl.float16 else torch.float32)
        base = math.log2(math.e)
        _step[(M,)](
            *held, classes, candidates, present, name, row, *lists.image, scores, units, logits,
            behind, excesses, missed, tops, chosen, gradient,
            *strides, base / temperature, base * logit_scale, 1 / temperature, K,
            N, D, ARGMAX=argmax, **launch,
        )  # fmt: skip
        loss = ((logit_scale * behind + excesses.log1p()) * weight).sum()
        if ctx.needs_input_grad[0]:
            _slopes[(M, triton.cdiv(K, 1024))](
                logits, tops, excesses, missed, chosen, weight, base * logit_scale, K, BK=1024, num_warps=4
            )
            total = sum_rows(gradient * weight.unsqueeze(1), lists.name, more=logits.T @ units)
            ctx.save_for_backward((total * logit_scale).to(classes.dtype))
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream):
        return ctx.saved_tensors[0] * upstream.to(ctx.saved_tensors[0].dtype), *[None] * 6


def serves(storage, D):
    """Whether the registers hold it all."""
    return D <= (192 if storage == torch.float32 else 768)


def local_loss(
    classes, patches, row, name, present, weight, *, temperature, scale, target="label", all_sum=identity,
    lists=None, fused=None, group=MENTIONS, **forced,
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
    weight, present = weight.float().contiguous(), present.contiguous()
    total = all_sum(weight.sum().detach())
    if len(row) == 0:  # nothing to learn here, yet the graph stays whole on every rank
        return 0.0 * classes.float().sum()
    row, name = row.long().contiguous(), name.long().contiguous()
    lists = lists or mention_lists(row, name, len(classes), group)
    if torch.is_tensor(scale):  # one that may learn: the same logits
        pooled = concept_pool(classes, patches, row, name, temperature, lists, **forced)
        return concept_loss(pooled, classes, present, name, weight, scale, target, lambda _: total)
    walk = Walk(patches, float(temperature), lists, forced, float(scale))
    if fused and serves(patches.tokens.dtype, classes.shape[1]):
        loss = _Step.apply(classes, row, name, present, weight, walk, target == "argmax")
        return loss / torch.where(total > 0, total, 1.0)
    return LocalLoss.apply(classes, row, name, present, weight, total, walk, target == "argmax")


def aot_cases():
    """The fused step as configs.AotCase."""
    for storage in STORAGES:
        for D in (128, 192, 384, 768, 1024):
            for arch in (80, 90, 100):
                if serves(storage, D):
                    yield pool_case("step", _step, storage, 256, D, arch, ARGMAX=False)
    for arch in (80, 90, 100):
        case = pool_case("step", _step, torch.int8, 256, 768, arch, ARGMAX=True)
        yield case._replace(name=case.name.replace("step", "step_argmax"))
    types = dict.fromkeys(_slopes.arg_names, "*fp32") | dict(chosen="*i64", logit_scale="fp32", K="i32")
    budgets = dict.fromkeys((80, 90, 100), Budget(64, 1024))
    yield AotCase("slopes", _slopes, types, dict(BK=1024), dict(num_warps=4, num_stages=1), budgets)
