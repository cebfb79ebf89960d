"""Naming without a class list: an image's patches fall into regions, and each region is named by its nearest concepts.

All patches of an image are clustered around at most REGIONS unit vectors (spherical k-means from the farthest points,
so that the result is always the same); each cluster takes the name of the nearest concept of the bank, and clusters of
one name are one region.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from fastzss.base.neighbours import Index
from fastzss.masks.field import see
from fastzss.masks.images import rgb
from fastzss.masks.result import Result
from fastzss.masks.windows import winners

REGIONS = 8
ROUNDS = 20
MOST = 255  # regions: the mask is uint8
OTHERS = 4  # names besides the best that are told of a region


@dataclass(frozen=True, repr=False, eq=False)
class Named(Result):
    """What a model saw in an image, and what else each region might be: name -> [(other name, similarity), ...]."""

    others: dict


class Namer:
    """A model and the vectors of the names of a bank."""

    def __init__(self, model, bank):
        self.model, self.bank = model, bank
        self.index = Index(model.class_vectors(list(bank.names)).float().cpu().numpy())

    def name(self, image, regions=REGIONS):
        """A Named result for an image: a path, a PIL image, an array, whatever images.py takes."""
        image = rgb(image)
        field = see(self.model.vision, image, dense=False)
        centres = cluster(field.patches, min(regions, MOST))
        score, row = self.index.search(centres.cpu().numpy(), 1 + OTHERS)
        names = tuple(dict.fromkeys(self.bank.names[best] for best in row[:, 0]))
        name_of = torch.tensor([names.index(self.bank.names[best]) for best in row[:, 0]])
        closeness, region = winners(field.maps(field.patches @ centres.T).cpu(), (image.height, image.width))
        mask = name_of[region]
        scores, others = {}, {}
        for k, name in enumerate(names):
            here = mask == k
            if not here.any():
                continue
            own = int(torch.bincount(region[here]).argmax())  # the largest of its clusters speaks for the region
            scores[name] = {"share": float(here.float().mean()), "confidence": float(score[own, 0])}
            others[name] = [(self.bank.names[r], float(s)) for s, r in zip(score[own, 1:], row[own, 1:], strict=True)]
        return Named(image, mask.numpy().astype(np.uint8), names, scores, others)


def cluster(points, count):
    """[count or fewer, D] unit centres of unit points [P, D]."""
    centres = [F.normalize(points.mean(0), dim=0)]
    nearest = points @ centres[0]
    for _ in range(min(count, len(points)) - 1):
        centres.append(points[nearest.argmin()])
        nearest = torch.maximum(nearest, points @ centres[-1])
    centres = torch.stack(centres)
    for _ in range(ROUNDS):
        own = (points @ centres.T).argmax(1)
        sums = torch.zeros_like(centres).index_add_(0, own, points)
        moved = F.normalize(sums[sums.norm(dim=-1) > 0], dim=-1)
        if moved.shape == centres.shape and torch.allclose(moved, centres, atol=1e-5):
            break
        centres = moved
    return centres
