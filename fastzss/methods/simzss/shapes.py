"""One set of shapes for all steps of a run, on a GPU: sizes that every batch has room for.

What a batch brings differs from step to step: packed rows, mentions, their tokens.  Every new size means new memory,
new plans of the libraries, kernels compiled anew; and a captured graph takes one set only.  The order of the samples is
known beforehand, so what the steps need is counted before the first of them, and each batch is filled up to the most:
with free rows, mentions of weight 0 that own no token, tokens of no mention, names that are absent.  None of these
changes the loss or a gradient, but for the order in which sums are taken.
"""

from typing import NamedTuple

import numpy as np

from fastzss.text.packing import row_length, rows_needed

COUNTED = 1000  # steps; in a longer run a batch that needs more gets the next size that does
ABSENT = 2**31 - 1  # in Batch.present: the name of none


class Shapes(NamedTuple):
    length: int  # tokens of a packed row
    rows: int  # packed rows
    mentions: int
    tokens: int  # of mentions
    names: int  # that a batch can mention

    def holding(self, rows, mentions, tokens, names):
        """The same, or multiples of it where a batch needs more."""
        needed = (rows, mentions, tokens, names)
        return self._replace(
            **{key: own * -(-need // own) for key, own, need in zip(self._fields[1:], self[1:], needed, strict=True)}
        )


def shapes_of(texts, batches, ranks=1):
    """The Shapes for the captions [B] of some batches, of which each of `ranks` reads an equal share."""
    lengths = np.diff(texts.ids_offset)
    mentions = np.diff(texts.mention_offset)
    tokens = np.diff(texts.token_offset[texts.mention_offset])
    length, most = row_length(lengths), np.ones(3, int)
    for chosen in batches:
        for own in np.split(chosen, ranks):
            rows = rows_needed(np.bincount(lengths[own], minlength=length + 1), length)
            most = np.maximum(most, [rows, mentions[own].sum(), tokens[own].sum()])
    rows, mentions, tokens = (-(-int(size) // 16) * 16 for size in most)  # pointers stay aligned
    return Shapes(length, rows, mentions, tokens, max(1, len(np.unique(texts.name))))


def filled(array, size, value=None):
    """[n, ...] -> [size, ...]: more of `value`; None: of what is there, again from its beginning."""
    more = size - len(array)
    rest = array[np.arange(more) % max(1, len(array))] if value is None else np.full(more, value)
    return np.concatenate([array, rest.astype(array.dtype)])
