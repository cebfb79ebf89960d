"""Background: what becomes of a place that is none of the classes.

    none        every place is one of the classes
    threshold   "nothing" is one more class, of a constant similarity, of which the memory knows nothing
    words       the other names of the memory's bank are classes too, and what they win together is nothing
    prob        the same, and a place is a class only where its share is more than half

The constant of a threshold is the run's own, calibrated on its captions: an image's patches are compared with the
names that its captions mention, as if these were the classes, and with as many names that they do not.  What separates
the two best is where it begins to be likelier that the name is not there.
"""

import torch

from fastzss.base.errors import UserError
from fastzss.masks.evidence import KNOWN, guide

HALF = 0.5
BINS = 2000
IMAGES = 1000  # that are enough to count on


def needed(memory, background):
    """The memory of a run; refuses a background without one."""
    if memory is None or (background == "threshold" and memory.threshold is None):
        raise UserError(
            f"background {background} asks the run's patch memory, and this run has none that knows; "
            "`fastzss bank memory STORE --run RUN` makes one",
            code=2,
        )
    return memory


def other_names(classes, vectors, memory):
    """Rows of the memory's names that are none of the classes by another word."""
    near = (memory.vectors @ vectors.T).amax(1)
    rows = {name: row for row, name in enumerate(memory.names)}
    own = {guide(alias, rows) for name in classes for alias in ((name,) if isinstance(name, str) else name)}
    return [row for row in range(len(memory.names)) if near[row] < KNOWN and row not in own]


class Calibration:
    """Counts, over batches of images, how similar patches are to names that are there, and to names that are not."""

    def __init__(self, vectors):
        self.vectors, self.left = vectors, IMAGES
        self.counts = torch.zeros(2, BINS)  # true, false
        self.random = torch.Generator().manual_seed(0)

    def add(self, smooth, best, own, there):
        """
        Args:
            smooth: [b, N, D] unit patches.
            best: [b, N] their similarity with the nearest name that is mentioned.
            own: [b, m] names that are mentioned, where `there`.
        """
        # another word for what is there is no name of something that is not
        same = self.vectors @ self.vectors.T > KNOWN
        for b in range(min(self.left, len(own))):
            mentioned = own[b][there[b]]
            others = (~same[mentioned].any(0)).nonzero()[:, 0]
            if len(others):
                some = torch.randperm(len(others), generator=self.random)[: len(mentioned)]
                false = smooth[b] @ self.vectors[others[some.to(others.device)]].T
                for counts, values in zip(self.counts, (best[b], false.amax(-1)), strict=True):
                    bins = ((values.clamp(-1, 1) + 1) / 2 * (BINS - 1)).round().long()
                    counts += torch.bincount(bins, minlength=BINS).cpu()
        self.left = max(0, self.left - len(own))

    @property
    def threshold(self):
        """The similarity below which a name is likelier not there; None where no image lacks a name."""
        if self.counts.sum(1).min() == 0:
            return None
        true, false = (row.cumsum(0) / row.sum() for row in self.counts)
        return float((false - true).argmax() / (BINS - 1) * 2 - 1)
