"""Public sets: where their images and labels lie below a data folder, and what the bytes of the labels mean.

A set has one or several layouts, the first that has labels is used: as mmseg lays it out, and as it is downloaded where
a table can map it.  A pair is one key: images/KEY + image_end and labels/KEY + label_end; the keys are those of a list
file, or of the images that are there.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastzss.bank.sets import class_groups
from fastzss.base.errors import UserError
from fastzss.evaluation.datasets import EvaluationSet
from fastzss.evaluation.datasets.labels import read_label, read_pair, refuse

SHOWN = 3  # missing files that are named


@dataclass(frozen=True, kw_only=True)
class Layout:
    images: str
    labels: str
    image_end: str
    label_end: str
    means: np.ndarray  # int16 [256], labels.py
    what: str  # the labels, in words
    listed: str | None = None  # file of the keys
    others: str | None = None  # how labels end that lie beside these and are no part of them


def devkit_layouts(roots, labels, listed, means):
    """Layouts of the VOC devkit's kind, under any of some roots."""
    return tuple(
        Layout(
            images=f"{root}/JPEGImages",
            labels=f"{root}/{labels}",
            image_end=".jpg",
            label_end=".png",
            means=means,
            what=f"{root}/{labels}",
            listed=f"{root}/ImageSets/{listed}/val.txt",
        )
        for root in roots
    )


@dataclass(frozen=True)
class PublicSet:
    name: str
    classes: str  # the list of fastzss/bank/classes that names its classes
    images: int  # that the whole set has
    layouts: tuple
    background: bool = False  # before the classes, one more: none of these
    hint: str = ""  # how to get its labels

    def found(self, root):
        """The layout that is there, or the first one."""
        return max(self.layouts, key=lambda layout: next(labels_below(root, layout), None) is not None)

    def pairs(self, root):
        """([(key, image, label)], sentences about what is missing, the layout)."""
        layout = self.found(root)
        images, labels = root / layout.images, root / layout.labels
        if layout.listed is not None:
            if not (root / layout.listed).is_file():
                return [], [f"{root / layout.listed}: no such file, the list of its images"], layout
            keys = (root / layout.listed).read_text(encoding="utf-8-sig").split()
        else:
            keys = sorted(keys_below(images, layout.image_end))
        bad, pairs = [], []
        there = set(labels_below(root, layout))
        seen = set(keys_below(images, layout.image_end))
        for key in keys:
            if key not in seen:
                bad.append(f"{images / key}{layout.image_end}: no such image")
            elif key not in there:
                bad.append(f"{labels / key}{layout.label_end}: no such label")
            else:
                pairs.append(
                    (key, Path(f"{images / key}{layout.image_end}"), Path(f"{labels / key}{layout.label_end}"))
                )
        if layout.listed is None:
            bad += [f"{labels / key}{layout.label_end}: a label without an image" for key in sorted(there - seen)]
        return pairs, bad, layout

    def check(self, root):
        """A row of what is there: {"set", "state", "images", "labels", "missing"}."""
        pairs, bad, layout = self.pairs(Path(root))
        complete = len(pairs) == self.images and not bad
        missing = [] if complete else bad[:SHOWN] + [f"and {len(bad) - SHOWN} more like them"] * (len(bad) > SHOWN)
        if not pairs and not complete:
            missing = [self.belongs(Path(root))]
        elif not complete and not bad:
            missing = [f"{self.images - len(pairs)} of its {self.images} images"]
        return {
            "set": self.name,
            "state": "complete" if complete else "incomplete" if pairs else "not there",
            "images": f"{len(pairs)} of {self.images}",
            "labels": layout.what if pairs else "-",
            "missing": "; ".join(missing) or "nothing",
        }

    def belongs(self, root):
        """Where its files belong, in one sentence."""
        layout = self.layouts[0]
        images, labels = f"{root / layout.images}/*{layout.image_end}", f"{root / layout.labels}/*{layout.label_end}"
        return f"expected {images}, {labels}" + (f", {root / layout.listed}" if layout.listed else "") + self.hint

    def open(self, data, flag="--data", skip=False):
        if data is None:
            raise UserError(f"the set {self.name} needs {flag} DIR; {self.belongs(Path('DIR'))}", code=2)
        root = Path(data)
        if not root.is_dir():
            raise UserError(f"{flag} {root}: no such folder; {self.belongs(root)}")
        pairs, bad, layout = self.pairs(root)
        if not pairs:
            raise UserError(f"{flag} {root}: {self.name} is not there; {self.belongs(root)}")
        refuse(bad, skip, self.name)
        groups = class_groups(self.classes)
        return EvaluationSet(
            ("background",) * self.background + tuple(groups),
            {},
            [key for key, _, _ in pairs],
            lambda index: read_pair(*pairs[index][1:], layout.means, self.name),
            lambda index: read_label(pairs[index][2], layout.means, self.name),
            writings=groups,
            background=self.background,
            used=layout.what,
            bad=tuple(bad),
            expected=self.images,
        )


def labels_below(root, layout):
    return keys_below(root / layout.labels, layout.label_end, layout.others)


def keys_below(folder, end, others=None):
    """Paths of the files below a folder that end so, without that end; not of those that end like others."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob(f"*{end}") if not path.name.startswith("."))
    return (key.removesuffix(end) for key in found if others is None or not key.endswith(others))
