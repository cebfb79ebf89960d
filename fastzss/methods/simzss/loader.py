"""The loader: a store -> shuffled batches, and the frozen features they point into.

Patches lie where there is room for them, and training is the same wherever that is:

    device   all of them in the memory of the device; a batch only names rows
    host     all of them in the memory of the machine; those of a batch's mentions go to the device with it
    stream   on disk; those of the next batches are read while the device computes

In the memory of a machine there is one copy for all its ranks.

The order is a pure function of (seed, epoch): step s of a run is the same whatever happened before, on any number of
ranks.  An epoch sees every image with one of its captions, drawn anew each epoch, or (`captions="all"`) every caption.
"""

from collections import deque
from dataclasses import replace

import numpy as np
import torch

from fastzss.bank.joined import concepts_of
from fastzss.base.background import made_ahead
from fastzss.base.errors import UserError
from fastzss.base.ragged import offsets
from fastzss.methods.held_out import held_out
from fastzss.methods.placing import bytes_in_memory, patches_of, put_where, sharers
from fastzss.methods.simzss.batch import Texts, collate
from fastzss.methods.simzss.shapes import COUNTED, shapes_of
from fastzss.store.plan import hashes, permutation
from fastzss.store.reading.joined import open_store


class Loader:
    def __init__(
        self,
        stores,
        batch,
        *,
        bank=None,
        identity=None,
        captions="one",
        hold_out=0.0,
        feature=None,
        seed=0,
        device="cpu",
        rank=0,
        world=1,
    ):
        """`stores`: what open_store takes; `identity`: of the features a run that goes on has learned from; `hold_out`:
        share of the images that is left out."""
        self.store = open_store(stores, identity)
        self.seed, self.batch, self.device = seed, batch, torch.device(device)
        self.rank, self.world, self.each = rank, world, captions
        concepts, self.texts = read_texts(self.store, bank)
        self.bank, self.banks = concepts.bank, list(concepts.banks)
        valid = (self.store.valid().numpy() & ~held_out(len(self.store), hold_out))[self.texts.row]
        self.pool = np.flatnonzero(valid)  # captions whose image could be read
        images, counts = np.unique(self.texts.row[self.pool], return_counts=True)
        self.pool = self.pool[np.argsort(self.texts.row[self.pool], kind="stable")]
        self.begin = offsets(counts)  # captions of one image are neighbours in the pool
        of = images if captions == "one" else self.texts.row[self.pool]
        self.stretches = stretches(of, self.store.shares)
        self.samples = sum(count for _, _, count in self.stretches)
        if batch > self.samples:
            rest = f"that --hold-out {hold_out:g} leaves of" if hold_out else "of"
            raise UserError(
                f"--batch {batch} is more than the {self.samples} samples {rest} {self.store.path}; "
                f"give a batch of at most that, or extract more images"
            )
        kind = feature or self.store.plan.globals[0]
        if kind not in self.store.plan.globals:
            raise UserError(
                f"{self.store.path}: has no global feature {kind!r}; there are {', '.join(self.store.plan.globals)} "
                f"(choose with --global-feature)"
            )
        self.images = self.store.globals(name=kind).to(self.device)
        self.where, self.patches = None, None
        self.constant, self.shapes = self.device.type == "cuda", None  # whether all batches have one set of shapes

    @property
    def bytes(self):
        """Of the patches of all images, in memory."""
        return bytes_in_memory(self.store.plan)

    def load(self, where="auto", reserve=0):
        """Put the patches where they are wanted, or where there is room; without it batches come with none.

        Returns a sentence that says where they are and why.
        """
        self.where, sentence = put_where(where, self.bytes, self.device, reserve)
        if self.where != "stream":
            device = self.device if self.where == "device" else torch.device("cpu")
            self.patches = self.store.load("shm" if sharers(device) > 1 else device)
        return sentence

    @property
    def steps_per_epoch(self):
        return self.samples // self.batch  # the rest of an epoch is dropped: all batches are full

    def steps(self, begin, end):
        """Yield (batch, patches) of the steps begin .. end - 1; the patches serve until the next ones are asked for."""
        if self.constant:
            known = range(begin, min(end, begin + COUNTED))
            self.shapes = shapes_of(self.texts, (self.chosen(step) for step in known), self.world)
        batches = (self.step(step) for step in range(begin, end))
        if self.device.type == "cuda":  # a core is free for it, and page-locked memory travels while it computes
            batches = made_ahead(batch.with_lists().pin_memory() for batch in batches)
        if self.where in (None, "device"):
            for batch in batches:
                yield batch.to(self.device), self.patches
        elif self.where == "host":
            for batch in batches:
                rows, batch = own_rows(batch)
                yield batch.to(self.device), patches_of(self.patches, rows, self.device)
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
        return collate(self.texts, self.chosen(step), self.rank, self.world, self.shapes)

    def chosen(self, step):
        """The captions of the whole batch of a step."""
        epoch, within = divmod(step, self.steps_per_epoch)
        return self._order(epoch)[within * self.batch : (within + 1) * self.batch]

    def _order(self, epoch):
        """The captions of an epoch in their order."""
        if getattr(self, "_epoch", None) != epoch:
            order, turn = self._samples(epoch)
            if self.each == "one":
                counts = np.diff(self.begin)
                keys = [(1,), *((1, again) for again in range(1, turn.max() + 1))]
                picks = np.stack([hashes(len(counts), self.seed, epoch, *key) for key in keys])
                order = self.begin[:-1][order] + (picks[turn, order] % counts[order].astype(np.uint64)).astype(np.int64)
            self._epoch, self._captions = epoch, self.pool[order]
        return self._captions

    def _samples(self, epoch):
        """(sample, how often it has come before in this epoch), in the order of an epoch."""
        samples, turns = [], []
        for begin, end, count in self.stretches:
            whole, rest = divmod(count, end - begin)
            for turn in range(whole + (rest > 0)):
                own = np.arange(begin, end)
                if turn == whole:  # a part of them, other ones each epoch
                    own = own[np.sort(permutation(end - begin, self.seed, epoch, 2)[:rest])]
                samples.append(own)
                turns.append(np.full(len(own), turn))
        order = permutation(self.samples, self.seed, epoch)
        return np.concatenate(samples)[order], np.concatenate(turns)[order]


