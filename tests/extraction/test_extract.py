"""Extraction: what it refuses, what it forecasts, parts, statistics, its commands."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.stores import tree

from fastzss import cli
from fastzss.backbones.vision import Vision
from fastzss.base.errors import UserError
from fastzss.base.files import locked
from fastzss.extraction import features as looking
from fastzss.extraction.flow import extract as make
from fastzss.extraction.settings import ExtractConfig
from fastzss.store.plan import FeaturePlan
from fastzss.store.reading.reader import PatchStore
from fastzss.store.upkeep.info import store_info
from fastzss.store.upkeep.repair import repair
from fastzss.store.upkeep.transfer import merge
from fastzss.store.upkeep.verify import verify

BIN = Path(sys.executable).parent
FLOW = sys.modules["fastzss.extraction.flow"]


def config(path, n=24, **changes):
    return ExtractConfig(**{"source": f"world:train,n={n}", "store": path, "parser": "bank", "batch": 5, **changes})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "s"
    make(config(path))
    return path


@pytest.fixture(autouse=True)
def no_sync(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # nothing here cuts the power


# what it makes


def test_parts_made_apart_and_joined_are_the_whole(whole, tmp_path):
    infos = [make(config(tmp_path / f"part-{i}", part=f"{i}/3")) for i in (1, 2, 3)]
    assert sum(info["shards_written"] for info in infos) == infos[0]["shards"]
    assert not any(info["finished"] or info["captions"] for info in infos)
    merge([tmp_path / f"part-{i}" for i in (1, 2, 3)], tmp_path / "s")
    make(config(tmp_path / "s"))  # adds captions and concepts, looks at nothing
    assert tree(tmp_path / "s") == tree(whole)


def test_nothing_is_looked_at_twice(whole, tmp_path, monkeypatch):
    seen = []
    look = Vision.__call__
    monkeypatch.setattr(Vision, "__call__", lambda self, x: (seen.append(len(x)), look(self, x))[1])
    make(config(tmp_path / "s"))
    assert sum(seen) == 24  # those of the statistics are remembered
    seen.clear()
    make(config(tmp_path / "s"))
    assert not seen
    monkeypatch.setattr(looking, "REMEMBERED_BYTES", 6 * 256 * 128 * 4)  # one shard of four
    make(config(tmp_path / "t"))
    assert sum(seen) == 24 + 20
    assert tree(tmp_path / "t") == tree(tmp_path / "s") == tree(whole)


def test_lost_statistics_are_computed_again_and_no_shard_is_lost(tmp_path):
    make(config(tmp_path / "s"))
    right = tree(tmp_path / "s")
    (tmp_path / "s/features/stats/mean/c/0").write_bytes(b"")
    damages = verify(tmp_path / "s", 0)
    assert [d.file for d in damages] == ["features/stats/mean/c/0"]
    repair(tmp_path / "s", damages)
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "s/features/tokens").rglob("*") if p.is_file()}
    make(config(tmp_path / "s"))
    assert tree(tmp_path / "s") == right and times == {p: p.stat().st_mtime_ns for p in times}


def test_only_the_broken_shard_is_looked_at_again(tmp_path, monkeypatch):
    make(config(tmp_path / "s"))
    right = tree(tmp_path / "s")
    path = tmp_path / "s/features/tokens/c/2/0/0"
    data = bytearray(path.read_bytes())
    data[99] ^= 4
    path.write_bytes(data)
    repair(tmp_path / "s", verify(tmp_path / "s", 2))
    seen, look = [], Vision.__call__
    monkeypatch.setattr(Vision, "__call__", lambda self, x: (seen.append(len(x)), look(self, x))[1])
    make(config(tmp_path / "s"))
    assert sum(seen) == 4 and tree(tmp_path / "s") == right


def test_statistics_of_another_store(whole, tmp_path):
    make(config(tmp_path / "s", n=9, stats_from=whole))
    stats, theirs = (PatchStore(p).stats for p in (tmp_path / "s", whole))
    assert torch.equal(stats.mean, theirs.mean) and torch.equal(stats.std, theirs.std)
    own = make(config(tmp_path / "own", n=9))
    assert own["identity"] == store_info(tmp_path / "s")["identity"]  # statistics are no part of it
    with pytest.raises(UserError, match="own: has other statistics already"):
        make(config(tmp_path / "own", n=9, stats_from=whole))
    make(config(tmp_path / "half", n=3, dtype="float16"))
    with pytest.raises(UserError, match="half: it has no statistics"):
        make(config(tmp_path / "t", n=9, stats_from=tmp_path / "half"))
    with pytest.raises(UserError, match="made otherwise: weights is"):
        make(config(tmp_path / "t", n=9, stats_from=whole, random_weights=True))
    with pytest.raises(ValueError, match="--stats-from goes with --dtype int8"):
        config(tmp_path / "t", stats_from=whole, dtype="float16")
    assert not (tmp_path / "t").exists()


# before the work


def test_a_forecast_runs_no_model_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(Vision, "__call__", None)
    told = make(config(tmp_path / "s", n=1000), dry_run=True)
    plan = FeaturePlan(images=1000, patches=256, channels=128, grid=(16, 16), globals=("cls", "patch-mean"))
    assert (told["images"], told["shards"], told["bytes"]) == (1000, plan.shards, 1000 * plan.bytes_per_image)
    assert told["free"] > 0 and 0 < told["seconds"] < 10_000
    assert not (tmp_path / "s").exists()


def test_no_parser_is_loaded_where_no_bank_is_wanted(tmp_path, monkeypatch):
    def unwanted(spec):
        raise AssertionError(f"parser {spec} was loaded")

    with pytest.raises(UserError, match='unknown parser "nltk"'):
        make(config(tmp_path / "s", n=3, bank="none", parser="nltk"))
    monkeypatch.setattr(FLOW, "choose_parser", unwanted)
    for parser in ("auto", "spacy:en_core_web_trf"):
        assert make(config(tmp_path / "s", n=3, bank="none", parser=parser))["banks"] == []


def test_another_plan_is_refused_and_the_keys_are_named(whole):
    before = tree(whole)
    named = 'dtype is "int8", now "float16"; images is 24, now 25; order_seed is 0, now 3; source.list is .*source.spec'
    with pytest.raises(UserError, match=named):
        make(config(whole, n=25, dtype="float16", seed=3))
    with pytest.raises(UserError, match="its shards are zarr, codec none, and webdataset, codec none, was asked for"):
        make(config(whole, format="webdataset"))
    assert tree(whole) == before


def test_a_folder_that_is_no_store_is_left_alone(tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s/thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="s: is no store, and holds other files .thesis.tex.. Give a folder"):
        make(config(tmp_path / "s", n=3))
    assert tree(tmp_path / "s") == {"thesis.tex": b"years of work"}
    with pytest.raises(UserError, match='unknown format "tar"'):
        make(config(tmp_path / "t", n=3, format="tar"))
    for part in ("0/2", "3/2", "1", "a/b", "1/0"):
        with pytest.raises(ValueError, match="expected I/N"):
            config(tmp_path, part=part)


def test_a_second_writer_is_refused_while_the_first_is_at_work(whole):
    with locked(whole / "features", whole):
        with pytest.raises(UserError, match="another process is writing this store"):
            make(config(whole))
        with pytest.raises(UserError, match="another process is writing"):
            repair(whole, [])
    make(config(whole))


# a full disk


def test_a_full_disk_stops_with_a_sentence_and_goes_on(whole, tmp_path):
    """On a file system that is really full."""
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", small], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        with pytest.raises(UserError, match="the disk is full"):
            make(config(small / "s"))
        info = store_info(small / "s")
        assert 0 < info["shards_written"] < info["shards"] and not list((small / "s").rglob("*.tmp"))
        assert verify(small / "s", 3) == []
        subprocess.run(["mount", "-o", "remount,size=64m", small], check=True)
        make(config(small / "s"))
        assert tree(small / "s") == tree(whole)
    finally:
        subprocess.run(["umount", small])


# several processes, as users start them

LAUNCHERS = ["torchrun --nproc_per_node 2 --no-python", "accelerate launch --multi_gpu --num_processes 2"]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_processes_that_were_launched_write_what_one_writes(whole, tmp_path, launcher):
    program, *flags = launcher.split()
    command = [BIN / program, *flags, BIN / "fastzss-cache", "extract", "world:train,n=24", tmp_path / "s"]
    done = subprocess.run([*command, "--parser", "bank", "--batch", "5", "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('"identity"') == 2, "one process speaks: of the store and of its bank"
    assert tree(tmp_path / "s") == tree(whole)
    wrong = subprocess.run([*command, "--seed", "9"], capture_output=True, text=True)
    assert wrong.returncode != 0 and wrong.stderr.count("order_seed is 0, now 9") == 1


@pytest.mark.slow
def test_the_launch_that_would_start_one_process_is_refused(tmp_path):
    command = [BIN / "accelerate", "launch", "--cpu", "--num_processes", "2", BIN / "fastzss-cache", "extract"]
    done = subprocess.run([*command, "world:train,n=3", tmp_path / "s"], capture_output=True, text=True)
    assert done.returncode != 0 and "torchrun --nproc_per_node" in done.stderr
    assert not (tmp_path / "s").exists()


# the commands


def call(*argv):
    return cli.cache_main([str(a) for a in argv])


def test_verify_repair_convert_and_merge_as_commands(tmp_path, capsys):
    store = tmp_path / "s"
    make(config(store, n=9))
    assert call("verify", store, "--level", 3) == 0
    path = store / "features/valid/c/1"
    path.write_bytes(path.read_bytes()[:-1])
    capsys.readouterr()
    assert call("verify", store, "--level", 0, "--json") == 1
    out, err = capsys.readouterr()
    assert '"features/valid/c/1: holds' in out and "(shard 1)" in out and "--repair" in err
    assert call("verify", store, "--repair") == 0
    assert not store_info(store)["finished"] and store_info(store)["shards_written"] == 2
    make(config(store, n=9))
    assert call("convert", store, tmp_path / "w", "--format", "webdataset") == 0
    assert call("convert", tmp_path / "w", tmp_path / "z", "--codec", "zstd") == 2, "webdataset is not compressed"
    assert call("convert", tmp_path / "w", tmp_path / "z", "--format", "zarr", "--codec", "zstd") == 0
    assert call("merge", tmp_path / "z", tmp_path / "m") == 0
    assert tree(tmp_path / "m") == tree(tmp_path / "z")
    for argv in (
        ["verify", tmp_path / "none"],
        ["convert", tmp_path, tmp_path / "x"],
        ["merge", tmp_path, tmp_path / "x"],
    ):
        assert call(*argv) == 1
    assert call("verify", store, "--level", 4) == 2
    assert "--level 4: expected 0, 1, 2 or 3" in capsys.readouterr().err
