"""The doors as a user meets them: exit codes, one sentence for a mistake, nothing lost by an interruption."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fastzss import cli
from fastzss.store.reading.reader import PatchStore
from fastzss.store.upkeep.info import store_info
from fastzss.training.loop import train
from fastzss.training.settings import TrainConfig

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


PROGRAMS = {
    cli.main: ("fastzss", "demo", "evaluate", "segment"),
    cli.cache_main: ("fastzss-cache", "extract", "concepts", "info"),
}


@pytest.fixture(scope="module")
def run(store, tmp_path_factory):
    out = tmp_path_factory.mktemp("cli") / "run"
    train(
        TrainConfig(
            store=store,
            out=out,
            text="tiny",
            batch=32,
            steps=2,
            device="cpu",
            global_feature="patch-mean",
            memory="none",
        )
    )
    return out


def call(main, *argv):
    return main([str(a) for a in argv])


@pytest.fixture
def said(capsys):
    """What a command wrote: said() -> (stdout, stderr)."""
    return capsys.readouterr


EXTRACT = "extract world:train,n=3 {tmp}/s "
DEVICE = "--device potato: no such device; expected cpu, cuda or cuda:NUMBER"
MISTAKES = {
    "unknown source": (cli.cache_main, "extract wrld:train {tmp}/s", 2, 'unknown source "wrld:train" .did you mean'),
    "a bare folder": (cli.cache_main, "extract {tmp} {tmp}/s", 2, "it is a folder, so write folder:"),
    "no split": (cli.cache_main, "extract world:trian {tmp}/s", 2, 'no split "trian" .did you mean "train"?'),
    "no such folder": (cli.cache_main, "extract folder:{tmp}/no {tmp}/s", 1, "no folder at .*expected a folder"),
    "no images": (cli.cache_main, "extract folder:{tmp} {tmp}/s", 1, r"no images in .*expected files .*\.jpg"),
    "no argument": (cli.cache_main, "extract", 2, "missing: SOURCE, STORE"),
    "a missing one": (cli.cache_main, "extract world:train,n=3", 2, "missing: STORE"),
    "unknown model": (cli.cache_main, EXTRACT + "--model vit_smal", 2, 'unknown model "vit_smal".*expected'),
    "no such weights": (cli.cache_main, EXTRACT + "--weights {tmp}/w", 1, "--weights .*no such file"),
    "no weights to fetch": (
        cli.cache_main, EXTRACT + "--model vit_tiny_patch16_224.augreg_in21k", 1,
        "cannot be fetched.*--weights FILE.*--model tiny",
    ),
    "unknown parser": (cli.cache_main, EXTRACT + "--parser nltk", 2, 'unknown parser "nltk"'),
    "missing pipeline": (
        cli.cache_main, EXTRACT + "--parser spacy:en_core_web_xx", 1, "python -m spacy download",
    ),
    "no such bank": (cli.cache_main, EXTRACT + "--bank {tmp}/b.txt", 1, "b.txt: cannot be read"),
    "store in a file": (cli.cache_main, "extract world:train,n=3 {tmp}/file/s", 1, "cannot write .*file"),
    "number that is none": (cli.cache_main, EXTRACT + "--batch many", 2, "batch is 'many'; expected int"),
    "config that is none": (cli.cache_main, EXTRACT + "--config {tmp}/c", 2, "c: cannot be read"),
    "info of nothing": (cli.cache_main, "info {tmp}/s", 1, "there is no such folder"),
    "info of no store": (cli.cache_main, "info {tmp}", 1, "no store|not a store|is no"),
    "concepts of nothing": (cli.cache_main, "concepts {tmp}/s --bank captions", 1, "captions"),
    "missing run": (cli.main, "segment {tmp}/r {tmp}/i.png --classes dog", 1, "no such image"),
    "missing run, image there": (cli.main, "segment {tmp}/r {image} --classes dog", 1, "no such run"),
    "evaluate missing run": (cli.main, "evaluate {tmp}/r", 1, "no such run"),
    "folder that is no run": (cli.main, "evaluate {tmp}", 1, "is no run"),
    "empty class list": (cli.main, "segment {run} {image} --classes ,", 2, "class list is empty"),
    "no class list": (cli.main, "segment {run} {image}", 2, "either --classes .* or --classes-file FILE"),
    "two class lists": (cli.main, "segment {run} {image} --classes a --classes-file {tmp}/file", 2, "either --classes"),
    "semicolons": (cli.main, "segment {run} {image} --classes a;b", 2, 'did you mean "a, b"'),
    "file of classes": (cli.main, "segment {run} {image} --classes c.txt", 2, "did you mean --classes-file c.txt"),
    "no file of classes": (cli.main, "segment {run} {image} --classes-file {tmp}/c", 2, "c: cannot be read as text"),
    "folder without images": (cli.main, "segment {run} {tmp} --classes a --out {tmp}", 1, "no images there or below"),
    "unreadable image": (cli.main, "segment {run} {tmp}/file --classes dog --out {tmp}", 1, "file: not a readable"),
    "pictures into a file": (cli.main, "segment {run} {image} --classes dog --out {tmp}/file/x", 1, "cannot write"),
    "unknown protocol": (cli.main, "evaluate {run} --protocol wrld", 2, 'protocol "wrld" .did you mean "world"'),
    "unknown readout": (cli.main, "evaluate {run} --readout mean --data world:test,n=2", 2, 'unknown readout "mean"'),
    "segment on no device": (cli.main, "segment {run} {image} --classes a --out {tmp} --device potato", 2, DEVICE),
    "name on no device": (cli.main, "name {run} {image} --out {tmp} --device potato", 2, DEVICE),
    "evaluate on no device": (cli.main, "evaluate {run} --device potato", 2, DEVICE),
    "a device that holds nothing": (cli.main, "evaluate {run} --device meta", 2, "--device meta: cannot be used here"),
    "demo into a file": (cli.main, "demo --quick --out {tmp}/file/x", 1, "cannot write"),
    "demo of no seeds": (cli.main, "demo --seeds 0", 2, "--seeds must be positive"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_sentence(mistake, run, tmp_path, said, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    main, line, code, sentence = MISTAKES[mistake]
    (tmp_path / "file").write_text("not what you think")
    image = tmp_path.parent / f"{tmp_path.name}.png"
    from fastzss import world

    world.scene("test", 0).image.save(image)
    argv = [part.format(tmp=tmp_path, run=run, image=image) for part in line.split()]
    before = sorted(p for p in tmp_path.rglob("*"))
    assert main(argv) == code
    _, stderr = said()
    last = stderr.strip().splitlines()[-1]
    assert re.match(r"fastzss(-cache)?: ", last), stderr
    assert re.search(sentence, last), stderr
    assert "Traceback" not in stderr
    assert sorted(p for p in tmp_path.rglob("*") if "hub" not in str(p)) == before, "a refused command left something"


@pytest.mark.parametrize("main", [cli.main, cli.cache_main])
def test_no_or_unknown_command_is_wrong_usage(main, said):
    for argv in ([], ["fly"]):
        with pytest.raises(SystemExit) as end:
            main(argv)
        assert end.value.code == 2


def test_an_unknown_flag_gets_the_nearest_one(said):
    for main, argv in [(cli.main, ["demo", "--quik"]), (cli.cache_main, ["extract", "a", "b", "--quick=3", "--dtyp"])]:
        with pytest.raises(SystemExit) as end:
            main(argv)
        assert end.value.code == 2
    assert 'unrecognized arguments: --quik (did you mean "--quick"?)' in said().err


def test_every_command_has_help_and_json():
    for main in (cli.main, cli.cache_main):
        for command in {cli.main: ("demo", "evaluate", "segment"), cli.cache_main: ("extract", "concepts", "info")}[
            main
        ]:
            done = subprocess.run(
                [BIN / ("fastzss" if main is cli.main else "fastzss-cache"), command, "--help"],
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0 and "--json" in done.stdout and "usage" in done.stdout


def test_json_is_one_object_on_stdout(run, store, tmp_path, said):
    assert call(cli.cache_main, "info", store, "--json") == 0
    assert json.loads(said().out)["images"] == 80
    assert call(cli.cache_main, "extract", "world:train,n=80", tmp_path / "s", "--dry-run", "--json") == 0
    forecast = json.loads(said().out)
    assert forecast["identity"] == PatchStore(store).identity and not (tmp_path / "s").exists()
    assert call(cli.main, "evaluate", run, "--data", "world:test,n=3", "--json") == 0
    scores = json.loads(said().out)
    assert scores["protocol"] == "world" and list(scores["sets"]) == ["world"] and scores["hash"]
    assert 0 <= scores["sets"]["world"]["miou"] <= 100 and scores["sets"]["world"]["images"] == 3


def test_the_forecast_is_what_is_written(tmp_path, said):
    """Bytes of features: shards add a checksum an image and an index, nothing else."""
    assert call(cli.cache_main, "extract", "world:train,n=80", tmp_path / "s", "--dry-run", "--json") == 0
    forecast = json.loads(said().out)
    assert call(cli.cache_main, "extract", "world:train,n=80", tmp_path / "s", "--json") == 0
    written = json.loads(said().out)["bytes"]
    assert forecast["bytes"] < written < 1.02 * forecast["bytes"]


def test_a_config_file_and_flags(tmp_path, said):
    (tmp_path / "c.yaml").write_text("dtype: float16\nseed: 7\n")
    argv = ["extract", "world:train,n=5", tmp_path / "s", "--config", tmp_path / "c.yaml", "--seed", 8]
    assert call(cli.cache_main, *argv) == 0
    assert PatchStore(tmp_path / "s").plan.dtype == "float16"
    assert PatchStore(tmp_path / "s").plan.order_seed == 8


def test_the_same_extraction_twice_changes_nothing(tmp_path, said):
    argv = ["extract", "world:train,n=5", tmp_path / "s"]
    assert call(cli.cache_main, *argv) == 0
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "s" / "features").rglob("*.json") if "zarr" not in p.name}
    assert call(cli.cache_main, *argv) == 0
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert call(cli.cache_main, *argv, "--dtype", "float16") == 1
    assert "dtype" in said().err.splitlines()[-1]


def test_another_bank_leaves_the_features_alone(tmp_path, said):
    store = tmp_path / "s"
    assert call(cli.cache_main, "extract", "world:train,n=12", store, "--bank", "none") == 0
    assert store_info(store)["banks"] == []
    (tmp_path / "bank.txt").write_text("house, cottage\ntree\n")
    features = {p: p.read_bytes() for p in (store / "features").rglob("*") if p.is_file()}
    assert call(cli.cache_main, "concepts", store, "--bank", tmp_path / "bank.txt", "--parser", "bank") == 0
    assert PatchStore(store).concepts().bank["names"] == ["house", "tree"]
    assert features == {p: p.read_bytes() for p in features}


def test_images_of_ones_own(tmp_path, said):
    """A folder with captions, an unreadable image, one without captions."""
    from fastzss import world

    for index in range(6):
        scene = world.scene("train", index)
        scene.image.resize((150, 140)).save(tmp_path / f"{index}.jpg")
        (tmp_path / f"{index}.txt").write_text("\n".join(scene.captions))
    (tmp_path / "3.txt").unlink()
    (tmp_path / "4.jpg").write_bytes(b"")
    assert call(cli.cache_main, "extract", f"folder:{tmp_path}", tmp_path / "s", "--model", "tiny", "--json") == 0
    out, err = said()
    assert "4.jpg: not a readable image" in err
    info = json.loads(out)
    assert (info["images"], info["valid"], info["captions"]) == (6, 5, 10)


def test_stopping_an_extraction_loses_nothing(tmp_path, store):
    """Ctrl-C while shards are written: exit 130 with a sentence; the same command ends at the same bytes."""
    out = tmp_path / "s"
    command = [BIN / "fastzss-cache", "extract", "world:train,n=80", out, "--parser", "bank"]
    for _ in range(2):
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        commits = out / "features" / "commit"
        there = len(list(commits.glob("0*.json"))) if commits.exists() else 0
        if there == 20:  # all was written before the first Ctrl-C was heard
            process.communicate(timeout=60)
            break
        end = time.time() + 60
        while process.poll() is None and time.time() < end:
            if commits.exists() and len(list(commits.glob("0*.json"))) > there:
                process.send_signal(signal.SIGINT)
                break
            time.sleep(0.002)
        _, stderr = process.communicate(timeout=60)
        assert "Traceback" not in stderr, stderr
        assert process.returncode == 130
        assert "interrupted; the same command goes on from here" in stderr
    assert subprocess.run(command, capture_output=True).returncode == 0
    assert PatchStore(out).identity == PatchStore(store).identity
    for path in (store / "features").rglob("*"):
        if path.is_file():
            assert (out / path.relative_to(store)).read_bytes() == path.read_bytes(), path


def test_stopping_right_at_the_start_is_no_traceback(tmp_path):
    for delay in (0.4, 1.5):
        command = [BIN / "fastzss-cache", "extract", "world:train,n=40", tmp_path / "s"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode in (0, 130), stderr
        assert "Traceback" not in stderr, stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere; .ci/run repeats this as another user")
def test_a_read_only_folder_is_named(tmp_path, said):
    tmp_path.chmod(0o500)
    assert call(cli.cache_main, "extract", "world:train,n=3", tmp_path / "s") == 1
    assert "permission" in said().err


def test_an_interruption_after_the_work_changes_nothing():
    """Taking torch down lasts long enough for a Ctrl-C, which would end a command that is done with a failure."""
    late = "import atexit, os, signal; atexit.register(os.kill, os.getpid(), signal.SIGINT)\n"
    work = "from fastzss.base.console import guarded; raise SystemExit(guarded('x', lambda: print('done')))"
    done = subprocess.run([sys.executable, "-c", late + work], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
