"""What goes wrong with a store: kills, other plans, damage, unwritable places.  Nothing is lost, and each is named."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers.stores import PLAN, tree

from fastzss.base.errors import UserError
from fastzss.base.files import json_bytes, read_json, temporary, write_file
from fastzss.store.captions import write_captions
from fastzss.store.features import FeatureWriter
from fastzss.store.mentions import write_concepts
from fastzss.store.plan import FeaturePlan
from fastzss.store.reading.reader import PatchStore
from fastzss.store.upkeep.info import store_info
from fastzss.store.upkeep.verify import verify


def write_store(path, plan=PLAN, until=None):
    writer = FeatureWriter(path, plan)
    patches = F.normalize(torch.randn(22, 4, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    writer.set_stats(patches.mean((0, 1)), patches.std((0, 1)))
    for shard in writer.todo()[:until]:
        rows = slice(plan.rows(shard).start, plan.rows(shard).stop)
        writer.write(shard, patches[rows], patches[rows, :1])
    if until is None:
        writer.finish()
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("finished") / "s")


@pytest.fixture
def store(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "s"))


def flip(path, at=None):
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if at is None else at] ^= 1
    path.write_bytes(data)


# what others left, and a full disk


def test_what_a_killed_writer_left_is_swept_but_not_the_work_of_a_living_one(store):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    ours, theirs = (temporary(store / "features/tokens/c/0/0/0").name.replace(str(os.getpid()), str(pid))
                    for pid in (dead.pid, os.getppid()))  # fmt: skip
    for name in (ours, theirs):
        (store / "features/tokens/c/0/0" / name).write_bytes(b"half")
    (store / ours).mkdir()
    FeatureWriter(store, PLAN)
    assert [p.name for p in store.rglob("*.tmp")] == [theirs]
    os.utime(store / "features/tokens/c/0/0" / theirs, (0, 0))  # nothing has happened to it for years
    FeatureWriter(store, PLAN)
    assert not list(store.rglob("*.tmp"))


def test_a_full_disk_is_one_sentence_and_loses_nothing(tmp_path, monkeypatch):
    store = write_store(tmp_path / "s", until=2)
    before = tree(store)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        with pytest.raises(UserError, match="cannot write .*/s/features/.*: the disk is full. Free some space"):
            write_store(store)
    assert {name: data for name, data in tree(store).items() if name in before} == before
    assert not list(store.rglob("*.tmp"))
    assert len(PatchStore(write_store(store))) == 22


# refusals


def test_another_plan_is_refused_by_the_names_of_its_keys(store):
    other = FeaturePlan.from_json({**PLAN.to_json(), "channels": 16, "vision": {"model": "large"}})
    with pytest.raises(UserError, match=r'channels is 8, now 16; vision.model is "tiny", now "large"\. Give another'):
        FeatureWriter(store, other)
    assert verify(store) == []


def test_an_unfinished_store_is_refused(tmp_path):
    store = write_store(tmp_path / "s", until=2)
    with pytest.raises(UserError, match="not finished: 2 of 6 shards are written. Run the same extract command again"):
        PatchStore(store)
    with pytest.raises(UserError, match="2 of 6 shards are written"):
        FeatureWriter(store, PLAN).finish()
    info = store_info(store)
    assert (info["finished"], info["shards_written"], info["shards"], info["valid"]) == (False, 2, 6, 8)


def test_what_is_no_store_is_refused(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    for name, sentence in (("none", "no such folder"), ("folder", "is no store"), ("file", "is a file")):
        with pytest.raises(UserError, match=f"{name}: .*{sentence}"):
            PatchStore(tmp_path / name)


@pytest.mark.parametrize("name", ["plan.json", "manifest.json"])
def test_a_newer_format_is_refused(store, name):
    path = store / "features" / name
    path.write_bytes(json_bytes({**read_json(path), "version": 2}))
    if name == "plan.json":
        with pytest.raises(UserError, match="version 2.*Install a newer fastzss"):
            FeatureWriter(store, PLAN)
    with pytest.raises(UserError, match=f"{name}: has format version 2.*Install a newer fastzss"):
        PatchStore(store)


def test_a_plan_is_written_once_also_without_hard_links(tmp_path, monkeypatch):
    def link(*args):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", link)
    write_file(tmp_path / "plan.json", b"first", exclusive=True)
    with pytest.raises(FileExistsError):
        write_file(tmp_path / "plan.json", b"second", exclusive=True)
    assert tree(tmp_path) == {"plan.json": b"first"}


def test_a_place_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*/file: there is a file of that name"):
        FeatureWriter(tmp_path / "file" / "store", PLAN)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_place_without_permission_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="cannot write .*: permission is denied. Give a folder"):
        FeatureWriter(tmp_path / "store", PLAN)


# damage

ALL_READ = {"tokens/c/1/0/0": lambda s: s.load(), "scale/c/1/0": lambda s: s.load(),
            "global/c/1/0/0": lambda s: s.globals(), "valid/c/1": lambda s: s.valid()}  # fmt: skip


@pytest.mark.parametrize("name", ALL_READ)
def test_a_flipped_byte_in_a_shard_is_found_when_it_is_read(store, name):
    flip(store / "features" / name, at=0)
    damaged = PatchStore(store)
    with pytest.raises(
        UserError,
        match=rf"{name}: image row 4 \(row 0 of the shard\) is damaged.*verify STORE --repair.*same extract command",
    ):
        ALL_READ[name](damaged)
    (sentence,) = map(str, verify(damaged.path))
    assert name in sentence


def test_a_flipped_byte_is_found_by_take_and_only_in_its_row(store):
    flip(store / "features/tokens/c/2/0/0", at=36 + 7)  # rows of 32 bytes and 4 of checksum
    damaged = PatchStore(store)
    with pytest.raises(UserError, match="tokens/c/2/0/0: image row 9 "):
        damaged.take([3, 9])
    assert damaged.take([8, 10]).tokens.shape == (2, 4, 8)
    assert damaged.take([9], check=False).tokens.shape == (1, 4, 8)


@pytest.mark.parametrize("name", ["plan.json", "manifest.json", "commit/stats.json"])
@pytest.mark.parametrize("at", [0, 0.3, 0.6, -2])
def test_a_flipped_byte_in_json_is_found_at_opening(store, name, at):
    path = store / "features" / name
    flip(path, at=int(at * path.stat().st_size) if 0 < at < 1 else at)
    with pytest.raises(UserError, match=f"features/{name}: is damaged.*Delete it"):
        PatchStore(store)
    path.unlink()  # the advice
    assert verify(write_store(store)) == []


def test_a_flipped_byte_in_statistics_is_found_at_opening(store):
    flip(store / "features/stats/std/c/0")
    for open_it in (PatchStore, lambda path: FeatureWriter(path, PLAN).todo()):
        with pytest.raises(UserError, match="stats/std/c/0: is damaged"):
            open_it(store)


@pytest.mark.parametrize("name", ["commit/000003.json", "tokens/zarr.json", "stats/zarr.json"])
def test_a_flipped_byte_in_what_is_not_read_is_found_by_verify(store, finished, name):
    flip(store / "features" / name)
    (sentence,) = map(str, verify(store))
    assert f"features/{name}: is damaged" in sentence
    if name.startswith("commit"):
        assert FeatureWriter(store, PLAN).todo() == [3]
    write_store(store)
    assert tree(store) == tree(finished)


@pytest.mark.parametrize("name", ["tokens/c/5/0/0", "valid/c/0", "stats/mean/c/0", "zarr.json", "commit/000001.json"])
@pytest.mark.parametrize("harm", ["missing", "empty", "shorter", "longer"])
def test_a_file_of_wrong_size_is_found_at_opening_and_written_again(store, finished, name, harm):
    path = store / "features" / name
    data = path.read_bytes()
    path.unlink()
    if harm != "missing":
        path.write_bytes({"empty": b"", "shorter": data[:-1], "longer": data + b"\0"}[harm])
    found = "is missing" if harm == "missing" else f"holds {path.stat().st_size} bytes"
    with pytest.raises(UserError, match=rf"features/{name}: {found}, and the manifest promises {len(data)}.*Delete it"):
        PatchStore(store)
    if harm != "missing":
        path.unlink()  # the advice
    write_store(store)
    assert tree(store) == tree(finished)


def test_a_shard_that_shrinks_under_an_open_store_is_found(store):
    opened, late, path = PatchStore(store), PatchStore(store), store / "features/tokens/c/1/0/0"
    opened.take([4])  # the file stays open
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(UserError, match="tokens/c/1/0/0: ends before image row 7"):
        opened.load()
    with pytest.raises(UserError, match="tokens/c/1/0/0: ends before image row 5"):
        opened.take([4, 5])
    with pytest.raises(UserError, match="tokens/c/1/0/0: is damaged, or a shard of another store"):
        late.take([4])
    path.unlink()
    with pytest.raises(UserError, match="tokens/c/1/0/0: cannot be read"):
        late.take([4])


def test_other_statistics_make_all_shards_undone(store):
    (store / "features/commit/stats.json").unlink()
    writer = FeatureWriter(store, PLAN)
    writer.set_stats(torch.zeros(8), torch.ones(8))
    assert len(writer.todo()) == PLAN.shards


def test_a_store_that_is_written_again_is_not_finished_meanwhile(store):
    writer = FeatureWriter(store, PLAN)
    patches = F.normalize(torch.ones(4, 4, 8), dim=-1)
    writer.write(1, patches, patches[:, :1])
    with pytest.raises(UserError, match="not finished: 6 of 6"):
        PatchStore(store)
    writer.finish()
    assert verify(store) == []


def test_damage_in_text_layers_is_found_by_name(store):
    below = write_captions(store, [0, 1], ["a", "b"], [[1, 2], [1, 2]], ["x"] * 22, PLAN.identity)
    bank = {"identity": "ab" * 32, "names": ["a"]}
    write_concepts(store, bank, [0], [0], [1], [0, 1], "bank", below)
    opened = PatchStore(store)
    assert len(opened.captions.texts) == 2 and opened.concepts().bank == bank
    captions = ["captions.parquet", "images.parquet", "manifest.json", "plan.json"]
    concepts = ["mentions.parquet", "bank.json", "manifest.json", "plan.json"]
    for read, names in (
        (lambda: PatchStore(store).captions, [f"captions/{name}" for name in captions]),
        (opened.concepts, [f"concepts/abababababab/{name}" for name in concepts]),
    ):
        for name in names:
            intact = (store / name).read_bytes()
            flip(store / name)
            with pytest.raises(UserError, match=f"{name}: is damaged"):
                read()
            (store / name).write_bytes(intact)
    (store / "captions/images.parquet").unlink()
    with pytest.raises(UserError, match="captions/images.parquet: is missing.*Delete the captions folder"):
        _ = PatchStore(store).captions


def test_a_store_without_texts_says_so(store):
    with pytest.raises(UserError, match="has no captions"):
        _ = PatchStore(store).captions
    with pytest.raises(UserError, match="has no concepts"):
        PatchStore(store).concepts()


def test_json_that_is_no_record_of_ours_is_named(tmp_path):
    for data in (b"", b"[]", b"null", b"\xff", b'{"self": 1}', json.dumps({"a": 1}).encode()):
        (tmp_path / "x.json").write_bytes(data)
        with pytest.raises(UserError, match="x.json: is damaged"):
            read_json(tmp_path / "x.json")
