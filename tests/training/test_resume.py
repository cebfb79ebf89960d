"""Going on with a run: what must be the same, what may differ, and whose run it is."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import pytest
import yaml
from helpers.trainings import flags, interrupted_after
from safetensors.torch import load_file, save_file

from fastzss.bank.build import bank_from_file
from fastzss.base.config import plain
from fastzss.base.errors import UserError
from fastzss.base.runs import Run
from fastzss.captions.parsers import choose_parser
from fastzss.extraction.concepts import add_concepts
from fastzss.extraction.flow import extract
from fastzss.extraction.settings import ExtractConfig
from fastzss.methods.registry import method_of
from fastzss.store.mentions import list_concepts
from fastzss.training.loop import main, train
from fastzss.training.resume import FREE, check_same
from fastzss.training.schedule import Schedule
from fastzss.training.settings import TrainConfig, of_others

DOOR = Path(__file__).parents[2] / "fastzss" / "train.py"
ALL_FREE = (*FREE, *method_of("simzss").free, *sorted(of_others("simzss")))
FIXED = sorted({field.name for field in fields(TrainConfig)} - set(ALL_FREE) - {"method"})


def record_of(config):
    return {"settings": plain(config), "text": {"out": 128}, "vision": {"model": "tiny"}, "store": {"features": "aa"}}


@pytest.fixture
def begun(config):
    run = Run(config.out)
    run.create(record_of(config), None)
    return run


@pytest.mark.parametrize("key", ALL_FREE)
def test_settings_that_change_nothing_may_differ(begun, config, key):
    record = record_of(config)
    record["settings"][key] = "another"
    assert check_same(begun, record, "auto")


@pytest.mark.parametrize("key", FIXED)
def test_all_other_settings_are_refused_by_name(begun, config, key):
    record = record_of(config)
    record["settings"][key] = "another"
    with pytest.raises(UserError, match=f"other settings: {key} is .*, now 'another'. Give another --out"):
        check_same(begun, record, "auto")


def test_a_run_of_another_method_is_refused(begun, config):
    record = record_of(config)
    record["settings"]["method"] = "another"
    with pytest.raises(UserError, match="holds a run of the method simzss, and this is another"):
        check_same(begun, record, "auto")


def test_never_and_must(begun, config, tmp_path):
    with pytest.raises(UserError, match="holds a run already, and --resume never"):
        check_same(begun, record_of(config), "never")
    with pytest.raises(UserError, match="holds no run, and --resume must"):
        check_same(Run(tmp_path / "empty"), record_of(config), "must")
    assert check_same(begun, record_of(config), "must")
    assert not check_same(Run(tmp_path / "empty"), record_of(config), "never")


def test_a_run_is_not_written_into_a_store(config, store):
    before = sorted(store.rglob("*"))
    with pytest.raises(UserError, match="is a store, and a run needs a folder of its own"):
        train(replace(config, out=store))
    assert sorted(store.rglob("*")) == before


@pytest.mark.parametrize("text", ["just words", "[1, 2]", "settings: 3", ""])
def test_a_config_that_is_no_record_is_refused(begun, config, text):
    (begun.path / "config.yaml").write_text(text)
    with pytest.raises(UserError, match="config.yaml: is no record of a run"):
        check_same(begun, record_of(config), "auto")


def test_a_checkpoint_with_other_tensors_is_refused(config):
    config = replace(config, steps=4, checkpoint_every=2)
    train(config)
    latest = config.out / "checkpoints" / "step-000002"
    (config.out / "latest").write_text(latest.name)
    model = load_file(latest / "model.safetensors")
    save_file({**model, "group_tokens": model["logit_scale"].clone()}, latest / "model.safetensors")
    with pytest.raises(UserError, match="step-000002: is no checkpoint of this run: group_tokens .*another method"):
        train(config)


def test_a_store_of_other_features_is_refused(config, tmp_path):
    train(replace(config, steps=1))
    other = tmp_path / "other"
    wanted = {"model": "vit_tiny_patch16_224", "random_weights": True, "size": 32, "parser": "bank"}
    extract(ExtractConfig(source="world:train,n=80", store=other, **wanted))
    with pytest.raises(UserError, match=r"out is \d+, now 192"):
        train(replace(config, steps=1, store=other))


def test_what_was_logged_before_the_first_checkpoint_is_logged_once(config):
    """Killed before there is a checkpoint: the run begins anew, and so do its metrics."""
    config = replace(config, steps=3)
    first = train(config)
    (config.out / "latest").unlink()
    assert train(config) == first
    assert [m["step"] for m in Run(config.out).metrics()] == [1, 2, 3]


def test_one_run_is_trained_by_one_process_at_a_time(config):
    config = replace(config, steps=100_000, checkpoint_every=100_000)
    given = flags(config)
    process = subprocess.Popen([sys.executable, DOOR, *given], stderr=subprocess.PIPE, env={**os.environ})
    try:
        end = time.time() + 60
        while not Run(config.out).metrics() and time.time() < end:
            time.sleep(0.05)
        with pytest.raises(UserError, match="another process is training this run"):
            train(config)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert yaml.safe_load((config.out / "config.yaml").read_text())["settings"]["steps"] == 100_000


def test_the_last_checkpoints_stay(config):
    train(replace(config, steps=5, checkpoint_every=1, keep=3, precision="float32"))
    kept = sorted(p.name for p in (config.out / "checkpoints").iterdir())
    assert kept == ["step-000003", "step-000004", "step-000005"]


def test_a_run_goes_on_with_the_bank_it_recorded(config, store, tmp_path):
    """Whatever other banks its store has got since: stopped, finished, and when the dry run asks."""
    own = tmp_path / "store"
    shutil.copytree(store, own)
    config = replace(config, store=own, steps=4, checkpoint_every=2)
    with pytest.raises(UserError, match="stopped at step"), interrupted_after(2):
        train(config)
    (tmp_path / "four.txt").write_text("tree\nhouse\ngrass\nsky\n")
    add_concepts(own, bank_from_file(tmp_path / "four.txt"), choose_parser("bank"))
    before = Run(config.out).bank
    assert main(config, dry_run=True)["run"] == "goes on after step 2"
    assert train(config)["step"] == 4
    assert train(config)["step"] == 4  # and once more, when it is finished
    assert Run(config.out).bank == before
    assert train(replace(config, bank=before["identity"][:8]))["step"] == 4
    other = next(b["identity"] for b in list_concepts(own) if b["identity"] != before["identity"])
    with pytest.raises(UserError, match="other settings: bank is"):
        train(replace(config, bank=other))


def test_a_finished_run_is_extended(config):
    train(replace(config, steps=8, checkpoint_every=4))
    with pytest.raises(UserError, match="steps is 8, now 12.*--extend goes on beyond its end"):
        train(replace(config, steps=12))
    with pytest.raises(UserError, match="--extend 6: .* has taken 8 of 8 steps; expected more than 8"):
        train(replace(config, steps=8, extend=6))
    with pytest.raises(UserError, match="stopped at step"), interrupted_after(10):
        train(replace(config, steps=8, extend=14))
    with pytest.raises(UserError, match="has taken 10 of 14 steps; expected more than 14, of a run that is finished"):
        train(replace(config, steps=8, extend=20))
    assert train(replace(config, steps=8))["step"] == 14  # it goes on as it was extended
    rates = {m["step"]: m["lr"] for m in Run(config.out).metrics()}
    assert sorted(rates) == list(range(1, 15))
    schedule = Schedule([8, 14], config.peak, config.warmup)
    assert rates == {step: pytest.approx(schedule.rate(step - 1)) for step in rates}
    assert rates[9] > rates[8] and rates[14] < rates[12]


def test_a_run_begins_from_another(config, tmp_path):
    first = replace(config, steps=6)
    train(first)
    second = replace(config, out=tmp_path / "second", steps=3, lr=1e-9, from_run=first.out)
    train(second)
    kept, taken = (load_file(Run.open(c.out).latest / "model.safetensors") for c in (first, second))
    assert all((kept[name] - taken[name]).abs().max() < 1e-6 for name in kept)
    with pytest.raises(UserError, match=r"--from .*: its text is not that of this training; --text tiny has its size"):
        train(replace(second, out=tmp_path / "third", text="small"))
    with pytest.raises(UserError, match="no such run"):
        train(replace(second, out=tmp_path / "fourth", from_run=tmp_path / "nowhere"))


def test_without_a_terminal_there_is_a_line_every_so_often(config, caplog):
    caplog.set_level("INFO", "fastzss")
    train(replace(config, steps=6, log_every=3))
    lines = [line for line in caplog.messages if line.startswith("step ")]
    assert [line.split(":")[0] for line in lines] == ["step 3 of 6", "step 6 of 6"]
    assert "loss_local" in lines[0] and "lr" in lines[0]
