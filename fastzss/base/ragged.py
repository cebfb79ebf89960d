"""Lists of different lengths that lie end to end in one array."""

import numpy as np


def offsets(counts):
    """[n] counts -> [n + 1] where each part begins and the last one ends."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def ranges(starts, lengths):
    """start, start + 1, ... for each part, end to end."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(np.asarray(starts) - (ends - lengths), lengths)
