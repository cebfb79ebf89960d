"""Reading a finished store: some rows, or all of them, as Patches.

    take(rows)             one read a row and array, at its known place in the shard; several threads share many rows
    read_ahead(batches)    take of many batches, the next ones read while one is used (ahead.py)
    load(device)           every shard once, into memory made beforehand: of a GPU, page-locked, or shared (resident.py)

Sizes of all files are checked when a store is opened, that a shard is of this store when its file is, and the crc32c of
each row when it is read.
"""

from collections import OrderedDict
from functools import cached_property

import numpy as np
import torch

from fastzss.base.errors import UserError, nearest
from fastzss.kernels import Patches
from fastzss.store.captions import read_captions
from fastzss.store.commits import form_of, read_commits, read_stats
from fastzss.store.forms.rows import in_threads
from fastzss.store.layers import CURES, check, read_record, read_store_plan
from fastzss.store.mentions import read_concepts
from fastzss.store.reading.ahead import read_ahead
from fastzss.store.reading.resident import load_pinned, load_shared, read_to_device
from fastzss.store.remote import local

OPEN_FILES = 256  # shards whose files stay open
KEPT_BYTES = 2**28  # of scales that stay in memory: those of 500,000 images of 256 patches


class PatchStore:
    """A finished feature store, without what was added to it later (joined.py has open_store).

    Attributes: path, plan (FeaturePlan), identity (of the features), form (how they lie on disk).
    """

    def __init__(self, path):
        self.path = local(path)
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
        self._files, self.form = record["files"], form_of(record, manifest)
        check(self._folder, self._files, "features")
        self._stats = read_stats(self._folder, self.plan)
        if self._stats is None and self.plan.dtype == "int8":
            raise UserError(f"{self._folder / 'commit/stats.json'}: is of another plan. {CURES['features']}")
        self._open = OrderedDict()

    def __len__(self):
        return self.plan.images

    def __repr__(self):
        p = self.plan
        return f"PatchStore({str(self.path)!r}: {p.images} images, {p.patches} patches of {p.channels}, {p.dtype})"

    @property
    def shares(self):
        """[(images, how often an epoch sees them)]: of one store, or of several."""
        return [(len(self), 1.0)]

    @property
    def bytes(self):
        """Of all shards, on disk."""
        own = {name for shard in range(self.plan.shards) for name in self.form.files(self.plan, shard)}
        return sum(self._files[name]["bytes"] for name in own)

    def take(self, rows, out=None, device=None, check=True):
        """The patches of some rows, in the order given.

        Args:
            rows: [B] integers, repeats allowed.
            out: Patches of B images from an earlier call, to be filled again instead of new memory.
            device: where the result goes; None: it stays on the CPU.
            check: compare the crc32c of every row.
        """
        rows = self._rows(rows)
        out = self.buffer(len(rows)) if out is None else out
        if len(out.tokens) != len(rows):
            raise ValueError(f"take: out has room for {len(out.tokens)} images, {len(rows)} rows are asked for")
        self._read_rows("tokens", rows, out.tokens.numpy(), check)
        if out.scale is not None and self._scales is None:
            self._read_rows("scale", rows, out.scale.numpy(), check)
        elif out.scale is not None:
            torch.index_select(self._scales, 0, torch.from_numpy(rows), out=out.scale)
        return out if device is None else out.to(device)

    def read_ahead(self, batches, device=None):
        """Yields (rows, Patches) for each of `batches`, an iterable of row arrays, in order.

        A thread reads the next batches meanwhile.  What was yielded is valid until the next is asked for: its memory
        is used again.  What goes wrong in the thread is raised here; leaving the loop ends the thread.
        """
        return read_ahead(self, batches, device)

    def load(self, device="cpu"):
        """The patches of all rows: "cpu", "cuda" or any device; "pinned": page-locked; "shm": one copy for all ranks
        of this machine."""
        if device == "shm":
            return load_shared(self)
        out = load_pinned(self) if device == "pinned" else self.buffer(self.plan.images, device)
        return self.fill(out)

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

    @property
    def stats(self):
        """Stats of the quantiser; None for float16."""
        return self._stats

    def buffer(self, images, device="cpu", pinned=False):
        """Patches of so many images with nothing in them yet, to be given to `take`; `pinned`: page-locked."""

        def empty(name):
            _, dtype, (_, *row) = self.plan.arrays[name]
            if torch.device(device).type == "cpu" and not pinned:
                return torch.from_numpy(np.empty((images, *row), dtype))  # numpy asks for large pages, torch does not
            kind = torch.int8 if dtype == np.int8 else torch.float16
            return torch.empty(images, *row, dtype=kind, device=device, pin_memory=pinned)

        if self.plan.dtype == "float16":
            return Patches(empty("tokens"))
        return Patches(empty("tokens"), empty("scale"), *(t.to(device) for t in self._stats[:2]))

    def fill(self, out):
        """Read all rows into Patches with room for them, on any device."""
        self._read_all("tokens", out.tokens)
        if out.scale is not None:
            self._read_all("scale", out.scale)
        return out

    def array(self, name, shard):
        """All rows of one array in one shard, as they are stored; every checksum is compared."""
        rows = self._shard(name, shard)
        out = np.empty((len(rows), *rows.shape), rows.dtype)
        rows.read_into(out)
        return out

    @cached_property
    def _scales(self):
        """The scales of all patches, which are few beside the patches; None where they are too many to be kept."""
        if 2 * self.plan.images * self.plan.patches > KEPT_BYTES:
            return None
        scales = torch.empty(self.plan.images, self.plan.patches, dtype=torch.float16)
        self._read_all("scale", scales)
        return scales

    def _rows(self, rows):
        rows = np.asarray(rows.cpu() if isinstance(rows, torch.Tensor) else rows, dtype=np.int64)
        if len(rows) and not (0 <= rows.min() and rows.max() < self.plan.images):
            raise IndexError(f"rows {rows.min()} to {rows.max()} of a store with {self.plan.images} images")
        return rows

    def _shard(self, name, shard):
        """Rows of an array; the files used last stay open."""
        rows = self._open.get((name, shard))
        if rows is None:
            rows = self.form.open(self._folder, self.plan, shard, name, self._files)
            self._open[name, shard] = rows
            while len(self._open) > OPEN_FILES:
                self._open.popitem(last=False)
        return rows

    def _read_rows(self, name, rows, out, check, places=None):
        """Read rows of an array; the i-th of them to out[places[i]], by default to out[i]."""
        if not len(rows):
            return
        places = np.arange(len(rows)) if places is None else places
        shards = rows // self.plan.shard_images
        order = np.argsort(rows, kind="stable")

        def read(some):
            shard = self._shard(name, int(shards[some[0]]))
            shard.read_rows(rows[some] - shard.first, out, places[some], check)

        in_threads(read, np.split(order, np.flatnonzero(np.diff(shards[order])) + 1), len(rows) * out[:1].nbytes)

    def _read_all(self, name, out):
        """Read an array into a tensor of all rows, on any device."""
        if out.device.type != "cpu":
            return read_to_device(self, name, out)

        def read(shard):
            rows = self.plan.rows(shard)
            self._shard(name, shard).read_into(out[rows.start : rows.stop].numpy())

        in_threads(read, range(self.plan.shards), out.nbytes)
