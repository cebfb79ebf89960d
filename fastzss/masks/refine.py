"""Refinement: classes' shares of the pixels follow the edges of the image.

A pixel's shares become the mean of its neighbours' that look alike, again and again (kernels.refine_scores).  Means
never rise above what they are of: a class whose share is nowhere as large as that of some other class must be in the
end is left out before, and nothing changes but the time.

Sizes: K classes, H x W pixels.
"""

import torch

from fastzss import kernels


@torch.inference_mode()
def refined(pixels, shares, iterations, dilations):
    """[K, H, W] shares, refined along the edges of the pixels uint8 [3, H, W]; 0 for classes that win nowhere."""
    kept = possible(shares.amax((1, 2)))
    found = torch.zeros_like(shares)
    found[kept] = kernels.refine_scores(pixels.to(shares.device).float() / 255, shares[kept], iterations, dilations)
    return found


def possible(most):
    """bool [K]: which classes can have the largest share of a pixel, when none exceeds `most` [K] and the sum is 1.

    Those that stay share what the others cannot have; the largest of them is at least their mean.
    """
    kept = torch.ones_like(most, dtype=torch.bool)
    while True:
        least = (1 - most[~kept].sum()) / kept.sum()
        fewer = kept & (most >= least * (1 - 1e-4))  # rounding
        if fewer.sum() == kept.sum() or not fewer.any():
            return kept
        kept = fewer
