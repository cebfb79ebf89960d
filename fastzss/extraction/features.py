"""Looking at images: source -> vision -> shards of a store, each image once, on any number of ranks.

    threads decode ─► the backbone, batch by batch ─► a bounded queue ─► a thread quantises, writes and commits

Batches never reach across shards and always begin at the same images, so a shard's bytes do not depend on who computes
it, nor on what was there before.
"""

import logging
import queue
import time
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import torch
from tqdm import tqdm

from fastzss.base.background import Worker
from fastzss.base.errors import UserError
from fastzss.base.machine import cores
from fastzss.sources.images import ImageUnreadable

log = logging.getLogger("fastzss")

STATISTICS_IMAGES = 2000  # the first images of the permuted order give the quantiser's mean and std
REMEMBERED_BYTES = 2**29  # features of the statistics pass that are kept and not computed again
QUEUED_BYTES = 2**28  # features that wait to be written
AHEAD = 3  # batches whose images are decoded meanwhile
BATCH, LARGEST = 32, 512  # images of a batch on a CPU, and at most on a GPU
POLL = 0.5  # seconds between two looks at what other processes have done


class FeatureBatches:
    """The backbone at work: features of whole shards, computed in always the same batches.

    `seconds`: what was waited for, "decode" and "forward".
    """

    def __init__(self, source, vision, plan, batch, unreadable):
        self.source, self.vision, self.plan, self.unreadable = source, vision, plan, unreadable
        self._batch = batch
        self.order = plan.order()
        self.threads = max(2, min(16, cores()))
        self.seconds = Counter()

    @cached_property
    def batch(self):
        return self._batch or fitting_batch(self.vision)  # which takes a while on a GPU: only where there is work

    def of(self, shards):
        """Yields (shard, place in it, patches [b, N, D], global vectors [b, G, D], valid [b]), batch after batch."""
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
        began = time.perf_counter()
        pixels = [load.result() for load in loads]
        self.seconds["decode"] += time.perf_counter() - began
        valid = torch.tensor([p is not None for p in pixels], dtype=torch.uint8)
        blank = torch.zeros(3, self.vision.size, self.vision.size, dtype=torch.uint8)
        pixels = torch.stack([blank if p is None else p for p in pixels])
        began = time.perf_counter()
        on_gpu = self.vision.device.type == "cuda"  # where copies from pinned memory go on beside the work
        patches, global_vectors = self.vision(pixels.pin_memory() if on_gpu else pixels)
        self.seconds["forward"] += time.perf_counter() - began
        return shard, at, patches, global_vectors, valid

    def _pixels(self, index):
        try:
            enough = self.vision.size if self.vision.how.decode == "fast" else None
            return self.vision.pixels(self.source.image(index, enough))
        except ImageUnreadable as problem:
            self.unreadable.add(self.source.ids[index], problem)
            return None


