"""Who belongs to whom, as lists that lie end to end: what the kernels sum by, instead of scattering.

Lists are made by a stable sort, so each sum has one owner and its terms one order: no atomics, and the same bits on
every run.  Making them takes many small launches, and they depend on the batch alone: a training makes them on the CPU
while the GPU computes, and hands them to the operations.  An operation that is given none makes its own.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Lists(NamedTuple):
    """List k is order[start[k] : start[k + 1]]."""

    order: Tensor  # [T] int64
    start: Tensor  # [lists + 1] int64


class ClassLists(NamedTuple):
    """Of class_vectors, see class_lists."""

    name: Tensor  # [T] int64 class of each token; `names` where it has none
    tokens: Lists  # of each class


class MentionLists(NamedTuple):
    """Of concept_pool, see mention_lists."""

    image: Lists  # mentions in groups of at most MENTIONS of one image; as many groups as mentions, the last ones empty
    name: Lists  # mentions of each class


MENTIONS = 16  # of one program of the pooling: the smallest side of a tensor-core product


def lists_of(keys, count):
    """Lists of the places of equal keys, for the keys 0 .. count - 1; other keys are larger, and in no list."""
    ordered, order = torch.sort(keys, stable=True)
    return Lists(order, torch.searchsorted(ordered, torch.arange(count + 1, device=keys.device, dtype=keys.dtype)))


def class_lists(offset, name, names, tokens):
    """ClassLists of mentions of the classes `name`, which own tokens[offset[m] : offset[m + 1]]; see class_vectors."""
    place = torch.arange(tokens, device=offset.device, dtype=offset.dtype)
    mention = torch.searchsorted(offset[1:].contiguous(), place, right=True)
    key = torch.cat([name.long(), name.new_full((1,), names, dtype=torch.long)])[mention]  # beyond the last: no class
    return ClassLists(key, lists_of(key, names))


def mention_lists(row, name, names, size=MENTIONS):
    """MentionLists of mentions of the images `row` and the classes `name`; see concept_pool."""
    return MentionLists(groups(row, size), lists_of(name, names))


def groups(row, size):
    """Lists of mentions of one image, of at most `size` each; there are as many as mentions, the last ones empty, so
    that nothing here waits for the device."""
    order = row.argsort(stable=True)
    ordered = row[order]
    place = torch.arange(len(row), device=row.device)
    begins = (place - torch.searchsorted(ordered, ordered)) % size == 0
    count = torch.arange(1, len(row) + 2, device=row.device)
    return Lists(order, torch.searchsorted(begins.cumsum(0), count))
