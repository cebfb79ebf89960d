"""Extraction on a Ray cluster: shards are tasks of actors that hold the backbone; what a lost one had is made again.

    the driver: plan, statistics, captions, concepts        an actor a GPU, or a core: shards, written into the store

The store must be where every machine of the cluster can write: a folder they share, or s3://.
"""

import logging
import os

from tqdm import tqdm

from fastzss.base.errors import UserError
from fastzss.base.machine import cores

log = logging.getLogger("fastzss")

TRIES = 5  # workers that may be lost for each that is wanted


def write_with_ray(maker, config, todo, plan, started=lambda workers: None):
    """Make the shards `todo` on the actors of a cluster: that of RAY_ADDRESS, or else of this machine.

    `maker`: a class, made from the config and the identity of the plan; its `make(shard)` makes one, its `process()`
    says that it is ready.
    """
    try:
        import ray
        from ray.exceptions import RayActorError, RayTaskError
    except ImportError:
        raise UserError("--engine ray needs Ray; `pip install 'fastzss[ray]'` installs it", code=2) from None
    ours = not ray.is_initialized()
    if ours:
        far = os.environ.get("RAY_ADDRESS")
        alone = {"num_cpus": cores(), "include_dashboard": False, "object_store_memory": 80_000_000}
        ray.init(address=far, log_to_driver=False, logging_level="ERROR", **({} if far else alone))
    try:
        found = ray.cluster_resources()
        gpus = int(found.get("GPU", 0)) if config.device != "cpu" else 0
        count = min(len(todo), config.workers or gpus or int(found.get("CPU", 1)))
        actor = ray.remote(maker).options(num_cpus=1, num_gpus=1 if gpus else 0)
        _share(
            ray,
            (RayActorError, RayTaskError),
            lambda: actor.remote(config, plan.identity),
            count,
            list(todo),
            plan,
            started,
        )
    finally:
        if ours:
            ray.shutdown()


def _share(ray, problems, hire, count, todo, plan, started):
    """Give each actor a shard, and another one whenever it is done.  What a lost one had goes to the others, and to the
    one that is hired in its place as soon as that is ready: where there is no room for it, nobody waits for it."""
    lost, waiting, losses = problems[0], {}, 0
    waiting = {worker.process.remote(): (worker, None) for worker in (hire() for _ in range(count))}
    started([worker for worker, _ in waiting.values()])
    idle = []
    with tqdm(total=sum(len(plan.rows(s)) for s in todo), unit="img", desc="features", disable=None) as bar:
        while todo or any(shard is not None for _, shard in waiting.values()):
            (done,), _ = ray.wait(list(waiting))
            worker, shard = waiting.pop(done)
            try:
                ray.get(done)
                bar.update(0 if shard is None else len(plan.rows(shard)))
                idle.append(worker)
            except lost as problem:
                losses += 1
                if losses == TRIES * count:
                    raise UserError(f"{losses} workers were lost, the last with: {_last_line(problem)}") from None
                log.warning("a worker was lost%s", "" if shard is None else f"; shard {shard} goes to another")
                todo[:0] = [] if shard is None else [shard]
                new = hire()
                waiting[new.process.remote()] = new, None
            except problems[1] as problem:
                raise (problem.cause if isinstance(problem.cause, UserError) else problem) from None
            while todo and idle:
                worker, shard = idle.pop(), todo.pop(0)
                waiting[worker.make.remote(shard)] = worker, shard


def _last_line(problem):
    return str(problem).strip().splitlines()[-1]
