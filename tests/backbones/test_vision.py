"""The frozen backbone: its numbers against timm's own, its weights, and what it says when there are none."""

import json
import time

import pytest
import timm
import torch
import torch.nn.functional as F
from helpers.backbones import SHIPPED, SMALL, picture, pixels, sentence
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import save_file
from timm.data import create_transform

from fastzss.backbones import load_vision, reload_vision
from fastzss.base.errors import UserError

# Preprocessing


@pytest.mark.parametrize(
    "width, height",
    [
        (224, 224),
        (301, 200),
        (200, 301),
        (227, 225),
        (225, 339),
        (97, 113),
        (640, 427),
        (333, 500),
        (1000, 225),
        (1, 3),
    ],
)
def test_pixels_are_those_of_timms_own_evaluation(width, height):
    eye = load_vision(SMALL, random=True, size=160)
    config = timm.data.resolve_model_data_config(eye.model)
    assert (eye.mean, eye.std, eye.interpolation) == (config["mean"], config["std"], config["interpolation"])
    theirs = create_transform(
        input_size=(3, 160, 160), crop_pct=1.0, mean=eye.mean, std=eye.std, interpolation=eye.interpolation
    )
    image = picture(width, height)
    found = eye.pixels(image)
    assert found.shape == (3, 160, 160) and found.dtype == torch.uint8 and found.is_contiguous()
    expected = (theirs(image) * torch.tensor(eye.std).view(3, 1, 1) + torch.tensor(eye.mean).view(3, 1, 1)) * 255
    assert (found.float() - expected).abs().max() < 0.01


def test_resize_brings_the_short_side_to_the_size_and_crops_nothing(small):
    for (width, height), expected in {(301, 200): (192, 128), (50, 333): (128, 852), (128, 128): (128, 128)}.items():
        assert small.resize(picture(width, height)).size == expected


def test_a_grey_image_is_looked_at_too(small):
    assert small.pixels(Image.new("L", (200, 130), 77)).unique().tolist() == [77]


# Models of timm


