"""Pictures of masks: the image in grey under the colours of its mask, the names of the regions on it.

A mask is uint8 or uint16 [H, W], the class id of every pixel; a palette is uint8 [K, 3], the colour of every class id.
An id without a colour ("nothing") leaves the image as it is in an overlay and is grey in a mask of its own.
"""

import base64
import io
import math

import numpy as np
from PIL import Image

from fastzss.masks.colours import NOTHING, palette
from fastzss.masks.lettering import SIZE, letter
from fastzss.masks.regions import Regions

NARROW, WIDTH = 320, 512  # pictures narrower than this many pixels are enlarged to that many, for names to be read
SPECK = 0.003  # share of a picture below which a region is not shown
STRIPES = 10, 2  # pixels from one stripe of a hatching to the next, and of a stripe


def data_uri(image):
    """The picture as a PNG inside its own address."""
    file = io.BytesIO()
    image.convert("RGB").save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def colour_mask(mask, colours):
    """The mask as an RGB picture."""
    table = np.vstack([np.asarray(colours).reshape(-1, 3), [NOTHING]]).astype(np.uint8)
    return Image.fromarray(table[np.minimum(mask, len(colours))])


def overlay(image, mask, colours, opacity=0.55):
    """The image in grey under the colours of its mask, with thin darker outlines between regions."""
    if image.size != mask.shape[::-1]:
        raise ValueError(f"overlay: the image is {image.size}, the mask {mask.shape[::-1]} (width, height)")
    # grey, so that the hue is the class's alone: green grass under a red is not brown
    blend = Image.blend(image.convert("L").convert("RGB"), colour_mask(mask, colours), opacity)
    if (nothing := mask >= len(colours)).any():
        blend.paste(image.convert("RGB"), mask=Image.fromarray(nothing))
    blend.paste(blend.point(lambda value: value // 2), mask=Image.fromarray(borders(mask, max(image.size) // 1000 + 1)))
    return blend


def borders(mask, width=1):
    """bool [H, W]: pixels that have another class within `width` to the right or below."""
    edge = np.zeros(mask.shape, bool)
    edge[:, :-width] |= mask[:, :-width] != mask[:, width:]
    edge[:-width] |= mask[:-width] != mask[width:]
    return edge


def named(image, mask, names, opacity=0.55, size=SIZE, wrong=None):
    """(picture, {number: name}): the overlay with the names of its regions; specks belong to what is around them.

    Of the names that no font can write, numbers stand in the picture.  `size` of the letters, in sides of the picture;
    `wrong`: bool [H, W], what is hatched.
    """
    colours = palette(names)
    mask = Regions(mask).without_small(SPECK * mask.size)
    image, shown = fitted(image, mask, WIDTH if image.width < NARROW else 1)
    picture = overlay(image, shown, colours, opacity)
    if wrong is not None:
        hatch(picture, wrong)
    return picture, letter(picture, shown, names, colours, size)


def heat(image, similarity):
    """The image in grey under a float [H, W] map: dark where it is lowest, yellow where it is highest."""
    low, high = float(similarity.min()), float(similarity.max())
    level = ((similarity - low) * (255 / max(high - low, 1e-6))).astype(np.uint8)
    warmth = np.linspace(0, 1, 256)[:, None] ** (0.7, 1.0, 2.0) * (255, 225, 90)  # black, red, yellow
    return Image.blend(image.convert("L").convert("RGB"), Image.fromarray(warmth.astype(np.uint8)[level]), 0.7)


def hatch(picture, where):
    """Dark stripes on a picture, where bool [h, w], brought to its size, says so."""
    where = np.asarray(Image.fromarray(where).resize(picture.size, Image.Resampling.NEAREST))
    y, x = np.ogrid[: picture.height, : picture.width]
    every, width = (round(n * max(1, min(picture.size) / 512)) for n in STRIPES)
    picture.paste((16, 16, 16), mask=Image.fromarray(where & ((x + y) % every < width)))


def fitted(image, mask, least, most=None):
    """Image and mask, enlarged to a width of at least `least`, shrunk to sides of at most `most` pixels.

    Enlarging is by a whole number, so that all pixels of a mask stay equally large, and stops at a height of 4 `least`.
    """
    width, height = image.size
    if width < least:
        factor = max(1, min(-(-least // width), 4 * least // height))
        size = width * factor, height * factor
    else:
        factor = min(1, (most or math.inf) / max(width, height))
        size = max(1, round(width * factor)), max(1, round(height * factor))
    if size == image.size:
        return image, mask
    mask = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
    return image.convert("RGB").resize(size, Image.Resampling.BICUBIC), mask
