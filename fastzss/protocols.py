"""Evaluation sets and named protocols: which images, which truth, which classes, which settings.

A protocol fixes everything that a score depends on, so that two scores of one protocol may be compared.

    world     the built-in world: window and stride as trained, plain templates, every pixel has a class
    folder    DIR/images, DIR/labels (index PNGs of the same names), DIR/classes.txt (a class a line): 255 is ignored
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fastzss import world
from fastzss.errors import UserError
from fastzss.images import SUFFIXES, ImageUnreadable, World, open_source, read_image

IGNORE = 255  # a pixel whose class nobody knows


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
    groups = world.groups(source.split)
    names = world.names(source.split)
    if source.split == "combinations":
        groups |= {"unseen": world.UNSEEN, "seen": world.SEEN}

    def read(index):
        scene = source.scene(index)
        return scene.image, scene.mask

    groups = {group: [names.index(name) for name in members] for group, members in groups.items()}
    return EvaluationSet(names, groups, source.ids, read)


def folder_set(data):
    if data is None:
        raise UserError("the protocol folder needs --data DIR with images/, labels/ and classes.txt", code=2)
    root = Path(data)
    for part in ("images", "labels", "classes.txt"):
        if not (root / part).exists():
            raise UserError(f"--data {root}: has no {part}; expected images/, labels/ and classes.txt")
    try:
        lines = (root / "classes.txt").read_text(encoding="utf-8-sig").splitlines()
        images = sorted(p for p in (root / "images").iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
    except (OSError, UnicodeDecodeError) as problem:
        raise UserError(f"--data {root}: {problem}; expected images/, labels/ and classes.txt") from None
    names = tuple(line.strip() for line in lines if line.strip())
    if not names or len(set(names)) != len(names):
        raise UserError(f"--data {root}: classes.txt holds no class or one twice; expected a class a line")
    if not images:
        raise UserError(f"--data {root}: no images in images/; expected files ending in {', '.join(sorted(SUFFIXES))}")
    missing = [p.name for p in images if not (root / "labels" / f"{p.stem}.png").exists()]
    if missing:
        raise UserError(
            f"--data {root}: {len(missing)} of {len(images)} images have no label PNG of their name in labels/ "
            f"(the first is {missing[0]})"
        )

    def read(index):
        path = images[index]
        label = root / "labels" / f"{path.stem}.png"
        try:
            image = read_image(path)
        except ImageUnreadable as problem:
            raise UserError(str(problem)) from None
        mask = read_label(label, len(names))
        if mask.shape != (image.height, image.width):
            found = f"{mask.shape[1]} x {mask.shape[0]} pixels, its image {image.width} x {image.height}"
            raise UserError(f"{label}: has {found}; expected the same")
        return image, mask

    return EvaluationSet(names, {}, [p.name for p in images], read)


def read_label(path, classes):
    """uint8 [H, W] of an index PNG: palette PNGs hold class indices, so they are read raw, never converted."""
    try:
        with Image.open(path) as label:
            mode, mask = label.mode, np.array(label)
    except (OSError, ValueError, SyntaxError) as problem:
        raise UserError(f"{path}: not a readable label ({problem})") from None
    if mode not in ("P", "L"):
        raise UserError(f"{path}: a label of mode {mode}; expected one byte a pixel, its class (P or L)")
    largest = mask[mask != IGNORE].max(initial=0)
    if largest >= classes:
        raise UserError(f"{path}: holds class {largest}, classes.txt names 0 to {classes - 1} ({IGNORE} is ignored)")
    return mask


PROTOCOLS = {"world": world_set, "folder": folder_set}
