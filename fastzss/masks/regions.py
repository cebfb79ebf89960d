"""The connected regions of a mask: their sizes, boxes and outlines.

A mask is read as runs, stretches of one class in one row; runs of one class that touch from row to row are one region.
So the work grows with the length of the borders, not with the pixels.

Sizes: a mask of H x W pixels, R runs, n regions.
"""

import numpy as np


class Regions:
    """Attributes, of each region: kind [n], its class; pixels [n]; box [n, 4]: left, top, right, bottom, as slices
    have it; of each run: region [R].  Regions are numbered in the order in which their first pixels are read.
    """

    def __init__(self, mask):
        H, W = self.shape = mask.shape
        changes = np.ones((H, W), bool)
        np.not_equal(mask[:, 1:], mask[:, :-1], out=changes[:, 1:])
        self._start = np.flatnonzero(changes)  # of each run, its first pixel
        self._length = np.diff(self._start, append=H * W)
        kind = mask.ravel()[self._start]
        self._touching = touching(self._start, self._length, W)
        above, below = self._touching
        same = kind[above] == kind[below]
        self.region = joined(len(kind), above[same], below[same])
        n = self.region.max(initial=-1) + 1

        top, left = np.divmod(self._start, W)
        self.box = np.stack([np.full(n, W), np.full(n, H), np.zeros(n, int), np.zeros(n, int)], 1)
        np.minimum.at(self.box[:, 0], self.region, left)
        np.minimum.at(self.box[:, 1], self.region, top)
        np.maximum.at(self.box[:, 2], self.region, left + self._length)
        np.maximum.at(self.box[:, 3], self.region, top + 1)
        self.kind = np.zeros(n, mask.dtype)
        self.kind[self.region] = kind
        self.pixels = np.bincount(self.region, self._length, n).astype(np.int64)

    def __len__(self):
        return len(self.kind)

    def painted(self, values):
        """[H, W]: of each pixel the value [n] of its region."""
        return np.repeat(values[self.region], self._length).reshape(self.shape)

    def at(self, y, x):
        """The regions of pixels."""
        return self.region[np.searchsorted(self._start, y * self.shape[1] + x, "right") - 1]

    def without_small(self, least):
        """The mask in which regions of fewer than `least` pixels belong to the largest beside them."""
        beside = np.concatenate([self.region[np.stack(self._touching)], self._in_rows()], 1)
        beside = beside[:, beside[0] != beside[1]]
        beside = np.concatenate([beside, beside[::-1]], 1)
        owner, pixels = np.arange(len(self)), self.pixels.copy()
        while True:
            one, other = owner[beside]
            small = (pixels[one] < least) & (one != other)
            larger = small & ((pixels[other] > pixels[one]) | ((pixels[other] == pixels[one]) & (other < one)))
            if not larger.any():
                return self.painted(self.kind[owner])
            one, other = one[larger], other[larger]
            order = np.lexsort((-other, pixels[other]))  # the last assignment stays: the largest, of equals the first
            into = np.arange(len(self))
            into[one[order]] = other[order]
            while (into[into] != into).any():  # one that is swallowed takes along what it has swallowed
                into = into[into]
            owner = into[owner]
            pixels = np.bincount(owner, self.pixels, len(self))

    def _in_rows(self):
        """[2, *] regions of runs that lie beside each other in one row."""
        follows = np.flatnonzero(self._start[1:] % self.shape[1])
        return self.region[np.stack([follows, follows + 1])]


def touching(start, length, width):
    """Pairs of runs (above, below) that share a side of a pixel."""
    # The pixels above a run reach from one run to another; `first` and `last` are these, before the first row none.
    below = np.flatnonzero(start >= width)
    first = np.searchsorted(start, start[below] - width, "right") - 1
    last = np.searchsorted(start, start[below] + length[below] - 1 - width, "right") - 1
    count = last - first + 1
    ends = np.cumsum(count)
    above = np.repeat(first - ends + count, count) + np.arange(count.sum())
    return above, np.repeat(below, count)


def joined(n, one, other):
    """[n] numbers of the groups that pairs make of n items, in the order of their first members."""
    group = np.arange(n)
    while True:
        low = np.minimum(group[one], group[other])
        np.minimum.at(group, group[one], low)
        np.minimum.at(group, group[other], low)
        while (group[group] != group).any():
            group = group[group]
        if (group[one] == group[other]).all():
            break
    return np.unique(group, return_inverse=True)[1]


def outlines(inside):
    """The borders of bool [H, W] as a list of rings, int [points, 2] of (x, y), corners of pixels.

    Round what is inside they go clockwise, as one sees them; round a hole the other way.  Pixels that touch at a corner
    alone are apart.  All rings filled together, by the even-odd rule, give back the mask.
    """
    if not inside.any():
        return []
    padded = np.pad(inside, 1)
    nw, ne, sw, se = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    count = nw.astype(np.int8) + ne + sw + se
    crossing = (count == 2) & (nw == se)  # two pixels that touch at a corner: two corners of rings in one place
    y, x = np.nonzero((count % 2 == 1) | crossing)
    twice = crossing[y, x]
    y, x = (np.repeat(v, 1 + twice) for v in (y, x))
    second = np.zeros(len(y), bool)
    second[1:] = (y[1:] == y[:-1]) & (x[1:] == x[:-1])
    # Corners are joined by pairs, along rows and along columns. Where two are in one place, the first belongs to the
    # side on the left; it is the upper one where the pixel above on the left is inside.
    lower = second ^ (~nw[y, x])
    across, down = pairs(np.lexsort((second, x, y))), pairs(np.lexsort((lower, y, x)))
    rings, seen = [], np.zeros(len(y), bool)
    across, down = across.tolist(), down.tolist()
    for first in range(len(y)):
        if seen[first]:
            continue
        ring, corner = [], first
        while not seen[corner]:
            ring += [corner, across[corner]]
            seen[ring[-2:]] = True
            corner = down[ring[-1]]
        # it begins with its uppermost side, from left to right: below that it is inside, or else this is a hole
        ring = np.stack([x[ring], y[ring]], 1)
        rings.append(ring if se[y[first], x[first]] else ring[::-1])
    return rings


def pairs(order):
    """[n] partner of each: the items in their order, two by two."""
    partner = np.empty(len(order), int)
    partner[order[::2]], partner[order[1::2]] = order[1::2], order[::2]
    return partner
