"""Writing the features layer: plan first, then statistics, then shards in any order, the manifest last.

    features/plan.json           the first file; a second writer with another plan is refused
    features/stats/{mean,std}    float32 [D] of the quantiser, int8 only; then commit/stats.json
    features/tokens/c/SHARD/...  and scale, global, valid; then commit/SHARD.json: the shard is there
    features/manifest.json       the last file: the layer is finished

A record is written after the files it speaks of are durable, and removed before they are written anew.  So whatever
moment a writer is killed at, the next one finds the truth in `todo()`, and continues.
"""

from pathlib import Path

import torch

from fastzss.errors import UserError
from fastzss.kernels import quantise
from fastzss.store.files import make_folder, read_json, remove_file, sweep, write_json
from fastzss.store.layers import check, file_entry, manifest_record, plan_record, read_feature_plan
from fastzss.store.plan import differences
from fastzss.store.shards import read_chunk, shard_name, write_chunk, write_group, write_metadata, write_shard

BLOCK = 64  # images quantised at a time: bounds the float32 temporaries


def commit_name(shard):
    return f"commit/{shard:06d}.json"


def read_stats(folder, plan):
    """(mean, std), float32 [D] on the CPU, and their commit record; None while there is none."""
    record = folder / "commit" / "stats.json"
    if plan.dtype != "int8" or not record.is_file():
        return None
    record = read_json(record)
    if record["plan"] != plan.identity or not all((folder / name).is_file() for name in record["files"]):
        return None
    check(folder, record["files"], "features", hashes=True)
    mean, std = (
        torch.from_numpy(read_chunk(folder / shard_name(f"stats/{name}", 0, 1), (plan.channels,), "<f4"))
        for name in ("mean", "std")
    )
    return mean, std, record


def read_commits(folder, plan):
    """{shard: record} of the shards that are there: their record is valid, and their files have its sizes."""
    if not (Path(folder) / "commit").is_dir():
        return {}
    stats = read_stats(folder, plan)
    stats = stats and stats[2]["files"]
    commits = {}
    for shard in range(plan.shards):
        path = folder / commit_name(shard)
        if not path.is_file():
            continue
        try:
            record = read_json(path)
            check(folder, record["files"], "features")
        except UserError:
            continue  # what is damaged counts as not written
        if record["plan"] == plan.identity and record["stats"] == stats and (stats or plan.dtype != "int8"):
            commits[shard] = record
    return commits


