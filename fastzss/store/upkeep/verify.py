"""What is wrong with a store, by file, shard and image; and how the next extraction is made to mend it.

    level 0   records are whole and of this store; every file is there and has its size
    level 1   the index of every shard, and that its rows lie where they should
    level 2   the hash of every file
    level 3   the checksum of every image

A level does what those below it do.  Repair removes what is broken and what says that it is there; the same extract
command then writes exactly that.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq

from fastzss.base.errors import UserError
from fastzss.base.files import hash_file, read_json
from fastzss.store.additions import ADDED
from fastzss.store.commits import commit_name, form_of, read_stats, stats_names, store_form
from fastzss.store.layers import read_feature_plan, read_record
from fastzss.store.upkeep.info import read_store_plan
from fastzss.store.upkeep.origin import ORIGIN
from fastzss.store.views import read_view_plan, view_folders

LEVELS = (0, 1, 2, 3)


@dataclass(frozen=True)
class Damage:
    """One file that is not what it should be."""

    file: str  # below the folder of the store
    what: str
    shard: int | None = None
    row: int | None = None
    image: str | None = None  # the source's name of the image in this row

    def __str__(self):
        parts = [f"shard {self.shard}"] * (self.shard is not None) + [f"image {self.image}"] * (self.image is not None)
        return f"{self.file}: {self.what}" + (f" ({', '.join(parts)})" if parts else "")


def verify(path, level=2):
    """A list of Damage, empty for a store that is whole as far as the level looks."""
    if level not in LEVELS:
        raise UserError(f"--level {level}: expected 0, 1, 2 or 3", code=2)
    path = Path(path)
    if not (path / "features").is_dir():
        read_store_plan(path)  # says what it is instead of a store
    damages, start = [], 0
    for part in said_parts(path):
        name = part.relative_to(path).as_posix()
        for damage in _features(part, level):
            row = None if damage.row is None else start + damage.row
            damages.append(replace(damage, file=damage.file if name == "." else f"{name}/{damage.file}", row=row))
        start += _images(part)
    damages += [*_views(path, level), *_texts(path, level), *damages_of_origin(path)]
    if any(damage.row is not None for damage in damages):
        names = _image_names(path)
        damages = [
            Damage(d.file, d.what, d.shard, d.row, names[d.row]) if d.row is not None and d.row < len(names) else d
            for d in damages
        ]
    return damages


def said_parts(path):
    """Folders that hold features or are said to, in the order of their rows."""
    return [path, *(part for part in sorted((path / ADDED).glob("[0-9]*")) if any(part.glob("features/*")))]


def _images(part):
    try:
        return read_feature_plan(part).images
    except UserError:
        return 0


def _features(path, level):
    folder = path / "features"
    try:
        plan = read_store_plan(path)
    except UserError as problem:
        if "newer fastzss" in str(problem):
            raise
        yield Damage("features/plan.json", _without(problem, folder / "plan.json"))
        return
    promised, finished = None, (folder / "manifest.json").is_file()
    if finished:
        try:
            record = read_record(folder / "manifest.json", "features")
            if record["identity"] == plan.identity:
                promised = record["files"]
                form_of(record, folder / "manifest.json")
            else:
                yield Damage("features/manifest.json", "is of another plan")
        except UserError as problem:
            if "newer fastzss" in str(problem):
                raise
            yield Damage("features/manifest.json", _without(problem, folder / "manifest.json"))

    seen, stats = {"manifest.json"}, None
    if plan.dtype == "int8":
        stats = yield from _stats(folder, plan, finished, seen)
    for shard in range(plan.shards):
        seen.add(commit_name(shard))
        if finished or (folder / commit_name(shard)).exists():
            files = yield from _shard(folder, plan, shard, stats, promised, level)
            seen.update(files)
    for name, entry in sorted((promised or {}).items()):
        if name not in seen:
            what = _file_damage(folder / name, entry, level >= 2)
            if what:
                yield Damage(f"features/{name}", what)


def _views(path, level):
    for folder in view_folders(path):
        name, finished = folder.relative_to(path).as_posix(), (folder / "manifest.json").is_file()
        file = "plan.json"
        try:
            plan, promised, file = read_view_plan(folder), None, "manifest.json"
            if finished:
                record = read_record(folder / file, "views")
                promised, _ = record["files"], form_of(record, folder / file)
        except UserError as problem:
            if "newer fastzss" in str(problem):
                raise
            yield Damage(f"{name}/{file}", _without(problem, folder / file))
            continue
        seen = {"manifest.json"}
        for shard in range(plan.shards):
            seen.add(commit_name(shard))
            if finished or (folder / commit_name(shard)).exists():
                for damage in _shard(folder, plan, shard, None, promised, level):
                    yield replace(damage, file=damage.file.replace("features", name, 1))
                if promised:
                    seen.update(store_form(folder, "views").files(plan, shard))
        for file, entry in sorted((promised or {}).items()):
            if file not in seen and (what := _file_damage(folder / file, entry, level >= 2)):
                yield Damage(f"{name}/{file}", what)


def _stats(folder, plan, finished, seen):
    """Damages of the statistics; returns what their record promises.  Files that are reported are `seen`."""
    record = folder / "commit" / "stats.json"
    try:
        found = read_stats(folder, plan)
    except UserError as problem:
        broken = next((n for n in stats_names().values() if str(problem).startswith(f"{folder / n}:")), None)
        broken = broken or "commit/stats.json"
        seen.add(broken)
        yield Damage(f"features/{broken}", _without(problem, folder / broken))
        try:
            return read_json(record)["files"]  # a shard may be right all the same
        except UserError:
            return None
    if found is None and (finished or any((folder / "commit").glob("0*.json"))):
        missing = next((n for n in stats_names().values() if not (folder / n).is_file()), "commit/stats.json")
        there = record.is_file() and missing == "commit/stats.json"
        seen.add(missing)
        yield Damage(f"features/{missing}", "is of another plan" if there else "is missing")
    return found and found.files


def _shard(folder, plan, shard, stats, promised, level):
    """Damages of one shard; returns the names of its files."""
    name = commit_name(shard)
    try:
        record = read_json(folder / name)
        form = form_of(record, folder / name)
    except UserError as problem:
        yield Damage(f"features/{name}", _without(problem, folder / name), shard)
        return []
    files = record["files"]
    if record["plan"] != plan.identity or record["shard"] != shard or sorted(files) != sorted(form.files(plan, shard)):
        yield Damage(f"features/{name}", "is the record of another shard or store", shard)
        return files
    if stats is not None and record["stats"] != stats:
        yield Damage(f"features/{name}", "was made with other statistics", shard)
        return files
    if promised is not None:
        if any(promised.get(file) != entry for file, entry in files.items()):
            yield Damage(f"features/{name}", "does not say what the manifest says", shard)
            return files
        if what := _file_damage(folder / name, promised[name], level >= 2):
            yield Damage(f"features/{name}", what, shard)

    broken = {}
    for file, entry in files.items():
        if what := _file_damage(folder / file, entry, False):
            broken[file] = [(what, None)]
    if level >= 1 and not broken:
        for file, what in form.index_damages(folder, plan, shard, files):
            broken.setdefault(file, []).append((what.removesuffix("."), None))
    if level >= 3 and not broken:
        for file, row, what in _rows(form, folder, plan, shard, files):
            broken.setdefault(file, []).append((what, row))
    if level >= 2:
        for file, entry in files.items():
            if file not in broken and (what := _file_damage(folder / file, entry, True)):
                broken[file] = [(what, None)]
    for file, whats in broken.items():
        for what, row in whats:
            yield Damage(f"features/{file}", what, shard, row)
    return files


def _rows(form, folder, plan, shard, files):
    """(file, store row, sentence) for every damaged row of a shard."""
    for name in plan.arrays:
        rows = form.open(folder, plan, shard, name, files)
        for row, what in rows.damaged():
            yield str(Path(rows.path).relative_to(folder)), rows.first + row, what.removesuffix(".")


def _texts(path, level):
    for folder in [path / "captions", *sorted((path / "concepts").glob("[!.]*"))]:
        if not folder.is_dir():
            continue
        layer = "captions" if folder.name == "captions" else "concepts"
        name = folder.relative_to(path).as_posix()
        try:
            plan, manifest = (read_record(folder / file, layer) for file in ("plan.json", "manifest.json"))
        except UserError as problem:
            if "newer fastzss" in str(problem):
                raise
            file = next((f for f in ("plan.json", "manifest.json") if str(folder / f) in str(problem)), "plan.json")
            yield Damage(f"{name}/{file}", _without(problem, folder / file))
            continue
        if plan["identity"] != manifest["identity"]:
            yield Damage(f"{name}/manifest.json", "is of another layer than its plan")
        for file, entry in sorted(manifest["files"].items()):
            if what := _file_damage(folder / file, entry, level >= 2):
                yield Damage(f"{name}/{file}", what)


def damages_of_origin(path):
    if (path / ORIGIN).exists():
        try:
            read_json(path / ORIGIN)
        except UserError as problem:
            yield Damage(ORIGIN, _without(problem, path / ORIGIN))


def _file_damage(path, entry, hashed):
    """What is wrong with a file, or None."""
    try:
        found = path.stat().st_size
        if found != entry["bytes"]:
            return f"holds {found} bytes, expected {entry['bytes']}"
        if hashed and (digest := hash_file(path)) != entry["xxh3_128"]:
            return f"is damaged: its xxh3_128 is {digest}, expected {entry['xxh3_128']}"
    except FileNotFoundError:
        return "is missing"
    except OSError as problem:
        return f"cannot be read: {problem.strerror}"
    return None


def _image_names(path):
    try:
        return pq.read_table(path / "captions" / "images.parquet")["id"].to_pylist()
    except Exception:  # no captions, or damaged ones: rows have numbers too
        return []


def _without(problem, path):
    """A sentence about a file, without its path and without advice."""
    return str(problem).removeprefix(f"{path}: ").split(". ")[0].removesuffix(".")
