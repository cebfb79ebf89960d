"""The local loss in Triton: concept pooling (fused_pool.py) and cross-entropy (fused_concept.py) as one operation.

The pooling leaves the unit vectors that the classification reads, and takes their gradient back; what the class vectors
get, as queries and as candidates, is summed at once.
"""

import torch

from fastzss.kernels.fused_concept import cross_entropy, slopes
from fastzss.kernels.fused_pool import pool, pool_gradient
from fastzss.kernels.fused_sums import sum_rows
from fastzss.kernels.products import compute_dtype


class LocalLoss(torch.autograd.Function):
    """Share of the loss of mentions, at least one; `walk.length` is the scale of the logits."""

    @staticmethod
    def forward(ctx, classes, row, name, present, weight, total, walk, argmax):
        candidates = classes.to(compute_dtype(classes)).contiguous()
        units, kept = pool(walk, classes, row, name, candidates.dtype)
        loss, parts = cross_entropy(units, candidates, present, name, weight, total, argmax)
        ctx.save_for_backward(row, candidates, present, weight, total, units, *parts, *kept)
        ctx.walk, ctx.dtype = walk, classes.dtype
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream):
        row, candidates, present, weight, total, units, label, tops, slope, wrong, *kept = ctx.saved_tensors
        parts = label, tops, slope, wrong
        for_units, for_classes = slopes(upstream, units, candidates, present, weight, total, parts)
        for_queries = pool_gradient(ctx.walk, row, kept, for_units)
        return sum_rows(for_queries, ctx.walk.lists.name, dtype=ctx.dtype, more=for_classes), *[None] * 7