def stretches(rows, shares):
    """[(first sample, end, how many an epoch takes of them)]: of each of several stores.

    Args:
        rows: image row of each sample, ascending.
        shares: [(images, weight)] of the stores.
    """
    ends = np.searchsorted(rows, np.cumsum([images for images, _ in shares]))
    found, begin = [], 0
    for end, (_, weight) in zip(ends.tolist(), shares, strict=True):
        if end > begin:
            found.append((begin, end, max(1, round(weight * (end - begin)))))
        begin = end
    return found


def own_rows(batch):
    """(rows of the store whose patches a batch looks at, ascending; the batch pointing into just those).

    Its lists stay as they are, for the images stay in their order.
    """
    rows, image = batch.image.unique(return_inverse=True)
    return rows, replace(batch, image=image)


def read_texts(store, bank):
    """The Concepts of a store's bank, and its captions with their mentions."""
    captions = store.captions
    if len(captions.texts) == 0:
        raise UserError(f"{store.path}: has no captions, and a text tower learns from nothing else")
    concepts = concepts_of(store, bank)
    texts = Texts.of(
        ids=captions.ids.numpy(),
        ids_offset=captions.offset.numpy(),
        row=captions.row.numpy(),
        caption=concepts.caption.numpy(),
        name=concepts.name.numpy(),
        token=concepts.token.numpy(),
        token_offset=concepts.offset.numpy(),
    )
    return concepts, texts
