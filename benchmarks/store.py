"""The store beside plain files, as ratios of one run.

    python benchmarks/store.py             one table
    python benchmarks/store.py --json      the same as JSON, with machine and versions
    python benchmarks/store.py --miou      also: what int8 costs the demo, in points of mIoU (minutes)

Reading: images of 256 x 768 int8 (ViT-B/14 at 224 px), files in the cache of the system, memory used again: what is
measured is the store, not the disk.  The plain way is a loop of one thread over one file; the store lies in many files,
and reads with the threads it has (up to 4), and with one for comparison.  Writing ends with fsync on both sides.  Each
trial times the plain way and ours one after the other, by the clock; a row compares the best trial of each, since
whoever else uses the machine only ever slows one down (`median` compares the medians).

Ratios above 1 are in favour of the store, bars are what it is held to.  What is read is compared first: a store that
gives other bytes has no speed.  A row below its bar says so, and the command ends with 1.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
import zarr
from ops import machine

from fastzss import world
from fastzss.console import guarded
from fastzss.cores import cores
from fastzss.crew import Crew
from fastzss.evaluate import evaluate
from fastzss.extract import extract
from fastzss.images import open_source
from fastzss.looking import Eye, set_statistics, write_shards
from fastzss.protocols import world_set
from fastzss.segment import load
from fastzss.settings import RECIPES, ExtractConfig, TrainConfig
from fastzss.store import FeaturePlan, FeatureWriter, PatchStore
from fastzss.store.commits import choose_form
from fastzss.store.rows import READERS
from fastzss.vision import load_vision

N, D, BATCH = 256, 768, 512


def seconds(work):
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def ratio(name, bar, plain, ours, trials, moved, setup=lambda: None):
    """How much faster than the plain way: the best trial of each, of trials that time both."""
    found = []
    for trial in range(trials + 1):
        setup()
        works = (plain, ours) if trial % 2 else (ours, plain)
        pair = [seconds(work) for work in works][:: 1 if trial % 2 else -1]
        if trial:  # the first one warms up
            found.append(pair)
    plain, ours = (sorted(times) for times in zip(*found, strict=True))
    return {
        "row": name,
        "value": plain[0] / ours[0],
        "bar": bar,
        "better": "higher",
        "median": statistics.median(plain) / statistics.median(ours),
        "gb_s": moved / ours[0] / 1e9,
        "plain_gb_s": moved / plain[0] / 1e9,
    }


def bound(name, value, bar):
    return {"row": name, "value": value, "bar": bar, "better": "lower"}


# reading and writing


def alone(work):
    """The same with one reading thread."""

    def one_thread():
        with mock.patch("fastzss.store.rows.READERS", 1):
            work()

    return one_thread


def big_store(path, form, images):
    plan = FeaturePlan(images=images, patches=N, channels=D, grid=(16, 16))
    writer = FeatureWriter(path, plan, choose_form(form))
    writer.set_stats(torch.zeros(D), torch.ones(D))
    for shard in writer.todo():
        random, part = np.random.default_rng(shard), writer.begin(shard)
        for name, (_, dtype, (_, *row)) in plan.arrays.items():
            size = (len(plan.rows(shard)), dtype.itemsize * int(np.prod(row)))
            part.put_bytes(name, random.integers(0, 2 if name == "valid" else 120, size, np.uint8))
        part.commit()
    writer.finish()
    return PatchStore(path)


def reading(folder, images, trials):
    stores = {form: big_store(folder / form, form, images) for form in ("zarr", "webdataset")}
    whole = stores["zarr"].load()
    raw = folder / "raw"
    whole.tokens.numpy().tofile(raw)
    assert all(torch.equal(a, b) for a, b in zip(whole, stores["webdataset"].load(), strict=True))
    file, image = os.open(raw, os.O_RDONLY), N * D
    room = stores["zarr"].room(BATCH)
    batch, everything = (p.tokens.numpy().reshape(-1, image).view(np.uint8) for p in (room, whole))  # the same memory
    random, rows = np.random.default_rng(0), np.zeros(BATCH, np.int64)

    def draw():
        rows[:] = random.permutation(images)[:BATCH]

    def pread():
        for place, row in enumerate(rows.tolist()):
            os.preadv(file, [batch[place]], row * image)

    def pread_all():
        flat, step = everything.reshape(-1), 8 * 2**20
        for begin in range(0, flat.size, step):
            os.preadv(file, [flat[begin : begin + step]], begin)

    for form, store in stores.items():
        for check, bar in ((False, 0.9), (True, 0.75)):
            name = f"random batch of {BATCH}, {form}{', every crc checked' * check} / pread of a raw file"
            take = lambda store=store, check=check: store.take(rows, out=room, check=check)  # noqa: E731
            yield ratio(name, bar, pread, take, trials, BATCH * image, draw)
            yield ratio(f"{name}, one thread", None, pread, alone(take), trials, BATCH * image, draw)
        name, fill = f"all images, {form}, every crc checked / preadv", lambda store=store: store.fill(whole)
        yield ratio(name, 0.6, pread_all, fill, trials, images * image)
        yield ratio(f"{name}, one thread", None, pread_all, alone(fill), trials, images * image)

    tokens, few = zarr.open_group(folder / "zarr" / "features", mode="r")["tokens"], 64
    small = stores["zarr"].room(few)

    def zarr_loop():
        for row in rows[:few].tolist():
            tokens[row]

    take = lambda: stores["zarr"].take(rows[:few], out=small)  # noqa: E731
    yield ratio(f"{few} random images / zarr-python, one by one", 10, zarr_loop, take, trials, few * image, draw)
    os.close(file)


def writing(folder, trials):
    plan = FeaturePlan(images=512 * (trials + 1), patches=N, channels=D, grid=(16, 16))
    writer, shards = FeatureWriter(folder / "written", plan), iter(range(plan.shards))
    writer.set_stats(torch.zeros(D), torch.ones(D))
    images = np.random.default_rng(0).integers(0, 120, (plan.shard_images, N * D), np.uint8)
    data = np.random.default_rng(0).integers(0, 120, plan.shard_images * plan.bytes_per_image, np.uint8)

    def anew():  # both write new files, into memory that was just given back
        for path in [folder / "plain", *(folder / "written").glob("features/*/c/**/*")]:
            if path.is_file():
                path.unlink()

    def plain():
        with open(folder / "plain", "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def ours():
        part = writer.begin(next(shards))
        part.put_bytes("tokens", images)
        part.filled[:] = True
        part.commit()

    name = f"writing a shard of {plan.shard_images} images / one raw write, both with fsync"
    yield ratio(name, 0.6, plain, ours, trials, data.nbytes, anew)


# extraction


def waiting(folder):
    for model, images, bar in (("vit_small_patch14_dinov2", 48, 0.01), ("tiny", 480, 0.04)):
        source, vision = open_source(f"world:train,n={images}"), load_vision(model, random=model != "tiny")
        plan = FeaturePlan(images=images, patches=vision.grid[0] * vision.grid[1], channels=vision.channels,
                           grid=vision.grid, globals=vision.globals, vision=vision.record)  # fmt: skip
        writer, eye, crew = FeatureWriter(folder / model, plan), Eye(source, vision, plan, 8), Crew("cpu")
        set_statistics(writer, eye, crew)
        took, waited = write_shards(writer, eye, writer.todo(), crew, {})
        yield bound(f"share of the time that writing was waited for, {model} at {vision.size} px", waited / took, bar)


# int8


def quality(folder):
    outliers = torch.ones(768)
    outliers[::160] = 20
    made = F.normalize(
        torch.randn(64, 256, 768, generator=torch.Generator().manual_seed(0)) * outliers + outliers, dim=-1
    )
    plan = FeaturePlan(images=64, patches=256, channels=768, grid=(16, 16), globals=())
    writer = FeatureWriter(folder / "outliers", plan)
    writer.set_stats(made.flatten(0, 1).mean(0), made.flatten(0, 1).std(0))
    for shard in writer.todo():
        writer.write(shard, made[list(plan.rows(shard))])
    writer.finish()
    scenes = {dtype: folder / f"scenes-{dtype}" for dtype in ("int8", "float16")}
    sizes = {}
    for dtype, path in scenes.items():
        sizes[dtype] = extract(ExtractConfig(source="world:train,n=100", store=path, dtype=dtype, bank="none"))["bytes"]
    exact = PatchStore(scenes["float16"]).load().take(torch.arange(100))
    for name, path, truth in (("outliers", folder / "outliers", made), ("scenes", scenes["int8"], exact)):
        found, truth = PatchStore(path).load().take(torch.arange(len(truth))).double(), truth.double()
        lost = 1 - F.cosine_similarity(found, truth, dim=-1)
        yield bound(f"int8, {name}: mean 1 - cos", lost.mean().item(), 1e-4)
        yield bound(f"int8, {name}: largest 1 - cos", lost.max().item(), 1e-3)
        yield bound(f"int8, {name}: norm off by", (found.norm(dim=-1) - 1).abs().max().item(), 0.01)
        yield bound(f"int8, {name}: centred error of pooled vectors", pooled_error(found, truth), 1e-2)
    yield bound("int8, scenes: bytes / float16", sizes["int8"] / sizes["float16"], 0.52)


def pooled_error(found, exact):
    """Of patches pooled under the softmax of text-like queries, in units of the channels' spread."""
    centre, spread = exact.flatten(0, 1).mean(0), exact.flatten(0, 1).std(0)
    queries = F.normalize(torch.randn(32, exact.shape[-1], generator=torch.Generator().manual_seed(1)).double(), dim=-1)
    pooled = [((x @ queries.T / 0.05).softmax(1).transpose(1, 2) @ x - centre) / spread for x in (found, exact)]
    return ((pooled[0] - pooled[1]).norm() / pooled[1].norm()).item()


