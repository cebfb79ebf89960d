"""Reading a finished store: some rows, or all of them, as Patches.

    take(rows)             one read a row and array, at its fixed place in the shard
    read_ahead(batches)    take of many batches, the next ones read while one is used (ahead.py)
    load()                 every shard once, from the first row to the last, into tensors made beforehand

Sizes of all files are checked when a store is opened, and the crc32c of each row when it is read.
"""

from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from fastzss.errors import UserError, nearest
from fastzss.kernels import Patches
from fastzss.store.ahead import read_ahead
from fastzss.store.features import read_commits, read_stats
from fastzss.store.layers import CURES, check, damages, read_feature_plan, read_record
from fastzss.store.shards import ShardFile, shard_name
from fastzss.store.texts import list_concepts, read_captions, read_concepts


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


def store_info(path):
    """What `fastzss-cache info` shows of a store, finished or not, as a dict that JSON can hold."""
    path = Path(path)
    plan = read_store_plan(path)
    commits = read_commits(path / "features", plan)
    files = [file for record in commits.values() for file in record["files"].values()]
    captions = path / "captions" / "plan.json"
    return {
        "path": str(path),
        "identity": plan.identity,
        "finished": (path / "features" / "manifest.json").is_file(),
        "model": plan.vision.get("model"),
        "licence": plan.vision.get("licence"),
        "source": plan.source.get("spec"),
        "images": plan.images,
        "valid": sum(record["valid"] for record in commits.values()),
        "patches": plan.patches,
        "grid": list(plan.grid),
        "channels": plan.channels,
        "globals": list(plan.globals),
        "dtype": plan.dtype,
        "shards": plan.shards,
        "shards_written": len(commits),
        "shard_images": plan.shard_images,
        "bytes": sum(file["bytes"] for file in files),
        "captions": read_record(captions, "captions")["plan"]["captions"] if captions.is_file() else 0,
        "banks": list_concepts(path),
    }


