"""Readings: what becomes of a field, pixel by pixel.

    decide(field, size)     (certainty [H, W], class [H, W]) at the pixels of the labels
    settle(certainty, class)  the class of each pixel, once what is too uncertain is background

A field's own inference (look "field") has settled all of it; a public protocol's background is a limit of the
certainty, a similarity or a probability.

Sizes: C columns, each the words of one class or of background; K classes.
"""

from dataclasses import replace

import numpy as np
import torch

from fastzss.evaluation.phrases import STUFF
from fastzss.evaluation.pixels import nearest, total
from fastzss.evaluation.protocols import REFINEMENTS
from fastzss.masks.background import HALF, needed
from fastzss.masks.refine import refined
from fastzss.masks.windows import winners


class FieldReading:
    """A vocabulary by all its own steps."""

    limit = None

    def __init__(self, vocabulary):
        self.vocabulary, self.dense = vocabulary, vocabulary.inference.dense

    def decide(self, field, size):
        best, winner = winners(self.vocabulary.scores(field), size)
        return best.numpy(), winner.numpy()

    def settle(self, certainty, winner):
        return winner


class WindowReading:
    """A vocabulary's values at the patches of windows, by a protocol for one set.

    Args:
        vocabulary: its `values(field)` are [P, C].
        owner: class of each column.
        protocol: for this set, its value a number where it needs one.
        background: whether class 0 is what is none of the others.
    """

    dense = False

    def __init__(self, vocabulary, owner, protocol, background):
        self.vocabulary, self.protocol = vocabulary, protocol
        self.owner = torch.tensor([*owner, 0])  # of the last column: what a threshold wins
        self.limit = protocol.value if background and protocol.background in ("threshold", "prob") else None
        self.steps = REFINEMENTS.get(protocol.refine, {})

    @torch.inference_mode()
    def decide(self, field, size):
        values = self.vocabulary.values(field)
        if self.steps.get("refinement"):
            return self._refined(values, field, size)
        grid, (down, across) = field.on_grid(values), field.matrices()
        best, column = nearest(grid, down, across)
        if self.probable:
            best = (self.protocol.scale * best - total(grid, down, across, self.protocol.scale)).exp()
        return best.cpu().numpy(), self.owner[column.cpu()].numpy()

    @property
    def probable(self):
        return self.limit is not None and self.protocol.background == "prob"

    def _refined(self, values, field, size):
        """The same of shares that follow the edges of the image, at the size in which it was looked at."""
        maps = field.maps(values)
        if self.limit is not None and not self.probable:
            maps = torch.cat([maps, torch.full_like(maps[:1], self.limit)])
        scale = self.protocol.scale if self.probable else 1 / self.protocol.inference.temperature
        maps = refined(field.pixels, maps.mul_(scale).softmax(0), self.steps["refinement"], self.steps["dilations"])
        best, column = winners(maps.cpu(), size)
        if self.limit is not None and not self.probable:  # what is nothing has won its places
            best = torch.where(column == len(maps) - 1, -torch.inf, torch.inf)
        return best.numpy(), self.owner[column].numpy()

    def settle(self, certainty, winner):
        if self.limit is None:
            return winner
        limit = min(self.limit, certainty.max()) if self.protocol.capped else self.limit
        return np.where(certainty < limit, 0, winner)


def reading_of(protocol, model, data):
    """(Reading, the protocol with all that was left open) of a model, by a protocol for this set."""
    if protocol.look == "field":
        return FieldReading(protocol.vocabulary(model, data.names)), protocol
    if not data.background:
        protocol = replace(protocol, background="none", value=None, words=())
    elif protocol.background == "words":
        protocol = replace(protocol, words=protocol.words or STUFF, value=None)
    elif protocol.background == "none":
        protocol = replace(protocol, words=(), value=None)
    elif protocol.value is None:
        limit = HALF if protocol.background == "prob" else needed(model.memory, "threshold").threshold
        protocol = replace(protocol, value=limit)
    columns = [
        (k, writing)
        for k, name in enumerate(data.names)
        if not (data.background and k == 0)
        for writing in (name, *(data.writings.get(name, ()) if protocol.synonyms else ()))
    ] + [(0, word) for word in protocol.words]
    if smoothing := REFINEMENTS.get(protocol.refine, {}).get("smoothing"):
        protocol = replace(protocol, inference=replace(protocol.inference, smoothing=smoothing))
    vocabulary = protocol.vocabulary(model, [word for _, word in columns])
    return WindowReading(vocabulary, [k for k, _ in columns], protocol, data.background), protocol
