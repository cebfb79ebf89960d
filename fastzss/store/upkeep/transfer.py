"""One store into another: the same features in another form, or the parts of one store joined.

    convert   every shard is read, each of its checksums compared, and written in the other form: the same identity, the
              same arrays byte for byte; converted back, the same files
    merge     shards are linked, or copied where links are not possible, with their records; nothing is rewritten

Both continue where they were stopped, and take the captions and concepts along.
"""

import os
import shutil
from contextlib import ExitStack
from pathlib import Path

from tqdm import tqdm

from fastzss.base.errors import UserError
from fastzss.base.files import hash_file, locked, make_folder, sync_folder, temporary, write_file, write_json, writing
from fastzss.store.additions import finished, image_ids, part_folders
from fastzss.store.commits import choose_form, commit_name, read_commits, read_stats
from fastzss.store.features import FeatureWriter
from fastzss.store.layers import IMAGES, held, read_layer
from fastzss.store.plan import differences
from fastzss.store.reading.reader import PatchStore
from fastzss.store.upkeep.info import read_store_plan, store_form, store_info
from fastzss.store.upkeep.origin import copy_origin
from fastzss.store.upkeep.views import convert_views, merge_views


def convert(path, out, form=None, codec=None):
    """Write a finished store again in another form, by its name and codec; returns the info of the new one."""
    path, out = Path(path), Path(out)
    first = PatchStore(path)
    stores = [first, *map(PatchStore, part_folders(path)[1:])]
    form = choose_form(form or first.form.format, codec or "none")
    _refuse_same(path, out)
    with ExitStack() as until_done:
        for store in stores:
            images = _images(store.path)
            writer = FeatureWriter(out / store.path.relative_to(path), store.plan, form, images)
            if store is first:
                until_done.enter_context(locked(writer.folder, held(out)))
            if store.stats is not None:
                writer.set_stats(*store.stats[:2])
            for shard in tqdm(writer.todo(), unit="shard", desc="convert", disable=None):
                part = writer.begin(shard)
                for name in store.plan.arrays:
                    part.put_bytes(name, store.array(name, shard))
                part.commit()
            if not finished(writer.store):
                writer.finish()
        convert_views(path, out, form)
        _copy_texts([path], out)
    return store_info(out)


def merge(stores, out):
    """Join stores that hold shards of one plan, and what was added to them; returns the info of the joined one."""
    stores, out = [Path(store) for store in stores], Path(out)
    for store in stores:
        read_store_plan(store)
        _refuse_same(store, out)
    added = sorted({folder.relative_to(store) for store in stores for folder in part_folders(store)[1:]})
    with ExitStack() as until_done:
        done = _merge_features(stores, out, until_done)
        for name in added:
            done &= _merge_features([s / name for s in stores if (s / name / "features").is_dir()], out / name)
        merge_views(stores, out, _link)
        if done:
            _copy_texts(stores, out)
    return store_info(out)


def _merge_features(parts, out, until_done=None):
    """Join the features of some folders; returns whether all of their shards are there.

    `until_done`: an ExitStack that keeps other writers away meanwhile."""
    plan = read_store_plan(parts[0])
    forms, stats = {}, {}
    for part in parts:
        if different := differences(plan, read_store_plan(part)):
            raise UserError(f"{part}: is no part of the same store as {parts[0]}: {'; '.join(different)}.")
        if form := store_form(part / "features"):
            forms[part] = form
            stats[part] = read_stats(part / "features", plan)
    if not forms:
        raise UserError(f"{parts[0]}: has no shards yet, nor have the other parts. Extract some first.")
    first = next(iter(forms))
    for part, form in forms.items():
        if form is not forms[first]:
            raise UserError(
                f"{part}: its shards are {form.format}, codec {form.codec}, and those of {first} are "
                f"{forms[first].format}, codec {forms[first].codec}. `fastzss-cache convert` one of them."
            )
        if (stats[part] and stats[part].files) != (stats[first] and stats[first].files):
            raise UserError(
                f"{part}: its patches were quantised with other statistics than those of {first}. "
                f"Extract it anew with --stats-from {first}."
            )
    writer = FeatureWriter(out, plan, forms[first], _images(first))
    if until_done:
        until_done.enter_context(locked(writer.folder, held(out)))
    if stats[first]:
        writer.set_stats(*stats[first][:2])
    todo = set(writer.todo())
    for part in forms:
        commits = read_commits(part / "features", plan)
        for shard in tqdm(sorted(todo & commits.keys()), unit="shard", desc=f"merge {part}", disable=None):
            for name, entry in commits[shard]["files"].items():
                _link(part / "features" / name, writer.folder / name, entry)
            write_json(writer.folder / commit_name(shard), commits[shard])
            todo.remove(shard)
    if not todo and not finished(writer.store):
        writer.finish()
    return not todo


def _refuse_same(path, out):
    if Path(out).exists() and os.path.samefile(path, out):
        raise UserError(f"{out}: is the store itself; a store is never changed in place. Give another folder.")


def _images(folder):
    """The names of a part's images, where it knows them."""
    return image_ids(folder) if (folder / "features" / IMAGES).is_file() else None


def _copy_texts(sources, out):
    for source in sources:
        for layer in ("captions", "concepts"):
            folders = [source / layer] if layer == "captions" else sorted((source / layer).glob("[!.]*"))
            for folder in folders:
                if folder.is_dir():
                    _copy_layer(folder, out / folder.relative_to(source), layer)
        copy_origin(source, out)


def _copy_layer(source, target, layer):
    """Copy a small layer, checked, in one step."""
    if target.exists():
        return
    read_layer(source, layer)
    new = temporary(target)
    try:
        for path in sorted(source.iterdir()):
            write_file(new / path.name, path.read_bytes())
        with writing(target):
            os.replace(new, target)
            sync_folder(target.parent)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _link(source, target, entry):
    """Give a file a second name, or copy it where the two are on different file systems."""
    make_folder(target.parent)
    partial = temporary(target)
    partial.unlink(missing_ok=True)
    try:
        with writing(target):
            try:
                os.link(source, partial)
            except OSError:
                shutil.copyfile(source, partial)
                with open(partial, "rb+") as file:
                    os.fsync(file.fileno())
                if hash_file(partial) != entry["xxh3_128"]:
                    raise UserError(f"{source}: is damaged. Run `fastzss-cache verify` on its store.") from None
            os.replace(partial, target)
            sync_folder(target.parent)
    finally:
        partial.unlink(missing_ok=True)
