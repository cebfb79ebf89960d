"""The recipe auto: what it chooses at every size, what wins over it, and that a run keeps what was chosen."""

from dataclasses import replace

import pytest
from helpers.flags import train_config

from fastzss.base.ranks import Ranks
from fastzss.base.runs import Run
from fastzss.methods.simzss import auto
from fastzss.methods.simzss.auto import FASTEST, Facts, choose, facts_of, parameters, recipe
from fastzss.methods.simzss.settings import OPEN
from fastzss.methods.simzss.task import Learner
from fastzss.text.tower import PRESETS
from fastzss.training.loop import main, train
from fastzss.training.settings import RECIPES, TrainConfig

IMAGES = [1, 2, 3, 7, 37, 63, 64, 65, 100, 148, 1000, 4096, 4097, 20_000, 118_000, 999_983, 5_000_000, 10_000_000]


def facts(images, captions=None, **changes):
    found = dict(captions=captions or images, images=images, names=45, tokens=16.0, device="cpu", memory=16e9)
    return Facts(**found | changes)


def values(given):
    return {key: value for key, (value, _) in given.items()}


@pytest.fixture
def open_config(config):
    """Nothing of what the rule chooses is set, but the steps."""
    return replace(config, **dict.fromkeys(OPEN) | {"steps": 3})


@pytest.mark.parametrize("images", IMAGES)
@pytest.mark.parametrize("device, memory", [("cpu", 4e9), ("cpu", 64e9), ("cuda", 80e9)])
@pytest.mark.parametrize("processes", [1, 3, 8])
def test_the_batch_fits_at_every_size(images, device, memory, processes):
    found = values(recipe(facts(images, device=device, memory=memory, processes=processes)))
    assert found["batch"] % processes == 0
    assert found["batch"] <= max(images, processes), "a training of more processes than images is refused as it is"
    assert found["batch"] >= min(images - processes + 1, 64 - processes + 1)
    assert found["steps"] >= 1 and 0 < found["lr"] <= FASTEST and 0 < found["warmup"] < 1
    assert set(found) == set(OPEN)
    config = TrainConfig(store="s", out="o", **found)
    assert not config.left_open


def test_more_data_never_gets_less():
    found = [values(recipe(facts(images, device="cuda", memory=80e9))) for images in IMAGES]
    seen = [one["batch"] * one["steps"] for one in found]
    assert seen == sorted(seen)
    sizes = [list(PRESETS).index(one["text"]) for one in found]
    assert sizes == sorted(sizes) and found[0]["text"] == "tiny" and found[-1]["text"] == "base"
    assert values(recipe(facts(1_000_000)))["text"] == "small", "a CPU reads slowly"


def test_the_local_loss_weighs_less_the_more_names_there_are():
    weights = [values(recipe(facts(1000, names=names)))["local_weight"] for names in (1, 45, 100, 500, 1000, 50_000)]
    assert weights == [1.0, 1.0, 0.5, 0.1, 0.05, 0.05]
    assert recipe(facts(1000, names=0))["local_weight"] == (0.0, "no caption mentions a name")


def test_more_names_take_more_pairs_and_larger_batches():
    few, many = (values(recipe(facts(118_000, 590_000, names=n, device="cuda", memory=80e9))) for n in (45, 3000))
    assert (few["batch"], few["steps"]) == (256, 461), "each image is seen once"
    assert (many["batch"], many["steps"]) == (2048, 750), "512 for each name; more than that does not fit"
    assert values(recipe(facts(500, names=3000)))["steps"] * 128 <= 500 * 128 * 1.01, "no image more than 128 times"


def test_short_memory_gets_a_smaller_tower_and_then_a_smaller_batch():
    large = facts(1_000_000, 5_000_000, device="cuda", memory=80e9)
    assert (recipe(large)["text"][0], recipe(large)["batch"][0]) == ("base", 2048)
    less = replace(large, memory=8e9)
    assert (recipe(less)["text"][0], recipe(less)["batch"][0]) == ("base", 256)
    least = recipe(replace(large, memory=2e9))
    assert least["text"] == ("tiny", "what the memory has room for")
    assert least["batch"] == (1024, "what the memory has room for")
    assert recipe(replace(large, memory=1e6))["batch"][0] == 64, "it is read in parts"


def test_the_size_of_a_tower_is_about_right():
    for name in ("tiny", "small", "base"):
        own = sum(p.numel() for p in Learner(PRESETS[name], 768).parameters())
        assert parameters(name) == pytest.approx(own, rel=0.03)


