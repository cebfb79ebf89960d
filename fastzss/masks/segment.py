"""Segmentation: features + class names -> masks.

A class becomes a vector by the run's readout (text/readout.py), an image becomes a field of patches (field.py), and
both meet in a vocabulary (vocabulary.py), by the steps of an inference (inference.py).

Sizes: K classes, an image of H x W pixels, D channels, G kinds of global vectors.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial

import numpy as np
import torch
import torch.nn.functional as F

from fastzss.base.errors import UserError
from fastzss.masks.classes import classes_of
from fastzss.masks.field import see
from fastzss.masks.hub import Shareable
from fastzss.masks.images import rgb
from fastzss.masks.inference import DEFAULT
from fastzss.masks.naming import REGIONS, Namer
from fastzss.masks.result import Result
from fastzss.masks.vocabulary import Vocabulary
from fastzss.masks.windows import resized, winners

REMEMBERED = 10_000  # vectors of prompts that a model keeps
LONGEST = 16  # short sides: a longer image is seen in pieces, so that it needs no more memory than others


class Model(Shareable):
    """A trained run, ready to look at images: a backbone that sees, and words that become vectors of what it sees."""

    def __init__(self, vision, words, bank=None, memory=None, inference=DEFAULT):
        self.vision, self.words, self.bank = vision, words, bank
        self.memory, self.inference = memory, inference
        self._vectors = {}  # (name, templates) -> [D]
        self._namer = None

    def class_vectors(self, names, readout=None, templates=None, raw=False):
        """[K, D] unit vectors of names."""
        return self.words.class_vectors(names, readout, templates, raw)

    def vocabulary(self, names, inference=None, readout=None, templates=None, raw=False):
        """The Vocabulary of class names, by the model's own memory."""
        vectors = self.class_vectors(names, readout, templates, raw)
        return Vocabulary(names, vectors, inference or self.inference, self.memory)

    def segment(self, image, classes, inference=None):
        """A Result for an image; for a list of images, a list of them.

        Args:
            image: a path, bytes, an opened file, a PIL image, a numpy array [H, W] or [H, W, 3], a torch tensor [H, W]
                or [3, H, W], what `see` gave; or a list of these.
            classes: "dog, red car|automobile, sky", with | between names of one class; a list of names or of lists of
                aliases; a dict of a name's prompts; or the pathlib.Path of a file with a class a line.
            inference: the steps of masks/inference.py; by default all of them, PLAIN for none.  With a background, what
                is none of the classes has the mask's largest value.
        """
        classes, inference = classes_of(classes), inference or self.inference
        vocabulary = cache(partial(self._vocabulary, classes))  # by its inference
        if isinstance(image, list | tuple | Iterator) and not hasattr(image, "read"):
            return [self._segment(self.see(one), classes, inference, vocabulary) for one in image]
        return self._segment(self.see(image), classes, inference, vocabulary)

    def see(self, image):
        """An image as it is seen once, for `segment` with one list of classes after the other."""
        return image if isinstance(image, Seen) else Seen(self.vision, rgb(image))

    def _vocabulary(self, classes, inference):
        names = [found.aliases or (found.name,) for found in classes]
        return Vocabulary(names, self._embed(classes), inference, self.memory)

    def _segment(self, seen, classes, inference, vocabulary):
        width, height = seen.image.size
        if 2 * min(width, height) < self.vision.size:  # what is enlarged that much has nothing fine to be looked at
            inference = replace(inference, dense=False, refinement=0)
        vocabulary = vocabulary(inference)
        confidence, winner, parts = torch.empty(height, width), torch.empty(height, width).long(), []
        for (left, top, right, bottom), field in seen.fields(vocabulary.inference.dense):
            inside, size = (slice(top, bottom), slice(left, right)), (bottom - top, right - left)
            maps = vocabulary.scores(field)
            confidence[inside], winner[inside] = winners(maps, size)
            if maps[0].numel() > size[0] * size[1]:  # of an image that was enlarged: as its pixels have it
                maps = resized(maps, size)
            parts.append(((left, top, right, bottom), vocabulary.shares(maps)))
        names = tuple(found.name for found in classes)
        return Result.of(seen.image, names, confidence.numpy(), winner.numpy(), tuple(parts))

    def similarities(self, image, classes):
        """float32 [K, H, W]: how similar each place of an image is to each class, by the words alone."""
        alone = replace(self.inference, evidence=0, refinement=0, background="none")
        seen, vocabulary = self.see(image), self._vocabulary(classes_of(classes), alone)
        found = np.empty((vocabulary.count, *seen.image.size[::-1]), np.float32)
        for (left, top, right, bottom), field in seen.fields(alone.dense):
            found[:, top:bottom, left:right] = resized(vocabulary.scores(field), (bottom - top, right - left))
        return found

    def embed_text(self, names):
        """[K, D] unit vectors of classes, as `segment` takes them: what the patches of an image are compared with."""
        return self._embed(classes_of(names))

    def _embed(self, classes):
        """[K, D]: of each class the mean of its aliases' and prompts' vectors; they are kept for the next time."""
        own, missing = tuple(self.words.templates), {}
        asked = [
            [(alias, own) for alias in found.aliases]
            + [(found.name, (prompt,)) if "{}" in prompt else (prompt, ("{}",)) for prompt in found.prompts]
            for found in classes
        ]
        for key in {key: None for keys in asked for key in keys}:
            if key not in self._vectors:
                missing.setdefault(key[1], []).append(key[0])
        fresh = {}
        for templates, names in missing.items():
            vectors = self.words.class_vectors(names, templates=templates)
            fresh |= {(name, templates): vector for name, vector in zip(names, vectors, strict=True)}
        found = torch.stack(
            [torch.stack([fresh.get(key, self._vectors.get(key)) for key in keys]).mean(0) for keys in asked]
        )
        self._vectors |= fresh
        while len(self._vectors) > REMEMBERED:
            del self._vectors[next(iter(self._vectors))]
        return F.normalize(found, dim=-1)

    @torch.inference_mode()
    def embed_image(self, image):
        """(unit patches [rows, columns, D], global vectors [G, D]) of an image.

        The patches are those of windows over all of it, averaged where these overlap; the global vectors are those of
        its middle square, as training saw it, and `vision.globals` says what kinds they are.
        """
        image = rgb(image)
        field = see(self.vision, image, dense=False)
        patches = F.normalize(field.patches, dim=-1).view(*field.grid, -1)
        return patches.cpu(), self.vision(self.vision.pixels(image)[None])[1][0]

    def name(self, image, regions=REGIONS):
        """A Named result: what is in an image, by the names of the run's own bank."""
        if self.bank is None:
            raise UserError("this run has no bank of names; `segment` takes classes", code=2)
        if self._namer is None:
            self._namer = Namer(self, self.bank)
        return self._namer.name(image, regions)


class Seen:
    """An image and its fields, each made when it is asked for first."""

    def __init__(self, vision, image):
        self.vision, self.image = vision, image
        self._fields = {}

    def fields(self, dense):
        """(box, Field) of each piece of the image; most images are one piece."""
        for box, part in pieces(self.image):
            if (box, dense) not in self._fields:
                self._fields[box, dense] = see(self.vision, part, dense)
            yield box, self._fields[box, dense]

    @property
    def bytes(self):
        """Of the image and all that is known of it."""
        width, height = self.image.size
        return 3 * width * height + sum(field.bytes for field in list(self._fields.values()))


def pieces(image):
    """(box, part) that cover an image, box (left, top, right, bottom); most images are one piece."""
    step = LONGEST * min(image.size)
    for top in range(0, image.height, step):
        for left in range(0, image.width, step):
            box = left, top, min(left + step, image.width), min(top + step, image.height)
            yield box, image if max(image.size) <= step else image.crop(box)
