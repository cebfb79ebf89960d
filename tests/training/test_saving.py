"""Checkpoints: written while training goes on, whole whenever a run is killed, and never of numbers that are none."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from helpers.trainings import flags
from safetensors.torch import load_file

from fastzss.base.errors import UserError
from fastzss.base.runs import Run
from fastzss.base.tensors import safetensors_parts
from fastzss.methods.simzss.task import Learner
from fastzss.text.own_words import OwnWords
from fastzss.text.tower import PRESETS, VOCABULARY
from fastzss.training.loop import train
from fastzss.training.saving import Saver
from fastzss.training.step import Trainer

PLANTED = """
import os, sys
from fastzss.cli import main
from fastzss.training.step import Trainer

real, calls = Trainer.differentiate, []

def differentiate(self, batch):
    calls.append(1)
    if os.environ["RANK"] == "1" and len(calls) == {step}:
        self.learner.text.ln_final.weight.register_hook(lambda g: g * float("nan"))
    return real(self, batch)

Trainer.differentiate = differentiate
sys.exit(main(["train", *sys.argv[1:]]))
"""


def all_finite(run):
    return all(
        tensor.isfinite().all()
        for folder in (run.path / "checkpoints").glob("step-*")
        for name in ("model", "optimizer")
        for tensor in load_file(folder / f"{name}.safetensors").values()
    )


@pytest.mark.parametrize("step, log_every", [(11, 1), (11, 100), (16, 100)], ids="logged between saved".split())
def test_nan_in_the_backward_of_one_rank_never_reaches_a_checkpoint(config, tmp_path, step, log_every):
    script = tmp_path / "planted.py"
    script.write_text(PLANTED.format(step=step))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", script]
    command += flags(replace(config, log_every=log_every))
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    if step == 16 or log_every == 1:  # looked at: the update is not made
        assert "its gradient holds NaN or infinite values, though its loss is" in done.stderr
        assert f"at step {step}; the last checkpoint is kept" in done.stderr
        assert all(t.isfinite().all() for t in load_file(next(config.out.rglob("dump/*/model.safetensors"))).values())
    else:  # the next step's loss tells
        assert "the loss is nan at step 12; the last checkpoint is kept" in done.stderr
    run = Run(config.out)
    assert run.latest.name == "step-000008" and all_finite(run)


def test_weights_that_no_loss_has_shown_to_be_nan_are_not_written(config, monkeypatch):
    """A word that no caption has: no loss and no gradient ever sees its vector."""
    real = Trainer.learn

    def learn(self, rate):
        real(self, rate)
        with torch.no_grad():
            if self.optimizer.state[self.learner.logit_scale]["step"] == 11:
                self.learner.text.token_embedding.table[40000] = float("inf")

    monkeypatch.setattr(Trainer, "learn", learn)
    with pytest.raises(UserError, match="after step 16 text.token_embedding.weight holds NaN or infinite values"):
        train(config)
    run = Run(config.out)
    assert run.latest.name == "step-000008" and all_finite(run)


def test_what_is_trained_on_meanwhile_is_not_what_is_written(tmp_path, monkeypatch):
    real = Run.save
    monkeypatch.setattr(Run, "save", lambda *rest: time.sleep(0.3) or real(*rest))
    run, weight, moment = Run(tmp_path / "run"), torch.arange(5.0), torch.ones(2, 3)
    with Saver(run, keep=2) as saver:
        for step in (1, 2):
            began = time.perf_counter()
            saver.save(step, {"a": weight}, {"m": moment}, {})
            if step == 1:
                assert time.perf_counter() - began < 0.3 and run.latest is None, "the loop waited"
            weight += 1
    assert run.latest.name == "step-000002", "the end waits for the last one"
    first = load_file(run.path / "checkpoints" / "step-000001" / "model.safetensors")
    assert torch.equal(first["a"], torch.arange(5.0)) and torch.equal(run.load()[0]["a"], torch.arange(5.0) + 1)


def test_a_write_that_fails_is_told_by_the_training(config, monkeypatch):
    def full(*_):
        raise UserError("the disk is full")

    monkeypatch.setattr(Run, "save", full)
    with pytest.raises(UserError, match="the disk is full"):
        train(config)


@pytest.mark.slow
def test_a_run_killed_at_any_moment_has_a_whole_checkpoint(config):
    """Small steps, a checkpoint each: whenever it is killed, a checkpoint is being written."""
    config, choice = replace(config, steps=100_000, checkpoint_every=1, log_every=1), random.Random(0)
    run, newest = Run(config.out), 0
    for _ in range(6):
        process = subprocess.Popen([sys.executable, "-m", "fastzss.train", *flags(config)], stderr=subprocess.DEVNULL)
        end = time.time() + 60
        while time.time() < end and (run.latest is None or run.state["step"] <= newest):
            time.sleep(0.02)
        time.sleep(choice.uniform(0, 0.3))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        model, moments, state = run.load()
        assert state["step"] > newest and len(moments) == 3 * len(model) + 1  # and the words that learn
        newest = state["step"]


@pytest.mark.slow
def test_the_base_towers_checkpoint_holds_the_loop_up_a_moment_only(tmp_path):
    trainer = Trainer.__new__(Trainer)
    trainer.learner = Learner(PRESETS["base"], 768)
    table = OwnWords(
        trainer.learner.text.token_embedding, torch.arange(VOCABULARY)
    )  # all have captions: the most to copy
    trainer.learner.text.token_embedding = table
    trainer.task = SimpleNamespace(tables={"text.token_embedding.weight": table})
    trainer.optimizer, waited = torch.optim.AdamW(trainer.learner.parameters(), fused=True), []
    for parameter in trainer.learner.parameters():
        parameter.grad = torch.zeros_like(parameter)
    trainer.optimizer.step()
    with Saver(Run(tmp_path / "run"), keep=1) as saver:
        saver.prepare(trainer.learner.state_dict(), dict(trainer.learner.named_parameters()))
        for step in (100, 200, 300):
            for _ in range(100):
                table.decay(0.999)
            saver._finish()  # checkpoints lie further apart than one takes to write
            began = time.perf_counter()
            saver.save(step, trainer.learner.state_dict(), trainer.moments(), {})
            waited.append(time.perf_counter() - began)
    model, moments, _ = Run(tmp_path / "run").load()
    assert sum(t.nbytes for part in (model, moments) for t in part.values()) > 760e6
    assert max(waited) <= 0.3, waited


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64])
def test_tensors_are_as_safetensors_reads_them(tmp_path, dtype):
    tensors = {
        "b": torch.arange(6).reshape(2, 3).to(dtype),
        "a.x": torch.tensor(7).to(dtype),
        "odd": torch.ones(3).half(),
    }
    (tmp_path / "t.safetensors").write_bytes(b"".join(safetensors_parts(tensors)))
    found = load_file(tmp_path / "t.safetensors")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[k], t) and found[k].dtype == t.dtype for k, t in tensors.items())
