"""A sweep: what may be varied, the table, going on after a kill, and runs that fail."""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from fastzss import world
from fastzss.base.errors import Incomplete, UserError
from fastzss.base.runs import Run
from fastzss.cli import main
from fastzss.evaluation.datasets.world import world_set
from fastzss.evaluation.evaluate import evaluate
from fastzss.extraction.flow import extract
from fastzss.extraction.settings import ExtractConfig
from fastzss.methods.registry import load
from fastzss.training.grid import combinations, folder_of, varied
from fastzss.training.loop import train
from fastzss.training.sweep import FREE, Trial, sweep, wait_for_former

FASTZSS = Path(sys.executable).parent / "fastzss"
FEW = "world:validation,n=5"
SMALL = "--text tiny --batch 24 --lr 1e-3 --device cpu --eval-data".split() + [FEW]


def trials(config, **values):
    return [Trial.of(one, replace(config, **one)) for one in combinations(values)]


def test_every_value_of_one_setting_meets_every_value_of_the_others():
    values = varied(["local_weight=0.05, 1", "batch=1e2", "same-image=keep,mask"], FREE)
    assert values == {"local_weight": [0.05, 1.0], "batch": [100], "same_image": ["keep", "mask"]}
    found = combinations(values)
    assert len(found) == 4
    assert found[1] == {"local_weight": 0.05, "batch": 100, "same_image": "mask"}
    assert folder_of(found[1]) == "local_weight=0.05,batch=100,same_image=mask"


def test_folders_of_alike_paths_differ():
    one, other = (folder_of({"from_run": Path(path)}) for path in ("runs/a", "runs_a"))
    assert one != other and "/" not in one


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["local_wieght=1,2"], r"--vary local_wieght=1,2: unknown setting .*did you mean \"local_weight\"\?"),
        (["lr=1e-3,fast"], "--vary lr=1e-3,fast: lr is 'fast'; expected float"),
        (["text=tiny,smal"], r"text is 'smal' .did you mean \"small\"\?.; expected one of"),
        (["lr"], "--vary lr: has no values; expected as in --vary local_weight=0.05,0.25"),
        (["lr=1,"], "--vary lr=1,: has no values"),
        (["lr=1,1.0"], "names a value twice"),
        (["lr=1", "lr=2"], "lr is varied twice"),
        (["device=cpu,cuda"], "device does not change what is learned"),
        (["out=a,b"], "out does not change what is learned"),
    ],
)
def test_what_cannot_be_varied_is_said_in_one_sentence(words, sentence):
    with pytest.raises(UserError, match=sentence) as problem:
        varied(words, FREE)
    assert problem.value.code == 2 and "\n" not in str(problem.value)


@pytest.mark.parametrize(
    "flags, sentence",
    [
        (["--vary", "temperature=0.1,0"], "--temperature must be positive, got 0"),
        (["--vary", "lr=1e-3", "--lr", "1"], "--lr is given, and --vary varies it; leave one of them out"),
        (["--vary", "lr=1e-3", "--processes", "0"], "--processes must be positive, got 0"),
    ],
)
def test_mistakes_are_named_before_anything_is_written(store, tmp_path, capsys, flags, sentence):
    assert main(["sweep", str(store), "--out", str(tmp_path / "sweep"), *flags]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "sweep").exists()


def test_the_table_has_the_best_run_first_and_is_also_a_file(store, tmp_path):
    out = tmp_path / "sweep"
    command = [FASTZSS, "sweep", store, "--out", out, "--vary", "steps=1,20", "--processes", 2, *SMALL, "--json"]
    command = [str(word) for word in command]
    planned = json.loads(subprocess.run([*command, "--dry-run"], capture_output=True, check=True).stdout)
    assert [row["state"] for row in planned] == ["not begun"] * 2 and not out.exists()

    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    table = json.loads(done.stdout)
    assert [row["steps"] for row in table] == [20, 1] and table[0]["score"] > table[1]["score"]
    data = world_set(FEW)
    for row in table:
        model = load(row["run"], "cpu")
        expected = evaluate(model.vision, {"run": model.class_vectors(data.names)}, data)["run"]
        assert row["score"] == pytest.approx(expected["all"], abs=0.1), "features are kept in half precision"
        assert row["things"] == pytest.approx(expected["things"], abs=0.1)
        assert row["state"] == "done" and Run(row["run"]).state["step"] == row["steps"]
    with open(out / "sweep.csv", newline="") as file:
        assert [float(row["score"]) for row in csv.DictReader(file)] == [row["score"] for row in table]

    written = {path: path.stat().st_mtime_ns for path in out.rglob("*.*") if path.name != "sweep.csv"}
    again = subprocess.run(command, capture_output=True, text=True)
    assert json.loads(again.stdout) == table and "0 of 2 runs are to be trained" in again.stderr
    assert {path: path.stat().st_mtime_ns for path in written} == written


