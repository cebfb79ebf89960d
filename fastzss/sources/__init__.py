"""Where images and captions come from: a file a kind of source.

    world:train,n=1200,seed=0     the built-in world, made on the spot (world.py)
    folder:DIR                    images, captions beside them or in the metadata of an imagefolder (folder.py)
    coco:DIR[:SPLIT]              COCO as it is downloaded (coco.py)
    wds:PATTERN                   tars of img2dataset and webdataset, here or far away (tars.py)
    table:FILE                    parquet, csv or jsonl with a column of images and columns of captions (table.py)
    hf:DIR                        a folder of the datasets library (hf.py)

A source is a list of image ids; image and captions of one are read when asked for.  `,limit=N` behind any of them takes
its first N images, `,min-side=N` those whose short side has N pixels (some.py).
"""

import hashlib
from collections import Counter
from pathlib import Path
from typing import ClassVar, Protocol

from PIL import Image

from fastzss.base.errors import UserError, nearest
from fastzss.sources.coco import Coco
from fastzss.sources.folder import Folder
from fastzss.sources.hf import Hf
from fastzss.sources.some import COMMON, some_of
from fastzss.sources.table import Table
from fastzss.sources.tars import Tars
from fastzss.sources.world import World


class Source(Protocol):
    """What extraction needs of a source.  Made from (spec, rest, settings): all that the user typed, what follows the
    colon, and {key: values} of its own settings behind that; what is wrong with it is a UserError then, before any
    work."""

    form: ClassVar[str]  # how it is written
    model: ClassVar[str]  # the backbone its images are looked at with by default
    settings: ClassVar[tuple]  # keys of `,key=value` behind it
    listed: bool  # whether its images must be read in the order of the list, as those of tars far away
    spec: str
    captions_first: ClassVar[bool]  # they lie in files that may be wrong: read before the first image is looked at
    ids: list[str]  # one for each image, different from all others: the same list is the same images

    def image(self, index: int, enough: int | None = None) -> Image.Image:
        """An upright RGB image; ImageUnreadable (images.py) where there is none: its row stays, marked invalid.
        `enough`: pixels that the short side needs, where less than the whole may be decoded."""

    def size(self, index: int) -> tuple[int, int]:
        """Pixels of an image, width and height, without decoding it where that is possible."""

    def captions(self, index: int) -> list[str]:
        """The captions of an image, as they were written; empty where it has none; a UserError where they cannot be
        read."""


SOURCES: dict[str, type[Source]] = {
    "world": World, "folder": Folder, "coco": Coco, "wds": Tars, "table": Table, "hf": Hf,
}  # fmt: skip


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
    place, own, common = _parts(spec, rest, SOURCES[kind].settings)
    source = SOURCES[kind](spec, place, own)
    if len(set(source.ids)) < len(source.ids):
        twice = next(name for name, count in Counter(source.ids).items() if count > 1)
        raise UserError(f"{spec}: several images have the id {twice!r}; each needs one of its own")
    return some_of(source, common) if common else source


def _parts(spec, rest, known):
    """What follows the colon, without its settings; {key: values} of a source's own; {key: number} of those of all."""
    place, *others = rest.split(",")
    own, common = {}, {}
    for part in others:
        key, given, value = part.partition("=")
        if given and key in COMMON:
            if not value.isdecimal() or int(value) == 0:
                raise UserError(f'{spec}: "{part}" is not understood; expected {key}=NUMBER of at least 1', code=2)
            common[key] = int(value)
        elif given and key in known and value:
            own.setdefault(key, []).append(value)
        else:  # a path with a comma
            place += f",{part}"
    return place, own, common


def list_hash(ids):
    """Of a list of images, in its order."""
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()


def source_record(source):
    """What a store remembers of its source: the words of the user and a hash of the image list."""
    record = {"spec": source.spec, "list": list_hash(source.ids)}
    crops = getattr(source, "crops", 1)
    return record | ({"order": "listed"} if source.listed else {}) | ({"crops": crops} if crops > 1 else {})
