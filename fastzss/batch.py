"""Captions of a training step, lying end to end: what the loader hands to the text tower and the objective.

Captions are packed into rows of 64 or 128 tokens, several in a row; nothing is padded to 77.  Mentions are ragged, and
their tokens may lie apart.  Nothing of the patches is copied: a batch only names image rows of the store.

Sizes: B captions of the whole batch, b of them on this rank, R packed rows of L tokens, C mentions with T tokens.
"""

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

ROW_LENGTHS = (64, 128)


@dataclass(frozen=True)
class Batch:
    ids: Tensor  # [R, L] int32    token ids
    segment: Tensor  # [R, L] int32    caption of each token, counted on this rank; -1 = free
    eot: Tensor  # [b] int32       flat token index of each caption's end
    row: Tensor  # [B] int64       image row in the store of each caption of the whole batch, the same on all ranks
    token: Tensor  # [T] int32       flat token indices of the mentions, end to end
    offset: Tensor  # [C + 1] int32   mention c owns token[offset[c] : offset[c + 1]]
    caption: Tensor  # [C] int32       whose mention, counted on this rank
    image: Tensor  # [C] int64       row of the patches at hand with the image of that caption
    name: Tensor  # [C] int32       which bank name
    weight: Tensor  # [C] float32     how often the caption mentions it
    present: Tensor  # [K] int32       bank names with a mention anywhere in the whole batch, ascending
    first: int = 0  # where this rank's captions begin in `row`

    def __len__(self):
        return len(self.row)

    def to(self, device):
        return self._each(lambda t: t.to(device, non_blocking=True))

    def pin_memory(self):
        return self._each(Tensor.pin_memory)

    def _each(self, change):
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "first"}
        return replace(self, **{name: change(tensor) for name, tensor in tensors.items()})


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


def collate(texts, chosen, rank=0, world=1):
    """The captions `chosen` [B] of the whole batch -> the Batch of one rank's equal share of them.

    Its mentions point at images by their row in the store.
    """
    if len(chosen) % world:
        raise ValueError(f"collate: {len(chosen)} captions do not divide among {world} ranks")
    share = len(chosen) // world
    own = chosen[rank * share : (rank + 1) * share]

    lengths = texts.ids_offset[own + 1] - texts.ids_offset[own]
    length = row_length(lengths)
    start, rows = pack(lengths, length)
    ids = np.zeros(rows * length, np.int32)
    segment = np.full(rows * length, -1, np.int32)
    at = ranges(start, lengths)
    ids[at] = texts.ids[ranges(texts.ids_offset[own], lengths)]
    segment[at] = np.repeat(np.arange(share, dtype=np.int32), lengths)

    counts = texts.mention_offset[own + 1] - texts.mention_offset[own]
    mention = ranges(texts.mention_offset[own], counts)
    caption = np.repeat(np.arange(share), counts)
    tokens = texts.token_offset[mention + 1] - texts.token_offset[mention]
    flat = texts.token[ranges(texts.token_offset[mention], tokens)] + np.repeat(start[caption], tokens)
    if world == 1:
        everyone = mention
    else:
        everyone = ranges(texts.mention_offset[chosen], texts.mention_offset[chosen + 1] - texts.mention_offset[chosen])

    tensor = torch.from_numpy
    return Batch(
        ids=tensor(ids.reshape(rows, length)),
        segment=tensor(segment.reshape(rows, length)),
        eot=tensor((start + lengths - 1).astype(np.int32)),
        row=tensor(texts.row[chosen]),
        token=tensor(flat.astype(np.int32)),
        offset=tensor(offsets(tokens).astype(np.int32)),
        caption=tensor(caption.astype(np.int32)),
        image=tensor(texts.row[own][caption]),
        name=tensor(texts.name[mention]),
        weight=tensor(texts.weight[mention]),
        present=tensor(np.unique(texts.name[everyone])),
        first=rank * share,
    )


def row_length(lengths):
    """The smallest row that holds the longest caption."""
    longest = int(lengths.max())
    for length in ROW_LENGTHS:
        if longest <= length:
            return length
    raise ValueError(f"a caption of {longest} tokens is longer than a packed row of {ROW_LENGTHS[-1]}")


def pack(lengths, length):
    """Lay captions into rows, the longest first, each into the fullest row that still takes it.

    Returns (flat start of each caption [b] int64, number of rows).
    """
    start = np.empty(len(lengths), np.int64)
    free = [[] for _ in range(length + 1)]  # rows by the room left in them
    rows = 0
    for caption in np.argsort(-lengths, kind="stable"):
        need = int(lengths[caption])
        room = next((room for room in range(need, length + 1) if free[room]), None)
        if room is None:
            row, room, rows = rows, length, rows + 1
        else:
            row = free[room].pop()
        start[caption] = row * length + (length - room)
        free[room - need].append(row)
    return start, rows


def offsets(counts):
    """[n] counts -> [n + 1] where each part begins and the last one ends."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def ranges(starts, lengths):
    """start, start + 1, ... for each part, end to end."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(np.asarray(starts) - (ends - lengths), lengths)
