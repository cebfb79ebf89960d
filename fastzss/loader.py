"""The loader: a store -> shuffled batches, and the frozen features they point into.

The store is resident: patches and global vectors lie in the memory of the device, and a batch only names rows.  The
order is a pure function of (seed, epoch): step s of a run is the same whatever happened before, on any number of ranks.
An epoch sees every image with one of its captions, drawn anew each epoch, or (`captions="all"`) every caption.
"""

import numpy as np

from fastzss.batch import Texts, collate, offsets
from fastzss.errors import UserError
from fastzss.store import PatchStore
from fastzss.store.plan import hashes, permutation


class Loader:
    def __init__(self, path, batch, *, bank=None, captions="one", feature=None, seed=0, device="cpu", rank=0, world=1):
        self.store = PatchStore(path)
        self.seed, self.batch, self.device = seed, batch, device
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
        self.patches = self.store.load(device)
        kind = feature or self.store.plan.globals[0]
        if kind not in self.store.plan.globals:
            raise UserError(
                f"{path}: has no global feature {kind!r}; there are {', '.join(self.store.plan.globals)} "
                f"(choose with --global-feature)"
            )
        self.images = self.store.globals(name=kind).to(device)

    @property
    def steps_per_epoch(self):
        return self.samples // self.batch  # the rest of an epoch is dropped: all batches are full

    def step(self, step):
        """The batch of a step, counted from 0 over all epochs: this rank's share of it."""
        epoch, within = divmod(step, self.steps_per_epoch)
        chosen = self._order(epoch)[within * self.batch : (within + 1) * self.batch]
        return collate(self.texts, chosen, self.rank, self.world).to(self.device)

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
