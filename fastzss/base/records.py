"""A folder of files that belong together, whole or as it was: banks, memories.

FOLDER/KIND.json          format, version, what the files are, and of each its name, size and hash; written last
FOLDER/NAME-HASH.SUFFIX   the files: their names hold their hash, so a new one never overwrites one in use
"""

import io
from pathlib import Path

import numpy as np

from fastzss.base.errors import UserError
from fastzss.base.files import hash_bytes, make_folder, read_json, remove_file, sweep, write_file, write_json

VERSION = 1


def write_folder(folder, kind, record, files):
    """Write {"vectors.npy": array, "index.faiss": bytes, or None for no such file}, then KIND.json with `record`.

    Files that were there before and are named no more are removed.
    """
    folder = Path(folder)
    make_folder(folder)
    stems = [name.partition(".")[0] for name in (*files, f"{kind}.json")]
    other = [p.name for p in folder.iterdir() if not p.name.lstrip(".").startswith(tuple(stems))]
    if other:
        raise UserError(f"{folder}: holds other things ({other[0]}); give a new folder, or one of a {kind}")
    sweep(folder)
    entries = {}
    for name, data in files.items():
        if data is None:
            continue
        if name.endswith(".npy"):
            file = io.BytesIO()
            np.save(file, data)
            data = file.getvalue()
        digest = hash_bytes(data)
        stem, _, suffix = name.partition(".")
        entries[name] = {"file": f"{stem}-{digest[:12]}.{suffix}", "bytes": len(data), "xxh3_128": digest}
        write_file(folder / entries[name]["file"], data)
    write_json(folder / f"{kind}.json", {"format": f"fastzss-{kind}", "version": VERSION, **record, "files": entries})
    used = {entry["file"] for entry in entries.values()}
    for name in files:
        stem, _, suffix = name.partition(".")
        for path in folder.glob(f"{stem}-????????????.{suffix}"):
            if path.name not in used:
                remove_file(path)


def is_folder_of(folder, kind):
    return (Path(folder) / f"{kind}.json").is_file()


def read_record(folder, kind, maker):
    """The record of such a folder; `maker` is the command that writes one."""
    folder = Path(folder)
    path = folder / f"{kind}.json"
    if not path.is_file():
        found = "there is no such folder" if not folder.exists() else f"it has no {path.name}"
        raise UserError(f"{folder}: is no {kind} ({found}); expected a folder that `{maker}` wrote")
    record = read_json(path)
    if record.get("format") != f"fastzss-{kind}" or record.get("version", 0) > VERSION:
        found = f"format {record.get('format')!r}, version {record.get('version')!r}"
        raise UserError(f"{path}: is {found}; expected 'fastzss-{kind}' up to version {VERSION}")
    return record


def read_folder(folder, kind, maker):
    """(record, {"vectors.npy": array, ...}), every byte checked; `maker` is the command that writes such a folder."""
    folder = Path(folder)
    record, files = read_record(folder, kind, maker), {}
    for name, entry in record["files"].items():
        file = folder / entry["file"]
        data = file.read_bytes() if file.is_file() else b""
        if len(data) != entry["bytes"]:
            raise UserError(f"{file}: holds {len(data)} bytes, {kind}.json promises {entry['bytes']}; `{maker}` again")
        if hash_bytes(data) != entry["xxh3_128"]:
            raise UserError(f"{file}: is damaged (its hash is not what {kind}.json promises); `{maker}` again")
        files[name] = np.load(io.BytesIO(data)) if name.endswith(".npy") else data
    return record, files
