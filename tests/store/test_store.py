"""The store: what zarr-python says of its bytes, and what comes back from it."""

import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import zarr
from helpers.stores import small_plan, tree
from zarr.codecs import Crc32cCodec

from fastzss.base.errors import UserError
from fastzss.base.files import write_file
from fastzss.store.features import FeatureWriter
from fastzss.store.forms.zarr import FileBuffer, array_metadata, shard_name
from fastzss.store.plan import FeaturePlan
from fastzss.store.reading.reader import PatchStore
from fastzss.store.upkeep.info import store_info
from fastzss.store.upkeep.verify import verify


def features(plan, seed=0):
    """Unit patches with outlier channels, global vectors, and a few images that could not be read."""
    generator = torch.Generator().manual_seed(seed)
    n, N, D = plan.images, plan.patches, plan.channels
    spread = torch.ones(D)
    spread[:: max(1, D // 5)] = 20
    patches = torch.randn(n, N, D, generator=generator) * spread + spread
    valid = torch.ones(n, dtype=torch.uint8)
    valid[5::23] = 0
    return F.normalize(patches, dim=-1), torch.randn(n, len(plan.globals), D, generator=generator), valid


def write_store(path, plan, patches, global_vectors, valid):
    writer = FeatureWriter(path, plan)
    if plan.dtype == "int8":
        sample = patches[valid != 0].flatten(0, 1)
        writer.set_stats(sample.mean(0), sample.std(0))
    for shard in writer.todo():
        rows = slice(plan.rows(shard).start, plan.rows(shard).stop)
        writer.write(shard, patches[rows], global_vectors[rows], valid[rows])
    writer.finish()
    return PatchStore(path)


@pytest.fixture(scope="module", params=["int8", "float16"])
def stored(request, tmp_path_factory):
    plan = small_plan(dtype=request.param)
    data = features(plan)
    return write_store(tmp_path_factory.mktemp("stores") / "s", plan, *data), *data


# what zarr-python says


@pytest.mark.parametrize("dtype", ["i1", "u1", "<f2"])
@pytest.mark.parametrize("row", [(6, 16), (7,), ()], ids=str)
def test_shards_are_byte_identical_to_those_of_zarr_python(tmp_path, dtype, row):
    array = np.random.default_rng(0).integers(0, 100, (11, *row)).astype(dtype)
    array[2] = 0  # an image of zeros inside a shard
    array[4:8] = 0  # a shard of zeros
    theirs = zarr.create_array(
        tmp_path / "theirs", shape=array.shape, dtype=dtype, chunks=(1, *row), shards=(4, *row),
        compressors=[Crc32cCodec()], config={"write_empty_chunks": True},
    )  # fmt: skip
    theirs[:] = array
    for shard in range(3):  # the last holds three of four rows
        path = shard_name("ours", shard, array.ndim)
        part = array[4 * shard : 4 * shard + 4]
        buffer = FileBuffer(4, part[0].nbytes)
        buffer.rows[: len(part)] = part.reshape(len(part), -1).view(np.uint8)
        data, _ = buffer.contents(len(part))
        write_file(tmp_path / path, data)
        assert data.tobytes() == (tmp_path / path.replace("ours", "theirs", 1)).read_bytes()
    (tmp_path / "ours" / "zarr.json").write_bytes(array_metadata(array.shape, dtype, (1, *row), (4, *row)))
    ours = zarr.open_array(tmp_path / "ours", mode="r")
    assert np.array_equal(ours[:], array)
    assert ours.metadata == theirs.metadata


@pytest.mark.filterwarnings("ignore:Object at .* is not recognized as a component of a Zarr hierarchy")
def test_zarr_python_reads_the_same_numbers(stored):
    store = stored[0]
    group, patches = zarr.open_group(store.path / "features", mode="r"), store.load()
    assert np.array_equal(group["tokens"][:], patches.tokens.numpy())
    assert np.array_equal(group["valid"][:] != 0, store.valid().numpy())
    for i, name in enumerate(store.plan.globals):
        assert np.array_equal(group["global"][:, i], store.globals(name=name).numpy())
    if store.plan.dtype == "int8":
        assert np.array_equal(group["scale"][:], patches.scale.numpy())
        assert np.array_equal(group["stats/mean"][:], patches.mean.numpy())
        assert np.array_equal(group["stats/std"][:], patches.std.numpy())
    assert {name for name, _ in group.arrays()} == set(store.plan.arrays)


# what comes back


def test_float16_vectors_come_back_exactly(tmp_path):
    plan = small_plan(dtype="float16")
    patches, global_vectors, valid = features(plan)
    store = write_store(tmp_path / "s", plan, patches, global_vectors, valid)
    assert not (tmp_path / "s/features/scale").exists() and not (tmp_path / "s/features/stats").exists()
    found = store.load()
    assert found.scale is None and found.mean is None
    assert torch.equal(found.tokens[valid != 0], patches.half()[valid != 0])


def test_take_gives_the_rows_asked_for(stored):
    store, whole = stored[0], stored[0].load()
    for rows in ([69, 0, 33, 33, 5], [], list(range(70)), torch.tensor([7, 3])):
        taken = store.take(rows)
        for one, all_of_it in zip(taken[:2], whole[:2], strict=True):
            assert one is None or torch.equal(one, all_of_it[torch.as_tensor(rows, dtype=torch.int64)])
    out = store.take([1, 2])
    assert store.take([8, 9], out=out).tokens.data_ptr() == out.tokens.data_ptr()
    assert torch.equal(out.tokens, whole.tokens[8:10])
    with pytest.raises(IndexError, match="70 images"):
        store.take([70])
    with pytest.raises(IndexError, match="rows -1"):
        store.take([-1])
    with pytest.raises(ValueError, match="room for 2"):
        store.take([1], out=out)


def test_images_that_could_not_be_read_are_zeros(stored):
    store, _, _, valid = stored
    bad = valid == 0
    whole = store.load()
    assert bad.any() and torch.equal(store.valid(), ~bad)
    assert not whole.tokens[bad].any() and not store.globals()[bad].any()
    assert whole.scale is None or not whole.scale[bad].any()


def test_features_of_unreadable_images_may_be_anything(tmp_path):
    plan = small_plan(images=4)
    patches, global_vectors, _ = features(plan)
    patches[1], global_vectors[1] = torch.nan, torch.inf
    store = write_store(tmp_path / "s", plan, patches, global_vectors, torch.tensor([1, 0, 1, 1]))
    assert not store.load().tokens[1].any()
    with pytest.raises(ValueError, match="NaN"):
        FeatureWriter(tmp_path / "s", plan).write(0, patches, global_vectors, torch.ones(4))


def test_globals_are_chosen_by_name(stored):
    store, _, global_vectors, valid = stored
    rows = torch.tensor([64, 2])
    assert torch.equal(store.globals(rows, "patch-mean"), global_vectors[rows, 1].half())
    assert torch.equal(store.globals()[valid != 0], global_vectors[valid != 0, 0].half())
    with pytest.raises(UserError, match='did you mean "patch-mean"'):
        store.globals(name="patch_mean")


def test_info_tells_what_the_store_holds(stored):
    store, _, _, valid = stored
    info = store_info(store.path)
    assert (info["images"], info["valid"], info["model"], info["licence"]) == (70, valid.sum(), "tiny", "Apache-2.0")
    assert info["shards"] == info["shards_written"] == 18
    assert not info["finished"], "its captions are not there yet"
    assert info["bytes"] == store.bytes == sum(f.stat().st_size for name in store.plan.arrays
                                               for f in (store.path / "features" / name / "c").rglob("*")
                                               if f.is_file())  # fmt: skip
    assert verify(store.path) == []


def test_a_writer_finds_a_finished_store_finished(stored):
    writer = FeatureWriter(stored[0].path, stored[0].plan)
    assert writer.todo() == []
    assert (writer.stats is None) == (stored[0].plan.dtype == "float16")


def test_statistics_come_first_and_stay(tmp_path):
    plan = small_plan(images=3)
    writer = FeatureWriter(tmp_path / "s", plan)
    with pytest.raises(ValueError, match="set_stats"):
        writer.write(0, *features(plan))
    with pytest.raises(ValueError, match="not positive"):
        writer.set_stats(torch.zeros(16), torch.zeros(16))
    writer.set_stats(torch.zeros(16), torch.ones(16))
    writer.set_stats(torch.zeros(16), torch.ones(16))
    with pytest.raises(UserError, match="other statistics"):
        writer.set_stats(torch.zeros(16), torch.full((16,), 2.0))
    with pytest.raises(ValueError, match="float16 store"):
        FeatureWriter(tmp_path / "f", small_plan(dtype="float16")).set_stats(torch.zeros(16), torch.ones(16))


def test_a_writer_that_went_to_another_process_writes_the_same_store(tmp_path, stored):
    right, patches, global_vectors, valid = stored
    first = FeatureWriter(tmp_path / "s", right.plan)
    if right.stats:
        first.set_stats(*right.stats[:2])
    halves = first, pickle.loads(pickle.dumps(first))
    for shard in first.todo():
        rows = slice(right.plan.rows(shard).start, right.plan.rows(shard).stop)
        halves[shard % 2].write(shard, patches[rows], global_vectors[rows], valid[rows])
    again = pickle.dumps(first)
    assert len(again) < 4000, "what it says, and not the memory of a shard"
    assert pickle.loads(again).todo() == []
    first.finish()
    assert tree(tmp_path / "s") == tree(right.path)


def test_two_writers_that_do_not_see_each_other_write_the_same(tmp_path):
    """As on file systems without locks."""
    plan = FeaturePlan(images=9, patches=4, channels=8, grid=(2, 2), globals=())
    patches = F.normalize(torch.randn(9, 4, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    writers = [FeatureWriter(tmp_path / "s", plan) for _ in range(2)]
    for writer in writers:
        writer.set_stats(torch.zeros(8), torch.ones(8))
    todo = writers[0].todo()
    for shard in todo:  # each writes all, one a step behind the other
        for writer in writers:
            part = writer.begin(shard)
            part.put(0, patches[list(plan.rows(shard))])
            part.commit()
    assert writers[1].todo() == []
    writers[0].finish()
    writers[1].finish()
    assert verify(tmp_path / "s", 3) == []


def test_a_store_without_global_vectors(tmp_path):
    plan = small_plan(images=9, globals=())
    patches, _, valid = features(plan)
    store = write_store(tmp_path / "s", plan, patches, torch.zeros(9, 0, 16), valid)
    with pytest.raises(UserError, match="there are: none"):
        store.globals()
