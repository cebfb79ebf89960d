"""The forms of a store: the same numbers whatever they lie in, other libraries read them, and convert loses nothing."""

import os
import shutil
import tarfile
import threading

import numpy as np
import pytest
import torch
import webdataset
import zarr
from helpers import stores as small
from zarr.codecs import ZstdCodec

from fastzss.base.errors import UserError
from fastzss.store.commits import choose_form
from fastzss.store.features import FeatureWriter, ShardWriter
from fastzss.store.forms import rows as store_rows
from fastzss.store.forms.archive import LEVEL
from fastzss.store.plan import FeaturePlan
from fastzss.store.reading.reader import PatchStore
from fastzss.store.reading.resident import read_to_device
from fastzss.store.upkeep.info import store_info
from fastzss.store.upkeep.origin import write_origin
from fastzss.store.upkeep.transfer import convert, merge
from fastzss.store.upkeep.verify import verify

HALF = FeaturePlan.from_json({**small.PLAN.to_json(), "dtype": "float16", "globals": ["cls", "patch-mean"]})
PLANS = {"int8": small.PLAN, "float16": HALF}


@pytest.fixture(scope="module", params=PLANS)
def stores(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("forms")
    return {form: small.write_store(folder / form, PLANS[request.param], form) for form in small.FORMS}


@pytest.fixture(scope="module")
def ints(tmp_path_factory):
    return small.write_store(tmp_path_factory.mktemp("ints") / "s")


def test_all_forms_give_the_same_numbers_under_the_same_identity(stores):
    right = PatchStore(stores["zarr"])
    rows = [21, 0, 3, 3, 8]
    for form in ("zstd", "webdataset"):
        store = PatchStore(stores[form])
        assert store.identity == right.identity
        assert (store_info(store.path)["format"], store_info(store.path)["codec"]) == small.FORMS[form]
        for one, two in zip(
            store.load()[:2] + store.take(rows)[:2], right.load()[:2] + right.take(rows)[:2], strict=True
        ):
            assert (one is None and two is None) or torch.equal(one, two)
        assert torch.equal(store.globals(), right.globals()) and torch.equal(store.valid(), right.valid())
        assert verify(store.path, 3) == []


@pytest.mark.parametrize("form", small.FORMS)
def test_several_threads_read_the_same_and_say_what_is_damaged(stores, form, tmp_path, monkeypatch):
    plain = PatchStore(stores[form])
    whole, rows = plain.load(), np.random.default_rng(0).permutation(22)
    for module, name, value in ((store_rows, "SHARED", 0), (store_rows, "WIDE", 0), (store_rows, "cores", lambda: 3)):
        monkeypatch.setattr(module, name, value)
    before, seen = threading.active_count(), set()
    read = store_rows.Rows._target
    monkeypatch.setattr(store_rows.Rows, "_target", lambda *a: seen.add(threading.get_ident()) or read(*a))
    store = PatchStore(stores[form])
    assert store.plan.shards > 1
    for found, expected in ((store.load(), whole), (store.take(rows), plain.take(rows))):
        assert torch.equal(found.tokens, expected.tokens)
        assert found.scale is None or torch.equal(found.scale, expected.scale)
    there = torch.empty_like(whole.tokens)
    read_to_device(store, "tokens", there)  # to this device, as it would be to another
    assert torch.equal(there, whole.tokens)
    assert seen - {threading.get_ident()}, "other threads have read"
    assert threading.active_count() == before

    shutil.copytree(stores[form], tmp_path / "s")
    store = PatchStore(tmp_path / "s")
    for file in {store._shard("tokens", shard).path for shard in range(store.plan.shards)}:
        data = bytearray(file.read_bytes())
        at = int(store._shard("tokens", 0).offsets[1]) + 3
        data[at] ^= 1
        file.write_bytes(data)
    for work in (store.load, lambda: store.take(rows), lambda: read_to_device(store, "tokens", there)):
        with pytest.raises(UserError, match="is damaged"):
            work()
    assert threading.active_count() == before


def test_the_webdataset_library_reads_the_tars_as_samples(stores):
    store = PatchStore(stores["webdataset"])
    tars = sorted(map(str, (store.path / "features" / "shards").glob("*.tar")))
    dataset = webdataset.WebDataset(tars, shardshuffle=False).decode()
    whole, valid = store.load(), store.valid()
    samples = list(dataset)
    assert [int(sample["__key__"]) for sample in samples] == list(range(22))
    for row, sample in enumerate(samples):
        assert np.array_equal(sample["tokens.npy"], whole.tokens[row].numpy())
        assert whole.scale is None or np.array_equal(sample["scale.npy"], whole.scale[row].numpy())
        assert np.array_equal(sample["global.npy"][0], store.globals()[row].numpy())
        assert sample["valid.npy"] == valid[row]
    with tarfile.open(tars[0]) as tar:  # as strict as Python's own
        assert len(tar.getmembers()) == len(store.plan.arrays) * 4


@pytest.mark.filterwarnings("ignore:Object at .* is not recognized as a component of a Zarr hierarchy")
def test_zarr_python_reads_archives_and_writes_the_same_bytes(stores, tmp_path):
    store = PatchStore(stores["zstd"])
    group, whole = zarr.open_group(store.path / "features", mode="r"), store.load()
    assert np.array_equal(group["tokens"][:], whole.tokens.numpy())
    assert np.array_equal(group["global"][:, 0], store.globals().numpy())
    for name, (shape, dtype, chunk) in store.plan.arrays.items():
        theirs = zarr.create_array(
            tmp_path / name, shape=shape, dtype=dtype, chunks=chunk, shards=(4, *chunk[1:]),
            compressors=[ZstdCodec(level=LEVEL, checksum=True)], config={"write_empty_chunks": True},
        )  # fmt: skip
        theirs[:] = group[name][:]
        ours, found = ({k: v for k, v in small.tree(p).items() if k.startswith("c/")}
                       for p in (store.path / "features" / name, tmp_path / name))  # fmt: skip
        assert ours == found


@pytest.mark.parametrize("there, back", [("zarr", "webdataset"), ("webdataset", "zarr"), ("zarr", "zstd")])
def test_converting_there_and_back_gives_the_same_files(stores, tmp_path, there, back):
    other, again = tmp_path / "other", tmp_path / "again"
    info = convert(stores[there], other, *small.FORMS[back])
    assert info["finished"] and info["identity"] == store_info(stores[there])["identity"]
    assert small.tree(other) == small.tree(stores[back]), "as if it had been extracted so"
    convert(other, again, *small.FORMS[there])
    assert small.tree(again) == small.tree(stores[there])


def test_a_stopped_conversion_goes_on(ints, tmp_path, monkeypatch):
    commit, done = ShardWriter.commit, []

    def stop(part):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(part.shard)
        commit(part)

    monkeypatch.setattr(ShardWriter, "commit", stop)
    with pytest.raises(KeyboardInterrupt):
        convert(ints, tmp_path / "out", "webdataset")
    assert store_info(tmp_path / "out")["shards_written"] == 2
    monkeypatch.setattr(ShardWriter, "commit", lambda part: (done.append(part.shard), commit(part)))
    convert(ints, tmp_path / "out", "webdataset")
    assert done == [0, 1, 2, 3, 4, 5]
    assert small.tree(tmp_path / "out") == small.tree(small.write_store(tmp_path / "right", form="webdataset"))


def test_damage_is_not_converted(ints, tmp_path):
    shutil.copytree(ints, tmp_path / "s")
    path = tmp_path / "s/features/tokens/c/4/0/0"
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="tokens/c/4/0/0: image row 17 .* is damaged"):
        convert(tmp_path / "s", tmp_path / "out", "webdataset")
    assert not store_info(tmp_path / "out")["finished"]


