"""Class vectors: the sum of a class's unit token vectors over all its mentions, normalised.

Its backward pass is the same sum with the roles exchanged: a token collects from the classes it is a token of.

Sizes: U token vectors, D channels, T mention tokens, M mentions, K names.
"""

import torch

from fastzss.kernels.fused_sums import SPLITS, sum_rows
from fastzss.kernels.fused_used import unit
from fastzss.kernels.reference import identity


class _ClassSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx, units, token, key, names):
        ctx.save_for_backward(token, key)
        ctx.units, ctx.dtype = len(units), units.dtype
        return sum_rows(units, token, key, names, SPLITS, torch.float32)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        token, key = ctx.saved_tensors
        names = len(gradient)
        used = torch.where(key < names, token.to(key.dtype), ctx.units)  # a token of no class is in no list
        return sum_rows(gradient.contiguous(), key, used, ctx.units, dtype=ctx.dtype), None, None, None


def class_vectors(units, token, offset, name, names, all_sum=identity):
    """See reference.class_vectors.  Nothing here waits for the device."""
    flat = units.reshape(-1, units.shape[-1])
    place = torch.arange(len(token), device=token.device, dtype=offset.dtype)
    mention = torch.searchsorted(offset[1:].contiguous(), place, right=True)
    key = torch.cat([name.long(), name.new_full((1,), names, dtype=torch.long)])[mention]  # beyond the last: no class
    sums = _ClassSums.apply(flat, token, key, names)
    return unit(all_sum(sums), dtype=units.dtype)
