"""The store: what zarr-python says of its bytes, the arithmetic of its plan, and what comes back from it."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import zarr
from zarr.codecs import Crc32cCodec

from fastzss.errors import UserError
from fastzss.store import (
    FeaturePlan,
    FeatureWriter,
    PatchStore,
    differences,
    list_concepts,
    read_captions,
    read_concepts,
    store_info,
    write_captions,
    write_concepts,
)
from fastzss.store.files import write_file
from fastzss.store.plan import SHARD_BYTES
from fastzss.store.zarrs import FileRoom, array_metadata, shard_name


def small_plan(**changes):
    settings = dict(images=70, patches=6, channels=16, grid=(2, 3), globals=("cls", "patch-mean"), order_seed=3)
    vision = {"model": "tiny", "weights": "00ff", "size": [224, 224], "licence": "Apache-2.0"}
    return FeaturePlan(**{**settings, "vision": vision, "source": {"spec": "world:train", "list": "ab"}, **changes})


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


def write_store(path, plan, patches, globals, valid):
    writer = FeatureWriter(path, plan)
    if plan.dtype == "int8":
        sample = patches[valid != 0].flatten(0, 1)
        writer.set_stats(sample.mean(0), sample.std(0))
    for shard in writer.todo():
        rows = slice(plan.rows(shard).start, plan.rows(shard).stop)
        writer.write(shard, patches[rows], globals[rows], valid[rows])
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
        room = FileRoom(4, part[0].nbytes)
        room.rows[: len(part)] = part.reshape(len(part), -1).view(np.uint8)
        data, _ = room.contents(len(part))
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


# the plan


@pytest.mark.parametrize("size", [(1, 8), (16, 128), (256, 768), (1369, 1024), (65536, 4096)], ids=str)
def test_shard_size_rule(size):
    patches, channels = size
    for n in [*range(1, 300), 1000, 4097, 5000, 61439, 61440, 61441, 118_287, 10**6, 10**8]:
        plan = FeaturePlan(images=n, patches=patches, channels=channels, grid=(1, patches))
        S = plan.shard_images
        assert S & (S - 1) == 0 and 1 <= S <= 4096
        assert n < 64 or plan.shards >= 16
        assert S == 1 or S * plan.bytes_per_image <= SHARD_BYTES * 2**0.5
        # twice as many would be too many: for 128 MiB, for 4096, or for 16 shards
        too_long = 2 * S * plan.bytes_per_image > SHARD_BYTES * 2**0.5
        assert too_long or 2 * S > 4096 or -(-n // (2 * S)) < 16
        assert [plan.rows(0).start, plan.rows(plan.shards - 1).stop] == [0, n]
        assert len(plan.rows(plan.shards - 1)) == n - (plan.shards - 1) * S


def test_shard_size_of_coco():
    plan = FeaturePlan(images=118_287, patches=256, channels=768, grid=(16, 16))
    assert (plan.shard_images, plan.shards, plan.rows(231)) == (512, 232, range(118_272, 118_287))
    assert plan.bytes_per_image == 256 * 768 + 256 * 2 + 768 * 2 + 1


def test_a_plan_survives_json_and_keeps_its_identity():
    plan = small_plan()
    again = FeaturePlan.from_json(plan.to_json())
    assert again == plan and again.identity == plan.identity
    # changes only with the bytes that a plan promises: a store that exists must stay readable
    assert plan.identity == "411a4cecfaae9eb1725d097654ab4a235e3211f5d1d8a7c5a26e70d139cadbb3"


def test_every_field_is_part_of_the_identity():
    plan = small_plan()
    changes = dict(images=71, patches=8, grid=(3, 2), channels=17, globals=("cls",), dtype="float16", vision={},
                   source={}, order_seed=4)  # fmt: skip
    others = [small_plan(**{name: value, **({"grid": (2, 4)} if name == "patches" else {})})
              for name, value in changes.items()]  # fmt: skip
    assert len({plan.identity, *(other.identity for other in others)}) == len(changes) + 1
    assert set(changes) == set(plan.to_json())


def test_differences_name_the_keys_and_both_values():
    other = small_plan(channels=17, vision={"model": "large", "weights": "00ff", "size": [224, 224]})
    assert differences(small_plan(), other) == [
        "channels is 16, now 17",
        'vision.licence is "Apache-2.0", now absent',
        'vision.model is "tiny", now "large"',
    ]
    assert differences(other, other) == []


@pytest.mark.parametrize(
    "wrong", [dict(images=0), dict(grid=(2, 2)), dict(dtype="fp8"), dict(globals=("cls", "cls"))], ids=str
)
def test_an_impossible_plan_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))[:4]):
        small_plan(**wrong)


def test_the_order_is_a_fixed_permutation():
    order = small_plan(images=1000, order_seed=7).order()
    assert order.dtype == np.int64
    assert np.array_equal(np.sort(order), np.arange(1000))
    assert order[:6].tolist() == [187, 639, 56, 213, 630, 506]
    assert not np.array_equal(order, small_plan(images=1000, order_seed=8).order())
    # pseudo-random: neighbours in the source lie far apart
    assert abs(np.corrcoef(order, np.arange(1000))[0, 1]) < 0.1


# what comes back


def test_int8_vectors_come_back_within_the_promised_error(tmp_path):
    plan = small_plan(images=64, patches=64, grid=(8, 8), channels=384)
    patches, globals, valid = features(plan)
    store = write_store(tmp_path / "s", plan, patches, globals, valid)
    found = store.load().take(torch.arange(64))
    lost = 1 - F.cosine_similarity(found.double(), patches.double(), dim=-1)[valid != 0]
    assert lost.mean() <= 1e-4
    assert lost.max() <= 1e-3


def test_float16_vectors_come_back_exactly(tmp_path):
    plan = small_plan(dtype="float16")
    patches, globals, valid = features(plan)
    store = write_store(tmp_path / "s", plan, patches, globals, valid)
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
    patches, globals, _ = features(plan)
    patches[1], globals[1] = torch.nan, torch.inf
    store = write_store(tmp_path / "s", plan, patches, globals, torch.tensor([1, 0, 1, 1]))
    assert not store.load().tokens[1].any()
    with pytest.raises(ValueError, match="NaN"):
        FeatureWriter(tmp_path / "s", plan).write(0, patches, globals, torch.ones(4))


def test_globals_are_chosen_by_name(stored):
    store, _, globals, valid = stored
    rows = torch.tensor([64, 2])
    assert torch.equal(store.globals(rows, "patch-mean"), globals[rows, 1].half())
    assert torch.equal(store.globals()[valid != 0], globals[valid != 0, 0].half())
    with pytest.raises(UserError, match='did you mean "patch-mean"'):
        store.globals(name="patch_mean")


def test_info_tells_what_the_store_holds(stored):
    store, _, _, valid = stored
    info = store.info()
    assert (info["images"], info["valid"], info["model"], info["licence"]) == (70, valid.sum(), "tiny", "Apache-2.0")
    assert info["finished"] and info["shards"] == info["shards_written"] == 18
    assert info["bytes"] == store.bytes == sum(f.stat().st_size for name in store.plan.arrays
                                               for f in (store.path / "features" / name / "c").rglob("*")
                                               if f.is_file())  # fmt: skip
    assert store.verify() == []


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


def test_a_store_without_global_vectors(tmp_path):
    plan = small_plan(images=9, globals=())
    patches, _, valid = features(plan)
    store = write_store(tmp_path / "s", plan, patches, torch.zeros(9, 0, 16), valid)
    with pytest.raises(UserError, match="there are: none"):
        store.globals()


# captions and concepts

CAPTIONS = (["a red ball", "zwei Bälle", ""], [[1, 5, 6, 2], [1, 7, 2], [1, 2]])
BANK = {"identity": "c0ffee" + 58 * "0", "names": ["ball", "dog"], "aliases": [[], []], "origin": ["captions"] * 2}


def with_texts(store, bank=BANK, parser="bank"):
    below = FeatureWriter(store, small_plan()).plan.identity
    captions = write_captions(store, torch.tensor([69, 0, 0]), *CAPTIONS, [f"{i:03d}.jpg" for i in range(70)], below)
    return captions, write_concepts(store, bank, [0, 1, 1], [0, 1, 0], [2, 1, 3, 1], [0, 1, 3, 4], parser, captions)


def test_captions_and_concepts_come_back(tmp_path):
    identities = with_texts(tmp_path)
    captions, concepts = read_captions(tmp_path), read_concepts(tmp_path)
    assert captions.texts == CAPTIONS[0] and captions.row.tolist() == [69, 0, 0]
    assert captions.ids.tolist() == sum(CAPTIONS[1], []) and captions.offset.tolist() == [0, 4, 7, 9]
    assert captions.images[69] == "069.jpg"
    assert (concepts.bank, concepts.parser) == (BANK, "bank")
    assert (concepts.caption.tolist(), concepts.name.tolist()) == ([0, 1, 1], [0, 1, 0])
    assert (concepts.token.tolist(), concepts.offset.tolist()) == ([2, 1, 3, 1], [0, 1, 3, 4])
    assert [t.dtype for t in (captions.row, captions.ids, captions.offset)] == [torch.int64, torch.int32, torch.int64]
    assert {t.dtype for t in (concepts.caption, concepts.name, concepts.token)} == {torch.int32}
    assert concepts.offset.dtype == torch.int64
    assert (captions.identity, concepts.identity) == identities
    assert with_texts(tmp_path) == identities  # once more: the same layers, replaced
    assert sorted(p.name for p in tmp_path.iterdir()) == ["captions", "concepts", "features"]


def test_empty_text_layers(tmp_path):
    identity = write_captions(tmp_path, [], [], [], ["a"], "f")
    write_concepts(tmp_path, BANK, [], [], [], [0], "bank", identity)
    assert read_captions(tmp_path).offset.tolist() == [0] == read_concepts(tmp_path).offset.tolist()


def test_one_of_several_banks_is_named(tmp_path):
    captions, _ = with_texts(tmp_path)
    other = {"identity": "beef" + 60 * "0", "names": ["cat"], "origin": "coco.txt"}
    write_concepts(tmp_path, other, [], [], [], [0], "spacy:en", captions)
    assert [b["origin"] for b in list_concepts(tmp_path)] == ["coco.txt", "captions"]
    with pytest.raises(
        UserError, match=r"several concept banks.*beef00000000 from coco.txt.*c0ffee000000 from captions"
    ):
        read_concepts(tmp_path)
    assert read_concepts(tmp_path, "beef").bank == other
    with pytest.raises(UserError, match="no concept bank 'dead'"):
        read_concepts(tmp_path, "dead")
    info = store_info(tmp_path)
    assert (info["captions"], len(info["banks"]), info["finished"]) == (3, 2, False)


def test_a_bank_parsed_anew_replaces_its_mentions(tmp_path):
    _, first = with_texts(tmp_path)
    _, second = with_texts(tmp_path, parser="spacy:en")
    assert first != second
    assert read_concepts(tmp_path).parser == "spacy:en" and len(list_concepts(tmp_path)) == 1


def test_other_captions_are_refused_and_orphans_noticed(tmp_path):
    with_texts(tmp_path)
    below = small_plan().identity
    with pytest.raises(UserError, match="holds other captions: captions is 3, now 1"):
        write_captions(tmp_path, [0], ["x"], [[1, 2]], ["a"] * 70, below)
    (tmp_path / "captions").rename(tmp_path / "old")
    write_captions(tmp_path, [0], ["x"], [[1, 2]], ["a"] * 70, below)
    with pytest.raises(UserError, match="was made for captions .*fastzss-cache concepts"):
        read_concepts(tmp_path)
    (tmp_path / "captions").rename(tmp_path / "older")
    write_captions(tmp_path, [0], ["x"], [[1, 2]], ["a"] * 70, "0123")
    with pytest.raises(UserError, match="was made for features 0123"):
        read_captions(tmp_path)


@pytest.mark.parametrize(
    "wrong", [dict(offset=[0, 1]), dict(offset=[0, 3, 1, 4]), dict(name=[0, 1]), dict(token=[1.5] * 4)], ids=str
)
def test_mentions_that_do_not_fit_are_refused(tmp_path, wrong):
    right = dict(caption=[0, 1, 1], name=[0, 1, 0], token=[2, 1, 3, 1], offset=[0, 1, 3, 4])
    with pytest.raises(ValueError):
        write_concepts(tmp_path, BANK, **{**right, **wrong}, parser="bank", captions_identity="c")
