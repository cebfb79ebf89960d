"""What all layers of a store have in common: a plan first, a manifest last, and the hash of every file in between.

    LAYER/plan.json      format, version, layer, identity, plan: what the files hold; names the layer below by identity
    LAYER/...            the files
    LAYER/manifest.json  format, version, layer, identity, files {path: {bytes, xxh3_128}}; its presence = finished

Text layers are small: they are written into a folder of their own and appear by one rename.
"""

import os
import shutil
from pathlib import Path

from fastzss.base.errors import UserError
from fastzss.base.files import (
    entry,
    hash_file,
    identity,
    json_bytes,
    read_json,
    sweep,
    sync_folder,
    temporary,
    write_file,
    writing,
)
from fastzss.store.plan import FeaturePlan

FORMAT, VERSION = "fastzss-store", 1
IMAGES = "images.parquet"  # in features and captions: the source's name of the image in each row
CURES = {
    "features": "Delete it and run the same extract command again: it writes only what is missing.",
    "captions": "Delete the captions folder and run the same extract command again: it writes only what is missing.",
    "concepts": "Delete the folder of this bank and run `fastzss-cache concepts STORE --bank FILE` again.",
    "views": "Run the same extract command with --teacher again: it writes only what is missing.",
}


def plan_record(layer, plan):
    """The content of plan.json."""
    return {"format": FORMAT, "version": VERSION, "layer": layer, "identity": identity(plan), "plan": plan}


def manifest_record(layer, own, files):
    """The content of manifest.json; `own` is the identity of the layer."""
    return {"format": FORMAT, "version": VERSION, "layer": layer, "identity": own, "files": files}


def read_record(path, layer):
    """A plan or manifest of a layer, its format checked."""
    record = read_json(path)
    if record.get("format") != FORMAT or record.get("layer") != layer:
        found = f"format {record.get('format')!r}, layer {record.get('layer')!r}"
        raise UserError(f"{path}: is {found}; expected {FORMAT!r}, {layer!r}. Give the folder of a fastzss store.")
    if record["version"] > VERSION:
        raise UserError(
            f"{path}: has format version {record['version']}, and this fastzss reads versions up to {VERSION}. "
            f"Install a newer fastzss."
        )
    return record


def read_feature_plan(store):
    """The FeaturePlan of a store, finished or not."""
    path = Path(store) / "features" / "plan.json"
    record = read_record(path, "features")
    try:
        plan = FeaturePlan.from_json(record["plan"])
    except (TypeError, ValueError) as problem:
        raise UserError(f"{path}: does not fit this version of fastzss: {problem}. Make the store anew.") from problem
    if plan.identity != record["identity"]:
        raise UserError(
            f"{path}: says it is {record['identity']}, but its plan is {plan.identity}. Make the store anew."
        )
    return plan


def file_entry(path):
    return {"bytes": Path(path).stat().st_size, "xxh3_128": hash_file(path)}


def damages(folder, files, layer, hashes=False):
    """One sentence for every file that is not what `files` promises: sizes, and with `hashes` every byte."""
    for name, promised in sorted(files.items()):
        path = Path(folder) / name
        try:
            found = path.stat().st_size
        except OSError:
            yield f"{path}: is missing, and the manifest promises {promised['bytes']} bytes. {CURES[layer]}"
            continue
        if found != promised["bytes"]:
            yield f"{path}: holds {found} bytes, and the manifest promises {promised['bytes']}. {CURES[layer]}"
        elif hashes and (digest := hash_file(path)) != promised["xxh3_128"]:
            yield (
                f"{path}: is damaged: its xxh3_128 is {digest}, and the manifest promises {promised['xxh3_128']}. "
                f"{CURES[layer]}"
            )


def check(folder, files, layer, hashes=False):
    """Raise UserError with the first of the damages."""
    for sentence in damages(folder, files, layer, hashes):
        raise UserError(sentence)


def write_layer(folder, layer, plan, files):
    """Write a small layer, {name: bytes}, in one step; a layer that was there is replaced.  Returns its identity."""
    folder = Path(folder)
    sweep(folder.parent)
    record = plan_record(layer, plan)
    files = {"plan.json": json_bytes(record), **files}
    manifest = manifest_record(layer, record["identity"], {name: entry(data) for name, data in files.items()})
    files["manifest.json"] = json_bytes(manifest)

    new, old = temporary(folder), temporary(folder.with_name(f"{folder.name}.old"))
    try:
        for name, data in files.items():
            write_file(new / name, data)
        with writing(folder):
            if folder.exists():
                os.replace(folder, old)
            try:
                os.replace(new, folder)
            except OSError:
                if old.exists():
                    os.replace(old, folder)
                raise
            sync_folder(folder.parent)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return record["identity"]


def read_layer(folder, layer):
    """plan.json of a small layer, after every byte of the layer was checked."""
    folder = Path(folder)
    record = read_record(folder / "plan.json", layer)
    manifest = read_record(folder / "manifest.json", layer)
    if manifest["identity"] != record["identity"]:
        raise UserError(f"{folder}: plan and manifest are of two different layers. {CURES[layer]}")
    check(folder, manifest["files"], layer, hashes=True)
    return record


def expect_below(folder, expected, below, cure):
    """The layer that this one was made for is the one that is there."""
    if (below / "plan.json").is_file():
        found = read_record(below / "plan.json", below.name)["identity"]
        if found != expected:
            raise UserError(
                f"{folder}: was made for {below.name} {expected[:12]}, "
                f"and the {below.name} of the store are {found[:12]}. {cure}"
            )


def read_store_plan(path):
    """The plan of a store, finished or not; says what else `path` is when it is no store."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: there is no such folder. Make a store with `fastzss-cache extract SOURCE {path}`.")
    if not path.is_dir():
        raise UserError(f"{path}: is a file; expected the folder of a store.")
    if not (path / "features" / "plan.json").is_file():
        raise UserError(
            f"{path}: is no store: it has no features/plan.json. "
            f"Give the folder that `fastzss-cache extract SOURCE STORE` wrote."
        )
    return read_feature_plan(path)


def held(store):
    """What a second writer of a store is told."""
    return f"{store}: another process is writing this store. Wait for it or stop it, then run the same command again."
