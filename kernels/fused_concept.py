"""Cross-entropy of pooled vectors over the present classes, in Triton: no [M, K] matrix going forward.

With logits z_mk = <row_m, class_k>, row_m = scale unit(pooled_m), a target y, and a sum over present k != y,

    others_m = log sum_k exp(z_mk)      own_m = z_my
    loss     = sum_m weight_m softplus(others_m - own_m) / sum_m weight_m

which is the cross-entropy, written so that neither a loss near zero nor its gradient cancels: with one present class
both are exactly 0.  The backward pass forms, for some rows at a time, the gradient of the logits

    G_mk = weight_m exp(z_mk) / (exp(others_m) + exp(own_m))      G_my = - weight_m sigmoid(others_m - own_m)

times g / sum_m weight_m in the compute dtype, and leaves G classes and G^T rows to matrix products.

Sizes: R rows (mentions), K classes, D channels.
"""

import torch
import triton
import triton.language as tl

from fastzss.kernels import chunked_losses
from fastzss.kernels.configs import AotCase, Budget
from fastzss.kernels.fused_used import unit_backward, unit_forward
from fastzss.kernels.products import (
    LOW,
    compute_dtype,
    dots,
    launch_options,
    precise,
    product_cases,
    softplus,
    summed,
)
from fastzss.kernels.reference import identity

CHUNK_BYTES = 64 << 20  # of one backward tile [rows, classes]


@triton.jit
def _forward(
    rows, classes, present, weight, label, loss, tops, slopes, wrong, R, K,
    D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr, COMPUTE: tl.constexpr,
    PRECISION: tl.constexpr, LOW: tl.constexpr, ARGMAX: tl.constexpr,
):  # fmt: skip
    """Of each row its loss, and of its gradient: slope exp(z - top) at the others, - wrong at the target.

    With ARGMAX the target is the largest logit, the first of equal ones; it is written to `label`.
    """
    r = tl.program_id(0) * BM + tl.arange(0, BM)
    top = tl.full([BM], LOW, tl.float32)
    total = tl.zeros([BM], tl.float32)  # of exp(z - top); with ARGMAX without the top itself
    best = tl.zeros([BM], tl.int32)
    match = tl.zeros([BM], tl.float32)
    if not ARGMAX:
        best = tl.load(label + r, mask=r < R, other=0).to(tl.int32)
    for start in range(0, K, BN):
        k = start + tl.arange(0, BN)
        logit = dots(rows, classes, r, k, R, K, D, BM, BN, BD, COMPUTE, PRECISION)
        candidate = (tl.load(present + k, mask=k < K, other=0) != 0)[None, :]
        logit = tl.where(candidate, logit, LOW)
        if ARGMAX:
            peak = tl.max(logit, 1)
            where = start + tl.argmax(logit, 1)
            rest = tl.sum(tl.where(k[None, :] == where[:, None], 0.0, tl.exp(logit - peak[:, None])), 1)
            higher = peak > top
            falling = tl.exp(tl.minimum(top, peak) - tl.maximum(top, peak))
            total = tl.where(higher, rest + (total + 1) * falling, total + (rest + 1) * falling)
            best = tl.where(higher, where, best)
            top = tl.maximum(top, peak)
        else:
            target = k[None, :] == best[:, None]
            match += tl.sum(tl.where(target, logit, 0.0), 1)
            logit = tl.where(target, LOW, logit)
            higher = tl.maximum(top, tl.max(logit, 1))
            total = total * tl.exp(top - higher) + tl.sum(tl.exp(logit - higher[:, None]), 1)
            top = higher
    if ARGMAX:
        tl.store(label + r, best.to(tl.int64), mask=r < R)
        match = top
    w = tl.load(weight + r, mask=r < R, other=0.0)
    slope = w / (total + tl.exp(match - top))
    tl.store(loss + r, w * softplus(tl.log(total) + (top - match)), mask=r < R)
    tl.store(tops + r, top, mask=r < R)
    tl.store(slopes + r, slope, mask=r < R)
    tl.store(wrong + r, slope * total, mask=r < R)


@triton.jit
def _mean(losses, total, out, R, BLOCK: tl.constexpr):
    """Sum of the losses over `total`; zero where that is."""
    whole = tl.load(total)
    tl.store(out, (summed(losses, R, BLOCK) / tl.where(whole > 0, whole, 1.0)).to(tl.float32))


@triton.jit(do_not_specialize=["start", "stop"])
def _backward(
    rows, classes, present, label, tops, slopes, wrong, upstream, total, gradient, stride, start, stop, R, K,
    D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr, COMPUTE: tl.constexpr,
    PRECISION: tl.constexpr, LOW: tl.constexpr,
):  # fmt: skip
    """upstream / total G of the rows start..stop, in rows of `stride`; without an `upstream` of 1."""
    place = tl.program_id(0) * BM + tl.arange(0, BM)
    r = start + place
    k = tl.program_id(1) * BN + tl.arange(0, BN)
    there = r < stop
    logit = dots(rows, classes, r, k, R, K, D, BM, BN, BD, COMPUTE, PRECISION)
    candidate = (tl.load(present + k, mask=k < K, other=0) != 0)[None, :]
    target = k[None, :] == tl.load(label + r, mask=there, other=-1).to(tl.int32)[:, None]
    candidate &= ~target
    factor = tl.load(total)
    factor = 1 / tl.where(factor > 0, factor, 1.0)
    if upstream is not None:
        factor *= tl.load(upstream)
    slope = tl.load(slopes + r, mask=there, other=0.0) * factor
    g_y = -tl.load(wrong + r, mask=there, other=0.0) * factor
    logit = tl.where(candidate, logit, LOW) - tl.load(tops + r, mask=there, other=0.0)[:, None]
    value = tl.where(candidate, slope[:, None] * tl.exp(logit), 0.0) + tl.where(target, g_y[:, None], 0.0)
    at = gradient + place.to(tl.int64)[:, None] * stride + k[None, :]
    tl.store(at, value.to(gradient.dtype.element_ty), mask=there[:, None] & (k < K)[None, :])


