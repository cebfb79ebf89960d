"""The loader: a store with views -> shuffled batches of images.

The order is a pure function of (seed, epoch), as SimZSS's; an epoch sees every image once.  So are the random numbers
of a step: those of the whole batch are drawn on every rank, and each takes its own, so that N processes compute what
one would.  No caption is read.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastzss.base.errors import UserError
from fastzss.base.machine import USABLE, free_bytes
from fastzss.kernels import Patches
from fastzss.methods.placing import bytes_in_memory, patches_of, put_where, sharers
from fastzss.store.plan import hashes, permutation
from fastzss.store.reading.joined import JoinedStore, open_store
from fastzss.store.reading.views import ViewStore


class Batch(NamedTuple):
    """b images on this rank, of B in the whole batch."""

    rows: Tensor  # [b] int64, rows of the store
    image: Tensor  # [b] int64, rows of `patches`
    patches: Patches | None  # of the store, or of this batch; None: pixels are looked at
    pixels: Tensor | None  # uint8 [b, 3, P, P]
    views: Tensor  # [b, V, D_t] float16
    draws: object  # Draws


class Draws:
    """The random numbers of one step: those of this rank's images, the same however many ranks there are."""

    def __init__(self, seed, step, first, count, batch, device):
        self.generator = torch.Generator(device).manual_seed(int(hashes(1, seed, step, 2)[0] >> 1))
        self.own, self.batch, self.device = slice(first, first + count), batch, device

    def uniform(self, *shape):
        """[b, *shape] in (0, 1)."""
        values = torch.rand(self.batch, *shape, generator=self.generator, device=self.device)[self.own]
        return values.clamp_(1e-7, 1 - 1e-7)

    def gumbel(self, *shape):
        return -(-self.uniform(*shape).log_()).log_()


class Loader:
    def __init__(self, path, batch, *, teacher=None, pixels=False, seed=0, device="cpu", rank=0, world=1):
        self.store = open_store(path)
        if isinstance(self.store, JoinedStore):
            raise UserError(
                f"{self.store.path}: ZeroSeg learns from one store that has not grown since its views were made; "
                f"extract all images into one store, with --teacher"
            )
        self.views = ViewStore(self.store.path, teacher)
        self.seed, self.batch, self.device = seed, batch, torch.device(device)
        self.rank, self.world, self.pixels = rank, world, pixels
        if pixels and not self.views.plan.pixels:
            raise UserError(
                f"{path}: its views come without pixels, and the paper student looks at nothing else. Delete "
                f"{self.views.path} and extract again with --teacher and --pixels 224"
            )
        self.pool = np.flatnonzero((self.store.valid() & self.views.valid()).numpy())
        self.samples = len(self.pool)
        if batch > self.samples:
            raise UserError(
                f"--batch {batch} is more than the {self.samples} images of {path} that have views; "
                f"give a batch of at most that, or extract more images"
            )
        self.where, self.patches = None, None
        self.at_hand = {}  # arrays of the views layer that are in memory

    @property
    def steps_per_epoch(self):
        return self.samples // self.batch

    @property
    def bytes(self):
        """Of the patches of all images, in memory."""
        return bytes_in_memory(self.store.plan)

    def load(self, where="auto", reserve=0):
        """Put patches and views where there is room for them; returns what there is to say about it."""
        sentences = []
        for name in ("views", "pixels") if self.pixels else ("views",):
            if self.views.bytes(name) <= USABLE / self.world * free_bytes("cpu"):
                self.at_hand[name] = self.views.all(name)
        if not self.pixels:
            self.where, sentence = put_where(where, self.bytes, self.device, reserve)
            sentences.append(sentence)
            if self.where != "stream":
                device = self.device if self.where == "device" else torch.device("cpu")
                self.patches = self.store.load("shm" if sharers(device) > 1 else device)
        return sentences

    def steps(self, begin, end):
        """Yield the Batches of the steps begin .. end - 1; each serves until the next is asked for."""
        steps = range(begin, end)
        if self.pixels or self.where in ("device", "host"):
            for step in steps:
                rows = self.rows(step)
                patches, image = self.patches, torch.from_numpy(rows)
                if patches is not None and self.where == "host":
                    patches, image = patches_of(patches, image, self.device), torch.arange(len(rows))
                yield self.collate(step, rows, patches, image)
        else:
            batches = (self.rows(step) for step in steps)
            for step, (rows, patches) in zip(steps, self.store.read_ahead(batches, self.device), strict=True):
                yield self.collate(step, rows, patches, torch.arange(len(rows)))

    def collate(self, step, rows, patches, image):
        b, there = len(rows), self.device
        pixels = self.of("pixels", rows).to(there) if self.pixels else None
        draws = Draws(self.seed, step, self.rank * b, b, self.batch, there)
        views = self.of("views", rows).to(there)
        return Batch(torch.from_numpy(rows), image.to(there), patches, pixels, views, draws)

    def of(self, name, rows):
        return self.at_hand[name][rows] if name in self.at_hand else self.views.take(rows, name)

    def rows(self, step):
        """int64 [b]: the store rows of this rank's images at a step."""
        epoch, within = divmod(step, self.steps_per_epoch)
        if getattr(self, "_epoch", None) != epoch:
            self._epoch, self._order = epoch, self.pool[permutation(self.samples, self.seed, epoch)]
        share = self.batch // self.world
        begin = within * self.batch + self.rank * share
        return self._order[begin : begin + share]
