"""Packing: captions lie end to end in rows of 64 or 128 tokens, several in a row; nothing is padded to 77.

Sizes: b captions, R packed rows of L tokens.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastzss.base.ragged import ranges

ROW_LENGTHS = (64, 128)


class Packed(NamedTuple):
    ids: Tensor  # [R, L] int32      token ids
    segment: Tensor  # [R, L] int32  caption of each token; -1 = free
    start: np.ndarray  # [b] int64   flat token index of each caption's first token


def packed(ids, begins, lengths, length=None, of=1):
    """The captions ids[begin : begin + length] in rows of `length` tokens, a multiple of `of` of them."""
    length = length or row_length(lengths)
    start, needed = pack(lengths, length)
    rows = -(-needed // of) * of
    out, segment = np.zeros(rows * length, np.int32), np.full(rows * length, -1, np.int32)
    at = ranges(start, lengths)
    out[at] = ids[ranges(begins, lengths)]
    segment[at] = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    return Packed(torch.from_numpy(out.reshape(rows, length)), torch.from_numpy(segment.reshape(rows, length)), start)


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


def rows_needed(counts, length):
    """How many rows `pack` makes of counts[n] captions of n tokens, n up to `length`.

    Captions of one length fill the fullest row that takes them as far as it goes, then the next; so they are counted
    together, row by row.
    """
    free, rows = [0] * (length + 1), 0  # rows by the room left in them
    for need in range(length, 0, -1):
        left = int(counts[need])
        for room in range(need, length):
            if not left:
                break
            whole, (each, rest) = free[room], divmod(room, need)
            filled = min(whole, left // each)
            free[room] -= filled
            free[rest] += filled
            left -= filled * each
            if left and filled < whole:
                free[room] -= 1
                free[room - left * need] += 1
                left = 0
        each, rest = divmod(length, need)
        filled, left = divmod(left, each)
        free[rest] += filled
        rows += filled + (left > 0)
        if left:
            free[length - left * need] += 1
    return rows