class PatchStore:
    """A finished feature store.

    Attributes: path, plan (FeaturePlan), identity (of the features).
    """

    def __init__(self, path):
        self.path = Path(path)
        self.plan = read_store_plan(self.path)
        self.identity = self.plan.identity
        self._folder = self.path / "features"
        manifest = self._folder / "manifest.json"
        if not manifest.is_file():
            written, shards = len(read_commits(self._folder, self.plan)), self.plan.shards
            raise UserError(
                f"{self.path}: is not finished: {written} of {shards} shards are written. "
                f"Run the same extract command again: it writes only what is missing."
            )
        record = read_record(manifest, "features")
        if record["identity"] != self.identity:
            raise UserError(f"{manifest}: is of another plan. {CURES['features']}")
        self._files = record["files"]
        check(self._folder, self._files, "features")
        self._stats = read_stats(self._folder, self.plan)
        if self._stats is None and self.plan.dtype == "int8":
            raise UserError(f"{self._folder / 'commit/stats.json'}: is of another plan. {CURES['features']}")

    def __len__(self):
        return self.plan.images

    def __repr__(self):
        p = self.plan
        return f"PatchStore({str(self.path)!r}: {p.images} images, {p.patches} patches of {p.channels}, {p.dtype})"

    @property
    def bytes(self):
        """Of all shards, on disk."""
        own = [f"{name}/c/" for name in self.plan.arrays]
        return sum(file["bytes"] for name, file in self._files.items() if name.startswith(tuple(own)))

    def take(self, rows, out=None, device=None, check=True):
        """The patches of some rows, in the order given.

        Args:
            rows: [B] integers, repeats allowed.
            out: Patches of B images from an earlier call, to be filled again instead of new memory.
            device: where the result goes; None: it stays on the CPU.
            check: compare the crc32c of every row.
        """
        rows = self._rows(rows)
        out = self.room(len(rows)) if out is None else out
        if len(out.tokens) != len(rows):
            raise ValueError(f"take: out has room for {len(out.tokens)} images, {len(rows)} rows are asked for")
        self._read_rows("tokens", rows, out.tokens.numpy(), check)
        if out.scale is not None:
            self._read_rows("scale", rows, out.scale.numpy(), check)
        return out if device is None else out.to(device)

    def read_ahead(self, batches, device=None):
        """Yields (rows, Patches) for each of `batches`, an iterable of row arrays, in order.

        A thread reads the next batches meanwhile.  What was yielded is valid until the next is asked for: its memory
        is used again.  What goes wrong in the thread is raised here; leaving the loop ends the thread.
        """
        return read_ahead(self, batches, device)

    def load(self, device="cpu"):
        """The patches of all rows."""
        out = self.room(self.plan.images, device)
        self._read_all("tokens", out.tokens)
        if out.scale is not None:
            self._read_all("scale", out.scale)
        return out

    def globals(self, rows=None, name="cls"):
        """float16 [B, D]: one of the global vectors of some rows, or of all."""
        names = self.plan.globals
        if name not in names:
            there = ", ".join(names) or "none"
            raise UserError(f"{self.path}: has no global vector {name!r}{nearest(name, names)}; there are: {there}.")
        rows = None if rows is None else self._rows(rows)
        _, _, (_, *shape) = self.plan.arrays["global"]
        out = torch.empty(self.plan.images if rows is None else len(rows), *shape, dtype=torch.float16)
        if rows is None:
            self._read_all("global", out)
        else:
            self._read_rows("global", rows, out.numpy(), check=True)
        return out[:, names.index(name)].contiguous()

    def valid(self):
        """bool [n]: False where an image could not be read; its row is zeros."""
        out = torch.empty(self.plan.images, dtype=torch.uint8)
        self._read_all("valid", out)
        return out != 0

    @cached_property
    def captions(self):
        return read_captions(self.path)

    def concepts(self, bank=None):
        """The mentions of a bank, given by the beginning of its identity; None: the only one there is."""
        return read_concepts(self.path, bank)

    def info(self):
        return store_info(self.path)

    def verify(self):
        """Read every byte of the features; one sentence for each damaged file."""
        return list(damages(self._folder, self._files, "features", hashes=True))

    def room(self, images, device="cpu", pinned=False):
        """Patches of so many images with nothing in them yet, to be given to `take`; `pinned`: page-locked."""
        N, D = self.plan.patches, self.plan.channels
        memory = {"device": device, "pin_memory": pinned}
        if self.plan.dtype == "float16":
            return Patches(torch.empty(images, N, D, dtype=torch.float16, **memory))
        tokens = torch.empty(images, N, D, dtype=torch.int8, **memory)
        scale = torch.empty(images, N, dtype=torch.float16, **memory)
        return Patches(tokens, scale, *(t.to(device) for t in self._stats[:2]))

    def _rows(self, rows):
        rows = np.asarray(rows.cpu() if isinstance(rows, torch.Tensor) else rows, dtype=np.int64)
        if len(rows) and not (0 <= rows.min() and rows.max() < self.plan.images):
            raise IndexError(f"rows {rows.min()} to {rows.max()} of a store with {self.plan.images} images")
        return rows

    def _shard(self, name, shard):
        shape, dtype, (_, *row) = self.plan.arrays[name]
        rows = self.plan.rows(shard)
        path = self._folder / shard_name(name, shard, len(shape))
        return ShardFile(path, rows.start, len(rows), tuple(row), dtype, self.plan.shard_images)

    def _read_rows(self, name, rows, out, check):
        shards = rows // self.plan.shard_images
        order = np.argsort(rows, kind="stable")
        for places in np.split(order, np.flatnonzero(np.diff(shards[order])) + 1):
            if len(places):
                shard = self._shard(name, int(shards[places[0]]))
                shard.read_rows(rows[places] - shard.first, out, places, check)

    def _read_all(self, name, out):
        """Read an array into a tensor of all rows, on any device."""
        shards = [self._shard(name, shard) for shard in range(self.plan.shards)]
        staging = np.empty(shards[0].rows * (shards[0].width + 4), np.uint8)
        for shard in shards:
            rows = slice(shard.first, shard.first + shard.rows)
            if out.device.type == "cpu":
                shard.read_into(out[rows].numpy(), staging=staging)
            else:
                part = torch.empty_like(out[rows], device="cpu")
                shard.read_into(part.numpy(), staging=staging)
                out[rows] = part.to(out.device)