@pytest.mark.slow
def test_a_killed_sweep_goes_on_where_its_run_was(store, config, tmp_path):
    out = tmp_path / "sweep"
    flags = "--steps 40 --checkpoint-every 10 --keep 1 --log-every 1 --warmup 0.1".split()
    command = [FASTZSS, "sweep", store, "--out", out, "--vary", "local_weight=1", *SMALL, *flags]
    process = subprocess.Popen([str(word) for word in command], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    run, end = Run(out / "local_weight=1.0"), time.time() + 120
    while run.latest is None and time.time() < end:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_for_former(run)  # which heard of it, and left a checkpoint
    assert 10 <= run.state["step"] < 40

    whole = replace(
        config, steps=40, checkpoint_every=1000, precision="float32", global_feature=None, out=tmp_path / "whole"
    )
    train(whole)
    done = subprocess.run([str(word) for word in [*command, "--json"]], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["state"] == "done"
    ours, theirs = ([m["loss"] for m in Run(path).metrics()] for path in (run.path, whole.out))
    assert len(ours) == 40 and ours == pytest.approx(theirs, rel=1e-12)


def test_a_run_that_fails_is_a_row_and_the_others_go_on(config, tmp_path):
    config = replace(config, out=tmp_path / "sweep", steps=2, eval_data=FEW)
    with pytest.raises(Incomplete, match="1 of 2 runs failed: --batch 81 is more than the 80 samples") as problem:
        sweep(trials(config, batch=[81, 24]), config.out)
    good, bad = problem.value.result
    assert good["batch"] == 24 and good["state"] == "done" and good["score"] > 0
    assert bad["score"] is None and bad["state"].startswith("failed: --batch 81 is more")
    assert (config.out / "sweep.csv").read_text().count("\n") == 3


@pytest.mark.slow
def test_without_masks_held_out_captions_are_the_judges(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(60):
        scene = world.scene("train", number)
        scene.image.save(photos / f"{number}.png")
        (photos / f"{number}.txt").write_text("\n".join(scene.captions))
    extract(ExtractConfig(source=f"folder:{photos}", store=tmp_path / "store", model="tiny", parser="bank"))
    out = tmp_path / "sweep"
    flags = "--text tiny --batch 16 --lr 2e-3 --device cpu --hold-out 0.3 --json".split()
    command = [FASTZSS, "sweep", tmp_path / "store", "--out", out, "--vary", "steps=1,60", *flags]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "held-out captions of" in done.stderr
    table = json.loads(done.stdout)
    assert [row["steps"] for row in table] == [60, 1]
    assert set(table[0]) == {"steps", "score", "image", "patches", "state", "run"}
    assert table[0]["score"] == pytest.approx((table[0]["image"] + table[0]["patches"]) / 2)
    assert Run(table[0]["run"]).config["settings"]["hold_out"] == 0.3


def test_a_run_waits_for_the_process_of_a_sweep_that_was_killed(config, monkeypatch):
    wait_for_former(Run(config.out))
    assert not config.out.exists()
    run, held = Run(config.out), threading.Event()

    def hold():
        with run.alone():
            held.set()
            time.sleep(0.5)

    former = threading.Thread(target=hold)
    former.start()
    held.wait()
    began = time.monotonic()
    wait_for_former(run)
    assert time.monotonic() - began > 0.3
    former.join()
    monkeypatch.setattr("fastzss.training.sweep.PATIENCE", 0)
    with run.alone(), pytest.raises(UserError, match="another process is training this run"):
        wait_for_former(run)
