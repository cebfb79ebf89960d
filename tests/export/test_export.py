"""`fastzss export`: other programs read what is written, and say what the run says."""

import json
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.runs import random_run

import fastzss
from fastzss import cli, world
from fastzss.export.dense import Dense
from fastzss.export.sample import kind_of, normalised


@pytest.fixture(scope="module")
def vit_s(tmp_path_factory):
    """A random ViT-S/14 and a base tower."""
    return random_run(tmp_path_factory.mktemp("vit-s") / "run")


@pytest.fixture(params=["tiny", "vit-s"])
def run(request):
    return request.getfixturevalue({"tiny": "trained", "vit-s": "vit_s"}[request.param])


@pytest.fixture
def export(tmp_path, capsys):
    """`fastzss export`: (exit code, the printed object or None, stderr)."""

    def export(run, form, *flags, out=tmp_path / "out"):
        code = cli.main(["export", str(run), "--to", form, "--out", str(out), "--json", *map(str, flags)])
        printed, said = capsys.readouterr()
        return code, json.loads(printed) if printed else None, said

    export.out = tmp_path / "out"
    return export


def random_pixels(vision, count=3):
    made = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 3, vision.size, vision.size), dtype=torch.uint8, generator=made)


def far(one, other):
    return (one - other).abs().max().item()


@pytest.mark.filterwarnings("ignore")
def test_open_clip_reads_both_towers_and_classifies_alike(run, export):
    open_clip = pytest.importorskip("open_clip")
    code, found, said = export(run, "open-clip")
    assert code == 0, said
    assert found["largest difference"] < 1e-5
    model, own = open_clip.create_model_and_transforms(f"local-dir:{export.out}")[0].eval(), fastzss.load(run)
    pixels, kind = random_pixels(own.vision), own.vision.globals.index(kind_of(own, own.run))
    images = own.vision(pixels)[1][:, kind]
    with torch.no_grad():
        theirs = model.encode_image(normalised(own.vision, pixels))
    assert far(F.normalize(theirs, dim=-1), F.normalize(images, dim=-1)) < 1e-5

    names, templates = list(world.NAMES), ["a {}", "a photo of the {}."]
    tokenizer = open_clip.get_tokenizer(f"local-dir:{export.out}")
    formats = [template.format for template in templates]
    classifier = open_clip.build_zero_shot_classifier(model, tokenizer, names, formats)
    scenes = torch.stack([own.vision.pixels(world.scene("test", n).image) for n in range(12)])
    with torch.no_grad():
        chosen = (model.encode_image(normalised(own.vision, scenes), normalize=True) @ classifier).argmax(1)
    vectors = own.class_vectors(names, "eot", templates)
    assert chosen.tolist() == (F.normalize(own.vision(scenes)[1][:, kind], dim=-1) @ vectors.T).argmax(1).tolist()


