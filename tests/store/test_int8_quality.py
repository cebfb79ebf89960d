"""What int8 loses: patches that come back from a store, beside those that were written."""

import pytest
import torch
import torch.nn.functional as F

from fastzss.extraction.flow import extract
from fastzss.extraction.settings import ExtractConfig
from fastzss.store.features import FeatureWriter
from fastzss.store.plan import FeaturePlan
from fastzss.store.reading.reader import PatchStore

SCENES = 60


def every_patch(store):
    return store.load().take(torch.arange(len(store))).double()


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """{dtype: a store} of the same scenes of the built-in world."""
    folder = tmp_path_factory.mktemp("scenes")
    for dtype in ("int8", "float16"):
        extract(ExtractConfig(source=f"world:train,n={SCENES}", store=folder / dtype, dtype=dtype, bank="none"))
    return {dtype: PatchStore(folder / dtype) for dtype in ("int8", "float16")}


@pytest.fixture(scope="module")
def found_and_exact(request, scenes, tmp_path_factory):
    """([n, N, D] as int8 gives them back, the same as they were)."""
    if request.param == "scenes":
        return every_patch(scenes["int8"]), every_patch(scenes["float16"])
    spread = torch.ones(768)
    spread[::160] = 20  # a few channels far larger than the others, and not centred
    drawn = torch.randn(64, 256, 768, generator=torch.Generator().manual_seed(0)) * spread + spread
    exact = F.normalize(drawn, dim=-1)
    plan = FeaturePlan(images=64, patches=256, channels=768, grid=(16, 16), globals=())
    writer = FeatureWriter(tmp_path_factory.mktemp("outliers") / "store", plan)
    writer.set_stats(exact.flatten(0, 1).mean(0), exact.flatten(0, 1).std(0))
    for shard in writer.todo():
        writer.write(shard, exact[list(plan.rows(shard))])
    writer.finish()
    return every_patch(PatchStore(writer.store)), exact.double()


on_both = pytest.mark.parametrize("found_and_exact", ["scenes", "outliers"], indirect=True)


@on_both
def test_directions_and_lengths_stay(found_and_exact):
    found, exact = found_and_exact
    lost = 1 - F.cosine_similarity(found, exact, dim=-1)
    assert lost.mean() <= 1e-4 and lost.max() <= 1e-3
    assert (found.norm(dim=-1) - 1).abs().max() <= 0.01


@on_both
def test_pooled_vectors_stay(found_and_exact):
    """Patches pooled under the softmax of text-like queries, centred, in units of the channels' spread."""
    found, exact = found_and_exact
    centre, spread = exact.flatten(0, 1).mean(0), exact.flatten(0, 1).std(0)
    queries = F.normalize(torch.randn(32, exact.shape[-1], generator=torch.Generator().manual_seed(1)).double(), dim=-1)
    pooled = [((x @ queries.T / 0.05).softmax(1).transpose(1, 2) @ x - centre) / spread for x in (found, exact)]
    assert (pooled[0] - pooled[1]).norm() / pooled[1].norm() <= 1e-2


def test_half_the_bytes(scenes):
    """Of a float16 store; float16 vectors of an image and the scales of patches come on top."""
    assert scenes["int8"].bytes <= 0.52 * scenes["float16"].bytes