def miou(folder, seeds):
    """The demo's own stages on an int8 and on a float16 store: mean over seeds of the run with both losses."""
    from fastzss.config import build
    from fastzss.training import train

    data, scores = world_set("world:test,n=200"), {}
    for dtype in ("int8", "float16"):
        store = folder / f"demo-{dtype}"
        extract(ExtractConfig(source="world:train,n=1200", store=store, dtype=dtype))
        recipe = build(
            TrainConfig, ("recipe demo", {**RECIPES["demo"], "store": store, "out": folder, "recipe": "demo"})
        )
        runs = [folder / f"run-{dtype}-{seed}" for seed in range(seeds)]
        for seed, out in enumerate(runs):
            train(replace(recipe, out=out, seed=seed), progress=False)
        models = [load(out) for out in runs]
        found = evaluate(models[0].vision, {s: m.class_vectors(world.NAMES) for s, m in enumerate(models)}, data)
        scores[dtype] = [found[seed]["all"] for seed in range(seeds)]
    row = bound("demo on int8 and on float16, points of mIoU apart",
                abs(statistics.mean(scores["int8"]) - statistics.mean(scores["float16"])), 0.3)  # fmt: skip
    yield row | {"miou": scores}


def about():
    readers = min(READERS, cores())
    return {**machine("cpu"), "reading threads": readers, "zarr": zarr.__version__}


