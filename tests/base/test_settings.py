"""The project's own settings: their defaults, their recipes, and those that make no sense."""

import argparse
from pathlib import Path

import pytest
from helpers.flags import train_config

from fastzss.base.config import add_config, build, configured, plain
from fastzss.base.errors import UserError
from fastzss.demo.settings import DemoConfig
from fastzss.extraction.settings import ExtractConfig
from fastzss.training.settings import RECIPES, TrainConfig

PATHS = {TrainConfig: ["--store", "s", "--out", "o"], ExtractConfig: ["world:train", "s"], DemoConfig: []}


def refused(work, *args, **named):
    with pytest.raises(UserError) as problem:
        work(*args, **named)
    assert problem.value.code == 2
    return str(problem.value)


@pytest.mark.parametrize("kind", PATHS, ids=lambda kind: kind.__name__)
def test_every_default_has_the_type_it_declares(kind):
    parser = argparse.ArgumentParser()
    add_config(parser, kind)
    config = configured(kind, parser.parse_args(PATHS[kind]))
    assert build(kind, ("again", plain(config))) == config


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_builds_and_says_what_it_says(recipe):
    config, json, dry = train_config([*PATHS[TrainConfig], "--recipe", recipe])
    assert config.recipe == recipe and json is False and dry is False
    for key, value in RECIPES[recipe].items():
        assert getattr(config, key) == value


def test_train_settings_from_flags(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("recipe: demo\nsteps: 20\nlocal-weight: 0.25\n")
    config, json, dry = train_config(["--store", "s", "--out", "o", "--config", str(path), "--steps", "30", "--json"])
    assert json is True and dry is False
    assert (config.recipe, config.steps, config.local_weight, config.batch) == (
        "demo",
        30,
        0.25,
        RECIPES["demo"]["batch"],
    )
    assert (config.store, config.out, config.device) == (Path("s"), Path("o"), None)


def test_the_peak_learning_rate_follows_the_batch_unless_it_is_given():
    authors = [*PATHS[TrainConfig], "--recipe", "simzss-coco", "--batch", "512"]
    config, *_ = train_config(authors)
    assert config.peak == pytest.approx(6e-5)
    config, *_ = train_config([*authors, "--lr", "0.001"])
    assert config.peak == 0.001


@pytest.mark.parametrize(
    "flag, value, message",
    [
        ("--steps", "0", "--steps must be positive, got 0"),
        ("--batch", "-1", "--batch must be positive, got -1"),
        ("--temperature", "0", "--temperature must be positive"),
        ("--log-every", "0", "--log-every must be positive"),
        ("--checkpoint-every", "0", "--checkpoint-every must be positive"),
        ("--weight-decay", "-0.1", "--weight-decay must not be negative"),
        ("--local-weight", "-1", "--local-weight must not be negative"),
        ("--temperature", "nan", "temperature is 'nan'; expected float"),
        ("--micro-batch", "half", "--micro-batch is half; expected auto, 0, or a number"),
        ("--micro-batch", "-3", "--micro-batch is -3; expected auto, 0, or a number"),
        ("--keep", "0", "--keep must be positive"),
        ("--eval-every", "-1", "--eval-every must not be negative"),
        ("--log", "tensorbord", "'tensorbord' is none of tensorboard, wandb (did you mean \"tensorboard\"?)"),
        ("--recipe", "mine.yaml", "a file of settings goes to --config"),
        ("--recipe", "dmeo", 'unknown recipe "dmeo" (did you mean "demo"?'),
    ],
)
def test_train_settings_that_make_no_sense_are_refused(flag, value, message):
    assert message in refused(train_config, [*PATHS[TrainConfig], flag, value])


@pytest.mark.parametrize(
    "flag, value, message", [("--size", "0", "--size must be"), ("--batch", "0", "--batch must be")]
)
def test_extract_settings_that_make_no_sense_are_refused(flag, value, message):
    parser = argparse.ArgumentParser()
    add_config(parser, ExtractConfig)
    assert message in refused(configured, ExtractConfig, parser.parse_args([*PATHS[ExtractConfig], flag, value]))


def test_extraction_without_a_bank_can_be_asked_for():
    parser = argparse.ArgumentParser()
    add_config(parser, ExtractConfig)
    assert configured(ExtractConfig, parser.parse_args([*PATHS[ExtractConfig], "--bank", "none"])).bank == "none"


def test_the_demo_needs_nothing():
    assert build(DemoConfig) == DemoConfig()
    assert "--seeds must be positive" in refused(build, DemoConfig, ("command line", {"seeds": 0}))
