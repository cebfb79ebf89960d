"""SimZSS: how far a step's captions are from pointing at the right images and the right patches.

    loss = global + weight * local

global is the contrastive loss of captions and image vectors; local asks each mentioned concept to find, among the
patches of its image, what only this concept of the batch describes (kernels/reference.py has the formulas).

A batch may be shared by several ranks.  Every rank computes its share of the loss; the shares' sum, and the sum of the
ranks' gradients, are exactly those of one process with the whole batch.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from fastzss import kernels
from fastzss.base.ranks import all_max, all_sum
from fastzss.methods.simzss.batch import Batch

LOCAL_SCALE = 1 / 0.07  # fixed inverse temperature of the concept classifier
MAX_SCALE = 100.0  # the learned inverse temperature of the global loss stays below this


@dataclass(frozen=True)
class Losses:
    """Shares of this rank."""

    loss: Tensor
    loss_global: Tensor
    loss_local: Tensor


def simzss(units, batch: Batch, patches, images, log_scale, *, local_weight, temperature, target="label", same="keep"):
    """Losses of a batch.

    Args:
        units: used_units of the tower, [b + T, D]: the captions' end tokens, then the mentions' tokens.
        batch: the rank's Batch.
        patches: kernels.Patches that `batch.image` points into.
        images: [n, D] global vector of each image of the store, not normalised.
        log_scale: scalar, logarithm of the learned inverse temperature.
        local_weight: lambda; 0 leaves the local loss out.
        temperature: of the softmax over patches.
        target: of the local loss, "label" or "argmax".
        same: whether another caption of the same image is a negative like any other ("keep") or none ("mask").
    """
    captions, mentioned = units.split([len(batch.eot), len(batch.token)])
    loss_global = kernels.clip_loss(
        kernels.unit_rows(images, batch.row, units.dtype),
        captions,
        log_scale,
        first=batch.first,
        all_sum=all_sum,
        all_max=all_max,
        same=batch.row if same == "mask" else None,
    )
    if local_weight == 0:
        return Losses(loss_global, loss_global, torch.zeros_like(loss_global))

    lists = batch.lists
    classes = kernels.class_vectors(
        mentioned, batch.offset, batch.place, len(batch.present), all_sum=all_sum, lists=lists and lists.classes
    )
    loss_local = kernels.local_loss(
        classes,
        patches,
        batch.image,
        batch.place,
        batch.candidate,
        batch.weight,
        temperature=temperature,
        scale=LOCAL_SCALE,
        target=target,
        all_sum=all_sum,
        lists=lists and lists.mentions,
    )
    return Losses(torch.add(loss_global, loss_local, alpha=local_weight), loss_global, loss_local)


def used_units(tower, batch: Batch, rows=None):
    """[b + T, D] unit vectors of the only tokens the losses look at: ends of captions, then tokens of mentions.

    Args:
        rows: packed rows that the tower reads at a time; None: all.  With fewer, each part is read twice: now without a
            graph, since the losses need the units of the whole batch; and again, part by part, when the units have
            their gradients.  So only one part's graph is ever held, and the sum is that of the whole.
    """
    used = batch.used
    R, L = batch.ids.shape
    if rows is None or rows >= R:
        return tower.units(batch.ids, batch.segment, used, batch.lists and batch.lists.uses)
    order = used.argsort()
    begins = torch.arange(0, R, rows, device=used.device)
    counts = torch.searchsorted(used[order], begins * L).diff(append=begins.new_tensor([len(used)])).tolist()
    units = [
        checkpoint(
            tower.units,
            batch.ids[begin : begin + rows],
            batch.segment[begin : begin + rows],
            used[own] - begin * L,
            use_reentrant=False,
            preserve_rng_state=False,
        )
        for begin, own in zip(range(0, R, rows), order.split(counts), strict=True)
    ]
    return torch.cat(units).index_select(0, order.argsort())
