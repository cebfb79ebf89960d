"""Looking at images: source -> vision -> shards of a store, each image once, on any number of ranks.

    threads decode ─► the backbone, batch by batch ─► a bounded queue ─► a thread quantises, writes and commits

Batches never reach across shards and always begin at the same images, so a shard's bytes do not depend on who computes
it, nor on what was there before.
"""

import logging
import queue
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import torch
from tqdm import tqdm

from fastzss.cores import cores
from fastzss.errors import UserError
from fastzss.images import ImageUnreadable
from fastzss.worker import Worker

log = logging.getLogger("fastzss")

STATISTICS_IMAGES = 2000  # the first images of the permuted order give the quantiser's mean and std
REMEMBERED_BYTES = 2**29  # features of the statistics pass that are kept and not computed again
QUEUED_BYTES = 2**28  # features that wait to be written
AHEAD = 3  # batches whose images are decoded meanwhile


class Eye:
    """Features of whole shards, computed in always the same batches."""

    def __init__(self, source, vision, plan, batch):
        self.source, self.vision, self.plan, self.batch = source, vision, plan, batch
        self.order = plan.order()
        self.threads = max(2, min(16, cores()))

    def look(self, shards):
        """Yields (shard, place in it, patches [b, N, D], globals [b, G, D], valid [b]), batch after batch."""
        pool, waiting = ThreadPoolExecutor(self.threads), deque()
        try:
            for shard in shards:
                rows = self.plan.rows(shard)
                for at in range(0, len(rows), self.batch):
                    indices = [int(self.order[row]) for row in rows[at : at + self.batch]]
                    waiting.append((shard, at, [pool.submit(self._pixels, index) for index in indices]))
                    if len(waiting) > AHEAD:
                        yield self._features(*waiting.popleft())
            while waiting:
                yield self._features(*waiting.popleft())
        finally:
            pool.shutdown(cancel_futures=True)  # an interruption does not wait for the rest

    def _features(self, shard, at, loads):
        pixels = [load.result() for load in loads]
        valid = torch.tensor([p is not None for p in pixels], dtype=torch.uint8)
        blank = torch.zeros(3, self.vision.size, self.vision.size, dtype=torch.uint8)
        patches, globals = self.vision(torch.stack([blank if p is None else p for p in pixels]))
        return shard, at, patches, globals, valid

    def _pixels(self, index):
        try:
            return self.vision.pixels(self.source.image(index))
        except ImageUnreadable as problem:
            log.warning("%s; its row stays empty", problem)
            return None


class Background:
    """A thread that quantises and writes what it is given; `waited`: seconds that giving and finishing took."""

    def __init__(self, writer, batch):
        self.writer, self.waited = writer, 0.0
        plan = writer.plan
        room = max(2, QUEUED_BYTES // (batch * plan.patches * plan.channels * 4))
        self._queue, self._problem, self._left = queue.Queue(room), None, False

    def __enter__(self):
        self._worker = Worker("shard-writer", self._write_all)
        return self

    def put(self, *features):
        """(shard, place, patches, globals, valid): the batches of a shard come one after the other."""
        began = time.perf_counter()
        self._queue.put(features)
        self.waited += time.perf_counter() - began
        if self._problem is not None:
            raise self._problem

    def __exit__(self, kind, *_):
        self._left = kind is not None  # what has not begun yet stays undone
        began, again = time.perf_counter(), None
        try:
            self._worker.finish(lambda: self._queue.put(None))  # no program ends in the middle of a write
        except KeyboardInterrupt as impatience:
            again = impatience
        self.waited += time.perf_counter() - began
        if kind is None and (self._problem or again) is not None:
            raise self._problem or again

    def _write_all(self):
        part = None
        while (features := self._queue.get()) is not None:
            if self._left or self._problem is not None:
                continue  # whoever gives must not wait for ever
            try:
                shard, at, *features = features
                part = part or self.writer.begin(shard)
                part.put(at, *features)
                if part.filled.all():
                    part.commit()
                    part = None
            except BaseException as problem:
                self._problem = problem


def set_statistics(writer, eye, crew):
    """Fix mean and std of the channels from the first images, each process looking at its share of their shards.

    Returns {shard: batches} of those whose features fit in memory: they need not be looked at again.
    """
    plan, remembered, sums = writer.plan, {}, {}
    shards = [shard for shard in range(plan.shards) if plan.rows(shard).start < STATISTICS_IMAGES]
    mine = crew.share(shards)
    room = REMEMBERED_BYTES // (plan.patches * plan.channels * 4 * plan.shard_images)
    with _bar(plan, mine, crew, "statistics") as bar:
        for batch in eye.look(mine):
            shard, _, patches, _, valid = batch
            good = patches[valid.to(patches.device) != 0].flatten(0, 1).double()
            sums.setdefault(shard, []).append((len(good), good.sum(0).cpu(), good.square().sum(0).cpu()))
            if shard in mine[:room]:
                remembered.setdefault(shard, []).append(tuple(t.cpu() if torch.is_tensor(t) else t for t in batch))
            bar.update(len(patches))
    found = {shard: parts for share in crew.gather(sums) for shard, parts in share.items()}
    parts = [part for shard in shards for part in found[shard]]  # always the same sums, whoever made them
    count = sum(part[0] for part in parts)
    if count == 0:
        raise UserError(
            f"none of the first {plan.rows(shards[-1]).stop} images can be read, so there is nothing to store; "
            f"the log above names them"
        )
    mean, squares = (sum(part[i] for part in parts) / count for i in (1, 2))
    std = (squares - mean.square()).clamp_min(0).sqrt().clamp_min(1e-6)
    writer.stats = crew.led(lambda: writer.set_stats(mean, std))
    return remembered


def write_shards(writer, eye, todo, crew, remembered):
    """Compute and write this process's share of the shards that are missing.

    Returns (seconds this took, seconds of them in which writing was waited for)."""
    mine, began = crew.share(todo), time.perf_counter()
    known = [shard for shard in mine if shard in remembered]
    with _bar(writer.plan, mine, crew, "features") as bar, Background(writer, eye.batch) as background:
        for batch in (batch for shard in known for batch in remembered.pop(shard)):
            background.put(*batch)
            bar.update(len(batch[2]))
        for batch in eye.look([shard for shard in mine if shard not in known]):
            background.put(*batch)
            bar.update(len(batch[2]))
    return time.perf_counter() - began, background.waited


def _bar(plan, shards, crew, name):
    total = sum(len(plan.rows(shard)) for shard in shards)
    return tqdm(total=total, unit="img", desc=name, disable=None if crew.first else True)  # None: shown on a terminal
