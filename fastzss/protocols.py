"""Evaluation sets and named protocols: which images, which truth, which classes, which settings.

A protocol fixes everything that a score depends on, so that two scores of one protocol may be compared.

    world     the built-in world: window and stride as trained, plain template, every pixel has a class
    folder    DIR/images, DIR/labels (index PNGs of the same names), DIR/classes.txt (a class a line): 255 is ignored
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fastzss import world
from fastzss.errors import UserError
from fastzss.images import SUFFIXES, ImageUnreadable, World, open_source, read_image

TEMPLATES = ("{}",)


@dataclass(frozen=True)
class EvaluationSet:
    names: tuple  # of the classes
    groups: dict  # {"things": class indices, ...}: parts of the classes to score apart
    ids: list
    read: object  # index -> (PIL image, uint8 mask [H, W])

    def __len__(self):
        return len(self.ids)


def world_set(data):
    source = open_source(data or "world:test,n=200")
    if not isinstance(source, World):
        raise UserError(f"--data {data}: the protocol world takes {World.form}", code=2)
    things = len(world.THINGS)

    def read(index):
        scene = source.scene(index)
        return scene.image, scene.mask

    groups = {"things": list(range(things)), "stuff": list(range(things, len(world.NAMES)))}
    return EvaluationSet(world.NAMES, groups, source.ids, read)


def folder_set(data):
    if data is None:
        raise UserError("the protocol folder needs --data DIR with images/, labels/ and classes.txt", code=2)
    root = Path(data)
    for part in ("images", "labels", "classes.txt"):
        if not (root / part).exists():
            raise UserError(f"--data {root}: has no {part}; expected images/, labels/ and classes.txt")
    names = tuple(line.strip() for line in (root / "classes.txt").read_text().splitlines() if line.strip())
    images = sorted(p for p in (root / "images").iterdir() if p.suffix.lower() in SUFFIXES)
    missing = [p.name for p in images if not (root / "labels" / f"{p.stem}.png").exists()]
    if missing or not images:
        raise UserError(
            f"--data {root}: {len(missing)} of {len(images)} images have no label PNG of their name in labels/"
            + (f" (the first is {missing[0]})" if missing else "")
        )

    def read(index):
        path = images[index]
        try:
            image = read_image(path)
            # palette PNGs hold class indices: they are read raw, never converted
            mask = np.array(Image.open(root / "labels" / f"{path.stem}.png"))
        except (ImageUnreadable, OSError) as problem:
            raise UserError(f"{path}: {problem}") from None
        if mask.shape != (image.height, image.width):
            raise UserError(f"{path}: its label is {mask.shape[1::-1]} pixels, the image {image.size}; expected the same")
        return image, mask

    return EvaluationSet(names, {}, [p.name for p in images], read)


PROTOCOLS = {"world": world_set, "folder": folder_set}
