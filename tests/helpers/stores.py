"""Small stores for the tests of stores: features that are made up, captions and a bank."""

from pathlib import Path
from unittest import mock

import torch
import torch.nn.functional as F

from fastzss.store.captions import read_captions, write_captions
from fastzss.store.commits import choose_form
from fastzss.store.features import FeatureWriter
from fastzss.store.mentions import write_concepts
from fastzss.store.plan import FeaturePlan
from fastzss.store.upkeep.origin import write_origin

PLAN = FeaturePlan(
    images=22, patches=4, channels=8, grid=(2, 2), vision={"model": "tiny"}, source={"spec": "world:train"}
)
BANK = {"identity": "ab" * 32, "names": ["dog"], "aliases": [[]], "origin": ["captions"]}
FORMS = {"zarr": ("zarr", "none"), "zstd": ("zarr", "zstd"), "webdataset": ("webdataset", "none")}


def small_plan(**changes):
    """A plan in which every field says something."""
    settings = dict(images=70, patches=6, channels=16, grid=(2, 3), globals=("cls", "patch-mean"), order_seed=3)
    vision = {"model": "tiny", "weights": "00ff", "size": [224, 224], "licence": "Apache-2.0"}
    return FeaturePlan(**{**settings, "vision": vision, "source": {"spec": "world:train", "list": "ab"}, **changes})


def features(plan=PLAN, seed=0):
    """(patches, global vectors, valid): unit patches, and two images that could not be read."""
    generator = torch.Generator().manual_seed(seed)
    n, N, D = plan.images, plan.patches, plan.channels
    valid = torch.ones(n, dtype=torch.uint8)
    valid[[3, 17]] = 0
    patches = F.normalize(torch.randn(n, N, D, generator=generator), dim=-1)
    return patches, torch.randn(n, len(plan.globals), D, generator=generator), valid


@mock.patch("os.fsync", lambda handle: None)  # no test cuts the power
def write_store(path, plan=PLAN, form="zarr", until=None, seed=0, texts=True):
    """Write or continue a store."""
    patches, global_vectors, valid = features(plan, seed)
    writer = FeatureWriter(path, plan, choose_form(*FORMS[form]))
    if plan.dtype == "int8":
        writer.set_stats(patches.mean((0, 1)), patches.std((0, 1)))
    for shard in writer.todo()[:until]:
        rows = slice(plan.rows(shard).start, plan.rows(shard).stop)
        writer.write(shard, patches[rows], global_vectors[rows], valid[rows])
    if until is None:
        if not (writer.folder / "manifest.json").exists():
            writer.finish()
        if texts:
            write_texts(path, plan)
        write_origin(path, "shipped", "world:train")
    return Path(path)


def write_texts(path, plan=PLAN):
    path, ids, names = Path(path), [[1, 5, 2], [1, 2]], [f"{i:03d}.jpg" for i in range(plan.images)]
    if not (path / "captions").exists():
        write_captions(path, [0, 21], ["a dog", ""], ids, names, plan.identity)
    if not (path / "concepts").exists() or not list((path / "concepts").iterdir()):
        write_concepts(path, BANK, [0], [0], [1], [0, 1], "bank", read_captions(path).identity)


def tree(folder):
    """{path: bytes} of all that is no folder; of a link without a file, none."""
    return {
        str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b""
        for p in sorted(Path(folder).rglob("*"))
        if not p.is_dir()
    }
