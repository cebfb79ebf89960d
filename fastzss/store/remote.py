"""Stores far away: s3://, gs://, hf:// and whatever else fsspec knows.

    a local copy of the store, in the cache  <->  the store far away

A store is written into its copy, and each shard is put as soon as it is there: whole files first, then their record,
the manifest last, so that what a record speaks of is always there.  It is read from its copy, which is fetched once, in
the same order, each file checked by the hash that the store promises.  Both go on where they were stopped.

A place is what the user typed, which pathlib may have shortened: s3:/bucket/name.
"""

import json
import re
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from fastzss.base.cache import cache_folder, short_name
from fastzss.base.errors import UserError
from fastzss.base.files import hash_bytes, hash_file, read_json, write_file
from fastzss.base.remedies import reason, remedy

FAR = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]+):/+(?=[^/])")
LAST = ("features/manifest.json", "origin.json")


def is_far(place):
    return FAR.match(str(place)) is not None


def address(place):
    """The address of a place, as fsspec wants it."""
    return FAR.sub(lambda found: f"{found[1]}://", str(place)).rstrip("/")


def copy_folder(place):
    """Where the local copy of a store far away lies."""
    url = address(place)
    return cache_folder("stores") / f"{PurePosixPath(url).name}-{short_name(url)}"


def local(place):
    """The folder of a store: itself, or its local copy, fetched where it is not there yet."""
    if not is_far(place):
        return Path(place)
    folder = copy_folder(place)
    copy_store(place, folder)
    return folder


class Near:
    """The files of a store in a folder."""

    def __init__(self, place):
        self.place = Path(place)

    def names(self):
        """{name: bytes} of all files, but for hidden ones."""
        paths = (p for p in self.place.rglob("*") if p.is_file())
        named = ((p.relative_to(self.place), p.stat().st_size) for p in paths)
        return {n.as_posix(): size for n, size in named if not any(part.startswith(".") for part in n.parts)}

    def read(self, name):
        return (self.place / name).read_bytes()

    def write(self, name, data):
        write_file(self.place / name, data)

    def holds(self, name, promised):
        """Whether a file is as promised: {bytes, xxh3_128}."""
        path = self.place / name
        same = path.is_file() and path.stat().st_size == promised["bytes"]
        return same and hash_file(path) == promised["xxh3_128"]


class Far:
    """The files of a store far away: a put is whole or not at all."""

    def __init__(self, place):
        self.place = address(place)
        with self._asked():
            from fsspec.core import url_to_fs

            self.files, self.root = url_to_fs(self.place)

    def names(self):
        with self._asked():
            self.files.invalidate_cache()
            try:
                found = self.files.find(self.root, detail=True)
            except FileNotFoundError:
                return {}
            return {name[len(self.root) :].lstrip("/"): entry["size"] for name, entry in found.items()}

    def read(self, name):
        with self._asked():
            return self.files.cat_file(f"{self.root}/{name}")

    def write(self, name, data):
        with self._asked():
            if not self.files.protocol or "file" in self.files.protocol:
                self.files.makedirs(f"{self.root}/{name}".rpartition("/")[0], exist_ok=True)
            self.files.pipe_file(f"{self.root}/{name}", data)

    def _asked(self):
        return _Asked(self.place)


class _Asked:
    """Turns what a service says into one sentence."""

    def __init__(self, place):
        self.place = place

    def __enter__(self):
        return self

    def __exit__(self, kind, problem, _):
        if problem is not None and isinstance(problem, Exception) and not isinstance(problem, UserError):
            sentence = f"{self.place}: cannot be used ({reason(problem)}). {remedy(self.place, problem)}"
            raise UserError(sentence) from None


def place_of(place):
    return Far(place) if is_far(place) else Near(place)


def copy_store(source, target, records_only=False):
    """Copy a store, finished or not, from anywhere to anywhere; what is there already is not copied again.

    `records_only`: plans, statistics and the records of shards, which say what is there.  Returns bytes copied.
    """
    source, target = place_of(source), place_of(target)
    names = source.names()
    if "features/plan.json" not in names:
        raise UserError(f"{source.place}: is no store: it has no features/plan.json. Give the folder of a store.")
    there = target.names()
    _refuse_other(source, target, there)
    promised = _promised(source, names)
    copied = 0
    with tqdm(total=sum(names.values()), unit="B", unit_scale=True, desc="copy", disable=None) as bar:
        for name in sorted(names, key=_turn):
            bar.update(names[name])
            if records_only and not _is_record(name):
                continue
            copied += _copy(source, target, name, promised.get(name), there)
    return copied


