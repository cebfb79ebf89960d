"""Training on several stores, and on one that has grown since the run began."""

import shutil
from dataclasses import replace

import pytest
import torch
from helpers.trainings import interrupted_after
from safetensors.torch import load_file

from fastzss import cli
from fastzss.base.errors import UserError
from fastzss.base.runs import Run
from fastzss.extraction.flow import extract
from fastzss.extraction.settings import ExtractConfig
from fastzss.methods.simzss.loader import Loader
from fastzss.training.loop import Stopped, train
from fastzss.training.settings import TrainConfig


@pytest.fixture(scope="module")
def drawings(tmp_path_factory):
    """Another store of the same backbone, with statistics and a bank of its own."""
    path = tmp_path_factory.mktemp("drawings") / "s"
    extract(ExtractConfig(source="world:drawings,n=30", store=path, parser="bank"))
    return path


def weights(run):
    return load_file(Run(run).checkpoint / "model.safetensors")


def test_a_run_goes_on_with_the_images_it_recorded_though_its_store_has_grown(config, store, tmp_path):
    own = tmp_path / "s"
    shutil.copytree(store, own)
    with interrupted_after(9), pytest.raises(Stopped):
        train(replace(config, store=own), progress=False)
    extract(ExtractConfig(source="world:train,n=100", store=own, parser="bank"))
    train(replace(config, store=own), progress=False)
    train(replace(config, out=tmp_path / "whole"), progress=False)
    found, right = weights(config.out), weights(tmp_path / "whole")
    assert all(torch.equal(found[name], right[name]) for name in right)
    new = replace(config, store=own, out=tmp_path / "new", steps=2)
    train(new, progress=False)
    assert Run(new.out).config["store"]["features"] != Run(config.out).config["store"]["features"]


def test_two_stores_are_learned_from_together_and_the_run_goes_on(config, store, drawings, tmp_path):
    both = replace(config, store=(str(store), f"{drawings}@2"))
    with interrupted_after(9), pytest.raises(Stopped):
        train(both, progress=False)
    train(both, progress=False)
    train(replace(both, out=tmp_path / "whole"), progress=False)
    found, right = weights(config.out), weights(tmp_path / "whole")
    assert all(torch.equal(found[name], right[name]) for name in right)
    record = Run(config.out).config
    assert record["store"]["weights"] == [1, 2] and len(record["store"]["banks"]) == 2
    assert record["settings"]["store"] == list(both.store)
    with pytest.raises(UserError, match=r"weights is \[1.0, 2.0\], now \[1.0, 1.0\]"):
        train(replace(config, store=(str(store), str(drawings))), progress=False)


def test_an_epoch_sees_each_store_as_often_as_its_weight_says(store, drawings):
    loader = Loader([store, f"{drawings}@2.5"], 31, bank=None, feature="patch-mean")
    assert loader.samples == 80 + 75 and loader.steps_per_epoch == 5
    rows = torch.cat([loader.step(step).row for step in range(5)])
    counts = torch.bincount(rows, minlength=110)
    assert (counts[:80] == 1).all() and set(counts[80:].tolist()) == {2, 3} and counts[80:].sum() == 75
    again = torch.bincount(torch.cat([loader.step(step).row for step in range(5, 10)]), minlength=110)
    assert (again[:80] == 1).all() and not torch.equal(again, counts), "other ones get the third turn"
    alone = Loader(store, 31, feature="patch-mean")
    joined = Loader([store, f"{drawings}@0.001"], 31, feature="patch-mean")
    assert (alone.samples, joined.samples) == (80, 81)


def test_two_stores_on_the_command_line(store, drawings, tmp_path, capsys):
    argv = ["train", "--store", store, "--store", f"{drawings}@0.5", "--out", tmp_path / "run", "--recipe", "demo"]
    assert cli.main([str(a) for a in [*argv, "--steps", 2, "--batch", 16, "--device", "cpu"]]) == 0
    assert (tmp_path / "run/memory").is_dir(), "what it remembers is of both"
    assert TrainConfig(store=store, out=tmp_path).store == store
    assert cli.main([str(a) for a in ["train", "--store", store, "--store", tmp_path, "--out", tmp_path / "x"]]) == 1
    assert "is no store" in capsys.readouterr().err
