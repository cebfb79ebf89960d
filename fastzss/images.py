"""Where images and captions come from.

    world:train,n=1200,seed=0     the built-in world, made on the spot
    folder:DIR                    images, each with its captions beside it, one a line, in a .txt of the same name

A source is a list of image ids; image and captions of one are read when asked for.
"""

import hashlib
import logging
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from fastzss import world
from fastzss.errors import UserError, nearest

log = logging.getLogger("fastzss")

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"))


class ImageUnreadable(Exception):
    """One image cannot be decoded; its row stays, marked invalid."""


def open_source(spec):
    """A source from what the user typed."""
    kind, _, rest = spec.partition(":")
    if kind not in SOURCES or not rest:
        if Path(spec).is_dir():
            raise UserError(f'unknown source "{spec}"; it is a folder, so write folder:{spec}', code=2)
        raise UserError(
            f'unknown source "{spec}"{nearest(kind, SOURCES.keys() - {kind})}; expected one of '
            f"{', '.join(SOURCES[k].form for k in SOURCES)}",
            code=2,
        )
    source = SOURCES[kind](spec, rest)
    if len(set(source.ids)) < len(source.ids):
        twice = next(name for name, count in Counter(source.ids).items() if count > 1)
        raise UserError(f"{spec}: several images have the id {twice!r}; each needs one of its own")
    return source


@dataclass
class World:
    spec: str
    rest: str
    form = "world:SPLIT,n=COUNT,seed=SEED"
    model = "tiny"  # the backbone such images are looked at with by default
    _captions: dict = field(default_factory=dict, repr=False)

    def __post_init__(self):
        split, *settings = self.rest.split(",")
        if split not in world.SPLITS:
            hint = nearest(split, world.SPLITS)
            raise UserError(f'{self.spec}: no split "{split}"{hint}; expected {", ".join(world.SPLITS)}', code=2)
        values = {"n": 1200, "seed": 0}
        for setting in settings:
            key, _, value = setting.partition("=")
            if key not in values or not value.isdecimal():
                hint = nearest(key, values.keys() - {key})
                raise UserError(f'{self.spec}: "{setting}" is not understood{hint}; expected {self.form}', code=2)
            values[key] = int(value)
        if values["n"] == 0:
            raise UserError(f"{self.spec}: asks for no images; expected n of at least 1", code=2)
        self.split, self.seed = split, values["seed"]
        self.ids = [f"{split}-{self.seed}-{index:06d}" for index in range(values["n"])]

    def scene(self, index):
        return world.scene(self.split, index, self.seed)

    def image(self, index):
        scene = self.scene(index)
        self._captions[index] = scene.captions  # drawing a scene is the cost; its captions come with it
        return scene.image

    def captions(self, index):
        return self._captions.get(index) or self.scene(index).captions


@dataclass
class Folder:
    spec: str
    rest: str
    form = "folder:DIR"
    model = "vit_base_patch14_reg4_dinov2.lvd142m"

    def __post_init__(self):
        self.root = Path(self.rest)
        if not self.root.is_dir():
            found = "it is a file" if self.root.exists() else "there is nothing"
            raise UserError(f"{self.spec}: no folder at {self.root} ({found}); expected a folder of images")
        try:
            files = sorted(p for p in self.root.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        except OSError as problem:
            raise UserError(f"{self.spec}: cannot be listed ({problem})") from None
        if not files:
            endings = ", ".join(sorted(SUFFIXES))
            raise UserError(f"{self.spec}: no images in {self.root} or below; expected files ending in {endings}")
        self.ids = [p.relative_to(self.root).as_posix() for p in files]
        odd = next((name for name in self.ids if any("\ud800" <= letter <= "\udfff" for letter in name)), None)
        if odd is not None:
            raise UserError(f"{self.spec}: the name of the file {odd!r} is not UTF-8; rename it")
        self._notice_strays(files)

    def _notice_strays(self, files):
        """Say what lies there and does not fit; nothing of it is a reason to stop."""
        stems = Counter(p.with_suffix("") for p in files)
        texts = {p.with_suffix("") for p in self.root.rglob("*.txt") if p.is_file()}
        strays = {
            "captions without an image beside them, which are left out": sorted(texts - stems.keys()),
            "images without captions": sorted(stems.keys() - texts) if texts else [],
            "captions that several images of one name share": sorted(p for p in texts if stems[p] > 1),
        }
        for what, found in strays.items():
            if found:
                log.warning("%s: %d %s, such as %s", self.spec, len(found), what, found[0].relative_to(self.root))

    def image(self, index):
        return read_image(self.root / self.ids[index])

    def captions(self, index):
        beside = (self.root / self.ids[index]).with_suffix(".txt")
        try:
            lines = beside.read_text(encoding="utf-8-sig").splitlines() if beside.exists() else []
        except (OSError, UnicodeDecodeError) as problem:
            raise UserError(f"{beside}: cannot be read as text ({problem}); expected captions, one a line") from None
        return [line.strip() for line in lines if line.strip()]


SOURCES = {"world": World, "folder": Folder}


def source_record(source):
    """What a store remembers of its source: the words of the user and a hash of the image list."""
    return {"spec": source.spec, "list": hashlib.sha256("\n".join(source.ids).encode()).hexdigest()}


def read_image(path):
    """An image file as upright RGB."""
    try:
        with Image.open(path) as image:
            image = ImageOps.exif_transpose(image)
            if image.mode.startswith("I"):  # 16 bits a pixel: Pillow would take all above 255 for white
                image = Image.fromarray((np.asarray(image) // 256).clip(0, 255).astype(np.uint8))
            return image.convert("RGB")
    except FileNotFoundError:
        raise ImageUnreadable(f"{path}: no such file") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as problem:
        raise ImageUnreadable(f"{path}: not a readable image ({problem})") from None