def _copy(source, target, name, promised, there):
    """Copy a file where it is not there; bytes that this took."""
    if promised is not None and there.get(name) == promised["bytes"]:
        if isinstance(target, Far) or target.holds(name, promised):
            return 0
    data = source.read(name)
    if promised is not None and hash_bytes(data) != promised["xxh3_128"]:
        raise UserError(
            f"{source.place}/{name}: is damaged: its hash is not the one that the store promises. "
            f"Run `fastzss-cache verify` on the store it comes from."
        )
    if promised is None and there.get(name) == len(data) and target.read(name) == data:
        return 0
    target.write(name, data)
    return len(data)


def _refuse_other(source, target, there):
    if "features/plan.json" in there and target.read("features/plan.json") != source.read("features/plan.json"):
        raise UserError(f"{target.place}: holds another store than {source.place}. Give another place.")
    if there and "features/plan.json" not in there:
        raise UserError(f"{target.place}: is no store, and holds other files, as {min(there)}. Give an empty place.")


def _promised(source, names):
    """{name: {bytes, xxh3_128}} of all that the records of a store speak of."""
    promised = {}
    for name in names:
        folder, _, base = name.rpartition("/")
        if base == "manifest.json" or folder == "features/commit":
            prefix = "features" if folder == "features/commit" else folder
            for file, entry in _record(source, name).get("files", {}).items():
                promised[f"{prefix}/{file}"] = entry
    return promised


def _record(source, name):
    if isinstance(source, Near):
        return read_json(source.place / name)
    try:
        return json.loads(source.read(name))
    except ValueError:
        raise UserError(
            f"{source.place}/{name}: is damaged: it is no JSON. Run the command that wrote it again."
        ) from None


def _is_record(name):
    folder, _, base = name.rpartition("/")
    return folder in ("features/commit", "features/stats/mean/c", "features/stats/std/c") or base.endswith(".json")


def _turn(name):
    """Plans, then what lies in files, then the records of shards, then manifests."""
    folder, _, base = name.rpartition("/")
    if base == "manifest.json" or name in LAST:
        return 3, name
    return (2 if folder == "features/commit" else 0 if base == "plan.json" else 1), name


class Mirror:
    """A store far away that is being written: `folder`, its local copy, is worked on, and what is done is put."""

    def __init__(self, place):
        self.place, self.folder = address(place), copy_folder(place)
        self.far = Far(place)
        self._there = self.far.names()
        if "features/plan.json" in self._there:
            copy_store(self.place, self.folder, records_only=True)

    def done(self, plan, stats):
        """Shards that are there, far away, of a plan."""
        done, self._there = set(), self.far.names()
        for shard in range(plan.shards):
            name = f"features/commit/{shard:06d}.json"
            if name in self._there:
                record = _record(self.far, name)
                same = record["plan"] == plan.identity and record["stats"] == (stats and stats.files)
                whole = all(self._there.get(f"features/{f}") == e["bytes"] for f, e in record["files"].items())
                done |= {shard} if same and whole else set()
        return done

    def begin(self):
        """Put what stands before the first shard: the plan, how arrays lie, the statistics."""
        near = Near(self.folder)
        for name in sorted(near.names(), key=_turn):
            first = _is_record(name) and not name.endswith("manifest.json") and not name[-11:-5].isdecimal()
            if first and name.startswith("features/"):
                self._put(near, name)

    def put(self, shard, files):
        """Put the files of a shard, then its record."""
        near = Near(self.folder)
        for name in files:
            self._put(near, f"features/{name}")
        self._put(near, f"features/commit/{shard:06d}.json")

    def _put(self, near, name):
        data = near.read(name)
        if self._there.get(name) != len(data) or self.far.read(name) != data:
            self.far.write(name, data)
            self._there[name] = len(data)

    def fetch(self):
        """Fetch what others have put."""
        copy_store(self.place, self.folder)

    def finish(self):
        """Put all the rest."""
        copy_store(self.folder, self.place)


__all__ = ["Mirror", "address", "copy_store", "is_far", "local"]
