"""The trainer: stopping and going on, micro-batches, several processes, and every door it has."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from helpers.trainings import flags
from safetensors.torch import load_file

from fastzss.base.errors import UserError
from fastzss.base.runs import Run
from fastzss.evaluation.datasets.world import world_set
from fastzss.evaluation.evaluate import evaluate
from fastzss.methods.registry import load
from fastzss.methods.simzss import micro, task
from fastzss.methods.simzss.loader import Loader
from fastzss.training.loop import train

ROOT = Path(__file__).parents[2]
DOOR = ROOT / "fastzss" / "train.py"


def weights(run):
    return load_file(Run.open(run).latest / "model.safetensors")


def assert_same(run, other, tolerance=0.0):
    for name, value in weights(other).items():
        assert (weights(run)[name] - value).abs().max() <= tolerance, name
    losses = [[m["loss"] for m in Run(r).metrics()] for r in (run, other)]
    assert losses[0] == pytest.approx(losses[1], rel=max(tolerance, 1e-12))


def launch(command, cwd=None, **env):
    return subprocess.run(
        [str(c) for c in command], cwd=cwd, capture_output=True, text=True, timeout=120, env={**os.environ, **env}
    )


@pytest.fixture(scope="module")
def whole(settings, tmp_path_factory):
    """An uninterrupted run of one process, for the others to be compared with."""
    out = tmp_path_factory.mktemp("whole") / "run"
    train(replace(settings, out=out))
    return out


def test_the_losses_fall(whole):
    metrics = Run(whole).metrics()
    assert [m["step"] for m in metrics] == list(range(1, 21))
    assert metrics[-1]["loss_global"] < 0.9 * metrics[0]["loss_global"]
    assert metrics[-1]["loss_local"] < 0.9 * metrics[0]["loss_local"]
    for m in metrics:
        assert m["loss"] == pytest.approx(m["loss_global"] + m["loss_local"])


def test_the_run_folder_holds_what_is_needed_to_use_it(whole, store):
    run = Run.open(whole)
    assert run.latest.name == "step-000020"
    assert sorted(p.name for p in run.latest.parent.iterdir()) == ["step-000016", "step-000020"]
    assert run.config["text"] == {"preset": "tiny", "width": 128, "layers": 2, "heads": 4, "out": 128}
    assert run.config["readout"] == "both"
    assert run.config["vision"]["model"] == "tiny" and run.config["weights"] == "shipped"
    assert run.bank["names"]


def test_the_argmax_target_trains_differently(config, whole):
    train(replace(config, local_target="argmax", steps=1))
    assert Run(config.out).metrics()[0]["loss_local"] != pytest.approx(Run(whole).metrics()[0]["loss_local"])


def test_without_the_local_loss_captions_are_read_by_their_end(config):
    last = train(replace(config, local_weight=0.0, steps=2))
    assert last["loss_local"] == 0 and last["loss"] == last["loss_global"]
    assert Run(config.out).config["readout"] == "eot"


def start(config):
    return subprocess.Popen([sys.executable, DOOR, *flags(config)], stderr=subprocess.PIPE, text=True)


def wait_for_step(config, step):
    end = time.time() + 60
    while time.time() < end:
        if len(Run(config.out).metrics()) >= step:
            return
        time.sleep(0.01)
    raise AssertionError("the training never began")


@pytest.mark.parametrize("signum, code", [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_stopped_run_leaves_a_checkpoint_and_goes_on_bit_for_bit(config, whole, signum, code):
    process = start(config)
    wait_for_step(config, 3)
    process.send_signal(signum)
    _, stderr = process.communicate(timeout=60)
    done = len(Run(config.out).metrics())
    if done < config.steps:
        assert process.returncode == code
        assert "the same command goes on from there" in stderr and "Traceback" not in stderr
        assert Run(config.out).latest.name == f"step-{done:06d}"
    train(config)
    assert_same(config.out, whole)


def test_a_killed_run_goes_on_bit_for_bit(config, whole):
    process = start(config)
    while Run(config.out).latest is None:  # a checkpoint is written while the steps behind it are taken
        time.sleep(0.01)
        assert process.poll() is None, process.stderr.read()
    process.kill()
    process.wait()
    with open(config.out / "metrics.jsonl", "a") as file:
        file.write('{"step": 99, "lo')  # the kind of line a kill leaves
    assert Run(config.out).latest.name in ("step-000008", "step-000016")
    train(config)
    assert_same(config.out, whole)


def test_a_finished_run_is_not_trained_again(config):
    config = replace(config, steps=2)
    first = train(config)
    before = weights(config.out)
    assert train(config) == first
    assert all(torch.equal(value, before[name]) for name, value in weights(config.out).items())


def test_a_batch_in_parts_trains_the_same(config, whole):
    train(replace(config, micro_batch="12"))
    assert_same(config.out, whole, tolerance=1e-9)


def test_shortened_arithmetic_in_parts_is_the_same_arithmetic(config):
    """bfloat16 is what the second pass of a part computes in, too."""
    runs = [replace(config, out=config.out / size, micro_batch=size, steps=3, precision="bfloat16") for size in "08"]
    for run in runs:
        train(run)
    whole, parts = ([m["loss"] for m in Run(run.out).metrics()] for run in runs)
    assert parts == pytest.approx(whole, rel=2e-3)


def test_parts_are_chosen_when_memory_is_short(config, monkeypatch, caplog):
    """As much memory as the optimiser needs, and room for a row or two."""
    monkeypatch.setattr(micro, "free_bytes", lambda device: 24_000_000)
    monkeypatch.setattr(logging.getLogger("fastzss"), "propagate", True)
    with caplog.at_level("INFO"):
        train(replace(config, steps=2))
    said = re.search(r"about (.*) MB: (\d+) rows of 64 tokens are read twice, (\d+) at a time", caplog.text)
    assert int(said[3]) < int(said[2])
    assert Run(config.out).metrics()[1]["loss"] > 0


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"batch": 81}, "--batch 81 is more than the 80 samples"),
        ({"global_feature": "gist"}, "no global feature 'gist'; there are cls, patch-mean"),
        ({"bank": "ffff"}, "no concept bank 'ffff'"),
        ({"store": Path("/nowhere")}, "no such folder"),
    ],
)
def test_mistakes_are_named(config, change, sentence):
    with pytest.raises(UserError, match=sentence):
        train(replace(config, **change))
    assert not config.out.exists()


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_what_made_it(config, monkeypatch):
    real = task.used_units
    calls = []

    def broken(tower, batch, rows):
        calls.append(1)
        return real(tower, batch, rows) * (float("nan") if len(calls) == 11 else 1)

    monkeypatch.setattr(task, "used_units", broken)
    with pytest.raises(UserError, match="the loss is nan at step 11; .*dump/step-000011 holds the batch"):
        train(config)
    assert Run.open(config.out).latest.name == "step-000008"
    assert all(value.isfinite().all() for value in weights(config.out).values())
    folder = config.out / "dump" / "step-000011"
    batch, model = load_file(folder / "batch-0.safetensors"), load_file(folder / "model.safetensors")
    made = Loader(config.store, config.batch).step(10)
    assert torch.equal(batch["row"], made.row)
    assert torch.equal(batch["ids"][made.segment >= 0], made.ids[made.segment >= 0].long()), "the vocabulary's ids"
    assert model.keys() == weights(config.out).keys() and all(value.isfinite().all() for value in model.values())


# Several processes compute what one would; each of these really starts them.


@pytest.mark.parametrize(
    "world, loader", [(2, "host"), *(pytest.param(world, "auto", marks=pytest.mark.slow) for world in (3, 4))]
)
def test_several_processes_make_the_run_of_one(config, whole, world, loader, tmp_path):
    config = replace(config, micro_batch="8", loader=loader)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", world, DOOR, *flags(config)]
    done = launch(command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"of patches lie in the memory of the machine, one copy for its {world} processes;" in done.stderr
    assert_same(config.out, whole, tolerance=1e-9)


def test_a_run_goes_on_with_all_that_may_differ(config, whole, tmp_path):
    """Another number of processes, smaller parts, patches from disk, the store elsewhere, and watched."""
    process = start(config)
    wait_for_step(config, 9)
    process.kill()
    process.wait()
    (tmp_path / "moved").symlink_to(config.store)
    changed = replace(
        config, store=tmp_path / "moved", micro_batch="8", loader="stream", keep=1, checkpoint_every=6, resume="must",
        eval_every=9, eval_data="world:validation,n=5",
    )  # fmt: skip
    done = launch([sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", 2, DOOR, *flags(changed)])
    assert done.returncode == 0, done.stderr[-2000:]
    assert_same(config.out, whole, tolerance=1e-9)
    data = world_set("world:validation,n=5")
    model = load(config.out, "cpu")
    expected = evaluate(model.vision, {"run": model.class_vectors(data.names)}, data)["run"]["all"]
    last = Run(config.out).metrics()[-1]
    assert last["miou"] == pytest.approx(expected, abs=0.1), "two processes, and features kept in half precision"


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_at_the_same_step(config, whole):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", DOOR, *flags(config)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_for_step(config, 3)
    psutil.Process(process.pid).children()[1].send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr[-2000:]
    done = len(Run(config.out).metrics())
    assert done < config.steps and stderr.count(f"stopped at step {done};") == 2
    train(config)
    assert_same(config.out, whole, tolerance=1e-9)


def test_accelerate_launch_from_another_folder(config, tmp_path):
    config = replace(config, steps=2)
    quiet = "--cpu --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no".split()
    accelerate = Path(sys.executable).parent / "accelerate"
    done = launch([accelerate, "launch", *quiet, DOOR, *flags(config), "--json"], cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout)["step"] == 2
    assert done.stderr.count("Traceback") == 0


@pytest.mark.slow
def test_two_processes_by_accelerate(config, whole, tmp_path):
    accelerate = Path(sys.executable).parent / "accelerate"
    done = launch([accelerate, "launch", "--multi_gpu", "--num_processes", 2, DOOR, *flags(config)], cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert_same(config.out, whole, tolerance=1e-9)


@pytest.mark.parametrize("option", ["--cpu", "--num_machines=1"])
def test_a_launch_that_would_start_one_process_is_refused(config, option, tmp_path):
    accelerate = Path(sys.executable).parent / "accelerate"
    done = launch([accelerate, "launch", option, "--num_processes", 2, DOOR, *flags(config)], cwd=tmp_path)
    assert done.returncode != 0
    assert f"torchrun --nproc_per_node N {DOOR} ..." in done.stderr
    assert "accelerate launch --multi_gpu --num_processes N" in done.stderr
    assert not config.out.exists()


@pytest.mark.parametrize("command", [[DOOR], ["-m", "fastzss.train"]], ids=["path", "module"])
def test_plain_python(config, command, tmp_path):
    done = launch([sys.executable, *command, *flags(replace(config, steps=1))], cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert weights(config.out)
