"""Extraction: images -> vision -> store, then captions -> mentions; each image is looked at once.

The plan comes first; shards are computed one after the other, by any number of processes, and committed when they are
whole, so the same command continues where an interrupted one stopped.  A finished store has features, captions, a
concept bank and its mentions, and can be trained on at once.
"""

import logging
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from fastzss.bank import Bank
from fastzss.bank.concepts import add_concepts
from fastzss.bank.folder import load_bank
from fastzss.captions import Tokenizer, choose_parser
from fastzss.crew import Crew
from fastzss.errors import UserError
from fastzss.forecast import forecast
from fastzss.images import open_source, source_record
from fastzss.looking import Eye, set_statistics, write_shards
from fastzss.store import (
    FeaturePlan,
    FeatureWriter,
    PatchStore,
    list_concepts,
    store_info,
    write_captions,
)
from fastzss.store.commits import choose_form, read_stats
from fastzss.store.files import locked, read_json, write_json
from fastzss.store.info import read_store_plan
from fastzss.vision import Vision, load_vision

log = logging.getLogger("fastzss")

SAME = ("model", "weights", "layer", "norm")  # what two backbones share whose features have the same statistics


class Job(NamedTuple):
    """All that is known before the first image is looked at."""

    source: object
    vision: Vision
    plan: FeaturePlan
    bank: Bank | None
    parser: tuple | None


def extract(config, dry_run=False):
    """Make or continue a store; returns what there is to say about it, in the first process."""
    crew = Crew(config.device)
    with crew.one_voice():
        job = prepare(config, crew)
    if dry_run:
        return crew.led(lambda: forecast(job.plan, config.store, job.source, job.vision, config.batch))
    with ExitStack() as until_done:
        writer = crew.led(lambda: begin(config, job, until_done).shared)
        writer = FeatureWriter.beside(writer)
        look(writer, Eye(job.source, job.vision, job.plan, config.batch), config.part, crew)
        if not crew.first:
            return None
        return finish(config, job, writer)


def prepare(config, crew):
    """The Job of a config; what is wrong with it is said here, before the work."""
    source = open_source(config.source)
    bank = load_bank(config.bank) if config.bank not in ("captions", "none") else None
    parser = None
    if crew.first and (config.bank != "none" or config.parser.partition(":")[0] not in ("auto", "spacy")):
        parser = choose_parser(config.parser)
    vision = load_vision(config.model or source.model, config.weights, config.random_weights, config.size, crew.device)
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
    return Job(source, vision, plan, bank, parser)


def begin(config, job, until_done):
    """The FeatureWriter of a store, new or continued, and nobody else's until all is done."""
    stats = other_stats(config.stats_from, job.plan) if config.stats_from else None
    writer = FeatureWriter(config.store, job.plan, choose_form(config.format) if config.format else None)
    until_done.enter_context(locked(writer.folder, config.store))
    if stats:
        writer.set_stats(*stats[:2])
    write_json(config.store / "origin.json", {"weights": job.vision.origin, "source": job.source.spec})
    return writer


def other_stats(path, plan):
    """The statistics of another store, whose features must be of the same kind."""
    other = read_store_plan(path)
    different = [key for key in SAME if other.vision.get(key) != plan.vision.get(key)]
    if different:
        raise UserError(
            f"--stats-from {path}: its features were made otherwise: {different[0]} is "
            f"{other.vision.get(different[0])!r}, now {plan.vision.get(different[0])!r}. "
            f"Give a store of the same backbone, or leave the flag out."
        )
    stats = read_stats(Path(path) / "features", other)
    if stats is None:
        raise UserError(f"--stats-from {path}: it has no statistics ({other.dtype}); expected a store of dtype int8")
    return stats


def look(writer, eye, part, crew):
    """Compute and write all shards that are missing, or those of a part."""
    plan, remembered = writer.plan, {}
    if plan.dtype == "int8" and writer.stats is None:
        remembered = set_statistics(writer, eye, crew)
    todo = crew.led(writer.todo)
    if len(todo) < plan.shards and crew.first:
        log.info("%s: %d of %d shards are there already", writer.store, plan.shards - len(todo), plan.shards)
    if part:
        number, parts = (int(word) for word in part.split("/"))
        todo = [shard for shard in todo if shard % parts == number - 1]
    if todo:
        seconds, waited = write_shards(writer, eye, todo, crew, remembered)
        log.debug("%.1f s of %.1f s were waited for the disk", waited, seconds)
    crew.wait()


def finish(config, job, writer):
    """What comes after the last shard: the manifest, captions, concepts."""
    if not (config.store / "features" / "manifest.json").exists():
        if config.part and writer.todo():
            log.info("%s: part %s is done; `fastzss-cache merge` joins the parts", config.store, config.part)
            return store_info(config.store)
        writer.finish()
    store = PatchStore(config.store)
    if not bool(store.valid().any()):
        raise UserError(f"{config.source}: none of its {job.plan.images} images can be read; the log above names them")
    if not (config.store / "captions" / "manifest.json").exists():
        add_captions(store, job.source)
    if config.bank != "none" and (config.store / "captions").exists():
        banks = list_concepts(config.store)
        bank = job.bank
        if not any(b["identity"] == bank.identity if bank else b["origin"] == "captions" for b in banks):
            add_concepts(config.store, bank, job.parser, config.match)
    return store.info()


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
