"""Cross-entropy of pooled vectors over the present classes, in Triton: no [M, K] matrix going forward.

With logits z_mk = <row_m, class_k>, row_m = scale unit(pooled_m), a target y, and a sum over present k != y,

    others_m = log sum_k exp(z_mk)      own_m = z_my
    loss     = sum_m weight_m softplus(others_m - own_m) / sum_m weight_m

which is the cross-entropy, written so that neither a loss near zero nor its gradient cancels: with one present class
both are exactly 0.  The backward pass forms, for some rows at a time, the gradient of the logits

    G_mk = g_others_m exp(z_mk - others_m)      G_my = - g_others_m

in the compute dtype, and leaves G classes and G^T rows to matrix products.

Sizes: R rows (mentions), K classes, D channels.
"""

import torch
import torch.nn.functional as F
import triton
import triton.language as tl

from fastzss.kernels import chunked_losses
from fastzss.kernels.fused_clip import LOW, compute_dtype, dots, gain_of, launch_options, precise, product_cases
from fastzss.kernels.fused_used import unit
from fastzss.kernels.reference import identity

CHUNK_BYTES = 64 << 20  # of one backward tile [rows, classes]


@triton.jit
def _forward(
    rows, classes, present, label, own, top_others, sum_others, R, K,
    D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr, COMPUTE: tl.constexpr,
    PRECISION: tl.constexpr, LOW: tl.constexpr, ARGMAX: tl.constexpr,
):  # fmt: skip
    """Of each row its own logit, and of the others a top and the sum of exp(z - top).

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
    tl.store(own + r, match, mask=r < R)
    tl.store(top_others + r, top, mask=r < R)
    tl.store(sum_others + r, total, mask=r < R)


@triton.jit(do_not_specialize=["start", "stop"])
def _backward(
    rows, classes, present, label, top, g_own, g_sum, gain, gradient, stride, start, stop, R, K,
    D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr, COMPUTE: tl.constexpr,
    PRECISION: tl.constexpr, LOW: tl.constexpr,
):  # fmt: skip
    """gain G of the rows start..stop: [stop - start, K] in rows of `stride`."""
    place = tl.program_id(0) * BM + tl.arange(0, BM)
    r = start + place
    k = tl.program_id(1) * BN + tl.arange(0, BN)
    there = r < stop
    logit = dots(rows, classes, r, k, R, K, D, BM, BN, BD, COMPUTE, PRECISION)
    candidate = (tl.load(present + k, mask=k < K, other=0) != 0)[None, :]
    target = k[None, :] == tl.load(label + r, mask=there, other=-1).to(tl.int32)[:, None]
    candidate &= ~target
    factor = tl.load(gain)
    g_m = tl.load(g_sum + r, mask=there, other=0.0) * factor
    g_y = tl.load(g_own + r, mask=there, other=0.0) * factor
    logit = tl.where(candidate, logit, LOW) - tl.load(top + r, mask=there, other=0.0)[:, None]
    value = tl.where(candidate, g_m[:, None] * tl.exp(logit), 0.0) + tl.where(target, g_y[:, None], 0.0)
    at = gradient + place.to(tl.int64)[:, None] * stride + k[None, :]
    tl.store(at, value.to(gradient.dtype.element_ty), mask=there[:, None] & (k < K)[None, :])


class _CrossEntropy(torch.autograd.Function):
    """(own [R], top [R], sum [R], label [R]) of the rows: the others' logarithm is log(sum) + top."""

    @staticmethod
    def forward(ctx, rows, classes, present, label, argmax, chunk, forced):
        (R, D), K, device = rows.shape, len(classes), rows.device
        launch = {**launch_options("concept_forward", device, D, R, rows.dtype), **forced}
        launch.pop("GROUP")
        own = torch.empty(R, dtype=torch.float32, device=device)
        top, total = torch.empty_like(own), torch.empty_like(own)
        label = torch.empty_like(label) if argmax else label
        _forward[(triton.cdiv(R, launch["BM"]),)](
            rows, classes, present, label, own, top, total, R, K, LOW=LOW, ARGMAX=argmax, **launch
        )
        ctx.save_for_backward(rows, classes, present, label, top)
        ctx.chunk, ctx.forced = chunk, forced
        ctx.mark_non_differentiable(top, label)
        return own, top, total, label

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g_own, _top, g_sum, _label):
        rows, classes, present, label, top = ctx.saved_tensors
        (R, D), K, device = rows.shape, len(classes), rows.device
        launch = {**launch_options("concept_backward", device, D, R, rows.dtype), **ctx.forced}
        launch.pop("GROUP")
        stride = triton.cdiv(K, 16) * 16
        chunk = ctx.chunk or max(launch["BM"], CHUNK_BYTES // (stride * rows.itemsize))
        gain = gain_of(g_own, g_sum)
        tile = torch.empty(min(chunk, R), stride, dtype=rows.dtype, device=device)
        g_rows = torch.empty_like(rows)
        g_classes = torch.zeros(K, D, dtype=torch.float32, device=device)
        for start in range(0, R, chunk):
            stop = min(start + chunk, R)
            grid = (triton.cdiv(stop - start, launch["BM"]), triton.cdiv(K, launch["BN"]))
            _backward[grid](
                rows, classes, present, label, top, g_own.contiguous(), g_sum.contiguous(), gain, tile, stride,
                start, stop, R, K, LOW=LOW, **launch,
            )  # fmt: skip
            part = tile[: stop - start, :K]
            g_rows[start:stop] = precise(part, classes) / gain
            g_classes += precise(part.T, rows[start:stop])
        return g_rows, (g_classes / gain).to(classes.dtype), *[None] * 5


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
    weight = weight.float()
    total = all_sum(weight.sum().detach())
    if len(name) == 0:  # nothing to learn here, yet the graph stays whole on every rank
        return 0.0 * (classes.float().sum() + pooled.float().sum())
    if torch.is_tensor(scale):
        rows = (unit(pooled, dtype=torch.float32) * scale.float()).to(dtype)
    else:
        rows = unit(pooled, scale, dtype)  # the scale comes in before the rounding
    own, top, total_others, _ = _CrossEntropy.apply(
        rows.contiguous(), classes.to(dtype).contiguous(), present.contiguous(), name.long().contiguous(),
        target == "argmax", chunk, forced,
    )  # fmt: skip
    some = total_others > 0  # the one class present, or the largest by far, has no others
    others = torch.where(some, torch.where(some, total_others, 1.0).log() + (top - own), LOW)
    losses = F.softplus(others) * weight
    return (losses.sum(dtype=torch.float64) / torch.where(total > 0, total, 1.0)).float()


def aot_cases():
    """The kernels of this file as configs.AotCase."""
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        for D in (768, 1000):
            for target in ("label", "argmax"):
                constants = {"ARGMAX": target == "argmax"}
                yield from product_cases(f"concept_forward-{target}", _forward, dtype, D, constants)
            yield from product_cases("concept_backward", _backward, dtype, D, {})
