"""What is there of a features layer: commit records of statistics and shards, and the form they have.

    commit/stats.json    plan, files: the statistics are there
    commit/SSSSSS.json   plan, stats, form, rows, valid, files {path: {bytes, xxh3_128, mark}}: a shard is there

A record is written after the files it speaks of are durable, and removed before they are written anew.
"""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from fastzss.base.errors import UserError, nearest
from fastzss.base.files import read_json
from fastzss.store.forms.archive import Archive
from fastzss.store.forms.tars import Tars
from fastzss.store.forms.zarr import Zarr, read_chunk, shard_name
from fastzss.store.layers import check, read_record

FORMS = {(form.format, form.codec): form for form in (Zarr(), Archive(), Tars())}


def choose_form(name="zarr", codec="none"):
    """A form by what the user typed."""
    if (name, codec) in FORMS:
        return FORMS[name, codec]
    for what, value, known in zip(("format", "codec"), (name, codec), zip(*FORMS, strict=True), strict=True):
        if value not in known:
            known = sorted(set(known))
            raise UserError(f'unknown {what} "{value}"{nearest(value, known)}; expected {", ".join(known)}', code=2)
    raise UserError(f"--codec {codec} goes with --format zarr only, not with {name}", code=2)


def commit_name(shard):
    return f"commit/{shard:06d}.json"


def stats_names():
    return {name: shard_name(f"stats/{name}", 0, 1) for name in ("mean", "std")}


class Stats(NamedTuple):
    """Statistics of the quantiser."""

    mean: Tensor  # [D] float32, on the CPU
    std: Tensor  # [D] float32
    files: dict  # name -> size and hash


def read_stats(folder, plan):
    """The Stats of a features layer; None while there are none."""
    path = folder / "commit" / "stats.json"
    if plan.dtype != "int8" or not path.is_file():
        return None
    record = read_json(path)
    if record["plan"] != plan.identity or not all((folder / name).is_file() for name in record["files"]):
        return None
    check(folder, record["files"], "features", hashes=True)
    names = stats_names()
    mean, std = (torch.from_numpy(read_chunk(folder / names[n], (plan.channels,), "<f4")) for n in ("mean", "std"))
    return Stats(mean, std, record["files"])


def read_commits(folder, plan):
    """{shard: record} of the shards that are there: their record is valid, and their files have its sizes."""
    folder = Path(folder)
    if not (folder / "commit").is_dir():
        return {}
    stats = read_stats(folder, plan)
    found = {shard: read_commit(folder, plan, shard, stats) for shard in range(plan.shards)}
    return {shard: record for shard, record in found.items() if record is not None}


def read_commit(folder, plan, shard, stats):
    """The record of a shard; None where it is not there.  What is damaged counts as not written."""
    path = folder / commit_name(shard)
    if not path.is_file():
        return None
    try:
        record = read_json(path)
        check(folder, record["files"], "features")
    except UserError:
        return None
    stats = stats and stats.files
    whole = record["plan"] == plan.identity and record["stats"] == stats and (stats or plan.dtype != "int8")
    return record if whole else None


def begun(folder):
    """What the shards that are there say of themselves: (form, identity of the plan), or None where there are none."""
    for path in sorted((Path(folder) / "commit").glob("[0-9]*.json")):
        try:
            record = read_json(path)
        except UserError:
            continue
        return form_of(record, path), record["plan"]
    return None


def form_of(record, path):
    """The form that a commit record or a manifest names."""
    kind = record["form"]["format"], record["form"]["codec"]
    if kind not in FORMS:
        raise UserError(f"{path}: has the form {kind}, which this fastzss does not know. Install a newer fastzss.")
    return FORMS[kind]


def store_form(folder, layer="features"):
    """How the shards of a layer lie on disk; None while there is none."""
    manifest = folder / "manifest.json"
    if manifest.is_file():
        return form_of(read_record(manifest, layer), manifest)
    there = begun(folder)
    return there and there[0]