def judged(row):
    if row["bar"] is None:
        return {}
    return {"met": row["value"] >= row["bar"] if row["better"] == "higher" else row["value"] <= row["bar"]}


def shown(row):
    line = f"{row['row']:88} {row['value']:9.3g}"
    if row["bar"] is not None:
        line += f"  {'>=' if row['better'] == 'higher' else '<='} {row['bar']:<7g}{'' if row['met'] else 'missed'}"
    return line


def work(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2048, help="of the store that is read (default: %(default)s)")
    parser.add_argument("--trials", type=int, default=15, help="the best of so many (default: %(default)s)")
    parser.add_argument("--miou", action="store_true", help="train and score on int8 and float16")
    parser.add_argument("--seeds", type=int, default=3, help="of --miou (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="where to write; by default a temporary folder")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        folder = Path(folder)
        for part in (reading(folder, args.images, args.trials), writing(folder, min(args.trials, 15)), waiting(folder),
                     quality(folder), miou(folder, args.seeds) if args.miou else ()):  # fmt: skip
            for row in part:
                rows.append(row | judged(row))
                if not args.json:
                    print(shown(rows[-1]))
    if args.json:
        print(json.dumps({"machine": about(), "trials": args.trials, "images": args.images, "rows": rows}, indent=1))
    else:
        print(", ".join(f"{name} {value}" for name, value in about().items()))
    return 0 if all(row.get("met", True) for row in rows) else 1


def main(argv=None):
    return guarded("store", lambda: work(argv), "interrupted")


if __name__ == "__main__":
    sys.exit(main())
