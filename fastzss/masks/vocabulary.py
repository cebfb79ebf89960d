"""A vocabulary: class names as one model reads them, ready to be compared with any number of images.

Sizes: K classes, P cells of a field, an image looked at in H x W pixels.
"""

import torch

from fastzss.masks.background import HALF, needed, other_names
from fastzss.masks.evidence import Known
from fastzss.masks.field import see
from fastzss.masks.inference import DEFAULT
from fastzss.masks.refine import refined


class Vocabulary:
    """What classes score at the pixels of an image, by all steps of an Inference.

    Args:
        classes: of each class its name, or a tuple of its names.
        vectors: [K, D] unit vectors of the classes.
        memory: a patch memory; None: the words alone speak.
    """

    def __init__(self, classes, vectors, inference=DEFAULT, memory=None):
        self.count, self.inference = len(vectors), inference
        classes, vectors = list(classes), vectors.float().cpu()
        self.memory = memory if inference.evidence else None
        if inference.background != "none":
            self.threshold = needed(memory, inference.background).threshold
        if inference.background in ("words", "prob"):
            rows = other_names(classes, vectors, memory)
            classes += [memory.names[row] for row in rows]
            vectors = torch.cat([vectors, memory.vectors[rows]])
        self.vectors = vectors
        self.known = Known(classes, vectors, memory.names, memory.vectors) if self.memory else None

    def see(self, vision, image):
        """The Field of an image as these scores want it; another vocabulary of the same inference may share it."""
        return see(vision, image, self.inference.dense)

    @torch.inference_mode()
    def values(self, field):
        """[P, K]: what classes score at the cells of a field, before these become pixels."""
        return self._values(field)[0]

    def _values(self, field):
        """(scores [P, K], [P, 1] what is added to that of nothing)."""
        own = self.inference
        scores = field.smoothed(own.smoothing) @ self.vectors.to(field.patches.device).T
        if not self.known:
            return scores, torch.zeros_like(scores[:, :1])
        evidence = self._evidence(field)
        return scores + self.known.added(evidence, own), self.known.neutral(evidence, own)

    @torch.inference_mode()
    def scores(self, field):
        """float32 [K, H, W] on the CPU: shares of the pixels, which add up to 1; plain similarities without refinement.

        Where there is a background, shares in any case, and one more: that of what is none of the classes.
        """
        own, K = self.inference, self.count
        scores, neutral = self._values(field)
        if own.background == "threshold":
            scores = torch.cat([scores, self.threshold + neutral], 1)
        maps = field.maps(scores)
        if own.refinement or own.background != "none":
            maps = (maps / own.temperature).softmax(0)
        if own.background != "none":  # all that is no class is one
            maps = torch.cat([maps[:K], maps[K:].sum(0, keepdim=True)])
        if own.refinement:
            maps = refined(field.pixels, maps, own.refinement, own.dilations)
        if own.background == "prob":
            maps[K] = HALF
        return maps.float().cpu()

    def shares(self, maps):
        """[K, H, W]: how much of each place is of each class, from its scores; nothing has calibrated them.

        Where there is a background, they add up to less than 1.
        """
        own = self.inference
        if not (own.refinement or own.background == "prob"):
            maps = (maps / own.temperature).softmax(0)
        return maps[: self.count]

    def _evidence(self, field):
        """[P, N]: what the memory says of each cell, smoothed as the patches are."""
        smoothing = self.inference.smoothing
        found = field.kept(self.memory, lambda: self.memory.evidence(field.patches))
        return field.kept((self.memory, smoothing), lambda: field.smooth(found, smoothing))