def test_what_is_given_stays_and_the_rest_goes_with_it():
    found = recipe(facts(20_000), {"batch": 64, "text": "small"})
    assert found["batch"] == (64, "given") and found["text"] == ("small", "given")
    assert found["lr"][0] == 5e-4
    assert found["steps"][0] == 400
    assert recipe(facts(20_000), {"batch": 256})["steps"][0] == 100, "as many pairs, in larger batches"
    assert recipe(facts(200), {"local_weight": 0.0})["local_weight"] == (0.0, "given")
    assert recipe(facts(10, 50), {"captions": "all"})["batch"][0] == 50


def test_explicit_flags_win(store, tmp_path):
    flags = ["--store", str(store), "--out", str(tmp_path / "run"), "--device", "cpu"]
    config, *_ = train_config([*flags, "--batch", "20", "--lr", "0.1", "--warmup", "0", "--local-weight", "0"])
    assert config.recipe == "auto" and config.left_open == ["text", "steps", "captions"]
    chosen, said = choose(config, Ranks("cpu"))
    assert (chosen.batch, chosen.lr, chosen.warmup, chosen.local_weight) == (20, 0.1, 0.0, 0.0)
    assert (chosen.text, chosen.steps, chosen.captions) == ("tiny", 512, "one")
    assert len(said) == 1 and "text tiny (" in said[0] and "steps 512 (" in said[0]
    assert "batch" not in said[0].partition("memory:")[2]


def test_a_run_that_begins_from_another_has_its_tower(open_config, tmp_path):
    first = replace(open_config, out=tmp_path / "first", text="small", batch=8, steps=1)
    train(first)
    assert choose(replace(open_config, from_run=first.out), Ranks("cpu"))[0].text == "small"


@pytest.mark.parametrize("name", ["simzss-coco", "demo"])
def test_the_other_recipes_leave_nothing_open(store, tmp_path, name, monkeypatch):
    config, *_ = train_config(["--store", str(store), "--out", str(tmp_path), "--recipe", name])
    assert config.left_open == []
    assert config.lr == RECIPES[name]["lr"]


def test_what_the_store_holds_is_looked_at(open_config):
    found = facts_of(open_config, Ranks("cpu"))
    assert (found.captions, found.images, found.processes, found.device) == (160, 80, 1, "cpu")
    assert 10 < found.tokens < 30 and 20 < found.names < 60 and found.memory > 1e8
    held = facts_of(replace(open_config, hold_out=0.5), Ranks("cpu"))
    assert held.captions == 2 * held.images < 110


def test_a_run_says_and_records_what_was_chosen(open_config, caplog):
    caplog.set_level("INFO", "fastzss")
    said = main(open_config, dry_run=True)["recipe"]
    assert said.startswith("chosen for 160 captions of 80 images") and not open_config.out.exists()
    train(open_config)
    assert said in caplog.messages
    recorded = Run(open_config.out).config["settings"]
    assert recorded["recipe"] == "auto"
    assert (recorded["text"], recorded["batch"], recorded["steps"], recorded["lr"]) == ("tiny", 64, 3, 2e-3)
    assert None not in [recorded[key] for key in OPEN]


def test_a_run_goes_on_with_what_was_chosen(open_config, monkeypatch):
    """Whatever the rule would say of its store and of the machine by now."""
    train(open_config)
    larger = Facts(captions=10**7, images=10**6, names=5000, tokens=12.0, device="cuda", memory=8e10, processes=1)
    monkeypatch.setattr(auto, "facts_of", lambda config, ranks: larger)
    assert choose(open_config, Ranks("cpu"))[0].batch == 2048, "it would be another one"
    assert main(open_config, dry_run=True)["batch"] == 64
    assert train(replace(open_config, extend=5))["step"] == 5
    assert Run(open_config.out).config["settings"]["batch"] == 64


def test_a_run_of_the_former_default_goes_on_by_its_own_command(config):
    """Runs of before `auto` recorded no rate where it followed from the batch."""
    train(replace(config, recipe="simzss-coco", lr=None, steps=2))
    left = replace(config, recipe="auto", **dict.fromkeys(OPEN))
    assert train(left)["step"] == 2
    assert train(replace(left, extend=3))["lr"] == pytest.approx(3e-5 * config.batch / 256)
