"""Captions of a training step, lying end to end: what the loader hands to the text tower and the objective.

Captions are packed into rows of 64 or 128 tokens, several in a row; nothing is padded to 77.  Mentions are ragged, and
their tokens may lie apart.  Nothing of the patches is copied: a batch only names image rows of the store.

Sizes: B captions of the whole batch, b of them on this rank, R packed rows of L tokens, C mentions with T tokens.
"""

from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from fastzss.base.ragged import offsets, ranges
from fastzss.kernels.lists import ClassLists, Lists, MentionLists, class_lists, lists_of, mention_lists
from fastzss.methods.simzss.shapes import ABSENT, filled
from fastzss.text.packing import packed


class BatchLists(NamedTuple):
    """What the kernels of the losses sum by."""

    uses: Lists  # of kernels.used_units
    classes: ClassLists  # of kernels.class_vectors
    mentions: MentionLists  # of kernels.local_loss


@dataclass(frozen=True)
class Batch:
    ids: Tensor  # [R, L] int32    token ids; in a training, their places among the words of the captions
    segment: Tensor  # [R, L] int32    caption of each token, counted on this rank; -1 = free
    eot: Tensor  # [b] int32       flat token index of each caption's end
    row: Tensor  # [B] int64       image row in the store of each caption of the whole batch, the same on all ranks
    token: Tensor  # [T] int32       flat token indices of the mentions, end to end
    used: Tensor  # [b + T] int32   eot, then token: all that the losses look at
    offset: Tensor  # [C + 1] int32   mention c owns token[offset[c] : offset[c + 1]]
    caption: Tensor  # [C] int32       whose mention, counted on this rank
    image: Tensor  # [C] int64       row of the patches at hand with the image of that caption
    name: Tensor  # [C] int32       which bank name
    weight: Tensor  # [C] float32     how often the caption mentions it
    present: Tensor  # [K] int32       bank names with a mention anywhere in the whole batch, ascending; then ABSENT
    place: Tensor  # [C] int64       where the mention's name stands in `present`
    candidate: Tensor  # [K] bool        whether `present` has a name there
    first: int = 0  # where this rank's captions begin in `row`
    lists: BatchLists | None = None

    def __len__(self):
        return len(self.row)

    def to(self, device):
        return self._each(lambda t: t.to(device, non_blocking=True))

    def pin_memory(self):
        return self._each(Tensor.pin_memory)

    def with_lists(self):
        """For a GPU: there making them would be a launch for each small step of it."""
        uses = lists_of(self.used.long(), self.ids.numel())
        classes = class_lists(self.offset, self.place, len(self.present), len(self.token))
        return replace(self, lists=BatchLists(uses, classes, mention_lists(self.image, self.place, len(self.present))))

    def tensors(self):
        """All of them, in a fixed order."""
        return tree_leaves(self._parts())

    def _each(self, change):
        return replace(self, **tree_map(change, self._parts()))

    def _parts(self):
        parts = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "first"}
        return parts if self.lists else {name: part for name, part in parts.items() if name != "lists"}


