"""ZeroSeg behind the seam: training, going on, ranks, its answers, and what it says of bad input."""

import json
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from helpers.benchmarks import plant
from helpers.processes import in_processes
from safetensors.torch import load_file

import fastzss
from fastzss import cli, world
from fastzss.base.errors import UserError
from fastzss.base.runs import Run
from fastzss.extraction.flow import extract
from fastzss.extraction.settings import ExtractConfig
from fastzss.masks.inference import PLAIN, Inference
from fastzss.store.reading.views import ViewStore
from fastzss.training import sums
from fastzss.training.loop import Loop, Stopped, train
from fastzss.training.settings import TrainConfig

SOURCE = "world:train,n=24"
FAST = dict(method="zeroseg", groups="6,4", batch=8, steps=6, lr=1e-3, log_every=1, checkpoint_every=3, device="cpu",
            w_ms=1.0, w_match=1.0, w_place=1.0, mask_ratio=0.5, gumbel=True, anchor="linear", places="clusters",
            weight_decay=0.05)  # fmt: skip
DOOR = Path(__file__).parents[2] / "fastzss" / "train.py"


@pytest.fixture(scope="module")
def viewed(tmp_path_factory):
    """A store without captions."""
    path = tmp_path_factory.mktemp("zeroseg") / "store"
    extract(ExtractConfig(source=SOURCE, store=path, teacher="tiny", views="1,2,3", pixels=32, bank="none"))
    shutil.rmtree(path / "captions")
    return path


def config(viewed, out, **changes):
    return TrainConfig(**{**FAST, "store": viewed, "out": out, **changes})


@pytest.fixture(scope="module")
def whole(viewed, tmp_path_factory):
    out = tmp_path_factory.mktemp("zeroseg") / "run"
    train(config(viewed, out, precision="float64"), progress=False)
    return out


def weights(out):
    return load_file(Run.open(out).latest / "model.safetensors")


def apart(one, other):
    a, b = weights(one), weights(other)
    assert a.keys() == b.keys()
    return max((a[name] - b[name]).abs().max().item() for name in a)


