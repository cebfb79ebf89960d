"""The store beside plain files: reading, writing, and what extraction waits for.

    python benchmarks/store.py                           one table
    python benchmarks/store.py --images 256 --trials 1   in seconds: to see that it works

Each trial times the plain way, a loop of one thread over one file, and ours; a row compares the best trial of each,
since whoever else uses the machine only ever slows one down (`median` compares the medians).  What is read is compared
first.  A row below its bar says so, and the command ends with 1.
"""

import functools
import itertools
import os
import statistics
import sys
import tempfile
from pathlib import Path
from unittest import mock

from measuring import GRID, begin, collected, command, in_turn, options, seconds, tell

N, D, BATCH = 256, 768, 512  # images of ViT-B/14 at 224 px
WAITED = (("vit_small_patch14_dinov2", 48, 0.01), ("tiny", 480, 0.04))  # backbone, images, bar


def ratio(name, bar, plain, ours, trials, moved, before=lambda: None):
    """How much faster than the plain way: the best trial of each, of trials that time both."""
    plain, ours = in_turn([functools.partial(seconds, work) for work in (plain, ours)], trials, before)
    value, median = min(plain) / min(ours), statistics.median(plain) / statistics.median(ours)
    row = {"row": name, "value": value, "bar": bar, "better": "higher", "median": median}
    row |= {"gb_s": moved / min(ours) / 1e9, "plain_gb_s": moved / min(plain) / 1e9}
    return row if bar is None else row | {"met": value >= bar}


def reading(folder, images, trials):
    import fake
    import numpy as np
    import torch
    import zarr

    sizes, forms = (images, images, GRID, fake.random_features(64, N, D)), ("zarr", "webdataset")
    stores = {form: fake.write_store(folder / form, *sizes, form=form) for form in forms}
    whole, size = stores["zarr"].load(), min(BATCH, images)
    whole.tokens.numpy().tofile(folder / "raw")
    assert all(torch.equal(a, b) for a, b in zip(whole, stores["webdataset"].load(), strict=True))
    file, image = os.open(folder / "raw", os.O_RDONLY), N * D
    room = stores["zarr"].buffer(size)
    batch, everything = (p.tokens.numpy().reshape(-1, image).view(np.uint8) for p in (room, whole))  # the same memory
    random, rows = np.random.default_rng(0), np.zeros(size, np.int64)

    def draw():
        rows[:] = random.permutation(images)[:size]

    def pread():
        for place, row in enumerate(rows.tolist()):
            os.preadv(file, [batch[place]], row * image)

    def pread_all():
        flat, step = everything.reshape(-1), 8 * 2**20
        for first in range(0, flat.size, step):
            os.preadv(file, [flat[first : first + step]], first)

    def both(name, bar, plain, ours, moved):
        """With the threads that the store has, and with one for comparison."""
        yield ratio(name, bar, plain, ours, trials, moved * image, draw)
        with mock.patch("fastzss.store.forms.rows.READERS", 1):
            yield ratio(f"{name}, one thread", None, plain, ours, trials, moved * image, draw)

    for form, store in stores.items():
        for check, bar in ((False, 0.9), (True, 0.75)):
            name = f"random batch of {size}, {form}{', every crc checked' * check} / pread of a raw file"
            yield from both(name, bar, pread, functools.partial(store.take, rows, out=room, check=check), size)
        name = f"all images, {form}, every crc checked / preadv"
        yield from both(name, 0.6, pread_all, functools.partial(store.fill, whole), images)

    tokens, few = zarr.open_group(folder / "zarr" / "features", mode="r")["tokens"], 64
    small, name = stores["zarr"].buffer(few), f"{few} random images / zarr-python, one by one"
    take = functools.partial(stores["zarr"].take, rows[:few], out=small)
    yield ratio(name, 10, lambda: [tokens[row] for row in rows[:few].tolist()], take, trials, few * image, draw)
    os.close(file)


def writing(folder, trials):
    import numpy as np
    import torch

    from fastzss.store.features import FeatureWriter
    from fastzss.store.plan import FeaturePlan

    plan = FeaturePlan(images=512 * (trials + 1), patches=N, channels=D, grid=GRID)
    writer = FeatureWriter(folder / "written", plan)
    writer.set_stats(torch.zeros(D), torch.ones(D))
    shards, random = iter(range(plan.shards)), np.random.default_rng(0)
    images = random.integers(0, 120, (plan.shard_images, N * D), np.uint8)
    data = random.integers(0, 120, plan.shard_images * plan.bytes_per_image, np.uint8)

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


def waiting(folder):
    from fastzss.extraction import features, flow
    from fastzss.extraction.settings import ExtractConfig

    threads, took = [], []

    class Noted(features.Background):
        def __init__(self, *given):
            super().__init__(*given)
            threads.append(self)

    def noted(writer, looked, todo, ranks, remembered, *rest):  # nothing is remembered: all is computed
        took.append(seconds(lambda: features.write_shards(writer, looked, todo, ranks, {}, *rest)))

    for model, images, bar in WAITED:
        where = {"source": f"world:train,n={images}", "store": folder / model, "bank": "none", "device": "cpu"}
        config = ExtractConfig(**where, model=model, random_weights=model != "tiny", batch=8)
        with mock.patch.object(flow, "write_shards", noted), mock.patch.object(features, "Background", Noted):
            flow.extract(config)
        share = threads[-1].waited / took[-1]
        what = f"share of the time that writing was waited for, {model}"
        yield {"row": what, "value": share, "bar": bar, "better": "lower", "met": share <= bar}


def shown(row):
    bar = f"  {'>=' if row['better'] == 'higher' else '<='} {row['bar']:<7g}" if row["bar"] is not None else ""
    return f"{row['row']:88} {row['value']:9.3g}{bar}{'' if row.get('met', True) else 'missed'}"


@command
def main(argv):
    parser = options(__doc__, device=False, threads=1)
    parser.add_argument("--images", type=int, default=2048, help="of the store that is read")
    parser.add_argument("--trials", type=int, default=15, help="the best of so many (default: %(default)s)")
    args = begin(parser, argv)
    import zarr

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        parts = (reading(folder, args.images, args.trials), writing(folder, args.trials), waiting(folder))
        rows = collected(itertools.chain(*parts), shown, args)
    args.machine["zarr"] = zarr.__version__
    tell({"machine": args.machine, "trials": args.trials, "images": args.images, "rows": rows}, args)
    return 0 if all(row.get("met", True) for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
