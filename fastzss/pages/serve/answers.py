"""A model and a look -> answers: plain values and PNGs.

A view is a mask as the page draws it, at a size of its own: an RGB PNG whose red is the class (255: none), whose green
is how much of the place is of it (0..255).
"""

import base64
import time
from contextlib import contextmanager

import numpy as np
import torch
from PIL import Image

from fastzss.masks.colours import css, palette
from fastzss.masks.drawing import heat, named
from fastzss.masks.result import Result, encoded
from fastzss.masks.windows import resized, winners
from fastzss.pages.serve.looks import Look
from fastzss.pages.serve.uploads import Refused, opened

NONE = 255


class Times(dict):
    """{step: seconds}."""

    @contextmanager
    def step(self, name):
        began = time.perf_counter()
        yield
        self[name] = round(time.perf_counter() - began, 4)


class Answers:
    def __init__(self, model, looks, megapixels):
        self.model, self.looks, self.megapixels = model, looks, megapixels

    def look(self, image, name, times):
        """The Look of an image's bytes, or the one that was kept under a name."""
        if image is None:
            return self.looks.find(name)
        with times.step("read"):
            picture, size = opened(image, self.megapixels)
        with times.step("look"):
            seen = self.model.see(picture)
            for _ in seen.fields(self.model.inference.dense):
                pass
        look = Look(seen, size)
        self.looks.keep(look)
        return look

    def looked(self, image, name):
        times = Times()
        look = self.look(image, name, times)
        return {**about(look), "seconds": times}

    def segment(self, image, name, classes, threshold, opacity, view, form):
        """A dict, or of the forms "mask" and "overlay" the bytes of a PNG."""
        times = Times()
        look = self.look(image, name, times)
        with look.lock:
            with times.step("words"):
                self.model.embed_text(classes)
            with times.step("masks"):
                result = self.model.segment(look.seen, classes)
            self.looks.keep(look)
        if form == "json" and view:
            with times.step("view"):
                index, certainty = viewed(result, view_size(result.image.size, view))
            return {**about(look), **legend(result), "view": view_of(index, certainty), "seconds": times}
        if threshold:
            result = surer(result, threshold)
        return self._formed(look, result, form, opacity, times)

    def name(self, image, name, view, form, opacity):
        """What is in an image, by the names of the run's bank."""
        if self.model.bank is None:
            raise Refused(400, "this run has no bank of names; ask for classes instead")
        times = Times()
        look = self.look(image, name, times)
        with times.step("names"):
            result = self.model.name(look.seen.image)
        if form == "json" and view:
            size = view_size(result.image.size, view)
            index = np.asarray(Image.fromarray(result.mask).resize(size, Image.Resampling.NEAREST))
            told = view_of(index, np.full(index.shape, 255, np.uint8))
            return {**about(look), **legend(result), "view": told, "seconds": times}
        return self._formed(look, result, form, opacity, times)

    def heat(self, name, classes, view):
        """The bytes of a PNG: where an image is similar to a class."""
        look = self.looks.find(name)
        with look.lock:
            similarity = self.model.similarities(look.seen, classes)[0]
        size = view_size(look.seen.image.size, view)
        small = resized(torch.from_numpy(similarity)[None], size[::-1])[0].numpy()
        return encoded(heat(look.seen.image.resize(size), small), "PNG")

    @staticmethod
    def _formed(look, result, form, opacity, times):
        if form == "overlay":
            return encoded(named(result.image, result.mask, result.names, opacity)[0], "PNG")
        mask = index_png(result, look.size)
        return mask if form == "mask" else {**about(look), **legend(result), "mask": data_uri(mask), "seconds": times}


def about(look):
    return {"look": look.name, "width": look.size[0], "height": look.size[1]}


def legend(result):
    """The classes of a result in their order; those that are nowhere have a share of 0."""
    others = getattr(result, "others", {})
    nothing = {"share": 0.0, "confidence": 0.0}
    told = [
        {"name": name, "colour": css(colour), **rounded(result.scores.get(name, nothing))}
        | ({"or": {other: round(score, 4) for other, score in others[name]}} if name in others else {})
        for name, colour in zip(result.names, palette(result.names), strict=True)
    ]
    return {"classes": told, "nothing": round(float((result.mask >= len(result.names)).mean()), 4)}


def rounded(scores):
    return {key: round(value, 4) for key, value in scores.items()}


def view_size(size, longest):
    """(width, height) of a view of an image: its longest side has so many pixels."""
    return tuple(max(1, round(side * longest / max(size))) for side in size)


def viewed(result, size):
    """(class, its share 0..255), uint8 [h, w] at a (width, height), of a result of `segment`; NONE: none of them."""
    (width, height), (W, H) = size, result.image.size
    index, certainty = np.full((height, width), NONE, np.uint8), np.zeros((height, width), np.uint8)
    for box, shares in result.parts:
        left, right = (round(x * width / W) for x in box[::2])
        top, bottom = (round(y * height / H) for y in box[1::2])
        nothing = (1 - shares.sum(0, keepdim=True)).clamp_min(0)
        share, winner = winners(torch.cat([shares, nothing]), (bottom - top, right - left))
        winner[winner == len(shares)] = NONE
        index[top:bottom, left:right] = winner.numpy()
        certainty[top:bottom, left:right] = (share.clamp(0, 1) * 255).round().numpy()
    return index, certainty


def surer(result, threshold):
    """The result without the places where less than `threshold` is of their class."""
    _, certainty = viewed(result, result.image.size)
    winner = np.where(certainty >= threshold * 255, result.mask.astype(np.int64), len(result.names))
    return Result.of(result.image, result.names, certainty / 255, winner)


def view_of(index, certainty):
    return data_uri(encoded(Image.fromarray(np.stack([index, certainty, np.zeros_like(index)], -1)), "PNG"))


def index_png(result, size):
    """The mask as an index PNG, in the size in which the image was given."""
    mask = np.where(result.mask < len(result.names), result.mask, NONE).astype(np.uint8)
    picture = Image.fromarray(mask).resize(size, Image.Resampling.NEAREST)
    colours = np.full((256, 3), 128, np.uint8)
    colours[: len(result.names)] = palette(result.names)
    picture.putpalette(colours.tobytes())
    return encoded(picture, "PNG")


def data_uri(data):
    return "data:image/png;base64," + base64.b64encode(data).decode()
