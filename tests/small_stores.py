"""Small stores for the tests of stores: features that are made up, captions and a bank.

Test files load it with `runpy.run_path`: pytest imports them one by one, and they cannot import each other.
"""

from pathlib import Path
from unittest import mock

import torch
import torch.nn.functional as F

from fastzss.store import FeaturePlan, FeatureWriter, read_captions, write_captions, write_concepts
from fastzss.store.commits import choose_form

PLAN = FeaturePlan(
    images=22, patches=4, channels=8, grid=(2, 2), vision={"model": "tiny"}, source={"spec": "world:train"}
)
BANK = {"identity": "ab" * 32, "names": ["dog"], "aliases": [[]], "origin": ["captions"]}
FORMS = {"zarr": ("zarr", "none"), "zstd": ("zarr", "zstd"), "webdataset": ("webdataset", "none")}


def features(plan=PLAN, seed=0):
    """(patches, globals, valid): unit patches, and two images that could not be read."""
    generator = torch.Generator().manual_seed(seed)
    n, N, D = plan.images, plan.patches, plan.channels
    valid = torch.ones(n, dtype=torch.uint8)
    valid[[3, 17]] = 0
    patches = F.normalize(torch.randn(n, N, D, generator=generator), dim=-1)
    return patches, torch.randn(n, len(plan.globals), D, generator=generator), valid


@mock.patch("os.fsync", lambda handle: None)  # no test cuts the power
def write_store(path, plan=PLAN, form="zarr", until=None, seed=0, texts=True):
    """Write or continue a store."""
    patches, globals, valid = features(plan, seed)
    writer = FeatureWriter(path, plan, choose_form(*FORMS[form]))
    if plan.dtype == "int8":
        writer.set_stats(patches.mean((0, 1)), patches.std((0, 1)))
    for shard in writer.todo()[:until]:
        rows = slice(plan.rows(shard).start, plan.rows(shard).stop)
        writer.write(shard, patches[rows], globals[rows], valid[rows])
    if until is None:
        if not (writer.folder / "manifest.json").exists():
            writer.finish()
        if texts:
            write_texts(path, plan)
    return Path(path)


def write_texts(path, plan=PLAN):
    path, ids, names = Path(path), [[1, 5, 2], [1, 2]], [f"{i:03d}.jpg" for i in range(plan.images)]
    if not (path / "captions").exists():
        write_captions(path, [0, 21], ["a dog", ""], ids, names, plan.identity)
    if not (path / "concepts").exists() or not list((path / "concepts").iterdir()):
        write_concepts(path, BANK, [0], [0], [1], [0, 1], "bank", read_captions(path).identity)


def tree(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}
