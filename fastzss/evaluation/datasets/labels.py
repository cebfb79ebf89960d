"""Label PNGs: one byte a pixel, read raw, and tables that say what a byte means.

A table is int16 [256]: the class of each byte, IGNORE, or UNKNOWN where that byte must not occur.  Palette PNGs hold
class indices, so they are never converted: a converted one holds the grey of a colour.
"""

import numpy as np
from PIL import Image

from fastzss.evaluation.datasets import BadPair
from fastzss.evaluation.score import IGNORE
from fastzss.sources.images import ImageUnreadable, read_image

UNKNOWN = -1


def table(classes, otherwise=UNKNOWN):
    """int16 [256] of {byte: class}; 255 is ignored unless it has a class."""
    found = np.full(256, otherwise, np.int16)
    found[IGNORE] = IGNORE
    for byte, own in classes.items():
        found[byte] = own
    return found


def plain(classes):
    """Bytes that are the classes themselves."""
    return table({k: k for k in range(classes)})


def reduced(classes):
    """Bytes of which 0 is none of the classes, and ignored: class k is k + 1."""
    return table({0: IGNORE, **{k + 1: k for k in range(classes)}})


def read_label(path, means, named):
    """uint8 [H, W] of a label PNG, by its table; `named`: what says which bytes there may be."""
    try:
        with Image.open(path) as label:
            mode, mask = label.mode, np.array(label)
    except FileNotFoundError:
        raise BadPair(f"{path}: no such label") from None
    except (OSError, EOFError, ValueError, SyntaxError) as problem:
        raise BadPair(f"{path}: not a readable label ({problem})") from None
    if mode not in ("P", "L"):
        raise BadPair(f"{path}: a label of mode {mode}; expected one byte a pixel, its class (P or L)")
    counts = np.bincount(mask.ravel(), minlength=256)
    if (wrong := (counts > 0) & (means == UNKNOWN)).any():
        known = [byte for byte in np.flatnonzero(means != UNKNOWN).tolist() if byte != IGNORE]
        raise BadPair(
            f"{path}: holds class {np.flatnonzero(wrong)[-1]}, {named} names {known[0]} to {known[-1]} "
            f"({IGNORE} is ignored)"
        )
    return means.astype(np.uint8)[mask]


def read_pair(image, label, means, named):
    """(PIL image, uint8 mask) of one size."""
    try:
        picture = read_image(image)
    except ImageUnreadable as problem:
        raise BadPair(str(problem)) from None
    mask = read_label(label, means, named)
    if mask.shape != (picture.height, picture.width):
        found = f"{mask.shape[1]} x {mask.shape[0]} pixels, its image {picture.width} x {picture.height}"
        raise BadPair(f"{label}: has {found}; expected the same")
    return picture, mask


def refuse(bad, skip, where):
    """Refuses a set with bad pairs, unless they may be skipped."""
    if bad and not skip:
        more = f" (and {len(bad) - 1} more like it)" if len(bad) > 1 else ""
        raise BadPair(f"{where}: {bad[0]}{more}; --skip-bad leaves them out, and marks the score as partial")
