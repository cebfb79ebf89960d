"""Image files: which endings they have, where they lie, and how they become upright RGB."""

import os
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"))
LITTER = "__MACOSX"  # what macOS adds to its archives


class ImageUnreadable(Exception):
    """One image cannot be decoded; its row stays, marked invalid."""


class Files:
    """What sources of image files share: their `file(index)` gives (a path or an opened file, what to call it)."""

    model = "vit_base_patch14_reg4_dinov2.lvd142m"
    settings = ()
    listed = False
    captions_first = True

    def image(self, index, enough=None):
        return read_image(*self.file(index), enough)

    def size(self, index):
        file, name = self.file(index)
        with readable(name), Image.open(file) as image:
            return image.size


def read_image(file, name=None, enough=None):
    """An image file, a path or opened, as upright RGB; `name`: what to call it where it cannot be read.

    `enough`: pixels that the short side needs; a JPEG of many more is decoded at a half, a quarter or an eighth.
    """
    with readable(file if name is None else name), Image.open(file) as image:
        if enough:
            image.draft(None, (enough, enough))
        return upright(image)


def frames(path):
    """(number, upright RGB) of each frame of an animation, from 0; of an image that is none, (None, upright RGB)."""
    with readable(path):
        image = Image.open(path)
    with image:
        moving = getattr(image, "is_animated", False) and image.format != "TIFF"  # whose frames are pages
        for number in range(image.n_frames if moving else 1):
            with readable(path):
                image.seek(number)
                found = upright(image)
            yield (number if moving else None), found


@contextmanager
def readable(name):
    """Turns whatever Pillow says of a file that is no image into ImageUnreadable."""
    try:
        yield
    except FileNotFoundError:
        raise ImageUnreadable(f"{name}: no such file") from None
    except (OSError, EOFError, ValueError, SyntaxError, Image.DecompressionBombError) as problem:
        raise ImageUnreadable(f"{name}: not a readable image ({problem})") from None


def upright(image):
    """A PIL image turned as its camera was held, as RGB."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits a pixel: Pillow would take all above 255 for white
        image = Image.fromarray((np.asarray(image) // 256).clip(0, 255).astype(np.uint8))
    return image.convert("RGB")


def files_below(folder, suffixes=SUFFIXES):
    """Files of these endings in a folder and below, in order; hidden ones and what macOS adds are left out."""
    found = []
    for here, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not hidden(name)]
        fitting = (name for name in names if os.path.splitext(name)[1].lower() in suffixes and not hidden(name))
        found += [Path(here, name) for name in fitting]
    return sorted((path for path in found if path.is_file()), key=lambda path: path.parts)


def hidden(name):
    return name.startswith(".") or name == LITTER
