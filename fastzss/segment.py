"""Segmentation: features + class names -> masks.

A class becomes a vector by the run's readout (readout.py).  An image is brought to the backbone's size by its short
side and looked at through windows half a window apart; each patch is compared with each class, the scores are averaged
where windows overlap, brought to the size of the image, and the nearest class wins.  A patch memory (memory.py) may
have a say in what a patch is.

Sizes: K classes, an image of H x W pixels, D channels.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from fastzss.drawing import labelled
from fastzss.errors import UserError
from fastzss.images import ImageUnreadable, read_image
from fastzss.readout import TEMPLATES, Readout, load_tower
from fastzss.runs import Run
from fastzss.vision import as_tensor, reload_vision

AT_ONCE = 16  # classes brought to the size of an image at a time
LARGEST = 255  # classes: a mask is uint8, and 255 is the usual mark for "nothing"


@dataclass(frozen=True)
class Result:
    """What a model saw in an image."""

    image: Image.Image
    mask: np.ndarray  # uint8 [H, W]: index into `names` of every pixel
    names: tuple
    scores: dict  # name -> {"share": of the pixels, "confidence": mean similarity where it won}

    def save(self, path):
        """The image under its mask, with a legend; as NAME.mask.png beside it, the mask itself as an index PNG."""
        path = Path(path)
        labelled(self.image, self.mask, self.names).save(path)
        Image.fromarray(self.mask).save(path.with_suffix(".mask.png"))


class Model(Readout):
    """A trained run with its backbone, ready to look at images."""

    def __init__(self, vision, tower, readout, templates=TEMPLATES):
        super().__init__(tower, readout, templates)
        self.vision = vision

    def segment(self, image, classes, memory=None):
        """A Result for an image (PIL, or the path of a file) and a list of class names."""
        image = opened(image)
        names = check_classes(classes)
        scores = similarity(self.vision, image, self.class_vectors(names), memory)
        confidence, mask = winners(scores, (image.height, image.width))
        mask = mask.numpy().astype(np.uint8)
        found = {
            name: {
                "share": float((mask == k).mean()),
                "confidence": float(confidence[torch.from_numpy(mask == k)].mean()),
            }
            for k, name in enumerate(names)
            if (mask == k).any()
        }
        return Result(image, mask, names, found)


def opened(image):
    """A PIL image, or one read from a path."""
    if isinstance(image, Image.Image):
        return image
    try:
        return read_image(image)
    except ImageUnreadable as problem:
        raise UserError(str(problem)) from None


class Look:
    """An image as the backbone saw it, and as a memory remembers it.

    Attributes: patches, unit vectors [windows, N, D]; size (h, w) to which the image was brought: its short side is the
    side of a window.
    """

    def __init__(self, patches, size, grid):
        self.patches, self.size, self.grid = patches, size, grid

    @torch.inference_mode()
    def scores(self, vectors):
        """float32 [K, h, w]: similarity of each class vector [K, D] with each place."""
        S, vectors = min(self.size), vectors.to(self.patches.device)
        found = (
            resized((patches @ vectors.T).T.reshape(-1, *self.grid), (S, S)).float().cpu() for patches in self.patches
        )
        if len(self.patches) == 1:
            return next(found)
        total, count = torch.zeros(len(vectors), *self.size), torch.zeros(self.size)
        for (y, x), scores in zip(corners(self.size, S), found, strict=True):
            total[:, y : y + S, x : x + S] += scores
            count[y : y + S, x : x + S] += 1
        return total / count


@torch.inference_mode()
def look(vision, image, memory=None):
    """A Look at an image, through windows."""
    S, pixels = vision.size, as_tensor(vision.resize(image))
    size = tuple(pixels.shape[1:])
    patches = torch.cat([vision(pixels[None, :, y : y + S, x : x + S])[0] for y, x in corners(size, S)])
    return Look(patches if memory is None else memory.recall(patches), size, vision.grid)


def similarity(vision, image, vectors, memory=None):
    """float32 [K, h, w]: similarity of each class vector [K, D] with the image, brought to the backbone's size."""
    return look(vision, image, memory).scores(vectors)


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
    for first in range(0, len(scores), AT_ONCE):
        score, index = resized(scores[first : first + AT_ONCE], size).max(0)
        nearer = score > best
        best, winner = torch.where(nearer, score, best), torch.where(nearer, index + first, winner)
    return best, winner


def load(path, device=None, weights=None):
    """The model of a run folder.

    Args:
        path: the run.
        device: "cpu", "cuda", ...; by default cuda where there is one.
        weights: file of the backbone's weights, where they are not where they were.
    """
    run = Run.open(path)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    config = run.config
    vision = reload_vision(config["vision"], config["weights"], weights, device)
    return Model(vision, load_tower(run, device), config["readout"])


def check_classes(classes):
    """Class names as typed ("dog, red car") or as a list, checked."""
    names = classes.split(",") if isinstance(classes, str) else list(classes)
    names = tuple(" ".join(str(name).split()) for name in names)
    names = tuple(dict.fromkeys(name for name in names if name))
    if not names:
        raise UserError(
            'the class list is empty; expected names with commas between, such as "dog, red car, sky"', code=2
        )
    if len(names) > LARGEST:
        raise UserError(f"{len(names)} classes; a mask holds at most {LARGEST}", code=2)
    return names


def window_starts(length, window):
    """Where windows begin along one side: half a window apart, the last one shifted back inside."""
    stride = window // 2
    return [min(start, length - window) for start in range(0, length - window + stride, stride)]
