"""Writing the features of a part: who writes them, with which statistics, and where they are put."""

import logging
from contextlib import ExitStack
from pathlib import Path

from fastzss.base.errors import UserError
from fastzss.base.files import locked
from fastzss.extraction.features import set_statistics
from fastzss.extraction.unreadable import Unreadable
from fastzss.store.commits import choose_form, read_stats
from fastzss.store.features import FeatureWriter, form_of_writer
from fastzss.store.layers import held
from fastzss.store.remote import local
from fastzss.store.upkeep.info import read_store_plan
from fastzss.store.upkeep.origin import write_origin

log = logging.getLogger("fastzss")

SAME = ("model", "weights", "layer", "norm")  # what two backbones share whose features have the same statistics


def begin(config, job, part, until_done):
    """The FeatureWriter of a part, new or continued, and nobody else's until all is done, but for those who claim."""
    first = part is job.parts[0]
    form = form_of_writer(config.store / "features", config.format and choose_form(config.format))
    writer = FeatureWriter(part.folder, part.plan, form, part.ids)
    if first:
        until_done.enter_context(locked(writer.folder, held(config.store), shared=config.claim))
        if not config.claim and len(writer.todo()) == part.plan.shards:
            Unreadable(config.store).forget()  # of a store that was there before
        write_origin(config.store, job.vision.origin, job.source.spec)
    stats = job.stats if first else read_stats(config.store / "features", job.parts[0].plan)
    if stats:
        writer.set_stats(*stats[:2])
    return writer


def other_stats(path, plan):
    """The statistics of another store, whose features must be of the same kind."""
    path = local(path)
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


def shards_to_make(writer, features, part, ranks, claims, mirror=None):
    """(The shards that are missing, or those of a part I/N; {shard: its batches} where the statistics have seen them.)

    With `claims`, of several jobs one makes the statistics.
    """
    plan, remembered = writer.plan, {}
    with ExitStack() as turn:
        if plan.dtype == "int8" and claims and ranks.first:
            turn.enter_context(claims.turn("statistics"))
        if plan.dtype == "int8" and ranks.led(lambda: writer.stats) is None:
            remembered = set_statistics(writer, features, ranks)
    todo = ranks.led(lambda: left(writer, mirror))
    if len(todo) < plan.shards and ranks.first:
        log.info("%s: %d of %d shards are there already", writer.store, plan.shards - len(todo), plan.shards)
    return of_part(todo, part), remembered


def of_part(shards, part):
    """Those of part I/N; all where that is None."""
    if part is None:
        return shards
    number, parts = (int(word) for word in part.split("/"))
    return [shard for shard in shards if shard % parts == number - 1]


def left(writer, mirror):
    """The shards that are missing; of a store far away, what is here and not there is put there first."""
    todo = writer.todo()
    if mirror is None:
        return todo
    mirror.begin()
    done = mirror.done(writer.plan, writer.stats)
    for shard in sorted(set(range(writer.plan.shards)) - set(todo) - done):
        put_into(mirror, writer)(shard)
    return [shard for shard in todo if shard not in done]


def put_into(mirror, writer):
    """What is done with a shard that is there."""
    return lambda shard: mirror and mirror.put(shard, writer.form.files(writer.plan, shard))
