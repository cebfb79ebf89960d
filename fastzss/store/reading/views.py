"""Reading the views layer of a store: some rows, or all."""

from pathlib import Path

import numpy as np
import torch

from fastzss.base.errors import UserError, nearest
from fastzss.store.commits import form_of, read_commits
from fastzss.store.forms.rows import in_threads
from fastzss.store.layers import CURES, check, expect_below, read_record
from fastzss.store.views import read_view_plan, view_folders


class ViewStore:
    """The finished views of a store by one teacher.

    Args:
        store: folder of the store.
        teacher: name of the teacher's model or the beginning of its folder; None: the only one there is.

    Attributes: path, plan (ViewPlan), identity.
    """

    def __init__(self, store, teacher=None):
        self.path = chosen(Path(store), teacher)
        self.plan = read_view_plan(self.path)
        self.identity = self.plan.identity
        manifest = self.path / "manifest.json"
        if not manifest.is_file():
            written = len(read_commits(self.path, self.plan))
            raise UserError(
                f"{self.path}: these views are not finished: {written} of {self.plan.shards} shards are written. "
                f"{CURES['views']}"
            )
        record = read_record(manifest, "views")
        if record["identity"] != self.identity:
            raise UserError(f"{manifest}: is of another plan. {CURES['views']}")
        expect_below(self.path, self.plan.features, Path(store) / "features", "Delete this folder, and run it again.")
        self._files, self.form = record["files"], form_of(record, manifest)
        check(self.path, self._files, "views")

    def __len__(self):
        return self.plan.images

    def valid(self):
        """bool [n]: False where an image could not be read; its row is zeros."""
        return self.all("valid") != 0

    def all(self, name="views"):
        """An array of all rows."""
        (shape, dtype, _) = self.plan.arrays[name]
        out = np.empty(shape, dtype)

        def read(shard):
            rows = self.plan.rows(shard)
            self._rows(name, shard).read_into(out[rows.start : rows.stop])

        in_threads(read, range(self.plan.shards), out.nbytes)
        return torch.from_numpy(out)

    def take(self, rows, name="views"):
        """Some rows of an array, in the order given; the checksum of each is compared."""
        rows = np.asarray(rows, np.int64)
        _, dtype, (_, *shape) = self.plan.arrays[name]
        out = np.empty((len(rows), *shape), dtype)
        shards = rows // self.plan.shard_images
        for shard in np.unique(shards):
            places = np.flatnonzero(shards == shard)
            own = self._rows(name, int(shard))
            own.read_rows(rows[places] - own.first, out, places)
        return torch.from_numpy(out)

    def array(self, name, shard):
        """All rows of one array in one shard, as they are stored; every checksum is compared."""
        rows = self._rows(name, shard)
        out = np.empty((len(rows), *rows.shape), rows.dtype)
        rows.read_into(out)
        return out

    def bytes(self, name="views"):
        shape, dtype, _ = self.plan.arrays[name]
        return dtype.itemsize * int(np.prod(shape))

    def _rows(self, name, shard):
        return self.form.open(self.path, self.plan, shard, name, self._files)


def list_views(store):
    """One dict for each views layer of a store: teacher, scales, channels, pixels, finished, bytes, folder."""
    layers = []
    for folder in view_folders(store):
        plan = read_view_plan(folder)
        commits = read_commits(folder, plan)
        layers.append({
            "teacher": plan.teacher["model"],
            "scales": list(plan.scales),
            "views": plan.patches,
            "channels": plan.channels,
            "pixels": plan.pixels,
            "finished": (folder / "manifest.json").is_file(),
            "bytes": sum(file["bytes"] for record in commits.values() for file in record["files"].values()),
            "folder": str(folder),
        })  # fmt: skip
    return layers


def chosen(store, teacher):
    """The folder of a store's views by a teacher."""
    there = {folder: read_view_plan(folder).teacher["model"] for folder in view_folders(store)}
    if not there:
        raise UserError(
            f"{store}: has no views of a teacher. Add them with "
            f"`fastzss-cache extract SOURCE {store} --teacher MODEL`, with the SOURCE it was made of."
        )
    wanted = str(teacher)
    found = [f for f, model in there.items() if teacher is None or wanted == model or f.name.startswith(wanted)]
    if len(found) == 1:
        return found[0]
    words = "; ".join(f"{model} ({folder.name})" for folder, model in there.items())
    if found:
        raise UserError(f"{store}: has the views of several teachers: {words}. Name one with --teacher.")
    hint = nearest(wanted, there.values())
    raise UserError(f"{store}: has no views of the teacher {wanted}{hint}; there are those of {words}.")