@pytest.mark.parametrize("student", ["frozen", "light", "paper"])
def test_an_interrupted_run_is_an_uninterrupted_one_bit_for_bit(viewed, tmp_path, student):
    begun = {"anchor": "none", "places": "random"} if student == "paper" else {}
    settings = config(viewed, tmp_path / "a", student=student, encoder="tiny", **begun)
    train(settings, progress=False)
    real = Loop.after_step

    def after_step(self, metrics, signum, trackers):
        stop = signal.SIGINT if metrics["step"] == 4 else signum
        real(self, metrics, stop, trackers)
        if stop:
            raise Stopped(stop, 4)

    with mock.patch.object(Loop, "after_step", after_step), pytest.raises(Stopped):
        train(replace(settings, out=tmp_path / "b"), progress=False)
    train(replace(settings, out=tmp_path / "b"), progress=False)
    assert apart(tmp_path / "a", tmp_path / "b") == 0
    lines = [Run(tmp_path / name).metrics() for name in "ab"]
    assert lines[0] == lines[1] and [line["step"] for line in lines[0]] == list(range(1, 7))
    assert {"loss_ms", "loss_match", "groups_used", "views_matched", "segments_alike"} <= set(lines[0][0])
    assert ("loss_rec" in lines[0][0]) == (student == "paper")


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_several_processes_are_one(viewed, whole, tmp_path, count):
    out = tmp_path / "several"
    given = {**FAST, "store": viewed, "out": out, "precision": "float64"}
    flags = [f"--{key.replace('_', '-')}" + ("" if value is True else f"={value}") for key, value in given.items()]
    launcher = f"-m torch.distributed.run --standalone --nproc_per_node={count}".split()
    command = [sys.executable, *launcher, str(DOOR), *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    assert apart(whole, out) < 1e-5
    both = [[line["loss"] for line in Run(run).metrics()] for run in (whole, out)]
    assert both[1] == pytest.approx(both[0], rel=1e-5)


def trained(rank, settings):
    train(settings, progress=False)


@pytest.mark.parametrize("student", ["frozen", "paper"])
def test_gradients_summed_in_many_parts(viewed, tmp_path, monkeypatch, student):
    monkeypatch.setattr(sums, "BUCKET", 1 << 12)
    begun = {"anchor": "none", "places": "random"} if student == "paper" else {}
    given = dict(student=student, encoder="tiny", precision="float64", **begun)
    train(config(viewed, tmp_path / "alone", **given), progress=False)
    in_processes(2, trained, config(viewed, tmp_path / "two", **given))
    assert apart(tmp_path / "alone", tmp_path / "two") < 1e-9


def test_where_the_patches_lie_changes_nothing(viewed, whole, tmp_path):
    for where in ("host", "stream"):
        train(config(viewed, tmp_path / where, precision="float64", loader=where), progress=False)
        assert apart(whole, tmp_path / where) == 0


def test_no_text_is_imported_by_a_training(viewed, tmp_path):
    code = f"""
import sys
from pathlib import Path
from fastzss.training.loop import train
from fastzss.training.settings import TrainConfig
train(TrainConfig(store=Path({str(viewed)!r}), out=Path({str(tmp_path / "run")!r}), **{ {**FAST, "steps": 1}!r}))
rooms = ("fastzss.text", "fastzss.captions", "fastzss.bank", "open_clip", "spacy")
text = [module for module in sys.modules if module.startswith(rooms)]
sys.exit(" ".join(text) or 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_run_looks_like_any_other(whole):
    model, scene = fastzss.load(whole, device="cpu"), world.scene("test", 0)
    result = model.segment(scene.image, world.NAMES)
    assert result.mask.shape == scene.mask.shape and set(np.unique(result.mask)) <= set(range(32))
    plain = model.segment([scene.image] * 2, "tree, grass|lawn", PLAIN)
    assert np.array_equal(plain[0].mask, plain[1].mask)
    background = model.segment(scene.image, "tree, grass", Inference(background="threshold"))
    assert set(np.unique(background.mask)) <= {0, 1, 255}
    assert model.similarities(scene.image, "tree, sky").shape == (2, 128, 128)
    patches, whole_image = model.embed_image(scene.image)
    assert patches.shape == (16, 16, 128) and whole_image.shape == (1, 128)
    assert torch.allclose(patches.norm(dim=-1), torch.ones(16, 16), atol=1e-5)
    with pytest.raises(UserError, match="has no bank of names"):
        model.name(scene.image)
    with pytest.raises(UserError, match="background words asks a patch memory"):
        model.segment(scene.image, "tree", Inference(background="words"))
    with pytest.raises(UserError, match="reads whole captions; expected eot"):
        model.class_vectors(["tree"], "concept")


@pytest.mark.parametrize("size", [(300, 128), (90, 200), (64, 64)], ids=str)
def test_other_sizes_of_images(whole, size):
    image = world.scene("test", 1).image.resize(size)
    assert fastzss.load(whole, device="cpu").segment(image, "tree, sky, car").mask.shape == size[::-1]


def test_the_commands(whole, tmp_path, capsys):
    picture = tmp_path / "scene.png"
    world.scene("test", 2).image.save(picture)
    assert cli.main(["segment", str(whole), str(picture), "--classes", "tree, sky", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "scene.segmented.png").is_file()
    names = tmp_path / "names.txt"
    names.write_text("tree\\nsky\\n")
    assert cli.main(["name", str(whole), str(picture), "--bank", str(names), "--out", str(tmp_path)]) == 0
    capsys.readouterr()
    assert cli.main(["evaluate", str(whole), "--data", "world:test,n=2", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["protocol"] == "world" and 0 <= said["sets"]["world"]["miou"] <= 100
    masks = {f"2007_{i:06d}": np.full((150, 190), 1 + i, np.uint8) for i in range(2)}
    plant(tmp_path / "sets", "voc20", masks)
    assert cli.main(["evaluate", str(whole), "--data", str(tmp_path / "sets"), "--sets", "voc20", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["protocol"] == "tcl" and 0 <= said["sets"]["voc20"]["miou"] <= 100


def test_evaluation_inside_a_run(viewed, tmp_path):
    settings = config(viewed, tmp_path / "run", steps=2, eval_every=1, eval_data="world:validation,n=3")
    train(settings, progress=False)
    assert all(0 <= line["miou"] <= 100 for line in Run(tmp_path / "run").metrics())
    assert Run(tmp_path / "run").best is not None


def test_a_dry_run_writes_nothing(viewed, tmp_path, capsys):
    flags = ["train", "--store", str(viewed), "--out", str(tmp_path / "run"), "--method", "zeroseg", "--batch", "8"]
    assert cli.main([*flags, "--dry-run", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["samples"] == 24 and "14 an image of tiny" in said["views"]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"teacher": "ViT-L-14/openai"}, "has no views of the teacher ViT-L-14/openai; there are those of tiny"),
        ({"batch": 25}, "more than the 24 images"),
        ({"groups": "60,8", "mask_ratio": 0.9}, "60 groups of the 25 patches that the student sees"),
        (
            {"student": "paper", "encoder": "base", "groups": "8,4", "anchor": "none", "places": "random"},
            "8 groups of the 2 patches",
        ),
    ],
    ids=str,
)
def test_a_store_that_does_not_fit(viewed, tmp_path, change, sentence):
    with pytest.raises(UserError, match=sentence):
        train(config(viewed, tmp_path / "run", **change))
    assert not (tmp_path / "run").exists()


def test_a_store_without_views(store, tmp_path):
    with pytest.raises(UserError, match="has no views of a teacher. Add them with"):
        train(config(store, tmp_path / "run"))


@pytest.mark.parametrize(
    "flags, sentence",
    [
        (["--groups", "8,32"], "no more than in the first"),
        (["--groups", "8"], "expected two numbers, as 32,8"),
        (["--mask-ratio", "1"], "expected a share of the patches, below 1"),
        (["--tau", "0"], "--tau must be positive"),
        (["--student", "froze"], "did you mean frozen|invalid choice"),
    ],
)
def test_settings_that_do_not_fit(viewed, tmp_path, flags, sentence, capsys):
    try:
        out = ["--out", str(tmp_path / "run"), "--method", "zeroseg"]
        code = cli.main(["train", "--store", str(viewed), *out, *flags])
    except SystemExit as end:
        code = end.code
    assert code == 2

    assert re.search(sentence, capsys.readouterr().err)


def test_a_teacher_without_words_is_named():
    from fastzss.text.teacher import NoWords

    with pytest.raises(UserError, match="came without a text tower"):
        NoWords("vit_base_patch32_clip_224.openai").class_vectors(["tree"])


@pytest.mark.slow
def test_the_papers_student_learns(tmp_path):
    store = tmp_path / "store"
    extract(
        ExtractConfig(source="world:train,n=200", store=store, teacher="tiny", views="1,2,3", pixels=64, bank="none")
    )
    settings = dict(student="paper", encoder="tiny", mask_ratio=0.6, groups="16,8", steps=200, batch=16, w_place=0.0,
                    anchor="none", places="random")  # fmt: skip
    train(config(store, tmp_path / "run", **settings, log_every=10, checkpoint_every=200), progress=False)
    lines = Run(tmp_path / "run").metrics()
    for name in ("loss_rec", "loss_ms", "loss_match"):
        begin, end = (np.mean([line[name] for line in part]) for part in (lines[:3], lines[-3:]))
        assert end < 0.95 * begin, f"{name} falls from {begin:.4f} to {end:.4f} only"
    student = fastzss.load(tmp_path / "run", "cpu").student
    with torch.no_grad():
        found, _ = student.see(ViewStore(store).take(list(range(64)), "pixels").float())
    own = found.second.argmax(1).gather(1, found.first.argmax(1))
    assert own.unique().numel() >= 4, "no more than three of the eight groups have a patch of any of 64 images"