def fitting_batch(vision):
    """Images of a batch: on a GPU half of what fits, so that the rest of the work has room as well."""
    if vision.device.type != "cuda":
        return BATCH
    batch = BATCH
    try:
        while batch < 2 * LARGEST:
            vision(torch.zeros(2 * batch, 3, vision.size, vision.size, dtype=torch.uint8))
            torch.cuda.synchronize(vision.device)
            batch *= 2
    except torch.cuda.OutOfMemoryError:
        pass
    torch.cuda.empty_cache()
    return max(BATCH, batch // 2)


class Background:
    """A thread that quantises and writes what it is given; `waited`: seconds that giving and finishing took.

    `then`: what is done with the number of each shard that is there.
    """

    def __init__(self, writer, batch, then=lambda shard: None):
        self.writer, self.waited, self.then = writer, 0.0, then
        plan = writer.plan
        most = max(2, QUEUED_BYTES // (batch * plan.patches * plan.channels * 4))
        self._queue, self._problem, self._left = queue.Queue(most), None, False

    def __enter__(self):
        self._worker = Worker("shard-writer", self._write_all)
        return self

    def put(self, *features):
        """(shard, place, patches, global vectors, valid): the batches of a shard come one after the other."""
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
                    self.then(part.shard)
                    part = None
            except BaseException as problem:
                self._problem = problem


def set_statistics(writer, features, ranks):
    """Fix mean and std of the channels from the first images, each process looking at its share of their shards.

    Returns {shard: batches} of those whose features fit in memory: they need not be looked at again.
    """
    plan, remembered, sums = writer.plan, {}, {}
    shards = [shard for shard in range(plan.shards) if plan.rows(shard).start < STATISTICS_IMAGES]
    mine = ranks.share(shards)
    features.seconds.clear()
    most = REMEMBERED_BYTES // (plan.patches * plan.channels * 4 * plan.shard_images)
    with _bar(plan, mine, ranks, "statistics") as bar:
        for batch in features.of(mine):
            shard, _, patches, _, valid = batch
            good = patches[valid.to(patches.device) != 0].flatten(0, 1).double()
            sums.setdefault(shard, []).append((len(good), good.sum(0).cpu(), good.square().sum(0).cpu()))
            if shard in mine[:most]:
                remembered.setdefault(shard, []).append(tuple(t.cpu() if torch.is_tensor(t) else t for t in batch))
            bar.update(len(patches))
    found = {shard: parts for share in ranks.gather(sums) for shard, parts in share.items()}
    parts = [part for shard in shards for part in found[shard]]  # always the same sums, whoever made them
    count = sum(part[0] for part in parts)
    if count == 0:
        raise UserError(
            f"none of the first {plan.rows(shards[-1]).stop} images can be read, so there is nothing to store; "
            f"{features.unreadable.path} says why"
        )
    mean, squares = (sum(part[i] for part in parts) / count for i in (1, 2))
    std = (squares - mean.square()).clamp_min(0).sqrt().clamp_min(1e-6)
    writer.stats = ranks.led(lambda: writer.set_stats(mean, std))
    return remembered


def write_shards(writer, features, todo, ranks, remembered, claims=None, then=lambda shard: None, name="features"):
    """Compute and write the shards that are missing: all of `todo`, or with `claims` those that nobody else makes,
    until all are there.  `then`: what is done with each that is there."""
    first = ranks.rank * len(todo) // ranks.count  # they begin at different places
    todo = todo[first:] + todo[:first]
    while todo:
        _write_free(writer, features, todo, ranks, remembered, claims, then, name)
        if claims is None:
            return
        remembered = {}
        while todo := [shard for shard in todo if not writer.has(shard)]:
            if claims.are_free(map(shard_claim, todo)):  # whoever had it is gone
                break
            time.sleep(POLL)


def _write_free(writer, features, todo, ranks, remembered, claims, then, name):
    """Those of `todo` that can be had.  Says how the time was spent."""

    def done(shard):
        then(shard)
        if claims is not None:
            claims.release(shard_claim(shard))

    began, mine = time.perf_counter(), 0
    features.seconds.clear()
    known = [shard for shard in todo if shard in remembered]
    with _bar(writer.plan, todo, ranks, name) as bar, Background(writer, features.batch, done) as background:

        def put(batch):
            nonlocal mine
            background.put(*batch)
            mine += len(batch[2])
            bar.set_postfix_str(shares(features.seconds, background.waited, began), refresh=False)
            bar.update(len(batch[2]))

        for shard in free(known, writer, claims):
            for batch in remembered.pop(shard):
                put(batch)
        for batch in features.of(free([shard for shard in todo if shard not in known], writer, claims)):
            put(batch)
    if ranks.first and mine:
        seconds = time.perf_counter() - began
        log.info("%.4g images/s: %s", mine / seconds, shares(features.seconds, background.waited, began))


def free(shards, writer, claims):
    """Those that nobody has made or is making."""
    for shard in shards:
        if claims is None:
            yield shard
        elif claims.take(shard_claim(shard)):
            if writer.has(shard):
                claims.release(shard_claim(shard))
            else:
                yield shard


def shard_claim(shard):
    return f"{shard:06d}"


def shares(seconds, written, began):
    """What the time since `began` was spent on."""
    whole = max(time.perf_counter() - began, 1e-9)
    parts = {"decode": seconds["decode"], "forward": seconds["forward"], "write": written}
    return ", ".join(f"{name} {min(1.0, part / whole):.0%}" for name, part in parts.items())


def _bar(plan, shards, ranks, name):
    total = sum(len(plan.rows(shard)) for shard in shards)
    return tqdm(total=total, unit="img", desc=name, disable=None if ranks.first else True)  # None: shown on a terminal