class FeatureWriter:
    """Writes the features of a store, or continues to; see `FeaturePlan` for what they are."""

    def __init__(self, store, plan):
        self.store, self.plan = Path(store), plan
        self.folder = self.store / "features"
        self._stats = None
        if not (self.folder / "plan.json").exists():
            make_folder(self.folder)
            try:
                write_json(self.folder / "plan.json", plan_record("features", plan.to_json()), exclusive=True)
            except FileExistsError:  # another writer was faster
                pass
        self._compare(read_feature_plan(self.store))
        sweep(self.store)
        self._write_metadata()

    def _compare(self, found):
        if found.identity != self.plan.identity:
            raise UserError(
                f"{self.folder / 'plan.json'}: this store was begun with another plan: "
                f"{'; '.join(differences(found, self.plan))}. "
                f"Give another store folder, or the settings it was begun with, or delete {self.store} to start anew."
            )

    def _write_metadata(self):
        S = self.plan.shard_images
        write_group(self.folder)
        for name, (shape, dtype, chunk) in self.plan.arrays.items():
            write_metadata(self.folder / name, shape, dtype, chunk, (S, *chunk[1:]))
        if self.plan.dtype == "int8":
            write_group(self.folder / "stats")
            for name in ("mean", "std"):
                write_metadata(self.folder / "stats" / name, (self.plan.channels,), "f4", (self.plan.channels,))

    @property
    def stats(self):
        """(mean, std) of the quantiser, float32 [D]; None while they are not set, and always for float16."""
        if self._stats is None:
            self._stats = read_stats(self.folder, self.plan)
        return self._stats and self._stats[:2]

    def set_stats(self, mean, std):
        """Fix the statistics of the quantiser, before any shard; the same for all writers of the store."""
        if self.plan.dtype != "int8":
            raise ValueError("set_stats: a float16 store has no statistics")
        mean, std = (torch.as_tensor(t).detach().float().cpu().contiguous() for t in (mean, std))
        for name, values in (("mean", mean), ("std", std)):
            if values.shape != (self.plan.channels,) or not values.isfinite().all():
                raise ValueError(f"set_stats: {name} is {tuple(values.shape)}; expected {self.plan.channels} finite")
        if (std <= 0).any():
            raise ValueError("set_stats: std holds values that are not positive")
        if self.stats is not None:
            if torch.equal(mean, self.stats[0]) and torch.equal(std, self.stats[1]):
                return
            raise ValueError("set_stats: this store has other statistics already")
        names = {name: shard_name(f"stats/{name}", 0, 1) for name in ("mean", "std")}
        files = {
            names["mean"]: write_chunk(self.folder / names["mean"], mean.numpy()),
            names["std"]: write_chunk(self.folder / names["std"], std.numpy()),
        }
        write_json(self.folder / "commit" / "stats.json", {"plan": self.plan.identity, "files": files})

    def todo(self):
        """The shards that are not there, ascending."""
        commits = read_commits(self.folder, self.plan)
        return [shard for shard in range(self.plan.shards) if shard not in commits]

    def write(self, shard, patches, globals=None, valid=None):
        """Quantise and write one shard, S = len(plan.rows(shard)) images.

        Args:
            shard: its number.
            patches: [S, N, D] unit vectors, any float type, any device.
            globals: [S, G, D], in the order of `plan.globals`; None when there are none.
            valid: [S], 0 for images that could not be read: their rows become zeros; None: all are valid.
        """
        S, (N, D, G) = len(self.plan.rows(shard)), (self.plan.patches, self.plan.channels, len(self.plan.globals))
        globals = torch.zeros(S, 0, D) if globals is None else globals
        valid = torch.ones(S, dtype=torch.uint8) if valid is None else torch.as_tensor(valid)
        for name, tensor, shape in (("patches", patches, (S, N, D)), ("globals", globals, (S, G, D)),
                                    ("valid", valid, (S,))):  # fmt: skip
            if tensor.shape != shape:
                raise ValueError(f"shard {shard}: {name} are {tuple(tensor.shape)}; expected {shape}")
        good = valid != 0
        arrays = {**self._encode(patches, good), "global": _half(globals, good), "valid": good.to(torch.uint8)}

        remove_file(self.folder / "manifest.json")
        remove_file(self.folder / commit_name(shard))
        files = {}
        for name, (shape, _, _) in self.plan.arrays.items():
            path = shard_name(name, shard, len(shape))
            files[path] = write_shard(self.folder / path, arrays[name].cpu().numpy(), self.plan.shard_images)
        rows = self.plan.rows(shard)
        write_json(self.folder / commit_name(shard), {
            "shard": shard,
            "rows": [rows.start, rows.stop],
            "valid": int(good.sum()),
            "plan": self.plan.identity,
            "stats": self._stats and self._stats[2]["files"],
            "files": files,
        })  # fmt: skip

    def _encode(self, patches, good):
        """The arrays that hold the patches."""
        if self.plan.dtype == "float16":
            return {"tokens": _half(patches, good)}
        if self.stats is None:
            raise ValueError("an int8 store needs set_stats(mean, std) before its first shard")
        mean, std = (t.to(patches.device) for t in self.stats)
        tokens = torch.zeros(patches.shape, dtype=torch.int8)
        scale = torch.zeros(patches.shape[:2], dtype=torch.float16)
        rows = good.nonzero()[:, 0].cpu()
        for block in rows.split(BLOCK):
            codes, scales = quantise(patches[block.to(patches.device)], mean, std)
            tokens[block], scale[block] = codes.cpu(), scales.cpu()
        return {"tokens": tokens, "scale": scale}

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
        fixed = ["plan.json", "zarr.json", *(f"{name}/zarr.json" for name in self.plan.arrays)]
        if self.plan.dtype == "int8":
            files |= read_stats(self.folder, self.plan)[2]["files"]
            fixed += ["commit/stats.json", *(f"stats/{name}zarr.json" for name in ("", "mean/", "std/"))]
        files |= {name: file_entry(self.folder / name) for name in fixed}
        write_json(self.folder / "manifest.json", manifest_record("features", self.plan.identity, files))


def _half(vectors, good):
    """float16, with zeros in the rows that are not good."""
    good = good.to(vectors.device).view(-1, *[1] * (vectors.dim() - 1))
    halves = torch.where(good, vectors, torch.zeros((), dtype=vectors.dtype, device=vectors.device)).half()
    if not torch.isfinite(halves).all():
        raise ValueError("features hold values beyond float16, infinite ones or NaN; expected unit vectors")
    return halves
