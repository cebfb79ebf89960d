"""SimZSS: how far a step's captions are from pointing at the right images and the right patches.

    loss = global + weight * local

global is the contrastive loss of captions and image vectors; local asks each mentioned concept to find, among the
patches of its image, what only this concept of the batch describes (kernels/reference.py has the formulas).

A batch may be shared by several ranks.  Every rank computes its share of the loss; the shares' sum, and the sum of the
ranks' gradients, are exactly those of one process with the whole batch.
"""

from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from fastzss import kernels
from fastzss.batch import Batch

LOCAL_SCALE = 1 / 0.07  # fixed inverse temperature of the concept classifier
MAX_SCALE = 100.0  # the learned inverse temperature of the global loss stays below this


@dataclass(frozen=True)
class Losses:
    """Shares of this rank."""

    loss: Tensor
    loss_global: Tensor
    loss_local: Tensor


def simzss(units, batch: Batch, patches, images, log_scale, *, local_weight, temperature, target="label"):
    """Losses of a batch.

    Args:
        units: used_units of the tower, [b + T, D]: the captions' end tokens, then the mentions' tokens.
        batch: the rank's Batch.
        patches: kernels.Patches of the store.
        images: [n, D] global vector of each image of the store, not normalised.
        log_scale: scalar, logarithm of the learned inverse temperature.
        local_weight: lambda; 0 leaves the local loss out.
        temperature: of the softmax over patches.
    """
    captions = units[: len(batch.eot)]
    loss_global = kernels.clip_loss(
        F.normalize(images[batch.row].to(units.dtype), dim=-1),
        captions,
        log_scale.exp(),
        first=batch.first,
        all_sum=all_sum,
        all_max=all_max,
    )
    if local_weight == 0:
        return Losses(loss_global, loss_global, torch.zeros_like(loss_global))

    name = torch.searchsorted(batch.present, batch.name)
    token = torch.arange(len(captions), len(units), device=units.device)  # used_units laid them in the mentions' order
    classes = kernels.class_vectors(units, token, batch.offset, name, len(batch.present), all_sum=all_sum)
    row = batch.row[batch.first + batch.caption]
    loss_local = kernels.local_loss(
        classes,
        patches,
        row,
        name,
        torch.ones(len(batch.present), dtype=torch.bool, device=units.device),
        batch.weight,
        temperature=temperature,
        scale=LOCAL_SCALE,
        target=target,
        all_sum=all_sum,
    )
    return Losses(loss_global + local_weight * loss_local, loss_global, loss_local)


def used_units(tower, batch: Batch):
    """[b + T, D] unit vectors of the only tokens the losses look at: ends of captions, then tokens of mentions."""
    return tower.units(batch.ids, batch.segment, torch.cat([batch.eot, batch.token]))


class _AllSum(torch.autograd.Function):
    """Sum over ranks.  The loss is the sum of the ranks' shares, so the gradient is a sum over ranks as well."""

    @staticmethod
    def forward(ctx, tensor):
        total = tensor.detach().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient):
        return _AllSum.forward(None, gradient)


def alone():
    """Whether this is the only process."""
    return not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1)


def all_sum(tensor):
    return tensor if alone() else _AllSum.apply(tensor.contiguous())


def all_max(tensor):
    if not alone():
        tensor = tensor.clone()
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return tensor