def test_conversions_that_make_no_sense_are_refused(ints, tmp_path):
    for arguments, sentence in {
        (tmp_path / "out", "tar"): 'unknown format "tar"; expected webdataset, zarr',
        (tmp_path / "out", "zar"): 'unknown format "zar" .did you mean "zarr"',
        (tmp_path / "out", None, "gzip"): 'unknown codec "gzip"',
        (tmp_path / "out", "webdataset", "zstd"): "--codec zstd goes with --format zarr only",
        (ints, "webdataset"): "is the store itself; a store is never changed in place",
    }.items():
        with pytest.raises(UserError, match=sentence):
            convert(ints, *arguments)
    unfinished = small.write_store(tmp_path / "unfinished", until=2)
    with pytest.raises(UserError, match="not finished: 2 of 6"):
        convert(unfinished, tmp_path / "out", "webdataset")
    assert not (tmp_path / "out").exists()


def test_a_store_goes_on_in_the_form_it_was_begun_in(tmp_path):
    begun = small.write_store(tmp_path / "s", until=2, form="webdataset")
    with pytest.raises(UserError, match="its shards are webdataset, codec none, and zarr, codec none, was asked for"):
        FeatureWriter(begun, small.PLAN, choose_form("zarr"))
    assert FeatureWriter(begun, small.PLAN).form.format == "webdataset"