@pytest.mark.parametrize(
    "name, size, prefix, named",
    [
        ("vit_tiny_patch16_224", 48, 1, ("cls", "patch-mean")),
        ("vit_small_patch14_reg4_dinov2.lvd142m", 56, 5, ("cls", "patch-mean")),
        ("test_vit2", 64, 1, ("patch-mean",)),  # a register and no class token
        ("vit_medium_patch16_gap_240", 32, 0, ("patch-mean",)),
    ],
)
def test_patches_are_timms_without_class_and_register_tokens(name, size, prefix, named):
    eye = load_vision(name, random=True, size=size)
    n = size // (14 if "14" in name else 16)
    assert (eye.grid, eye.prefix, eye.globals, eye.origin) == ((n, n), prefix, named, "random")
    x = pixels(2, size)
    patches, found = eye(x)
    assert patches.shape == (2, n * n, eye.channels) and found.shape == (2, len(named), eye.channels)
    config = timm.data.resolve_model_data_config(eye.model)
    mean, std = (torch.tensor(config[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.inference_mode():
        (found_by_timm,) = eye.model.forward_intermediates(
            (x / 255 - mean) / std,
            indices=1,
            norm=True,
            output_fmt="NLC",
            return_prefix_tokens=True,
            intermediates_only=True,
        )
    theirs, before = found_by_timm if prefix else (found_by_timm, None)
    assert torch.allclose(patches, F.normalize(theirs, dim=-1), atol=1e-5)
    kinds = {"patch-mean": theirs.mean(1)} | ({"cls": before[:, 0]} if prefix else {})
    assert torch.allclose(found, torch.stack([kinds[kind] for kind in named], 1), atol=1e-4)


def test_the_default_size_goes_by_the_patch():
    assert load_vision(SMALL, random=True).size == 224
    assert load_vision("vit_small_patch14_dinov2", random=True).size == 224


def test_random_weights_are_always_the_same_and_leave_the_callers_random_numbers_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = load_vision(SMALL, random=True, size=32)
    assert torch.equal(torch.rand(3), expected)
    assert load_vision(SMALL, random=True, size=32).record == first.record


def test_models_that_take_no_device_are_loaded_all_the_same(monkeypatch):
    """As all are in the oldest timm that is allowed."""
    create = timm.create_model

    def without_device(name, **named):
        if "device" in named:
            raise TypeError("__init__() got an unexpected keyword argument 'device'")
        return create(name, **named)

    expected = load_vision(SMALL, random=True, size=32).record
    monkeypatch.setattr(timm, "create_model", without_device)
    assert load_vision(SMALL, random=True, size=32).record == expected
    assert "is no plain vision transformer" in sentence("resnet18", random=True)


@pytest.mark.parametrize(
    "name, size, parts",
    [
        (
            "vit_tiny_patch16_244",
            None,
            ['unknown model "vit_tiny_patch16_244"', 'did you mean "vit_tiny_patch16_224"?'],
        ),
        ("vit_bse_patch14_reg4_dinov2.lvd142m", None, ['did you mean "vit_base_patch14_reg4_dinov2"?']),
        ("vit_tiny_patch16_224.nosuch", None, ['unknown model "vit_tiny_patch16_224.nosuch"', "nosuch"]),
        ("tinny", None, ["expected tiny or a timm ViT"]),
        ("", None, ['unknown model ""']),
        ("resnet18", None, ["resnet18 is no plain vision transformer; expected a timm ViT"]),
        ("swin_tiny_patch4_window7_224", None, ["is no plain vision transformer"]),
        ("vit_tiny_r_s16_p8_224", None, ["is no plain vision transformer"]),  # a convolutional net in front of it
        (SMALL, 100, ["--size 100 is no multiple of the patch size 16 of test_vit"]),
        (SMALL, -32, ["--size -32"]),
    ],
)
@pytest.mark.parametrize("random", [True, False], ids=["random", "fetched"])
def test_a_model_that_cannot_be_had_gets_a_sentence(name, size, parts, random):
    message = sentence(name, size=size, random=random)
    for part in parts:
        assert part in message


def test_weights_that_cannot_be_fetched_name_the_ways_out_at_once(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    began = time.perf_counter()
    message = sentence("vit_tiny_patch16_224", size=32)
    assert time.perf_counter() - began < 15  # the hub's client alone would try for most of a minute
    assert "the weights of vit_tiny_patch16_224 cannot be fetched" in message
    assert "--weights FILE" in message and "--model tiny" in message
    assert constants.HF_HUB_OFFLINE is False


# Weights from a file


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_weights_come_from_a_file(tmp_path, other_weights, suffix):
    path = tmp_path / f"w.{suffix}"
    save_file(other_weights, path) if suffix == "safetensors" else torch.save(other_weights, path)
    eye = load_vision(SMALL, weights=path, size=160)
    assert eye.origin == str(path.resolve())
    expected = {name: value for name, value in other_weights.items() if not name.startswith("head.")}
    found = eye.model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_weights_from_a_file_are_brought_to_another_size(tmp_path, other_weights):
    save_file(other_weights, tmp_path / "w.safetensors")
    eye = load_vision(SMALL, weights=tmp_path / "w.safetensors", size=48)
    assert eye.grid == (3, 3) and eye(pixels(1, 48))[0].shape == (1, 9, 64)
    assert torch.equal(eye.model.state_dict()["blocks.0.attn.qkv.weight"], other_weights["blocks.0.attn.qkv.weight"])


def test_a_file_that_holds_no_weights_of_the_model_is_refused(tmp_path, other_weights):
    (tmp_path / "text.pth").write_text("no weights")
    (tmp_path / "text.safetensors").write_text("no weights")
    save_file({n: v for n, v in other_weights.items() if "blocks.1" not in n}, tmp_path / "few.safetensors")
    save_file({f"backbone.{n}": v for n, v in other_weights.items()}, tmp_path / "renamed.safetensors")
    files = [tmp_path / name for name in ("text.pth", "text.safetensors", "few.safetensors", "renamed.safetensors")]
    before = torch.nn.Module.load_state_dict
    for path in [*files, SHIPPED]:
        assert f"--weights {path}: these are no weights of {SMALL}" in sentence(SMALL, weights=path, size=160)
    assert "12 weights are missing, blocks.1." in sentence(SMALL, weights=tmp_path / "few.safetensors", size=160)
    assert torch.nn.Module.load_state_dict is before
    message = sentence(SMALL, weights=tmp_path / "missing.pth")
    assert f"--weights {tmp_path / 'missing.pth'}: no such file" in message and SMALL in message


# The backbone of a store


def test_the_backbone_of_a_store_is_found_again_by_its_weights_wherever_they_are(tmp_path, other_weights):
    first, moved, wrong = (tmp_path / f"{name}.safetensors" for name in ("first", "moved", "wrong"))
    save_file(other_weights, first)
    save_file({name: value * 1.5 for name, value in other_weights.items()}, wrong)
    eye = load_vision(SMALL, weights=first, size=32)
    record = json.loads(json.dumps(eye.record))
    assert record == eye.record
    assert reload_vision(record, eye.origin).record == record
    first.rename(moved)
    with pytest.raises(UserError, match="--weights .*first.safetensors: no such file"):
        reload_vision(record, eye.origin)
    assert reload_vision(record, eye.origin, weights=moved).record == record
    with pytest.raises(
        UserError, match="test_vit differs from the one that made these features in weights.*--weights FILE"
    ):
        reload_vision(record, eye.origin, weights=wrong)


def test_random_and_shipped_weights_are_not_taken_for_each_other():
    eye = load_vision("tiny", random=True)
    assert reload_vision(eye.record, "random").record == eye.record
    with pytest.raises(UserError, match="differs .* in weights"):
        reload_vision(eye.record, "shipped")
    with pytest.raises(UserError, match="differs .* in preprocess"):
        reload_vision({**eye.record, "preprocess": {}}, "random")
