"""What is counted of a set: one confusion matrix, those of a sweep, and how well each image went.

A sweep counts for many limits of the background at once: of each pixel, how many limits its certainty reaches.

    sweep int64 [T + 1, K, K]    pixels of a true class that were given a class, by the number of limits reached
"""

import numpy as np
import torch

from fastzss.base.ranks import all_sum
from fastzss.evaluation.score import IGNORE, confusion, iou, mean_iou


class Tally:
    def __init__(self, reading, classes, limits=()):
        self.reading, self.limits = reading, np.asarray(sorted(limits), float)
        self.matrix = np.zeros((classes, classes), np.int64)
        self.sweep = np.zeros((len(self.limits) + 1, classes, classes), np.int64) if len(self.limits) else None
        self.images = {}  # index -> mIoU of the image, in points

    def judge(self, field, truth):
        """What is to be counted of an image, for `add`."""
        certainty, winner = self.reading.decide(field, truth.shape)
        matrix = confusion(truth, self.reading.settle(certainty, winner), len(self.matrix))
        return matrix, None if self.sweep is None else self._swept(truth, certainty, winner)

    def add(self, index, judged):
        matrix, sweep = judged
        self.matrix += matrix
        self.images[index] = 100 * mean_iou(iou(matrix))
        if sweep is not None:
            self.sweep += sweep

    def _swept(self, truth, certainty, winner):
        kept, K = truth != IGNORE, len(self.matrix)
        limits = np.minimum(self.limits, certainty.max()) if self.reading.protocol.capped else self.limits
        reached = np.searchsorted(limits, certainty[kept], side="right")
        flat = (reached * K + truth[kept]) * K + winner[kept]
        return np.bincount(flat, minlength=self.sweep.size).reshape(self.sweep.shape)

    @property
    def swept(self):
        """{limit: mIoU in points}."""
        found = {}
        for number, limit in enumerate(self.limits):
            matrix = self.sweep[number + 1 :].sum(0)
            matrix[:, 0] += self.sweep[: number + 1].sum((0, 2))
            found[round(float(limit), 6)] = 100 * mean_iou(iou(matrix))
        return found

    @property
    def state(self):
        """Arrays that are all it knows."""
        pairs = np.array(sorted(self.images.items()), float).reshape(-1, 2)
        return {"matrix": self.matrix, "images": pairs, **({} if self.sweep is None else {"sweep": self.sweep})}

    @state.setter
    def state(self, arrays):
        self.matrix = arrays["matrix"]
        self.images = {int(index): value for index, value in arrays["images"]}
        if self.sweep is not None:
            self.sweep = arrays["sweep"]

    def join(self, ranks):
        """Make it the sum of all ranks'."""
        self.matrix = summed(self.matrix, ranks)
        if self.sweep is not None:
            self.sweep = summed(self.sweep, ranks)
        self.images = {index: value for part in ranks.gather(self.images) for index, value in part.items()}


def summed(counts, ranks):
    return all_sum(torch.from_numpy(counts).to(ranks.device)).cpu().numpy()
