"""Scores of patches -> the nearest class at each pixel of the labels, by two matrices (windows.py).

The scores of all classes at all pixels are never held.  On a CPU the pixels are taken tile by tile: every score in a
tile is a mean of those of the few patches around it, so a class can be nearest there only if its largest is at least
what some class has everywhere.  Few classes remain.

Sizes: K classes, a grid of h x w patches, H x W pixels.
"""

import torch

TILE = 48  # pixels along a side
CLASSES = 16  # brought to the pixels at a time


def nearest(scores, down, across):
    """(score, class) [H, W] of the nearest class, from scores [K, h, w], down [H, h] and across [W, w]."""
    if scores.device.type != "cpu":
        return of_all(scores, down.to(scores.device), across.to(scores.device))
    H, W = len(down), len(across)
    best, winner = torch.empty(H, W), torch.empty(H, W, dtype=torch.long)
    columns = [(slice(x, x + TILE), *used(across[x : x + TILE])) for x in range(0, W, TILE)]
    for y in range(0, H, TILE):
        rows = slice(y, y + TILE)
        index, part = used(down[rows])
        band = scores[:, index]
        for inside, own, beside in columns:
            here = band[:, :, own]
            flat = here.flatten(1)
            able = (flat.amax(1) >= flat.amin(1).max()).nonzero()[:, 0]
            if len(able) == 1:
                best[rows, inside], winner[rows, inside] = (part @ here[able[0]] @ beside.T), able[0]
            else:
                score, which = (part @ (here[able] @ beside.T)).max(0)
                best[rows, inside], winner[rows, inside] = score, able[which]
    return best, winner


def used(matrix):
    """(indices of the columns that hold anything, those columns)."""
    index = matrix.any(0).nonzero()[:, 0]
    return index, matrix[:, index].contiguous()


def of_all(scores, down, across):
    """The same, all pixels at once, a few classes at a time: what a GPU does best."""
    best = winner = None
    for start in range(0, len(scores), CLASSES):
        score, which = (down @ (scores[start : start + CLASSES] @ across.T)).max(0)
        if best is None:
            best, winner = score, which
        else:
            nearer = score > best
            best, winner = torch.where(nearer, score, best), torch.where(nearer, which + start, winner)
    return best, winner


def total(scores, down, across, scale):
    """[H, W]: log sum exp of all classes' scores, times `scale`."""
    down, across, found = down.to(scores.device), across.to(scores.device), None
    for start in range(0, len(scores), CLASSES):
        part = (scale * (down @ (scores[start : start + CLASSES] @ across.T))).logsumexp(0)
        found = part if found is None else torch.logaddexp(found, part)
    return found
