"""Made-up data of COCO's shape, written as a store that loader and trainer read like any other.

Captions are as long as COCO's are taken to be (coco_lengths.json says how).  Words mean nothing: token ids are random.
"""

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from fastzss.base.files import identity
from fastzss.base.ragged import offsets, ranges
from fastzss.store.captions import write_captions
from fastzss.store.commits import choose_form
from fastzss.store.features import FeatureWriter
from fastzss.store.mentions import write_concepts
from fastzss.store.plan import FeaturePlan
from fastzss.store.reading.reader import PatchStore

IMAGES, CAPTIONS, NAMES = 118_287, 591_753, 574  # of COCO's training set; of the list of names that SimZSS uses
START, END = 49406, 49407  # CLIP's special tokens
LENGTHS = Path(__file__).parent / "coco_lengths.json"


def captions(images, count, seed=0):
    """(row [count], ids [*], offset [count + 1]): made-up captions, laid out over the images as evenly as can be."""
    random = np.random.default_rng(seed)
    row = np.sort(np.arange(count) % images)
    counts = json.loads(LENGTHS.read_text())["counts"]
    share = np.array(list(counts.values()), float)
    offset = offsets(random.choice([int(length) for length in counts], count, p=share / share.sum()))
    ids = random.integers(1, START, offset[-1], dtype=np.int32)
    ids[offset[:-1]], ids[offset[1:] - 1] = START, END
    return row, ids, offset


def mentions(offset, seed=0, names=NAMES):
    """(caption, name [M], token [*], token_offset [M + 1]): 0 to 6 mentions a caption, about 2, of 1 or 2 tokens."""
    random = np.random.default_rng((seed, 1))
    words = np.diff(offset) - 2
    caption = np.repeat(np.arange(len(words)), random.binomial(6, 0.34, len(words)))
    share = 1 / np.arange(1, names + 1)  # names are as unequally frequent as words are
    name = random.choice(names, len(caption), p=share / share.sum())
    size = random.choice([1, 2], len(caption), p=[0.7, 0.3])
    first = 1 + (random.random(len(caption)) * (words[caption] - size + 1)).astype(np.int64)
    return caption, name, ranges(first, size), offsets(size)


def pictures(count, side, seed=0):
    """uint8 [count, 3, side, side]: coloured blotches with some noise on them, no two alike."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 7, 7, generator=generator)
    noise = 0.1 * torch.randn(count, 3, side, side, generator=generator)
    images = F.interpolate(coarse, size=(side, side), mode="bicubic") + noise
    return (images.clamp(0, 1) * 255).to(torch.uint8)


def write_store(path, images, count, grid, features, *, dtype="int8", form="zarr", seed=0):
    """A finished store of so many images and captions; returns it.

    `features`: (unit patches [f, N, D], globals [f, 1, D]) of f images; row r of the store is the (r % f)-th of them.
    """
    patches, of_images = features
    source = {"spec": f"made-up data, n={images}, captions={count}, seed={seed}"}
    plan = FeaturePlan(
        images=images, patches=patches.shape[1], channels=patches.shape[2], grid=grid, globals=("cls",), dtype=dtype,
        vision={"model": "none, random vectors"}, source=source,
    )  # fmt: skip
    writer = FeatureWriter(path, plan, choose_form(form))
    if dtype == "int8":
        vectors = patches[:256].flatten(0, 1).float()
        writer.set_stats(vectors.mean(0), vectors.std(0).clamp_min(1e-6))
    for shard in writer.todo():
        rows = torch.tensor(plan.rows(shard)) % len(patches)
        writer.write(shard, patches[rows], of_images[rows])
    writer.finish()

    row, ids, offset = captions(images, count, seed)
    names, listed = [f"name {number}" for number in range(NAMES)], [f"image {row}" for row in range(images)]
    texts, ids = [""] * count, np.split(ids, offset[1:-1])
    below = write_captions(path, row, texts, ids, listed, plan.identity)
    bank = {"names": names, "aliases": [[]] * NAMES}
    bank |= {"identity": identity(bank), "origin": ["made up"] * NAMES, "counts": None}
    write_concepts(path, bank, *mentions(offset, seed), "made up", below)
    return PatchStore(path)


def random_features(images, patches, channels, seed=0):
    """(unit patches [images, N, D], globals [images, 1, D]); every image repeats some patches of a common pool."""
    generator = torch.Generator().manual_seed(seed)
    pool = F.normalize(torch.randn(4096, channels, generator=generator), dim=-1)
    choice = torch.randint(len(pool), (images, patches), generator=generator)
    return pool[choice], torch.randn(images, 1, channels, generator=generator)
