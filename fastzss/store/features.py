"""Writing the features layer: plan first, then statistics, then shards in any order, the manifest last.

    features/plan.json           the first file; a second writer with another plan is refused
    features/images.parquet      the source's name of the image in each row, where it is known
    features/stats/{mean,std}    float32 [D] of the quantiser, int8 only; then commit/stats.json
    features/tokens/c/SHARD/...  and scale, global, valid; then commit/SHARD.json: the shard is there
    features/manifest.json       the last file: the layer is finished

So whatever moment a writer is killed at, the next one finds the truth in `todo()`, and continues.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from fastzss.base.errors import UserError
from fastzss.base.files import entry, make_folder, remove_file, sweep, write_file, write_files, write_json
from fastzss.kernels import quantise
from fastzss.store.columns import parquet
from fastzss.store.commits import begun, choose_form, commit_name, read_commit, read_commits, read_stats, stats_names
from fastzss.store.forms.zarr import write_chunk
from fastzss.store.layers import IMAGES, file_entry, manifest_record, plan_record, read_feature_plan
from fastzss.store.plan import differences

BLOCK = 64  # images quantised at a time: bounds the float32 temporaries
OURS = ("features", "captions", "concepts", "views", "added", "origin.json")  # what a store's folder may hold


class FeatureWriter:
    """Writes the features of a store, or continues to; see `FeaturePlan` for what they are."""

    layer = "features"

    def __init__(self, store, plan, form=None, images=None, folder="features"):
        """`form`: how they lie on disk, as choose_form gives it; None: as what is there, else zarr.
        `images`: the source's name of each row's image."""
        self.store, self.plan = Path(store), plan
        self.folder = self.store / folder
        self._stats = self._buffers = None
        refuse_strangers(self.store)
        there = begun(self.folder)
        if not (self.folder / "plan.json").exists():
            if there and there[1] != plan.identity:
                raise UserError(
                    f"{self.folder / 'plan.json'}: is missing, and the shards that are there were made by another plan "
                    f"({there[1][:12]}, and now it is {plan.identity[:12]}). Run the extract command they were made "
                    f"with, or give another store folder."
                )
            make_folder(self.folder)
            try:
                write_json(self.folder / "plan.json", plan_record(self.layer, plan.to_json()), exclusive=True)
            except FileExistsError:  # another writer was faster
                pass
        self.refuse_other(self.read_plan())
        self.form = form_of_writer(self.folder, form)
        sweep(self.store)
        files = {} if images is None else {IMAGES: parquet({"id": pa.array(images, pa.string())})}
        for name, data in (self.form.metadata(plan) | files).items():
            path = self.folder / name
            if not path.is_file() or path.read_bytes() != data:
                write_file(path, data)

    def read_plan(self):
        """The plan that is there."""
        return read_feature_plan(self.store)

    def refuse_other(self, found):
        """Another plan than that of this writer."""
        refuse_other_plan(self.store, found, self.plan)

    def __getstate__(self):
        """For pickle, which takes it to the other processes that write shards; the memory is for each to make."""
        return {**self.__dict__, "_stats": self.stats, "_buffers": None}

    @property
    def stats(self):
        """Stats of the quantiser; None while they are not set, and always for float16."""
        if self._stats is None:
            self._stats = read_stats(self.folder, self.plan)
        return self._stats

    @stats.setter
    def stats(self, stats):
        """What another process has set."""
        self._stats = stats

    def set_stats(self, mean, std):
        """Fix the statistics of the quantiser, before any shard; they are the same for all writers.  Returns them."""
        if self.plan.dtype != "int8":
            raise ValueError("set_stats: a float16 store has no statistics")
        mean, std = (torch.as_tensor(t).detach().float().cpu().contiguous() for t in (mean, std))
        for name, values in (("mean", mean), ("std", std)):
            if values.shape != (self.plan.channels,) or not values.isfinite().all():
                raise ValueError(f"set_stats: {name} is {tuple(values.shape)}; expected {self.plan.channels} finite")
        if (std <= 0).any():
            raise ValueError("set_stats: std holds values that are not positive")
        if self.stats is not None:
            if torch.equal(mean, self.stats.mean) and torch.equal(std, self.stats.std):
                return self.stats
            raise UserError(f"{self.store}: has other statistics already. Give another store folder.")
        names = stats_names()
        files = {names[n]: write_chunk(self.folder / names[n], values.numpy())
                 for n, values in (("mean", mean), ("std", std))}  # fmt: skip
        write_json(self.folder / "commit" / "stats.json", {"plan": self.plan.identity, "files": files})
        return self.stats

    def todo(self):
        """The shards that are not there, ascending."""
        commits = read_commits(self.folder, self.plan)
        return [shard for shard in range(self.plan.shards) if shard not in commits]

    def has(self, shard):
        """Whether a shard is there."""
        return read_commit(self.folder, self.plan, shard, self.stats) is not None

    def write(self, shard, patches, global_vectors=None, valid=None):
        """Quantise and write one shard, S = len(plan.rows(shard)) images; see `ShardWriter.put`."""
        S = len(self.plan.rows(shard))
        if len(patches) != S:
            raise ValueError(f"shard {shard}: patches are {tuple(patches.shape)}; expected {S} images")
        writer = self.begin(shard)
        writer.put(0, patches, global_vectors, valid)
        writer.commit()

    def begin(self, shard):
        """A ShardWriter; one at a time, its memory is that of the one before."""
        if self.plan.dtype == "int8" and self.stats is None:
            raise ValueError("an int8 store needs set_stats(mean, std) before its first shard")
        if self._buffers is None:
            self._buffers = self.form.buffers(self.plan)
        return ShardWriter(self, shard, self._buffers)

    def finish(self):
        """Write the manifest; the store is finished."""
        commits = read_commits(self.folder, self.plan)
        if len(commits) < self.plan.shards:
            raise UserError(
                f"{self.store}: {len(commits)} of {self.plan.shards} shards are written, all are needed to finish. "
                f"Run the same extract command again: it continues."
            )
        files = {}
        for shard, record in commits.items():
            files |= record["files"] | {commit_name(shard): file_entry(self.folder / commit_name(shard))}
        fixed = ["plan.json", *self.form.metadata(self.plan)]
        if (self.folder / IMAGES).is_file():
            fixed.append(IMAGES)
        if self.plan.dtype == "int8":
            files |= read_stats(self.folder, self.plan).files
            fixed.append("commit/stats.json")
        files |= {name: file_entry(self.folder / name) for name in fixed}
        manifest = manifest_record(self.layer, self.plan.identity, files) | {"form": form_record(self.form)}
        write_json(self.folder / "manifest.json", manifest)


def refuse_strangers(store):
    """A folder that holds other things is no store."""
    store = Path(store)
    if store.is_dir() and not (store / "features" / "plan.json").exists():
        others = [name for name in sorted(os.listdir(store)) if name not in OURS and not name.startswith(".")]
        if others:
            raise UserError(
                f"{store}: is no store, and holds other files ({', '.join(others[:3])}"
                f"{', ...' if len(others) > 3 else ''}). Give a folder that is new or empty."
            )


def refuse_other_plan(store, found, wanted):
    if found.identity != wanted.identity:
        raise UserError(
            f"{Path(store) / 'features' / 'plan.json'}: this store was begun with another plan: "
            f"{'; '.join(differences(found, wanted))}. "
            f"Give another store folder, or the settings it was begun with, or delete {store} to start anew."
        )


def form_of_writer(folder, wanted=None):
    """How new shards in the folder of a layer lie on disk: as those that are there."""
    there = begun(folder)
    if not there or not wanted or there[0] is wanted:
        return wanted or (there[0] if there else choose_form())
    raise UserError(
        f"{Path(folder).parent}: its shards are {there[0].format}, codec {there[0].codec}, and {wanted.format}, "
        f"codec {wanted.codec}, was asked for. Finish it as it is, then `fastzss-cache convert` it."
    )


class ShardWriter:
    """One shard on its way to the disk: images arrive in parts, in any order."""

    def __init__(self, writer, shard, buffers):
        self.writer, self.plan, self.shard, self.buffers = writer, writer.plan, shard, buffers
        self.rows = self.plan.rows(shard)
        self.filled = np.zeros(len(self.rows), bool)

    def put(self, at, patches, global_vectors=None, valid=None):
        """Quantise some images.

        Args:
            at: place in the shard of the first of them.
            patches: [b, N, D] unit vectors, any float type, any device.
            global_vectors: [b, G, D], in the order of `plan.globals`; None when there are none.
            valid: [b], 0 for images that could not be read: their rows become zeros; None: all are valid.
        """
        b, (N, D, G) = len(patches), (self.plan.patches, self.plan.channels, len(self.plan.globals))
        global_vectors = torch.zeros(b, 0, D) if global_vectors is None else global_vectors
        valid = torch.ones(b, dtype=torch.uint8) if valid is None else torch.as_tensor(valid)
        for name, tensor, shape in (("patches", patches, (b, N, D)), ("global vectors", global_vectors, (b, G, D)),
                                    ("valid", valid, (b,))):  # fmt: skip
            if tensor.shape != shape:
                raise ValueError(f"shard {self.shard}: {name} are {tuple(tensor.shape)}; expected {shape}")
        good = valid != 0
        for start in range(0, b, BLOCK):
            part = slice(start, start + BLOCK)
            self._encode(at + start, patches[part], good[part])
        self._fill("global", at, _half(global_vectors, good))
        self._fill("valid", at, good.to(torch.uint8))
        self.filled[at : at + b] = True

    def _encode(self, at, patches, good):
        """Fill in the arrays that hold the patches."""
        if self.plan.dtype == "float16":
            return self._fill("tokens", at, _half(patches, good))
        here = good.to(patches.device)
        if not good.all():  # what stands for an unreadable image may be anything
            patches = torch.where(
                here[:, None, None], patches, torch.zeros((), dtype=patches.dtype, device=here.device)
            )
        codes, scales = quantise(patches, *(t.to(patches.device) for t in self.writer.stats[:2]))
        if not good.all():
            codes, scales = codes * here[:, None, None], scales * here[:, None]
        self._fill("tokens", at, codes)
        self._fill("scale", at, scales)

    def _fill(self, name, at, values):
        if name in self.buffers.views and len(values):
            numbers = values.cpu().contiguous().numpy()
            self.buffers.views[name][at : at + len(values)] = numbers.reshape(len(values), -1).view(np.uint8)

    def put_bytes(self, name, array):
        """Fill in all rows of one array as another store has them, not changed."""
        self.buffers.views[name][: len(array)] = array.reshape(len(array), -1).view(np.uint8)
        self.filled[:] = True

    def commit(self):
        """Write the files, then the record: the shard is there."""
        if not self.filled.all():
            raise ValueError(f"shard {self.shard}: {int((~self.filled).sum())} of {len(self.rows)} images are missing")
        folder, writer = self.writer.folder, self.writer
        remove_file(folder / "manifest.json")
        remove_file(folder / commit_name(self.shard))
        valid = int(self.buffers.views["valid"][: len(self.rows)].sum())
        contents = self.buffers.contents(self.shard)

        def entries():
            return {p: entry(data) | ({} if mark is None else {"mark": mark}) for p, (data, mark) in contents.items()}

        with ThreadPoolExecutor(1) as beside:  # what is written is hashed while the disk is waited for
            files = beside.submit(entries)
            write_files({folder / path: data for path, (data, _) in contents.items()})
        write_json(folder / commit_name(self.shard), {
            "shard": self.shard,
            "rows": [self.rows.start, self.rows.stop],
            "valid": valid,
            "plan": self.plan.identity,
            "stats": writer.stats and writer.stats.files,
            "form": form_record(writer.form),
            "files": files.result(),
        })  # fmt: skip


def form_record(form):
    return {"format": form.format, "codec": form.codec}


def _half(vectors, good):
    """float16, with zeros in the rows that are not good."""
    bad = (~good).to(vectors.device).view(-1, *[1] * (vectors.dim() - 1))
    halves = vectors.masked_fill(bad, 0).half()
    if not torch.isfinite(halves).all():
        raise ValueError("features hold values beyond float16, infinite ones or NaN; expected unit vectors")
    return halves
