"""Extraction: images -> vision -> store, then captions -> mentions; each image is looked at once.

The plan comes first; shards are computed one after the other and committed when they are whole, so the same command
continues where an interrupted one stopped.  A finished store has features, captions, a concept bank and its mentions,
and can be trained on at once.
"""

import logging
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from tqdm import tqdm

from fastzss.bank.concepts import add_concepts
from fastzss.bank.folder import load_bank
from fastzss.captions import Tokenizer, choose_parser
from fastzss.errors import UserError
from fastzss.images import ImageUnreadable, open_source, source_record
from fastzss.store import (
    FeaturePlan,
    FeatureWriter,
    PatchStore,
    list_concepts,
    write_captions,
)
from fastzss.store.files import read_json, write_json
from fastzss.vision import load_vision

log = logging.getLogger("fastzss")

STATISTICS_IMAGES = 2000  # the first images of the permuted order give the quantiser's mean and std
REMEMBERED_BYTES = 2**29  # features of the statistics pass that are kept and not computed again


def extract(config, dry_run=False):
    """Make or continue a store; returns what there is to say about it."""
    source = open_source(config.source)
    parser = choose_parser(config.parser)  # a wrong one fails before the work
    bank = load_bank(config.bank) if config.bank not in ("captions", "none") else None
    device = config.device or ("cuda" if torch.cuda.is_available() else "cpu")
    vision = load_vision(config.model or source.model, config.weights, config.random_weights, config.size, device)
    plan = FeaturePlan(
        images=len(source.ids),
        patches=vision.grid[0] * vision.grid[1],
        channels=vision.channels,
        grid=vision.grid,
        globals=vision.globals,
        dtype=config.dtype,
        vision=vision.record,
        source=source_record(source),
        order_seed=config.seed,
    )
    if dry_run:
        return forecast(plan, config.store)

    writer = FeatureWriter(config.store, plan)
    write_json(config.store / "origin.json", {"weights": vision.origin, "source": source.spec})
    todo = writer.todo()
    if len(todo) < plan.shards:
        log.info("%s: %d of %d shards are there already", config.store, plan.shards - len(todo), plan.shards)
    if todo:
        write_shards(writer, Eye(source, vision, plan, config.batch), todo)
    if not (config.store / "features" / "manifest.json").exists():
        writer.finish()

    store = PatchStore(config.store)
    if not bool(store.valid().any()):
        raise UserError(f"{config.source}: none of its {plan.images} images can be read; the log above names them")
    if not (config.store / "captions" / "manifest.json").exists():
        add_captions(store, source)
    if config.bank != "none" and (config.store / "captions").exists():
        banks = list_concepts(config.store)
        if not any(b["identity"] == bank.identity if bank else b["origin"] == "captions" for b in banks):
            add_concepts(config.store, bank, parser, config.match)
    return store.info()


class Eye:
    """Features of whole shards, computed in always the same batches."""

    def __init__(self, source, vision, plan, batch):
        self.source, self.vision, self.plan, self.batch = source, vision, plan, batch
        self.order = plan.order()

    def shard(self, shard, bar):
        """(patches [S, N, D], globals [S, G, D], valid [S]) of a shard's rows."""
        parts = []
        rows = self.plan.rows(shard)
        pool = ThreadPoolExecutor(2)
        try:
            loads = pool.map(self._pixels, (int(self.order[row]) for row in rows))
            for start in range(0, len(rows), self.batch):
                pixels = [next(loads) for _ in range(min(self.batch, len(rows) - start))]
                valid = torch.tensor([p is not None for p in pixels], dtype=torch.uint8)
                blank = torch.zeros(3, self.vision.size, self.vision.size, dtype=torch.uint8)
                patches, globals = self.vision(torch.stack([blank if p is None else p for p in pixels]))
                parts.append((patches.cpu(), globals.cpu(), valid))
                bar.update(len(pixels))
        finally:
            pool.shutdown(cancel_futures=True)  # an interruption does not wait for the rest of the shard
        return tuple(torch.cat(part) for part in zip(*parts, strict=True))

    def _pixels(self, index):
        try:
            return self.vision.pixels(self.source.image(index))
        except ImageUnreadable as problem:
            log.warning("%s; its row stays empty", problem)
            return None


def write_shards(writer, eye, todo):
    """Compute and write the shards that are missing, the quantiser's statistics before them."""
    plan = writer.plan
    remembered = {}
    with tqdm(total=sum(len(plan.rows(s)) for s in todo), unit="img", desc="features", disable=None) as bar:
        if plan.dtype == "int8" and writer.stats is None:
            remembered = set_statistics(writer, eye, bar)
        for shard in todo:
            patches, globals, valid = remembered.pop(shard, None) or eye.shard(shard, bar)
            writer.write(shard, patches, globals, valid)


def set_statistics(writer, eye, bar):
    """Fix mean and std of the channels from the first shards; returns the features of those that fit in memory."""
    plan, remembered = writer.plan, {}
    count, total, squares = 0, torch.zeros(plan.channels).double(), torch.zeros(plan.channels).double()
    room = REMEMBERED_BYTES // (plan.patches * plan.channels * 4)
    for shard in range(plan.shards):
        rows = plan.rows(shard)
        if rows.start >= STATISTICS_IMAGES:
            break
        features = eye.shard(shard, bar)
        for image in features[0][features[2] != 0]:  # in double, one image at a time: no large temporaries
            image = image.double()
            count, total, squares = count + len(image), total + image.sum(0), squares + image.square().sum(0)
        if rows.stop <= room:
            remembered[shard] = features
        else:
            bar.total += len(rows)  # these will be looked at again
    if count == 0:
        raise UserError(
            f"none of the first {rows.stop} images can be read, so there is nothing to store; the log above names them"
        )
    mean = total / count
    std = (squares / count - mean.square()).clamp_min(0).sqrt()
    writer.set_stats(mean.float(), std.clamp_min(1e-6).float())
    return remembered


def add_captions(store, source):
    """Tokenise the captions of all images and write the captions layer; no layer where there are none."""
    tokenizer = Tokenizer()
    rows, texts, ids, cut = [], [], [], 0
    order = store.plan.order()
    for row, index in enumerate(tqdm(order, unit="img", desc="captions", disable=None)):
        for caption in source.captions(int(index)):
            tokens = tokenizer(tokenizer.clean(caption))
            rows.append(row)
            texts.append(caption)
            ids.append(tokens.ids)
            cut += tokens.cut > 0
    if not texts:
        log.warning("%s: no captions; the store can be read, but no text tower can learn from it", source.spec)
        return
    if cut:
        log.warning("%d of %d captions are longer than the context and were cut", cut, len(texts))
    write_captions(store.path, rows, texts, ids, [source.ids[i] for i in order], store.identity)


def weights_origin(path):
    """Where the weights were when the store was made: "shipped", "random", "hub", or a file."""
    origin = Path(path) / "origin.json"
    return read_json(origin)["weights"] if origin.exists() else "hub"


def forecast(plan, path):
    """What an extraction would write, without running the model."""
    size = plan.images * plan.bytes_per_image
    there = next(p for p in [Path(path).absolute(), *Path(path).absolute().parents] if p.exists())
    return {
        "identity": plan.identity,
        "images": plan.images,
        "shards": plan.shards,
        "bytes": size,
        "free": shutil.disk_usage(there).free,
        "model": plan.vision["model"],
        "dtype": plan.dtype,
    }
