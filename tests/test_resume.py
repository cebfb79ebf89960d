"""Going on with a run: what must be the same, what may differ, and whose run it is."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file, save_file

from fastzss.config import plain
from fastzss.errors import UserError
from fastzss.extract import extract
from fastzss.runs import Run
from fastzss.settings import ExtractConfig, TrainConfig
from fastzss.training import FREE, train
from fastzss.training.resume import check_same

DOOR = Path(__file__).parent.parent / "fastzss" / "train.py"
FIXED = sorted({field.name for field in fields(TrainConfig)} - set(FREE) - {"method"})


def record_of(config):
    return {"settings": plain(config), "text": {"out": 128}, "vision": {"model": "tiny"}, "store": {"features": "aa"}}


@pytest.fixture
def begun(config):
    run = Run(config.out)
    run.create(record_of(config), None)
    return run


@pytest.mark.parametrize("key", FREE)
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
    given = [f"--{key.replace('_', '-')}={value}" for key, value in plain(config).items() if value is not None]
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
