"""wds:PATTERN: tars as img2dataset writes them and webdataset reads them.

    000042.jpg  000042.txt  000042.json     members of one name, up to its first dot, are one sample, side by side

Captions are those of .txt and .caption, one a line, and of the keys `caption`, `captions` and `text` of .json.  Tars
are listed once, into the cache; then images are read in any order.  Those far away (fetching.py) are fetched whole, and
read in their order, so that each is needed once.
"""

import io
import json
import logging
import os
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from fastzss.base.cache import cache_folder, short_name, stamp
from fastzss.base.errors import UserError
from fastzss.base.machine import cores
from fastzss.sources.fetching import Fetched, expanded, is_far
from fastzss.sources.images import SUFFIXES, Files

log = logging.getLogger("fastzss")

TEXTS = (".txt", ".caption", ".json")
BLOCK = 512  # of a tar


class Sample(NamedTuple):
    name: str  # of the image in the tar
    at: int  # first byte of it
    bytes: int
    texts: tuple  # (suffix, first byte, bytes) of what lies beside it


class Tars(Files):
    form = "wds:PATTERN"

    def __init__(self, spec, rest, own=None):
        self.spec, self.tars = spec, expanded(rest)
        if not self.tars:
            raise UserError(f"{spec}: no tar is named so; expected files, as wds:'shards/{{00000..00011}}.tar'")
        missing = [tar for tar in self.tars if not is_far(tar) and not Path(tar).is_file()]
        if missing:
            raise UserError(f"{spec}: {len(missing)} of {len(self.tars)} tars are not there, the first is {missing[0]}")
        self.listed = any(map(is_far, self.tars))
        self.captions_first = not self.listed  # what is far away is fetched once, image and captions together
        self._fetched = Fetched([tar for tar in self.tars if is_far(tar)])
        with ThreadPoolExecutor(cores()) as pool:
            lists = pool.map(self._list, self.tars)
            found = list(tqdm(lists, total=len(self.tars), unit="tar", desc="tars", disable=None))
        self._samples = [(tar, sample) for tar, (samples, _) in enumerate(found) for sample in samples]
        if not self._samples:
            raise UserError(f"{spec}: no images in {len(self.tars)} tars; expected members ending in .jpg, .png, ...")
        stray = sum(strays for _, strays in found)
        if stray:
            log.warning("%s: %d samples have no image and are left out", spec, stray)
        names = [sample.name for _, sample in self._samples]
        if len(set(names)) < len(names):  # tars that count from 0 each
            names = [f"{tar:05d}/{sample.name}" for tar, sample in self._samples]
        self.ids = names

    def _list(self, tar):
        """([Sample] of a tar, in its order; how many samples have no image), made once and kept in the cache."""
        kept = cache_folder("tars") / f"{short_name(tar) if is_far(tar) else stamp(tar)}.json"
        try:
            found = json.loads(kept.read_bytes())
            return [Sample(*sample) for sample in found["samples"]], found["strays"]
        except (OSError, ValueError, KeyError, TypeError):  # none yet, or a damaged one
            pass
        samples = _samples(_members(tar, self._place(tar)))
        images = [sample for sample in samples if sample is not None]
        partial = kept.with_name(f".{kept.name}.{os.getpid()}.tmp")
        partial.write_text(json.dumps({"samples": images, "strays": len(samples) - len(images)}))
        os.replace(partial, kept)
        return images, len(samples) - len(images)

    def _place(self, tar):
        return self._fetched.path(tar) if is_far(tar) else Path(tar)

    def _read(self, tar, at, size):
        for _ in range(3):  # another process may make room between the two
            try:
                with open(self._place(self.tars[tar]), "rb") as file:
                    file.seek(at)
                    data = file.read(size)
                break
            except FileNotFoundError:
                if not is_far(self.tars[tar]):
                    raise
        if len(data) < size:
            raise UserError(f"{self.tars[tar]}: has become shorter while it was read; begin anew with the whole file")
        return data

    def file(self, index):
        tar, sample = self._samples[index]
        return io.BytesIO(self._read(tar, sample.at, sample.bytes)), f"{self.tars[tar]}, {sample.name}"

    def captions(self, index):
        tar, sample = self._samples[index]
        captions = []
        for suffix, at, size in sample.texts:
            where = f"{self.tars[tar]}, {sample.name.rpartition('.')[0]}{suffix}"
            try:
                text = self._read(tar, at, size).decode("utf-8-sig")
                found = _of_json(json.loads(text)) if suffix == ".json" else text.splitlines()
            except ValueError as problem:
                raise UserError(f"{where}: cannot be read ({problem}); expected captions as UTF-8") from None
            captions += [line for line in map(str.strip, found) if line and line not in captions]
        return captions


def _of_json(value):
    """The captions in the record of a sample."""
    found = []
    for key in ("caption", "captions", "text"):
        one = value.get(key) if isinstance(value, dict) else None
        found += [one] if isinstance(one, str) else [text for text in one or () if isinstance(text, str)]
    return found


def _members(name, path):
    """(name, first byte, bytes) of all files in a tar, which must have an end."""
    cut = f"{name}: this tar ends in the middle, at {path.stat().st_size} bytes. Fetch or write it again."
    try:
        with tarfile.open(path, "r:") as tar:
            found = [(one.name, one.offset_data, one.size) for one in tar if one.isreg()]
            end = tar.offset
        with open(path, "rb") as file:
            file.seek(end)
            closed = file.read(BLOCK) == bytes(BLOCK)
    except tarfile.ReadError as problem:
        if "unexpected end" in str(problem) or "truncated" in str(problem):
            raise UserError(cut) from None
        raise UserError(f"{name}: is no tar ({problem}); expected one that is not compressed") from None
    if not closed:
        raise UserError(cut)
    return found


def _samples(members):
    """A Sample for each group of members that share their name up to its first dot; None where there is no image."""
    groups = {}
    for name, at, size in members:
        folder, _, base = name.rpartition("/")
        stem, dot, suffix = base.partition(".")
        if dot and stem:
            groups.setdefault((folder, stem), []).append((name, f".{suffix.lower()}", at, size))
    samples = []
    for group in groups.values():
        images = [(name, at, size) for name, suffix, at, size in group if suffix in SUFFIXES]
        texts = [(suffix, at, size) for _, suffix, at, size in group if suffix in TEXTS]
        if images or texts:
            samples.append(Sample(*images[0], tuple(texts)) if images else None)
    return samples
