"""How our step grows: with the batch, the patches, the width, the processes, and the number of images.

    python benchmarks/scaling.py                     all of it
    python benchmarks/scaling.py --size tiny         in seconds: to see that it works
    python benchmarks/scaling.py --images 1000000    the last size of the growing store

Features are random, captions made up.  Processes share one batch; on a CPU each has one thread, alone or not.
"""

import functools
import statistics
import sys
import tempfile
from pathlib import Path

from measuring import CHANNELS, GRID, begin, collected, command, in_turn, options, seconds, tell

BATCHES, GRIDS, PROCESSES = (16, 64, 256), (8, 16, 32), (1, 2)


def sizes(args):
    """Rows over batch, patches and width; all take turns."""
    import fake
    import steps

    plans = [({"of": "batch", "batch": batch}, dict(text=args.size, batch=batch)) for batch in BATCHES]
    texts, same = list(CHANNELS), {"text": args.size, "batch": args.batch}
    plans += [({"of": "patches", "patches": side**2}, {**same, "grid": (side, side)}) for side in GRIDS]
    plans += [({"of": "width", "text": text}, {**same, "text": text}) for text in texts[: texts.index(args.size) + 1]]
    shared, works = {}, []
    with tempfile.TemporaryDirectory() as folder:
        for number, (_, plan) in enumerate(plans):
            learner, optimiser = shared.get(plan["text"], (None, None))
            grid = plan.setdefault("grid", GRID)
            features = fake.random_features(min(plan["batch"], 64), grid[0] * grid[1], CHANNELS[plan["text"]])
            ours = steps.Ours(f"{folder}/{number}", features=features, device=args.device, learner=learner, **plan)
            shared[plan["text"]] = ours.learner, optimiser or ours.optimiser(fused=True)
            works.append(functools.partial(steps.timed, ours.row("ours", shared[plan["text"]][1]), ours))
        times = in_turn(works, args.steps)
    for (what, plan), own in zip(plans, times, strict=True):
        ms = statistics.median(total for total, _ in own)
        parts = {part: statistics.median(parts[part] for _, parts in own) for part in steps.PARTS[1:]}
        yield {**what, "ms": ms, "pairs_s": plan["batch"] / ms * 1e3, "parts": parts}


def growth(images):
    """What so many images cost where the images themselves are not looked at: captions, order, batches."""
    import fake

    from fastzss.methods.simzss.loader import Loader

    batch, loaders = min(1024, images), []
    with tempfile.TemporaryDirectory() as folder:
        features = fake.random_features(8, 1, 8)  # so small that captions are all there is
        written = seconds(lambda: fake.write_store(folder, images, images, (1, 1), features))
        opened = seconds(lambda: loaders.append(Loader(folder, batch, captions="all")))
        loader = loaders[0]
        first, count = seconds(lambda: loader.step(0)), min(5, loader.steps_per_epoch)
        each = seconds(lambda: [loader.step(step) for step in range(count)]) / count
    row = {"images": images, "write_s": written, "open_s": opened, "order_of_an_epoch_s": first - each}
    held = sum(array.nbytes for array in vars(loader.texts).values())
    return row | {"batch_ms": each * 1e3, "pairs_of_the_batch": batch, "bytes_of_captions": held}


def processes(args):
    """The same batch on one process and on two, each with one thread, or a GPU of its own: whole trainings."""
    import fake
    import full
    import torch

    features = fake.random_features(64, GRID[0] * GRID[1], CHANNELS[args.size])
    for world in PROCESSES if args.device == "cpu" or torch.cuda.device_count() > 1 else (1,):
        with tempfile.TemporaryDirectory() as folder:
            store, run = Path(folder) / "store", Path(folder) / "run"
            fake.write_store(store, args.batch, args.batch * (args.steps + 1), GRID, features)
            given = ["--store", store, "--text", args.size, "--device", args.device, "--batch", args.batch]
            launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", world)
            took = full.watched(given, run, args.steps + 1, {"OMP_NUM_THREADS": 1}, launcher)
        ms = 1e3 * took["train_s"] / args.steps
        yield {"of": "processes", "processes": world, "ms": ms, "pairs_s": args.batch / ms * 1e3}


def headlines(result):
    """For the board."""
    few, *_, many = (row for row in result["sizes"] if row["of"] == "patches")
    ends = [result["growth"][end] for end in (0, -1)]
    images = " -> ".join(f"{row['images']:,}" for row in ends)
    pair = " -> ".join(f"{1e3 * row['batch_ms'] / row['pairs_of_the_batch']:.0f}" for row in ends)
    one, *more = result["processes"]
    for two in more:
        yield "two processes beside one, the same batch", f"{one['ms'] / two['ms']:.2f}x"
    apart = f"step with {many['patches']} patches an image beside {few['patches']}"
    yield apart, f"{many['ms'] / few['ms']:.2f}x the time"
    yield f"reading a batch, {images} images", f"{pair} us a pair"


def shown(row):
    if "of" not in row:
        return ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in row.items())
    what = f"{row['of']} {row.get('text') or row[row['of']]}"
    return f"{what:24}{row['ms']:12.1f} ms a step{row['pairs_s']:12.1f} pairs/s{1e6 / row['pairs_s']:12.0f} us a pair"


@command
def main(argv):
    parser = options(__doc__)
    parser.add_argument("--size", choices=list(CHANNELS), default="base", help="of the text tower")
    parser.add_argument("--batch", type=int, default=64, help="pairs, where the batch does not change")
    parser.add_argument("--steps", type=int, default=3, help="measured steps of each setting (default: 3)")
    parser.add_argument("--images", type=int, default=100_000, help="the growing store's last size")
    args = begin(parser, argv)
    counts = [10**power for power in range(3, 10) if power == 3 or 10**power <= args.images]
    settings = {name: getattr(args, name) for name in ("size", "batch", "steps")}
    result = {"machine": args.machine, "settings": settings}
    result["sizes"] = collected(sizes(args), shown, args)
    result["processes"] = collected(processes(args), shown, args)
    result["growth"] = collected(map(growth, counts), shown, args)
    tell(result | {"headlines": list(headlines(result))}, args)


if __name__ == "__main__":
    sys.exit(main())
