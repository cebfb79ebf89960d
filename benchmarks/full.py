"""The whole simzss-coco recipe, from a store on disk to the saved run, as a user would start it: wall clock.

Twice: cold, with nothing of the store in the memory of the machine and no kernel compiled, and warm.  Each is a process
of its own, and is watched from outside: its metrics appear step by step.

    start     until the first step is done: Python, the store, compilation, one step
    train     from the first step to the last
    save      until the process has ended

On a CPU a fraction of the recipe is run, and what the whole would take is a projection.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import fake
from ops import ROOT, machine

from fastzss.errors import UserError
from fastzss.settings import TrainConfig
from fastzss.store import PatchStore

CPU_STEPS, CPU_BATCH = 4, 256  # of the fraction
WIDTHS = {"tiny": 128, "small": 384, "base": 768, "large": 1024}  # channels of the vision of each size
GRID = (16, 16)


def run(args, folder):
    cuda = args.device == "cuda"
    images = args.images or (fake.IMAGES if cuda else 2048)
    captions = fake.CAPTIONS if images == fake.IMAGES else images * fake.CAPTIONS // fake.IMAGES
    steps, batch = (TrainConfig.steps, TrainConfig.batch) if cuda else (CPU_STEPS, min(CPU_BATCH, captions))
    for name in ("cold", "warm"):
        if (folder / name).exists():
            raise UserError(f"--dir {folder}: holds a run of an earlier time; give another folder, or delete this one")
    begin = time.perf_counter()
    features = fake.random_features(64, GRID[0] * GRID[1], WIDTHS[args.size])
    store = fake.write_store(folder / "store", images, captions, GRID, features, dtype=args.dtype)
    written = time.perf_counter() - begin
    command = ["--store", store.path, "--recipe", "simzss-coco", "--text", args.size, "--device", args.device]
    command += ["--steps", steps, "--batch", batch, "--log-every", 1]
    share = steps * batch / (TrainConfig.steps * TrainConfig.batch)
    result = {
        "machine": machine(args.device),
        "settings": {
            "size": args.size,
            "dtype": args.dtype,
            "images": images,
            "captions": captions,
            "steps": steps,
            "batch": batch,
            "share_of_the_recipe": share,
            "store_bytes": store.bytes,
        },
        "writing_the_store_s": written,
    }
    threads = str(args.threads or os.cpu_count())
    environment = os.environ | {"TRITON_CACHE_DIR": str(folder / "triton"), "OMP_NUM_THREADS": threads}
    result["load_s"] = {name: load_seconds(store.path, name == "cold", args.device) for name in ("cold", "warm")}
    forget(store.path)
    for name in ("cold", "warm"):
        result[name] = watched([*command, "--out", folder / name], steps, environment)
    if cuda:  # what the first start took longer, beyond reading from disk
        reading = result["load_s"]["cold"] - result["load_s"]["warm"]
        result["compile_s"] = result["cold"]["start_s"] - result["warm"]["start_s"] - reading
    if share < 1:
        each = result["warm"]["train_s"] / (steps - 1) / batch
        result["projection"] = {
            "of": f"{TrainConfig.steps} steps x {TrainConfig.batch} pairs at the rate of these steps; it was not run",
            "hours": each * TrainConfig.steps * TrainConfig.batch / 3600,
        }
    return result


def watched(arguments, steps, environment):
    """Seconds of the phases of a training in a process of its own."""
    out = Path(arguments[-1])
    command = [sys.executable, ROOT / "fastzss" / "train.py", *arguments]
    begin = time.perf_counter()
    process = subprocess.Popen([str(part) for part in command], env=environment, stdout=subprocess.DEVNULL)
    seen = {}
    try:
        while process.poll() is None:
            done = lines(out / "metrics.jsonl")
            for mark in (1, steps):
                if done >= mark:
                    seen.setdefault(mark, time.perf_counter())
            time.sleep(0.01)
    finally:
        process.kill()
    end = time.perf_counter()
    if process.returncode or lines(out / "metrics.jsonl") != steps:
        raise UserError(f"--full: the training ended with {process.returncode}; its words are above")
    first, last = seen[1], seen.get(steps, end)
    return {"wall_s": end - begin, "start_s": first - begin, "train_s": last - first, "save_s": end - last}


def lines(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


def load_seconds(path, cold, device):
    """Of bringing all patches from disk, or from the system's copy of it, to the device."""
    if cold:
        forget(path)
    store, begin = PatchStore(path), time.perf_counter()
    store.load(device)
    return time.perf_counter() - begin


def forget(folder):
    """Ask the system to drop its copies of a folder's files, so that they are read from disk."""
    for path in folder.rglob("*"):
        if path.is_file() and hasattr(os, "posix_fadvise"):
            file = os.open(path, os.O_RDONLY)
            os.fsync(file)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)


def show(result):
    settings = result["settings"]
    share = settings["share_of_the_recipe"]
    what = "the whole recipe" if share == 1 else f"{share:.2%} of the recipe's pairs"
    print(f"{what}: {settings['steps']} steps x {settings['batch']} pairs, {settings['images']} images")
    load = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in result["load_s"].items())
    print(f"writing the made-up store {result['writing_the_store_s']:.1f} s; loading its patches: {load}")
    for name in ("cold", "warm"):
        times = ", ".join(f"{key.removesuffix('_s')} {seconds:.1f} s" for key, seconds in result[name].items())
        print(f"{name}: {times}")
    if "compile_s" in result:
        print(f"compilation, by difference: {result['compile_s']:.1f} s")
    if "projection" in result:
        print(f"projection, {result['projection']['of']}: {result['projection']['hours']:.3g} h")
    print("; ".join(f"{name} {value}" for name, value in result["machine"].items()))