def test_a_lost_plan_is_not_replaced_by_another(ints, tmp_path):
    shutil.copytree(ints, tmp_path / "s")
    (tmp_path / "s/features/plan.json").unlink()
    with pytest.raises(UserError, match="is missing, and the shards that are there were made by another plan"):
        FeatureWriter(tmp_path / "s", HALF)
    FeatureWriter(tmp_path / "s", small.PLAN)
    assert small.tree(tmp_path / "s") == small.tree(ints)


# merge


def part(path, shards, form="zarr", seed=0, plan=small.PLAN):
    """A store with some of the shards."""
    patches, global_vectors, valid = small.features(plan)
    writer = FeatureWriter(path, plan, choose_form(*small.FORMS[form]))
    if plan.dtype == "int8":
        writer.set_stats(patches.mean((0, 1)) + seed, patches.std((0, 1)))
    for shard in shards:
        rows = list(plan.rows(shard))
        writer.write(shard, patches[rows], global_vectors[rows], valid[rows])
    write_origin(path, "shipped", "world:train")
    return path


@pytest.mark.parametrize("form", small.FORMS)
def test_parts_are_joined_without_rewriting(tmp_path, form):
    a, b, c = (
        part(tmp_path / name, shards, form) for name, shards in {"a": [0, 3], "b": [1, 4, 3], "c": [2, 5]}.items()
    )
    info = merge([a, b], tmp_path / "s")
    assert not info["finished"] and info["shards_written"] == 4
    small.write_texts(c)
    info = merge([a, b, c], tmp_path / "s")
    assert info["finished"] and info["captions"] == 2 and len(info["banks"]) == 1
    assert small.tree(tmp_path / "s") == small.tree(small.write_store(tmp_path / "right", form=form))
    for path in (a / "features").rglob("*"):
        if path.is_file() and path.suffix != ".json" and "stats" not in str(path):
            assert os.path.samefile(path, tmp_path / "s" / path.relative_to(a)), "a link, no copy"
    shutil.rmtree(a)
    assert verify(tmp_path / "s", 3) == []


def test_parts_on_another_file_system_are_copied_and_checked(tmp_path, monkeypatch):
    a = part(tmp_path / "a", range(6))
    link = os.link
    monkeypatch.setattr(
        os, "link", lambda s, t: link(s, t) if "a/" not in str(s) else (_ for _ in ()).throw(OSError(18))
    )
    assert merge([a], tmp_path / "s")["shards_written"] == small.PLAN.shards
    assert not os.path.samefile(a / "features/valid/c/0", tmp_path / "s/features/valid/c/0")
    data = bytearray((a / "features/tokens/c/1/0/0").read_bytes())
    data[3] ^= 1
    (a / "features/tokens/c/1/0/0").write_bytes(data)
    with pytest.raises(UserError, match="a/features/tokens/c/1/0/0: is damaged"):
        merge([a], tmp_path / "t")


def test_parts_that_do_not_fit_are_refused_with_the_reason(tmp_path):
    a = part(tmp_path / "a", [0])
    other = FeaturePlan.from_json({**small.PLAN.to_json(), "order_seed": 7})
    for b, sentence in {
        part(tmp_path / "b", [1], seed=1): "quantised with other statistics.*--stats-from",
        part(tmp_path / "c", [1], form="webdataset"): "its shards are webdataset, codec none, and those of .*convert",
        part(tmp_path / "d", [1], plan=other): "is no part of the same store as .*order_seed is 0, now 7",
    }.items():
        with pytest.raises(UserError, match=sentence):
            merge([a, b], tmp_path / "s")
    with pytest.raises(UserError, match="is the store itself"):
        merge([a, part(tmp_path / "e", [1])], a)
    with pytest.raises(UserError, match="no such folder"):
        merge([a, tmp_path / "none"], tmp_path / "s")
    with pytest.raises(UserError, match="has no shards yet"):
        merge([part(tmp_path / "f", [])], tmp_path / "s")
    assert not (tmp_path / "s").exists()
