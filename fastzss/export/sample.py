"""Three images and three words, and what a run says of them: what an export is held to."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from fastzss import world
from fastzss.base.errors import UserError

WORDS = ("tree", "house", "sky")
IMAGES = 3


@dataclass(frozen=True)
class Sample:
    """Three images and three words, and what the run says of them: unit vectors."""

    pixels: torch.Tensor  # uint8 [3, 3, S, S]
    words: tuple
    images: torch.Tensor  # [3, D] by the kind of global vector that the run was trained with
    texts: torch.Tensor  # [3, D] of whole captions, that are these words


def sample_images(vision):
    return torch.stack([vision.pixels(world.scene("test", index).image) for index in range(IMAGES)])


def sample(model, run, form):
    pixels = sample_images(model.vision)
    words = getattr(model, "words", None)
    if getattr(words, "tower", None) is None:
        raise UserError(f"this run has no text tower of its own, and --to {form} is one; --to onnx has none", code=2)
    images = model.vision(pixels)[1][:, model.vision.globals.index(kind_of(model, run))]
    texts = words.class_vectors(list(WORDS), "eot", ("{}",))
    return Sample(pixels, WORDS, F.normalize(images, dim=-1).cpu(), texts.cpu())


def kind_of(model, run):
    """The kind of global vector with which captions were compared."""
    return run.config["settings"].get("global_feature") or model.vision.globals[0]


def normalised(vision, pixels):
    """float32 [B, 3, S, S] as the backbone takes it."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (vision.mean, vision.std))
    return (pixels.float() / 255 - mean) / std


def gap(one, other):
    """The largest difference of two tensors; endless where they hold no numbers."""
    found = (one.double() - other.double()).abs().max().item()
    return found if found == found else float("inf")
