"""How our step grows: with the batch, the patches, the width, the processes, and the number of images.

    python benchmarks/scaling.py                     all of it, and a model of larger machines
    python benchmarks/scaling.py --size tiny         in seconds: to see that it works
    python benchmarks/scaling.py --images 1000000    the last size of the growing store (default: %(images)s)

Features are random, captions made up (fake.py).  Processes share one batch; on a CPU each has one thread, alone or not.
What each sends is counted at the call that sends it.  The model at the end is arithmetic on what was measured and on
rates that are written beside it: it was not run.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

import fake
import steps
import torch
import torch.distributed as dist
from ops import machine

from fastzss.console import guarded
from fastzss.errors import UserError
from fastzss.loader import Loader
from fastzss.settings import TrainConfig
from fastzss.training.step import sum_gradients

GRID, CHANNELS = (16, 16), {"tiny": 128, "small": 384, "base": 768}
BATCHES, GRIDS, PROCESSES = (16, 64, 256), (8, 16, 32), (1, 2)
ASSUMED = {  # of the model: one H200 and what connects eight of them and their nodes
    "flop_s": 790e12,
    "share": 0.45,
    "bytes_s_inside": 300e9,
    "bytes_s_between": 40e9,
}


def ours_of(folder, args, *, text, batch, grid=GRID, **options):
    """What our step works on."""
    features = fake.random_features(min(batch, 64), grid[0] * grid[1], CHANNELS[text])
    return steps.Ours(folder, text, batch, features, grid, device=args.device, **options)


def sizes(args):
    """Rows over batch, patches and width; all take turns, so that a busy machine slows all of them."""
    texts = list(CHANNELS)[: list(CHANNELS).index(args.size) + 1]
    plans = [({"of": "batch", "batch": batch}, dict(text=args.size, batch=batch)) for batch in BATCHES]
    for side in GRIDS:
        plans.append(
            ({"of": "patches", "patches": side * side}, dict(text=args.size, batch=args.batch, grid=(side, side)))
        )
    plans += [({"of": "width", "text": text}, dict(text=text, batch=args.batch)) for text in texts]
    with tempfile.TemporaryDirectory() as folder:
        shared, rows = {}, []
        for number, (_, plan) in enumerate(plans):
            learner, optimiser = shared.get(plan["text"], (None, None))
            ours = ours_of(f"{folder}/{number}", args, learner=learner, **plan)
            optimiser = optimiser or ours.optimiser(fused=True)
            shared[plan["text"]] = ours.learner, optimiser
            rows.append((ours, ours.row("ours", optimiser)))
        times = [[] for _ in rows]
        for turn in range(args.steps + 1):
            for (ours, row), own in zip(rows, times, strict=True):
                clock = steps.Clock(ours.device)
                steps.step(row, ours, clock)
                if turn:  # the first is to warm up
                    own.append((clock.total, clock.ms))
    for (what, plan), own in zip(plans, times, strict=True):
        ms = statistics.median(total for total, _ in own)
        parts = {part: statistics.median(parts[part] for _, parts in own) for part in steps.PARTS[1:]}
        yield {**what, "ms": ms, "pairs_s": plan["batch"] / ms * 1e3, "parts": parts}


def growth(args):
    """What the number of images costs where the images themselves are not looked at: captions, order, batches."""
    images = 1000
    while images <= args.images:
        with tempfile.TemporaryDirectory() as folder:
            features = fake.random_features(8, 1, 8)  # so small that captions are all there is
            begin = time.perf_counter()
            fake.write_store(folder, images, images, (1, 1), features)
            written = time.perf_counter()
            batch = min(1024, images)
            loader = Loader(folder, batch, captions="all")
            opened = time.perf_counter()
            loader.step(0)
            ordered = time.perf_counter()
            count = min(5, loader.steps_per_epoch)
            for step in range(count):
                loader.step(step)
            each = (time.perf_counter() - ordered) / count
            texts = sum(array.nbytes for array in vars(loader.texts).values())
            yield {
                "images": images,
                "write_s": written - begin,
                "open_s": opened - written,
                "order_of_an_epoch_s": ordered - opened - each,
                "batch_ms": each * 1e3,
                "pairs_of_the_batch": batch,
                "bytes_of_captions": texts,
            }
        images *= 10


def processes(args):
    """The same batch on one process and on two."""
    for world in PROCESSES:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", world, "--standalone"]
            command += [__file__, "--child", folder, "--size", args.size, "--batch", args.batch, "--steps", args.steps]
            command += ["--device", args.device]
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            done = subprocess.run([str(c) for c in command], env=environment, capture_output=True, text=True)
            if done.returncode:
                raise UserError(f"{world} processes failed:\n{done.stderr[-3000:]}")
            yield json.loads(done.stdout.strip().splitlines()[-1])


def child(args):
    """One of several processes: its share of the batch, and the gradients of all."""
    cuda = args.device == "cuda"
    dist.init_process_group("gloo")  # two processes may share a GPU, which NCCL refuses
    rank, world = dist.get_rank(), dist.get_world_size()
    ours = ours_of(args.child, args, text=args.size, batch=args.batch, rank=rank, world=world)
    optimise = ours.optimiser(fused=True)
    sent, reduce = [0, 0], dist.all_reduce

    def counted(tensor, *rest, **named):
        sent[0] += tensor.nbytes
        return reduce(tensor, *rest, **named)

    class Summed:
        """The optimiser, after the gradients of all processes are summed."""

        zero_grad = optimise.zero_grad

        def step(self):
            of_losses = sent[0]
            sum_gradients(ours.learner)
            sent[:] = of_losses, sent[1] + sent[0] - of_losses
            optimise.step()

    dist.all_reduce = counted
    row = ours.row("ours", Summed())
    steps.step(row, ours)
    sent[:], times = [0, 0], []
    for _ in range(args.steps):
        dist.barrier()
        clock = steps.Clock(ours.device)
        steps.step(row, ours, clock)
        times.append(clock.total)
    if rank == 0:
        bytes = {"bytes_of_losses": sent[0] // args.steps, "bytes_of_gradients": sent[1] // args.steps}
        ms = statistics.median(times)
        print(json.dumps({"processes": world, "ms": ms, "pairs_s": args.batch / ms * 1e3, **bytes, "shared_gpu": cuda}))
    dist.destroy_process_group()


def model(args, of_processes):
    """Seconds of the recipe on 1 and 8 GPUs and 8 nodes of 8, from measured FLOPs and bytes and assumed rates."""
    with tempfile.TemporaryDirectory() as folder:
        ours = ours_of(folder, args, text=args.size, batch=args.batch)
        row = ours.row("ours", ours.optimiser(fused=True))
        flops = steps.cost(lambda: steps.step(row, ours, exact=True), ours.device)[0]["flops"] / args.batch
    gradients = of_processes["bytes_of_gradients"]
    losses = of_processes["bytes_of_losses"] / args.batch * TrainConfig.batch
    rows = []
    for gpus in (1, 8, 64):
        compute = flops * TrainConfig.batch / gpus / (ASSUMED["flop_s"] * ASSUMED["share"])
        wire = ASSUMED["bytes_s_inside" if gpus <= 8 else "bytes_s_between"]
        talk = 2 * (gpus - 1) / gpus * (gradients + losses) / wire  # of a ring
        rows.append({"gpus": gpus, "step_ms": 1e3 * (compute + talk), "recipe_s": TrainConfig.steps * (compute + talk)})
    return {
        "what": "a model, not a measurement: FLOPs and bytes as counted here, rates as assumed",
        "assumed": ASSUMED,
        "flop_per_pair": flops,
        "bytes_of_gradients": gradients,
        "bytes_of_losses_per_pair": losses / TrainConfig.batch,
        "rows": rows,
    }


def headlines(result):
    """For the board."""
    one, two = result["processes"]
    small, large = result["growth"][0], result["growth"][-1]
    patches = [row for row in result["sizes"] if row["of"] == "patches"]
    return [
        ["two processes of one thread beside one, the same batch", f"{one['ms'] / two['ms']:.2f}x"],
        [
            f"step with {patches[-1]['patches']} patches an image beside {patches[0]['patches']}",
            f"{patches[-1]['ms'] / patches[0]['ms']:.2f}x the time",
        ],
        [
            f"reading a batch, {small['images']:,} -> {large['images']:,} images",
            f"{1e3 * small['batch_ms'] / small['pairs_of_the_batch']:.0f} -> "
            f"{1e3 * large['batch_ms'] / large['pairs_of_the_batch']:.0f} us a pair",
        ],
    ]


def show(result):
    print(f"{'':24}{'ms a step':>12}{'pairs/s':>12}{'us a pair':>12}")
    for row in [*result["sizes"], *({"of": "processes", **row} for row in result["processes"])]:
        what = f"{row['of']} {row.get('text') or row[row['of']]}"
        print(f"{what:24}{row['ms']:12.1f}{row['pairs_s']:12.1f}{1e6 / row['pairs_s']:12.0f}")
    two = result["processes"][-1]
    print(
        f"sent a step by each process: gradients {two['bytes_of_gradients']}, losses {two['bytes_of_losses']} bytes\n"
    )
    for row in result["growth"]:
        print(", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in row.items()))
    print(f"\n{result['model']['what']}: {result['model']['assumed']}")
    for row in result["model"]["rows"]:
        print(f"  {row['gpus']:3} GPUs: {row['step_ms']:8.1f} ms a step, {row['recipe_s']:6.1f} s the recipe")
    print("; ".join(f"{name} {value}" for name, value in {**result["settings"], **result["machine"]}.items()))


def arguments(argv=None):
    default = 100_000
    parser = argparse.ArgumentParser(
        description=__doc__ % {"images": default}, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--size", choices=list(CHANNELS), default="base", help="of the text tower")
    parser.add_argument("--batch", type=int, default=64, help="pairs, where the batch does not change")
    parser.add_argument("--steps", type=int, default=3, help="measured steps of each setting (default: %(default)s)")
    parser.add_argument("--images", type=int, default=default, help="the growing store's last size")
    parser.add_argument("--threads", type=int, help="of the CPU; by default all cores")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    for name, least in {"batch": 2, "steps": 1, "images": 1000, "threads": 1}.items():
        value = getattr(args, name)
        if value is not None and value < least:
            parser.error(f"--{name} must be at least {least}, got {value}")
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: PyTorch sees no GPU here; leave --device out")
    return args


def work(argv):
    args = arguments(argv)
    if args.child:
        return child(args)
    torch.set_num_threads(args.threads or os.cpu_count())
    settings = {name: getattr(args, name) for name in ("size", "batch", "steps")}
    result = {"machine": machine(args.device), "settings": settings}
    result["sizes"] = list(sizes(args))
    result["processes"] = list(processes(args))
    result["growth"] = list(growth(args))
    result["model"] = model(args, result["processes"][-1])
    result["headlines"] = headlines(result)
    print(json.dumps(result, indent=1)) if args.json else show(result)


def main(argv=None):
    return guarded("scaling", lambda: work(argv), "interrupted")


if __name__ == "__main__":
    sys.exit(main())
