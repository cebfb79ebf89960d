"""The learning rate of every step, also of a run that was extended after its end."""

import math
from bisect import bisect_right


def learning_rate(step, steps, peak, warmup):
    """Linear rise over the first `warmup` of the steps, then half a cosine down to 0."""
    rise = int(warmup * steps)
    if step < rise:
        return peak * (step + 1) / rise
    return peak * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


class Schedule:
    """What was planned at first, and what was added: each stretch rises and falls as a run of its own would.

    Args:
        ends: after which step each stretch is over: [60] of a run of 60 steps, [60, 80] of the same with 20 more.
        peak, warmup: of all stretches.
    """

    def __init__(self, ends, peak, warmup):
        self.ends, self.peak, self.warmup = list(ends), peak, warmup

    @property
    def steps(self):
        return self.ends[-1]

    def rate(self, step):
        """The learning rate of a step, counted from 0."""
        stretch = bisect_right(self.ends, step)
        begin = self.ends[stretch - 1] if stretch else 0
        return learning_rate(step - begin, self.ends[stretch] - begin, self.peak, self.warmup)
