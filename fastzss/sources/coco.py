"""coco:DIR[:SPLIT]: COCO as it is downloaded and unpacked, or anything that was given its layout.

    DIR/train2017/000000000009.jpg               or DIR/images/train2017/...
    DIR/annotations/captions_train2017.json      images [{id, file_name, ...}], annotations [{image_id, caption}]

The pictures of 2014 are those of 2017 under longer names (COCO_train2014_000000000009.jpg); either annotations find
either files.
"""

import json
import logging
import os
from pathlib import Path

from fastzss.base.errors import UserError, nearest
from fastzss.sources.images import Files

log = logging.getLogger("fastzss")

USUAL = ("train2017", "train2014")  # taken where no split is named


class Coco(Files):
    form = "coco:DIR[:SPLIT]"

    def __init__(self, spec, rest, own=None):
        self.spec = spec
        self.root, split = _root_and_split(rest)
        self.split = self._split(split)
        self.annotations = self.root / "annotations" / f"captions_{self.split}.json"
        images, annotations = self._read()
        folder, there = self._files()
        self._folder = folder

        self._sizes, self._captions, place, absent = [], [], {}, []
        names = []
        for image in sorted(images, key=lambda image: image["file_name"]):
            name = _found(image["file_name"], self.split, there)
            if name is None:
                absent.append(image["file_name"])
                place[image["id"]] = None
                continue
            place[image["id"]] = len(names)
            names.append(name)
            self._sizes.append((image.get("width"), image.get("height")))
            self._captions.append([])
        if not names:
            raise UserError(
                f"{spec}: none of the {len(images)} images that {self.annotations} names, such as "
                f"{images[0]['file_name']}, lies in {folder}. Unpack the images of {self.split} there."
            )
        strangers, homeless = set(), 0
        for one in annotations:
            at = place.get(one["image_id"], -1)
            if at == -1:
                strangers.add(one["image_id"])
            elif at is None:
                homeless += 1
            else:
                self._captions[at].append(one["caption"].strip())
        if len(strangers) and not any(self._captions):
            raise UserError(
                f"{spec}: no caption of {self.annotations} is of an image that it names: the first is of the image "
                f"{annotations[0]['image_id']!r}, and such an id is not among its {len(images)} images. "
                f"Give the file as it was downloaded."
            )
        self.ids = [f"{self.split}/{name}" for name in names]
        self._say(absent, homeless, strangers, sorted(there - set(names)))

    def _split(self, split):
        folder = self.root / "annotations"
        if not folder.is_dir():
            found = "it is a file" if self.root.is_file() else f"there is no {folder}"
            raise UserError(f"{self.spec}: not COCO's layout ({found}); expected {folder}/captions_train2017.json")
        splits = sorted(p.name[len("captions_") : -len(".json")] for p in folder.glob("captions_*.json"))
        if split is None:
            usual = [name for name in USUAL if name in splits] or splits
            if len(usual) != 1 and usual[:1] != [USUAL[0]]:
                there = (
                    f"there are {', '.join(splits)}: write coco:{self.root}:{splits[0]}" if splits else "there is none"
                )
                raise UserError(f"{self.spec}: which captions of {folder}? {there}", code=2)
            return usual[0]
        if split not in splits:
            there = ", ".join(splits) or "none"
            raise UserError(
                f'{self.spec}: no captions of "{split}"{nearest(split, splits)} in {folder}; there: {there}'
            )
        return split

    def _read(self):
        """The lists `images` and `annotations` of the captions file."""
        try:
            content = json.loads(self.annotations.read_bytes())
        except (OSError, ValueError) as problem:
            raise UserError(f"{self.annotations}: is no JSON ({problem}). Unpack the annotations again.") from None
        found = content if isinstance(content, dict) else {}
        for key, needs in (("images", ("id", "file_name")), ("annotations", ("image_id", "caption"))):
            rows = found.get(key)
            if not isinstance(rows, list) or not rows:
                raise UserError(
                    f"{self.annotations}: has no {key}; found {', '.join(found) or type(content).__name__}. "
                    f"Expected a captions file of COCO, as captions_train2017.json."
                )
            lacking = next((n for row in rows for n in needs if not isinstance(row, dict) or n not in row), None)
            if lacking:
                raise UserError(f"{self.annotations}: {key} without {lacking!r}; expected a captions file of COCO.")
        return found["images"], found["annotations"]

    def _files(self):
        """(the folder of the images, the names in it)."""
        folders = [self.root / self.split, self.root / "images" / self.split]
        for folder in folders:
            if folder.is_dir():
                return folder, {entry.name for entry in os.scandir(folder) if not entry.name.startswith(".")}
        raise UserError(f"{self.spec}: no folder of images: neither {folders[0]} nor {folders[1]}. Unpack them there.")

    def _say(self, absent, homeless, strangers, unnamed):
        without = [name for name, captions in zip(self.ids, self._captions, strict=True) if not captions]
        for what, count, example in (
            (f"images are named there and lie not in {self._folder}; they are left out", len(absent), absent),
            ("captions go with them", homeless, ()),
            ("images have captions and no entry among the images; these captions are left out", len(strangers),
             sorted(strangers, key=str)),
            ("files are in no entry and left out", len(unnamed), unnamed),
            ("images have no captions", len(without), without),
        ):  # fmt: skip
            if count:
                log.warning("%s: %d %s%s", self.annotations, count, what, f", such as {example[0]}" if example else "")

    def file(self, index):
        path = self._folder / self.ids[index].rpartition("/")[2]
        return path, path

    def size(self, index):
        return self._sizes[index] if all(self._sizes[index]) else super().size(index)

    def captions(self, index):
        return [caption for caption in self._captions[index] if caption]


def _root_and_split(rest):
    if Path(rest).is_dir():
        return Path(rest), None
    root, _, split = rest.rpartition(":")
    return (Path(root), split) if root and Path(root).is_dir() else (Path(rest), None)


def _found(name, split, there):
    """The file of an image under the name of its year, or the other's."""
    for one in (name, name.rpartition("_")[2], f"COCO_{split}_{name}"):
        if one in there:
            return one
    return None