def cross_entropy(rows, classes, present, name, weight, total, argmax, forced=None):
    """(loss, what `slopes` needs of each row): rows [R, D] and classes [K, D] are of the compute dtype."""
    (R, D), K = rows.shape, len(classes)
    launch = launch_options("concept_forward", rows.device, D, R, rows.dtype) | (forced or {})
    launch.pop("GROUP")
    losses, *parts = torch.empty(4, R, dtype=torch.float32, device=rows.device)
    label = torch.empty_like(name) if argmax else name
    _forward[(triton.cdiv(R, launch["BM"]),)](
        rows, classes, present, weight, label, losses, *parts, R, K, LOW=LOW, ARGMAX=argmax, **launch
    )
    loss = torch.empty((), dtype=torch.float32, device=rows.device)
    _mean[(1,)](losses, total, loss, R, BLOCK=1024, num_warps=8)
    return loss, (label, *parts)


def slopes(upstream, rows, classes, present, weight, total, parts, chunk=None, forced=None):
    """Gradients of rows and classes, float32."""
    (R, D), K, dtype, device = rows.shape, len(classes), rows.dtype, rows.device
    launch = launch_options("concept_backward", device, D, R, dtype) | (forced or {})
    launch.pop("GROUP")
    stride = triton.cdiv(K, 16) * 16
    chunk = chunk or max(launch["BM"], CHUNK_BYTES // (stride * dtype.itemsize))
    small = dtype == torch.float16  # where a gradient of 1e-6 would vanish: there it is scaled afterwards
    divisor = weight.amax() if small else total
    tile = torch.empty(min(chunk, R), stride, dtype=dtype, device=device)
    g_rows, g_classes = (torch.empty(t.shape, dtype=torch.float32, device=device) for t in (rows, classes))
    for start in range(0, R, chunk):
        stop = min(start + chunk, R)
        _backward[(triton.cdiv(stop - start, launch["BM"]), triton.cdiv(K, launch["BN"]))](
            rows, classes, present, *parts, None if small else upstream, divisor, tile, stride,
            start, stop, R, K, LOW=LOW, **launch,
        )  # fmt: skip
        part = tile[: stop - start, :K]
        precise(part, classes, g_rows[start:stop])
        if start == 0:
            precise(part.T, rows[:stop], g_classes)
        else:
            g_classes += precise(part.T, rows[start:stop])
    if small:
        factor = upstream * divisor / torch.where(total > 0, total, 1.0)
        g_rows, g_classes = g_rows.mul_(factor), g_classes.mul_(factor)
    return g_rows, g_classes


class _ConceptLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, pooled, classes, scale, present, name, weight, total, argmax, chunk, forced):
        ctx.dtype, dtype = classes.dtype, compute_dtype(classes)
        rows, length = unit_forward(pooled, scale, dtype)
        classes = classes.to(dtype).contiguous()
        loss, parts = cross_entropy(rows, classes, present, name, weight, total, argmax, forced)
        ctx.save_for_backward(pooled, length, rows, classes, present, weight, total, *parts)
        ctx.scale, ctx.chunk, ctx.forced = scale, chunk, forced
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream):
        pooled, length, rows, classes, present, weight, total, *parts = ctx.saved_tensors
        g_rows, g_classes = slopes(upstream, rows, classes, present, weight, total, parts, ctx.chunk, ctx.forced)
        return unit_backward(pooled, length, g_rows, ctx.scale), g_classes.to(ctx.dtype), *[None] * 8


def concept_loss(
    pooled, classes, present, name, weight, scale, target="label", all_sum=identity, *, chunk=None, **forced
):
    """reference.concept_loss on a GPU: float32, and nothing waits for the device.

    `chunk` (rows of one backward tile) and launch options (BM=, BN=, num_warps=, ...) are for tests and tuning.
    """
    if target not in ("label", "argmax"):
        raise ValueError(f'concept_loss: target is {target!r}; expected "label" or "argmax"')
    dtype = compute_dtype(classes)
    if dtype == torch.float64:
        return chunked_losses.concept_loss(pooled.to(dtype), classes, present, name, weight, scale, target, all_sum)
    weight = weight.float().contiguous()
    total = all_sum(weight.sum().detach())
    if len(name) == 0:  # nothing to learn here, yet the graph stays whole on every rank
        return 0.0 * (classes.float().sum() + pooled.float().sum())
    if torch.is_tensor(scale):  # one that may learn: the same logits
        classes, scale = classes.float() * scale.float(), 1.0
    return _ConceptLoss.apply(
        pooled, classes, float(scale), present.contiguous(), name.long().contiguous(), weight, total,
        target == "argmax", chunk, forced,
    )  # fmt: skip


def aot_cases():
    """The kernels of this file as configs.AotCase."""
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        for D in (768, 1000):
            for target in ("label", "argmax"):
                constants = {"ARGMAX": target == "argmax"}
                yield from product_cases(f"concept_forward-{target}", _forward, dtype, D, constants)
            yield from product_cases("concept_backward", _backward, dtype, D, {})
    types = dict.fromkeys(("losses", "total", "out"), "*fp32") | {"R": "i32"}
    budgets = dict.fromkeys((80, 90, 100), Budget(128, 16 * 1024))
    yield AotCase("concept_mean", _mean, types, {"BLOCK": 1024}, {"num_warps": 8}, budgets)
