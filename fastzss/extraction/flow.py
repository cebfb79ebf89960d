"""Extraction: images -> vision -> store, then captions -> mentions; each image is looked at once.

The plan comes first; shards are computed one after the other, by any number of processes, and committed when they are
whole, so the same command continues where an interrupted one stopped.  A source that has grown makes the store grow.  A
finished store has features, captions, a concept bank and its mentions, and can be trained on at once.
"""

import logging
import os
from contextlib import ExitStack, closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from fastzss.backbones import Looking, load_vision
from fastzss.backbones.clip import load_teacher
from fastzss.backbones.vision import Vision
from fastzss.bank import Bank
from fastzss.bank.disk import load_bank
from fastzss.base.errors import UserError
from fastzss.base.ranks import Ranks
from fastzss.captions.parsers import choose_parser
from fastzss.extraction.captions import add_captions, texts_of
from fastzss.extraction.claims import Claims, sweep_claims
from fastzss.extraction.concepts import add_concepts, is_of_captions, renew_concepts
from fastzss.extraction.crops import Views
from fastzss.extraction.elastic import write_with_ray
from fastzss.extraction.features import FeatureBatches, write_shards
from fastzss.extraction.forecast import forecast
from fastzss.extraction.growth import Part, parts_of
from fastzss.extraction.unreadable import Unreadable
from fastzss.extraction.views import add_views, view_plan
from fastzss.extraction.writing import begin, other_stats, put_into, shards_to_make
from fastzss.sources import open_source, source_record
from fastzss.sources.some import Chosen
from fastzss.store.additions import finished
from fastzss.store.captions import read_captions
from fastzss.store.commits import Stats, choose_form, read_commits
from fastzss.store.features import FeatureWriter, form_of_writer, refuse_strangers
from fastzss.store.mentions import list_concepts
from fastzss.store.plan import FeaturePlan
from fastzss.store.remote import Mirror, address, is_far
from fastzss.store.upkeep.info import store_info

log = logging.getLogger("fastzss")


class Job(NamedTuple):
    """All that is known before the first image is looked at."""

    source: object
    vision: Vision
    parts: list  # of the store, in the order of their rows
    stats: Stats | None  # those of another store, for the quantiser
    bank: Bank | None
    parser: tuple | None
    teacher: object | None = None


def extract(config, dry_run=False):
    """Make, continue or grow a store; returns what there is to say about it, in the first process."""
    ranks, mirror = Ranks(config.device), None
    with ranks.one_voice():
        if is_far(config.store):
            if config.claim:
                raise UserError(f"--claim needs a folder that all jobs share, and {address(config.store)} is none; "
                                f"give each job its --part I/N instead", code=2)  # fmt: skip
            mirror = Mirror(config.store)
            config = replace(config, store=mirror.folder)
        job = prepare(config, ranks, mirror)
        texts = texts_of(job.source) if ranks.first and job.source.captions_first else None
    if dry_run:
        views = job.teacher and view_plan(config, job)
        return ranks.led(lambda: forecast(job.parts, config.store, job.vision, config.batch, views))
    with ExitStack() as until_done:
        for part in job.parts:
            whole = look(config, job, part, ranks, mirror, until_done)
        if whole and ranks.first:
            claims = until_done.enter_context(closing(Claims(config.store))) if config.claim else None
            with claims.turn("finish") if claims else nullcontext():
                add_texts(config, job, texts)
            sweep_claims(config.store)
        elif ranks.first:
            log.info("%s: part %s is done; `fastzss-cache merge` joins the parts", config.store, config.part)
        ranks.wait()
        if job.teacher:
            add_views(config, job, ranks)
        return told(config, mirror) if ranks.first else None


def prepare(config, ranks, mirror=None):
    """The Job of a config; what is wrong with it is said here, before the work."""
    refuse_strangers(config.store)
    source = open_source(config.source)
    bank = load_bank(config.bank) if config.bank not in ("captions", "none") else None
    parser = None
    if ranks.first and (config.bank != "none" or config.parser.partition(":")[0] not in ("auto", "spacy")):
        parser = choose_parser(config.parser)
    if config.crops > 1:
        source = Views(source, config.crops, config.seed)
    how = looking(config, ranks.device)
    model = config.model or source.model
    vision = load_vision(model, config.weights, config.random_weights, config.size, ranks.device, how)
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
    # what is far away is here in part only, and does not grow
    parts = [Part(config.store, plan, Chosen(source, source.ids))] if mirror else parts_of(config.store, source, plan)
    form_of_writer(config.store / "features", config.format and choose_form(config.format))
    if config.part and len(parts) > 1:
        raise UserError(
            f"--part {config.part}: {config.store} grows by {parts[-1].plan.images} images, and one command looks at "
            f"them all; leave --part out, or extract them into another store and train on both",
            code=2,
        )
    stats = other_stats(config.stats_from, plan) if config.stats_from else None
    teacher = config.teacher and load_teacher(config.teacher, config.teacher_weights, ranks.device)
    if teacher and (mirror or config.claim or config.engine != "local" or len(parts) > 1):
        raise UserError(
            f"--teacher {config.teacher}: views are added to a store in a folder, that has not grown, by one command; "
            f"leave --claim and --engine out, or extract all images into another store",
            code=2,
        )
    return Job(source, vision, parts, stats, bank, parser, teacher)