def test_transformers_reads_the_text_tower_and_its_tokenizer(run, export):
    transformers = pytest.importorskip("transformers")
    code, found, said = export(run, "hf")
    assert code == 0 and found["largest difference"] < 1e-5, said
    texts = ["a dog", "two red-striped cats' 23 toys!", "über café ☕", "a " * 120]
    asked = transformers.CLIPTokenizer.from_pretrained(export.out)(
        texts, padding=True, truncation=True, return_tensors="pt"
    )
    tower = transformers.CLIPTextModelWithProjection.from_pretrained(export.out)
    with torch.no_grad():
        theirs = F.normalize(tower(**asked).text_embeds, dim=-1)
    assert far(theirs, fastzss.load(run).class_vectors(texts, "eot", ("{}",))) < 1e-5


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form, most", [("onnx", 1e-4), ("torch-export", 1e-5)])
def test_a_graph_of_any_size_and_number(run, export, form, most):
    code, found, said = export(run, form, "--classes", "tree|bush, red house, sky")
    assert code == 0, said
    assert found["classes"] == 3 and found["largest difference"] < most
    own = fastzss.load(run)
    vectors = own.embed_text("tree|bush, red house, sky")
    if form == "onnx":
        session = pytest.importorskip("onnxruntime").InferenceSession(export.out / "model.onnx")

        def ask(images):
            return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
    else:
        ask = torch.export.load(export.out / "model.pt2").module()
    pixels, patch = random_pixels(own.vision, 2), own.vision.size // own.vision.grid[0]
    with torch.no_grad():
        expected = (own.vision(pixels)[0] @ vectors.T).mT.unflatten(-1, own.vision.grid)
        assert far(ask(pixels / 255), expected) < most
        dense = Dense(own.vision, vectors).eval()
        for count, height, width in ((1, own.vision.size, own.vision.size), (3, 5 * patch, 9 * patch + 3)):
            images = torch.rand(count, 3, height, width)
            assert ask(images).shape == (count, 3, height // patch, width // patch)
            assert far(ask(images), dense(images)) < most
    labels = json.loads((export.out / "labels.json").read_text())
    assert labels["classes"] == ["tree", "red house", "sky"] and labels["any_size"] and labels["patch"] == patch


@pytest.mark.parametrize(
    "model, kind, said",
    [
        ("vit_small_patch14_reg4_dinov2", "cls", "extract with --size 518"),
        ("vit_small_patch14_reg4_dinov2", "patch-mean", "cannot give the mean of the patches"),
    ],
)
def test_what_open_clip_cannot_hold_is_said(tmp_path, export, model, kind, said):
    code, _, found = export(random_run(tmp_path / "run", model, "tiny", global_feature=kind), "open-clip")
    assert code == 1 and said in found


def test_registers_and_places_are_where_the_backbone_has_them():
    from fastzss.backbones import load_vision

    for name in ("vit_small_patch14_reg4_dinov2", "vit_tiny_patch16_224", "tiny"):
        vision = load_vision(name, random=True)
        dense, pixels = Dense(vision, torch.eye(vision.channels)).eval(), random_pixels(vision, 1)
        with torch.no_grad():
            assert far(dense(pixels / 255).flatten(2).mT, vision(pixels)[0]) < 1e-6


@pytest.mark.parametrize(
    "form, flags, said",
    [
        ("onx", (), 'unknown form "onx" (did you mean "onnx"?)'),
        ("hf", ("--opset", 18), "--opset goes with --to onnx"),
        ("hf", ("--classes", "a"), "has no list of classes"),
        ("onnx", ("--classes", "a", "--opset", 9), "--opset 9: expected 18 to"),
        ("onnx", ("--classes", "a", "--opset", 999), "--opset 999: expected 18 to"),
        ("onnx", ("--classes", "a", "--classes-file", "b"), "either --classes or"),
    ],
)
def test_wrong_usage(trained, export, form, flags, said):
    code, _, found = export(trained, form, *flags)
    assert code == 2 and said in found


def test_other_things_are_not_overwritten_and_twice_is_once(trained, export, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    code, _, said = export(trained, "hf", out=tmp_path / "mine")
    assert code == 2 and "no empty folder" in said
    assert export(trained, "hf")[0] == export(trained, "hf")[0] == 0


def test_a_missing_extra_is_named(trained, export, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    code, _, said = export(trained, "onnx", "--classes", "a")
    assert code == 2 and 'onnxruntime: `pip install "fastzss[export]"`' in said


def test_a_run_whose_backbone_is_not_at_hand(tmp_path, export):
    run = random_run(tmp_path / "run", text="tiny")
    text = (run / "config.yaml").read_text().replace("weights: random", "weights: /nowhere/dino.pth")
    (run / "config.yaml").write_text(text)
    code, _, said = export(run, "onnx")
    assert code == 1 and "--weights /nowhere/dino.pth: no such file" in said


def test_a_difference_is_an_error(trained, export, monkeypatch):
    from fastzss.export import transformers_folder

    tensors = transformers_folder.tensors

    def wrong(tower):
        found = tensors(tower)
        found["text_projection.weight"] = found["text_projection.weight"] * torch.from_numpy(
            np.linspace(1, 1.01, len(found["text_projection.weight"]), dtype=np.float32)
        ).unsqueeze(1)
        return found

    monkeypatch.setattr(transformers_folder, "tensors", wrong)
    code, _, said = export(trained, "hf")
    assert code == 1 and "differ from the run's by" in said
