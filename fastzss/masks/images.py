"""Whatever holds an image -> upright RGB, as PIL has it.

a path, bytes, an opened file    as Pillow reads it, turned as its camera was held
a PIL image                      of any mode
numpy [H, W], [H, W, 1 | 3 | 4]  uint8, or numbers from 0 to 1
torch [H, W], [1 | 3 | 4, H, W]  the same, channels first
"""

import io
from os import PathLike

import numpy as np
import torch
from PIL import Image

from fastzss.base.errors import UserError
from fastzss.sources.images import ImageUnreadable, read_image, upright

TAKEN = (
    "expected a path, bytes, an opened file, a PIL image, a numpy array [H, W] or [H, W, 3] or a torch tensor [H, W] "
    "or [3, H, W], of uint8 or of numbers from 0 to 1"
)


def rgb(image):
    """An upright RGB image of what was given; a TypeError says what is taken."""
    if isinstance(image, Image.Image):
        return upright(image)
    if isinstance(image, torch.Tensor):
        return from_array(image.detach().cpu().numpy(), "a tensor", channel=0)
    if isinstance(image, np.ndarray):
        return from_array(image, "an array", channel=2)
    name = None
    if isinstance(image, bytes | bytearray | memoryview):
        image, name = io.BytesIO(image), f"{len(image)} bytes"
    elif hasattr(image, "read"):
        name = getattr(image, "name", "the opened file")
    elif not isinstance(image, str | PathLike):
        raise TypeError(f"an image is given as {type(image).__name__}; {TAKEN}")
    try:
        return read_image(image, name)
    except ImageUnreadable as problem:
        raise UserError(str(problem)) from None


def from_array(values, what, channel):
    found = f"{what} of {values.dtype} {list(values.shape)}"
    if values.ndim not in (2, 3) or not values.size or (values.ndim == 3 and values.shape[channel] not in (1, 3, 4)):
        raise TypeError(f"an image is given as {found}; {TAKEN}")
    if values.dtype.kind == "f":
        if not (values.min() >= 0 and values.max() <= 1):  # NaN is neither
            raise TypeError(f"an image is given as {found}, from {values.min():g} to {values.max():g}; {TAKEN}")
        values = (values.astype(np.float32) * 255).round().astype(np.uint8)
    if values.dtype == bool:
        values = values * np.uint8(255)
    if values.dtype != np.uint8:
        raise TypeError(f"an image is given as {found}; {TAKEN}")
    if values.ndim == 3:
        values = np.moveaxis(values, channel, 2)
        values = values[..., 0] if values.shape[2] == 1 else values
    return Image.fromarray(np.ascontiguousarray(values)).convert("RGB")
