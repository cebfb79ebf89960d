"""A whole training, from a store on disk to the saved run, as a user would start it: wall clock.

Twice: cold, with nothing of the store in the memory of the machine and no kernel compiled, and warm.  Each is a process
of its own, watched from outside: `start` is until the first logged step is done (the tenth, where there are twenty),
`train` to the last, `save` to the end, with the patch memory.  The store may be kept: --store FOLDER writes it where
there is none yet.
"""

import os
import subprocess
import sys
import time

import fake
from measuring import CHANNELS, GRID, ROOT

from fastzss.base.errors import UserError
from fastzss.store.reading.reader import PatchStore
from fastzss.training.settings import RECIPES

COCO = RECIPES["simzss-coco"]


def run(args, folder):
    cuda = args.device == "cuda"
    images = args.images or (fake.IMAGES if cuda else 2048)
    steps, batch = (COCO["steps"], COCO["batch"]) if cuda else (args.steps, args.batch)
    captions = images * fake.CAPTIONS // fake.IMAGES
    store = kept_store(args.store or folder / "store", images, captions, args)
    forget(store.path)
    command = [
        "--recipe",
        "simzss-coco",
        "--store",
        store.path,
        "--text",
        args.size,
        "--device",
        args.device,
        "--batch",
        batch,
    ]
    shared = {"TRITON_CACHE_DIR": folder / "triton", "OMP_NUM_THREADS": args.machine["threads"]}
    settings = {"size": args.size, "dtype": args.dtype, "images": images, "captions": captions, "steps": steps}
    result = {"machine": args.machine, "settings": settings | {"batch": batch, "store_bytes": store.bytes}}
    every = 10 if steps >= 20 else 1  # each logged step waits for the device
    names = "cold", "warm"
    return result | {name: watched(command, folder / name, steps, shared, every=every) for name in names}


def kept_store(path, images, captions, args):
    """The made-up store at a path, written there unless it is there."""
    if not (path.is_dir() and any(path.iterdir())):
        features = fake.random_features(64, GRID[0] * GRID[1], CHANNELS[args.size])
        return fake.write_store(path, images, captions, GRID, features, dtype=args.dtype)
    store = PatchStore(path)
    if (store.plan.images, store.plan.dtype, store.plan.channels) != (images, args.dtype, CHANNELS[args.size]):
        raise UserError(f"{path}: is another store than {images} images of {args.dtype}; give another --store")
    return store


def watched(arguments, out, steps, environment, launcher=(), every=1):
    """Seconds of the phases of a training in processes of its own, which logs `every` so many steps."""
    logged, metrics, seen = steps // every + (steps % every > 0), out / "metrics.jsonl", {}
    command = [sys.executable, *launcher, ROOT / "fastzss" / "train.py", *arguments, "--recipe", "simzss-coco"]
    command += ["--out", out, "--steps", steps, "--log-every", every]
    environment = os.environ | {name: str(value) for name, value in environment.items()}
    begin = time.perf_counter()
    process = subprocess.Popen([str(part) for part in command], env=environment, stdout=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            for mark in {1, logged}:
                if lines(metrics) >= mark:
                    seen.setdefault(mark, time.perf_counter())
            time.sleep(0.01)
    finally:
        process.kill()
    end = time.perf_counter()
    if process.returncode or lines(metrics) != logged:
        raise UserError(f"the training ended with {process.returncode}; its words are above")
    first, last = seen[1], seen.get(logged, end)
    return {"wall_s": end - begin, "start_s": first - begin, "train_s": last - first, "save_s": end - last}


def lines(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


def forget(folder):
    """Ask the system to drop its copies of a folder's files, so that they are read from disk."""
    for path in folder.rglob("*"):
        if path.is_file() and hasattr(os, "posix_fadvise"):
            with open(path, "rb") as file:
                os.fsync(file)
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def show(result):
    settings = result["settings"]
    print(f"{settings['steps']} steps x {settings['batch']} pairs, {settings['images']} images")
    for name in ("cold", "warm"):
        print(f"{name}: {', '.join(f'{key[:-2]} {seconds:.1f} s' for key, seconds in result[name].items())}")
