"""Where windows lie over an image, and how maps of classes become a mask of its size.

Sizes: K classes, an image of H x W pixels.
"""

import torch
import torch.nn.functional as F

AT_ONCE = 16  # classes brought to the size of an image at a time


def corners(size, window):
    """(y, x) of each window over an image of that size."""
    return [(y, x) for y in window_starts(size[0], window) for x in window_starts(size[1], window)]


def resized(maps, size):
    """Maps [K, h, w] brought to another size, bilinear: two matrix products, which a CPU does five times faster."""
    if maps.shape[1:] == tuple(size):
        return maps
    down, across = (
        F.interpolate(torch.eye(old, device=maps.device)[None], new, mode="linear")[0].T.to(maps.dtype)
        for old, new in zip(maps.shape[1:], size, strict=True)
    )
    return down @ (maps @ across.T)


def winners(scores, size):
    """(score, class) of the nearest class at each pixel of an image of size (H, W), from [K, h, w] scores.

    A few classes at a time are brought to that size, so that many classes on a large image need no [K, H, W].
    """
    best, winner = torch.full(size, -torch.inf), torch.zeros(size, dtype=torch.long)
    every = torch.arange(len(scores))
    for some in (every if scores.shape[1:] == tuple(size) else possible(scores)).split(AT_ONCE):
        score, index = resized(scores[some], size).max(0)
        nearer = score > best
        best, winner = torch.where(nearer, score, best), torch.where(nearer, some[index], winner)
    return best, winner


def possible(scores):
    """Ascending indices of the classes that can be nearest somewhere between the places of their [K, h, w] scores.

    Between four places a score is a mean of their four: at most the largest of a class, and for the best class no less
    than the least of any.  So a class wins there only if its largest reaches the highest of these leasts.
    """
    bound = of_four(scores[scores.max(0).indices.unique()], torch.minimum).amax(0)
    some = (scores.amax((1, 2)) >= bound.amin()).nonzero()[:, 0]
    return some[(of_four(scores[some], torch.maximum) >= bound).flatten(1).any(1)]


def of_four(maps, choose):
    """[K, h, w]: the larger or the smaller of each place of [K, h, w] and those right, below, and below right of it."""
    maps = choose(maps, torch.cat([maps[..., 1:], maps[..., -1:]], -1))
    return choose(maps, torch.cat([maps[:, 1:], maps[:, -1:]], 1))


def window_starts(length, window):
    """Where windows begin along one side: half a window apart, the last one shifted back inside."""
    stride = window // 2
    return [min(start, length - window) for start in range(0, length - window + stride, stride)]
