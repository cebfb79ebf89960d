"""What a model saw in an image: the mask, and all that is asked of it."""

import io
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image, PngImagePlugin

from fastzss.base.errors import UserError
from fastzss.base.files import make_folder, write_files
from fastzss.masks.colours import NOTHING, palette
from fastzss.masks.drawing import named
from fastzss.masks.regions import Regions, outlines
from fastzss.masks.windows import resized

LISTED = 5  # classes in the one line that a result is


@dataclass(frozen=True, repr=False, eq=False)
class Result:
    """What a model saw in an image."""

    image: Image.Image
    mask: np.ndarray  # uint8, of more than 255 classes uint16 [H, W]: index into `names`; its largest value is nothing
    names: tuple
    scores: dict  # name -> {"share": of the pixels, "confidence": mean score where it won}
    parts: tuple = field(default=(), kw_only=True)  # ((left, top, right, bottom), shares [K, h, w]) of the image

    @classmethod
    def of(cls, image, names, confidence, winner, parts=()):
        """From [H, W] scores and indices; an index that is none of `names` is nothing."""
        K, kind = len(names), np.uint8 if len(names) <= 255 else np.uint16
        inside = (winner >= 0) & (winner < K)
        mask = np.where(inside, winner, np.iinfo(kind).max).astype(kind)
        pixels = np.bincount(winner[inside], minlength=K)
        total = np.bincount(winner[inside], confidence[inside], minlength=K)
        scores = {
            name: {"share": float(n / mask.size), "confidence": float(t / n)}
            for name, n, t in zip(names, pixels, total, strict=True)
            if n
        }
        return cls(image, mask, names, scores, parts=parts)

    def __repr__(self):
        seen = sorted(self.scores.items(), key=lambda item: -item[1]["share"])
        told = [f"{name} {100 * s['share']:.0f} % ({s['confidence']:.2f})" for name, s in seen[:LISTED]]
        more = [f"{len(seen) - LISTED} more"] if len(seen) > LISTED else []
        width, height = self.image.size
        return f"<{type(self).__name__} {width} x {height}: {', '.join(told + more) or 'nothing'}>"

    def _repr_png_(self):
        return encoded(self.picture, "PNG")

    @cached_property
    def _drawn(self):
        return named(self.image, self.mask, self.names)

    @property
    def picture(self):
        """The image under its mask, with the names on its regions; specks are left out, narrow images enlarged."""
        return self._drawn[0]

    def probabilities(self):
        """float32 [K, H, W]: how much of each pixel is of each class.

        Nothing has calibrated them: a run knows what is nearer, not how often it is right.
        """
        if not self.parts:
            raise ValueError("probabilities: this result has no shares of classes; those of `segment` have")
        found = torch.empty(len(self.names), *self.mask.shape)
        for (left, top, right, bottom), maps in self.parts:
            found[:, top:bottom, left:right] = resized(maps, (bottom - top, right - left))
        return found.numpy()

    def boxes(self, least=0):
        """{name: [(left, top, right, bottom), ...]} of its connected regions, the largest first.

        least: share of the image below which a region is left out.
        """
        found = {name: [] for name in self.scores}
        regions = self._regions
        for region in np.argsort(-regions.pixels, kind="stable").tolist():
            if regions.kind[region] < len(self.names) and regions.pixels[region] >= least * self.mask.size:
                found[self.names[regions.kind[region]]].append(tuple(regions.box[region].tolist()))
        return found

    @cached_property
    def _regions(self):
        return Regions(self.mask)

    def polygons(self):
        """{name: [int [points, 2], ...]}: the borders of its regions, (x, y) of corners of pixels; clockwise round a
        region, the other way round a hole, so that filling all by the even-odd rule gives back the mask."""
        return {name: outlines(self.mask == self.names.index(name)) for name in self.scores}

    def save(self, path):
        """The picture, as PATH; beside it, as NAME.mask.png, the mask as an index PNG that holds the names.

        Without an ending PATH gets .png.  Where no font has the letters of a name, its number stands in the picture,
        and NAME.legend.txt says which it is.  Returns the path of the picture and that of the mask.
        """
        path = Path(path)
        path = path if path.suffix else path.with_suffix(".png")
        form = Image.registered_extensions().get(path.suffix.lower())
        if form not in Image.SAVE or path.is_dir():
            what = "is a folder" if path.is_dir() else f"is no picture that can be written ({path.suffix})"
            raise UserError(f"{path}: {what}; expected a file such as {path.with_suffix('.png').name}")
        picture, numbered = self._drawn
        mask = path.with_suffix(".mask.png")
        files = {path: encoded(picture, form), mask: self._index_png()}
        if numbered:
            legend = "".join(f"{number}\t{name}\n" for number, name in numbered.items())
            files[path.with_suffix(".legend.txt")] = legend.encode()
        make_folder(path.parent)
        write_files(files)
        return path, mask

    def _index_png(self):
        """The mask as a PNG: indices, the colours of the picture, and as text "names" a JSON list."""
        image, words = Image.fromarray(self.mask), PngImagePlugin.PngInfo()
        if self.mask.dtype == np.uint8:
            colours = np.full((256, 3), NOTHING, np.uint8)
            colours[: len(self.names)] = palette(self.names)
            image.putpalette(colours.tobytes())
        words.add_itxt("names", json.dumps(self.names, ensure_ascii=False))
        return encoded(image, "PNG", pnginfo=words)


def encoded(image, form, **options):
    """The bytes of a picture; a PNG quickly: the last tenth of its size would take most of the time."""
    file = io.BytesIO()
    image.save(file, form, **({"compress_level": 1} if form == "PNG" else {}), **options)
    return file.getvalue()
