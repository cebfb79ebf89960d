"""The loader: a store -> shuffled batches, and the frozen features they point into.

Patches lie where there is room for them, and training is the same wherever that is:

    device   all of them in the memory of the device; a batch only names rows
    host     all of them in the memory of the machine; those of a batch's mentions go to the device with it
    stream   on disk; those of the next batches are read while the device computes

The order is a pure function of (seed, epoch): step s of a run is the same whatever happened before, on any number of
ranks.  An epoch sees every image with one of its captions, drawn anew each epoch, or (`captions="all"`) every caption.
"""

from collections import deque
from dataclasses import replace

import numpy as np
import torch

from fastzss.batch import Texts, collate, offsets
from fastzss.errors import UserError
from fastzss.kernels import Patches
from fastzss.room import free_bytes, said
from fastzss.store import PatchStore
from fastzss.store.plan import hashes, permutation

ROOM = 0.8  # share of the free memory that patches may fill


class Loader:
    def __init__(self, path, batch, *, bank=None, captions="one", feature=None, seed=0, device="cpu", rank=0, world=1):
        self.store = PatchStore(path)
        self.seed, self.batch, self.device = seed, batch, torch.device(device)
        self.rank, self.world, self.each = rank, world, captions
        self.bank, self.texts = read_texts(self.store, bank)
        valid = self.store.valid().numpy()[self.texts.row]
        self.pool = np.flatnonzero(valid)  # captions whose image could be read
        images, counts = np.unique(self.texts.row[self.pool], return_counts=True)
        self.pool = self.pool[np.argsort(self.texts.row[self.pool], kind="stable")]
        self.begin = offsets(counts)  # captions of one image are neighbours in the pool
        self.samples = len(images) if captions == "one" else len(self.pool)
        if batch > self.samples:
            raise UserError(
                f"--batch {batch} is more than the {self.samples} samples of {path}; "
                f"give a batch of at most that, or extract more images"
            )
        kind = feature or self.store.plan.globals[0]
        if kind not in self.store.plan.globals:
            raise UserError(
                f"{path}: has no global feature {kind!r}; there are {', '.join(self.store.plan.globals)} "
                f"(choose with --global-feature)"
            )
        self.images = self.store.globals(name=kind).to(self.device)
        self.where, self.patches = None, None

    @property
    def bytes(self):
        """Of the patches of all images, in memory."""
        arrays = self.store.plan.arrays
        wanted = [arrays[name] for name in ("tokens", "scale") if name in arrays]
        return sum(dtype.itemsize * int(np.prod(shape)) for shape, dtype, _ in wanted)

    def load(self, where="auto", reserve=0):
        """Put the patches where they are wanted, or where there is room; without it batches come with none.

        Returns a sentence that says where they are and why.
        """
        self.where, sentence = place(where, self.bytes, self.device, reserve)
        if self.where == "device":
            self.patches = self.store.load(self.device)
        elif self.where == "host":
            self.patches = self.store.load("cpu")
        return sentence

    @property
    def steps_per_epoch(self):
        return self.samples // self.batch  # the rest of an epoch is dropped: all batches are full

    def steps(self, begin, end):
        """Yield (batch, patches) of the steps begin .. end - 1; the patches serve until the next ones are asked for."""
        batches = (self.step(step) for step in range(begin, end))
        if self.where in (None, "device"):
            for batch in batches:
                yield batch.to(self.device), self.patches
        elif self.where == "host":
            for batch in batches:
                rows, batch = own_rows(batch)
                yield batch.to(self.device), some(self.patches, rows, self.device)
        else:
            ahead = deque()

            def rows_of_batches():
                for batch in batches:
                    rows, batch = own_rows(batch)
                    ahead.append(batch)
                    yield rows.numpy()

            for _, patches in self.store.read_ahead(rows_of_batches(), self.device):
                yield ahead.popleft().to(self.device), patches

    def step(self, step):
        """The batch of a step, counted from 0 over all epochs: this rank's share of it."""
        epoch, within = divmod(step, self.steps_per_epoch)
        chosen = self._order(epoch)[within * self.batch : (within + 1) * self.batch]
        return collate(self.texts, chosen, self.rank, self.world)

    def _order(self, epoch):
        """The captions of an epoch in their order."""
        if getattr(self, "_epoch", None) != epoch:
            order = permutation(self.samples, self.seed, epoch)
            if self.each == "one":
                counts = np.diff(self.begin)
                pick = (hashes(len(counts), self.seed, epoch, 1) % counts.astype(np.uint64)).astype(np.int64)
                order = (self.begin[:-1] + pick)[order]
            self._epoch, self._captions = epoch, self.pool[order]
        return self._captions


def place(wanted, needed, device, reserve=0):
    """("device", "host" or "stream", why): where `needed` bytes of patches go.

    Args:
        wanted: one of the three, or "auto".
        reserve: bytes of the device's memory that training needs besides.
    """
    free = {"device": free_bytes(device), "host": free_bytes("cpu")}
    room = {"device": ROOM * (free["device"] - reserve), "host": ROOM * free["host"]}
    named = {"device": f"on {device}", "host": "in the memory of the machine"}
    if device.type == "cpu":
        named["device"] = named["host"]
    if wanted == "auto":
        order = ("device", "stream") if device.type == "cpu" else ("device", "host", "stream")
        wanted = next(where for where in order if where == "stream" or needed <= room[where])
    elif wanted != "stream" and needed > free[wanted]:
        raise UserError(
            f"--loader {wanted}: the patches take {said(needed)}, and {said(free[wanted])} are free {named[wanted]}; "
            f"leave --loader out, or say --loader stream"
        )
    beside = f", beside {said(reserve)} for training" if reserve else ""
    if wanted == "stream":
        full = " and ".join(dict.fromkeys(f"{said(free[where])} {named[where]}" for where in named))
        return wanted, f"{said(needed)} of patches are read from the store as they are needed; free: {full}{beside}"
    return wanted, f"{said(needed)} of patches lie {named[wanted]}; free: {said(free[wanted])}{beside}"


def own_rows(batch):
    """(rows of the store whose patches a batch looks at, ascending; the batch pointing into just those)."""
    rows, image = batch.image.unique(return_inverse=True)
    return rows, replace(batch, image=image)


def some(patches, rows, device):
    """The Patches of some rows, on a device."""
    own = Patches(patches.tokens[rows], None if patches.scale is None else patches.scale[rows], *patches[2:])
    if device.type == "cuda":  # from page-locked memory it travels while the device computes
        own = own._replace(tokens=own.tokens.pin_memory())
    return Patches(*(None if t is None else t.to(device, non_blocking=True) for t in own))


def read_texts(store, bank):
    """The store's bank record (None without one) and its captions with their mentions."""
    captions = store.captions
    if len(captions.texts) == 0:
        raise UserError(f"{store.path}: has no captions, and a text tower learns from nothing else")
    concepts = store.concepts(bank)
    texts = Texts.of(
        ids=captions.ids.numpy(),
        ids_offset=captions.offset.numpy(),
        row=captions.row.numpy(),
        caption=concepts.caption.numpy(),
        name=concepts.name.numpy(),
        token=concepts.token.numpy(),
        token_offset=concepts.offset.numpy(),
    )
    return concepts.bank, texts