def looking(config, device):
    """How the backbone is to look."""
    precision = config.precision if config.precision != "auto" else "bf16" if device.type == "cuda" else "fp32"
    return Looking(config.layer, config.fit, config.norm, config.decode, precision, config.denoiser)


def look(config, job, part, ranks, mirror, until_done):
    """Look at the images of a part; returns whether all of its shards are there."""
    writer = ranks.led(lambda: begin(config, job, part, until_done))  # begun by the first, and told to all
    with ExitStack() as until_written:
        several = config.claim or ranks.count > 1
        claims = until_written.enter_context(closing(Claims(part.folder))) if several else None
        features = FeatureBatches(part.source, job.vision, part.plan, config.batch, Unreadable(config.store))
        todo, remembered = shards_to_make(writer, features, config.part, ranks, claims, mirror)
        if config.engine == "ray" and todo:
            place = config if mirror is None else replace(config, store=Path(mirror.place))
            write_with_ray(Maker, place, todo, part.plan)
        else:
            write_shards(writer, features, todo, ranks, remembered, claims, put_into(mirror, writer))
        ranks.wait()
        return ranks.led(lambda: settled(config, part, writer, claims, mirror))


class Maker:
    """Makes shards of a part of a store that another process has begun: what an actor of a cluster holds.

    `identity`: of the part's plan.
    """

    def __init__(self, config, identity):
        self.ranks, self.mirror = Ranks(config.device), Mirror(config.store) if is_far(config.store) else None
        if self.mirror:
            config = replace(config, store=self.mirror.folder)
        job = prepare(config, self.ranks, self.mirror)
        part = next((part for part in job.parts if part.plan.identity == identity), None)
        if part is None:
            raise UserError(f"{config.source}: this machine sees other images than the one that began {config.store}")
        self.writer = FeatureWriter(part.folder, part.plan)
        self.features = FeatureBatches(part.source, job.vision, part.plan, config.batch, Unreadable(config.store))

    def make(self, shard):
        write_shards(self.writer, self.features, [shard], self.ranks, {}, None, put_into(self.mirror, self.writer))

    def process(self):
        return os.getpid()


def settled(config, part, writer, claims, mirror):
    """Write the manifest of a part where all of its shards are there; whether they are."""
    with claims.turn("finish") if claims else nullcontext():
        if mirror and len(mirror.done(part.plan, writer.stats)) == part.plan.shards:
            mirror.fetch()
        if finished(part.folder):
            return True
        if config.part and writer.todo():
            return False
        writer.finish()
    return True


def told(config, mirror):
    """What there is to say of the store; where it is far away, what is left is put there first."""
    if mirror is None:
        return store_info(config.store)
    mirror.finish()
    return store_info(config.store) | {"path": mirror.place, "copy": str(mirror.folder)}


def add_texts(config, job, texts):
    """What comes after the last shard: captions, concepts."""
    commits = [read_commits(part.folder / "features", part.plan).values() for part in job.parts]
    images = sum(part.plan.images for part in job.parts)
    bad = images - sum(record["valid"] for shards in commits for record in shards)
    path = Unreadable(config.store).path
    if bad == images:
        raise UserError(f"{config.source}: none of its {bad} images can be read; {path} says why")
    if bad:
        log.warning("%d of %d images cannot be read; %s says which and why", bad, images, path)
    add_captions(config.store, job.parts, texts if texts is not None else texts_of(job.source))
    find_concepts(config, job)


def find_concepts(config, job):
    """Mentions of the banks that are there, where captions have changed, and of the one that is wanted."""
    captions = read_captions(config.store)
    if not captions.texts:
        return
    banks = list_concepts(config.store)
    for own in banks:
        if own["captions"] != captions.identity:
            renew_concepts(config.store, own, anew=config.bank == "captions")
    if config.bank == "none":
        return
    identity = job.bank and job.bank.identity
    if not any(own["identity"] == identity if identity else is_of_captions(own) for own in list_concepts(config.store)):
        add_concepts(config.store, job.bank, job.parser, config.match)