@dataclass(frozen=True)
class Texts:
    """All captions that batches are cut from: token ids and mentions as ragged numpy arrays.

    Mentions stand in the order of their captions; those of one name in one caption are merged into one with a weight.
    """

    ids: np.ndarray  # [*] int32
    ids_offset: np.ndarray  # [n + 1] int64
    row: np.ndarray  # [n] int64           image of each caption
    mention_offset: np.ndarray  # [n + 1] int64   mentions of each caption
    name: np.ndarray  # [M] int32
    weight: np.ndarray  # [M] float32
    token: np.ndarray  # [*] int32           positions inside the caption, 0 = its start token
    token_offset: np.ndarray  # [M + 1] int64

    def __len__(self):
        return len(self.row)

    @classmethod
    def of(cls, ids, ids_offset, row, caption, name, token, token_offset):
        """Sort mentions by caption and name, and merge the equal ones."""
        caption, name, token, token_offset = (np.asarray(a, np.int64) for a in (caption, name, token, token_offset))
        order = np.lexsort((name, caption))
        caption, name, lengths = caption[order], name[order], np.diff(token_offset)[order]
        token = token[ranges(token_offset[:-1][order], lengths)]
        new = np.ones(len(order), bool)
        new[1:] = (np.diff(caption) != 0) | (np.diff(name) != 0)
        group = np.cumsum(new) - 1
        count = group[-1] + 1 if len(group) else 0
        return cls(
            ids=np.asarray(ids, np.int32),
            ids_offset=np.asarray(ids_offset, np.int64),
            row=np.asarray(row, np.int64),
            mention_offset=offsets(np.bincount(caption[new], minlength=len(row))),
            name=name[new].astype(np.int32),
            weight=np.bincount(group, minlength=count).astype(np.float32),
            token=token.astype(np.int32),
            token_offset=offsets(np.bincount(group, weights=lengths, minlength=count)),
        )


def collate(texts, chosen, rank=0, world=1, shapes=None):
    """The captions `chosen` [B] of the whole batch -> the Batch of one rank's equal share of them.

    Its mentions point at images by their row in the store.  With Shapes, it is filled up to them.
    """
    if len(chosen) % world:
        raise ValueError(f"collate: {len(chosen)} captions do not divide among {world} ranks")
    share = len(chosen) // world
    own = chosen[rank * share : (rank + 1) * share]

    lengths = texts.ids_offset[own + 1] - texts.ids_offset[own]
    rows = packed(texts.ids, texts.ids_offset[own], lengths, *(shapes[:2] if shapes else ()))

    counts = texts.mention_offset[own + 1] - texts.mention_offset[own]
    mention = ranges(texts.mention_offset[own], counts)
    caption = np.repeat(np.arange(share), counts)
    tokens = texts.token_offset[mention + 1] - texts.token_offset[mention]
    flat = texts.token[ranges(texts.token_offset[mention], tokens)] + np.repeat(rows.start[caption], tokens)
    if world == 1:
        everyone = mention
    else:
        everyone = ranges(texts.mention_offset[chosen], texts.mention_offset[chosen + 1] - texts.mention_offset[chosen])

    parts = {
        "eot": (rows.start + lengths - 1).astype(np.int32),
        "row": texts.row[chosen],
        "token": flat.astype(np.int32),
        "offset": offsets(tokens).astype(np.int32),
        "caption": caption.astype(np.int32),
        "image": texts.row[own][caption],
        "name": texts.name[mention],
        "weight": texts.weight[mention],
        "present": np.unique(texts.name[everyone]),
    }
    if shapes:
        parts |= more(parts, shapes.holding(len(rows.ids), len(mention), len(flat), len(parts["present"])))
    parts["used"] = np.concatenate([parts["eot"], parts["token"]])
    parts["place"] = np.searchsorted(parts["present"], parts["name"])
    parts["candidate"] = parts["present"] != ABSENT
    tensors = {name: torch.from_numpy(array) for name, array in parts.items()}
    return Batch(ids=rows.ids, segment=rows.segment, first=rank * share, **tensors)


def more(parts, shapes):
    """The parts of a batch that are filled up, with mentions that weigh nothing and tokens of no mention."""
    names = filled(parts["present"], shapes.names, ABSENT)  # on all ranks, which sum their class vectors
    if not len(parts["name"]):  # here is no mention to be repeated
        return {"present": names}
    spare = np.arange(shapes.tokens - len(parts["token"])) % (shapes.rows * shapes.length)  # each another one
    repeated = {name: filled(parts[name], shapes.mentions) for name in ("caption", "image", "name")}
    return repeated | {
        "token": np.concatenate([parts["token"], spare.astype(np.int32)]),
        "offset": filled(parts["offset"], shapes.mentions + 1, parts["offset"][-1]),
        "weight": filled(parts["weight"], shapes.mentions, 0),
        "present": names,
    }
