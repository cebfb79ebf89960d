"""Every family of timm's vision transformers through one door: its features are those of a plain forward of timm."""

import io
import json
from contextlib import redirect_stdout
from functools import partial

import pytest
import timm
import torch
import torch.nn.functional as F
from helpers.backbones import SMALL, picture, pixels, sentence
from safetensors.torch import save_file
from timm.data import resolve_model_data_config

from fastzss.backbones import Looking, load_vision, reload_vision
from fastzss.backbones.looking import CLIP
from fastzss.base.errors import UserError

FAMILIES = {  # the smallest of each: prefix tokens, whether its final norm is one
    "vit_small_patch14_dinov2.lvd142m": (1, True),
    "vit_small_patch14_reg4_dinov2.lvd142m": (5, True),
    "vit_small_patch16_dinov3.lvd1689m": (5, True),
    "vit_base_patch16_siglip_224.v2_webli": (0, True),
    "vit_pe_core_tiny_patch16_384.fb": (1, True),
    "vit_pe_spatial_tiny_patch16_512.fb": (1, False),
    "vit_base_patch14_reg1_tipsv2.webli": (2, True),
    "vit_base_patch16_radio_v3.c_radio": (8, False),
    "eva02_tiny_patch14_224.mim_in22k": (1, False),
    "aimv2_large_patch14_224.apple_pt": (0, True),
    "vit_small_patch16_224.dino": (1, True),
    "vit_base_patch16_224.mae": (1, True),
    "vit_tiny_patch16_224.augreg_in21k": (1, True),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_features_of_a_family_are_those_of_a_plain_forward_of_the_same_file(tmp_path, name):
    prefix, normed = FAMILIES[name]
    size = 4 * (14 if "14" in name else 16)
    torch.manual_seed(3)
    plain = timm.create_model(name, pretrained=False, num_classes=0, img_size=size).eval()
    save_file({n: v.contiguous().clone() for n, v in plain.state_dict().items()}, tmp_path / "w.safetensors")
    vision = load_vision(name, tmp_path / "w.safetensors", size=size)
    config, x = resolve_model_data_config(plain), pixels(2, size)
    assert (vision.mean, vision.std) == (config["mean"], config["std"]) and vision.interpolation == config[
        "interpolation"
    ]
    mean, std = (torch.tensor(config[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.inference_mode():
        tokens = plain.forward_features((x / 255 - mean) / std)
        patches, globals_ = vision(x)
    assert (vision.prefix, vision.normed, vision.grid) == (prefix, normed, (4, 4))
    assert vision.record["layer"] == f"last block, {'final norm, ' * normed}prefix tokens dropped"
    assert vision.licence == plain.pretrained_cfg["license"]
    assert (patches - F.normalize(tokens[:, prefix:], dim=-1)).abs().max() < 1e-5
    assert vision.globals == (("cls",) if plain.cls_token is not None else ()) + ("patch-mean",)
    expected = ([tokens[:, 0]] if plain.cls_token is not None else []) + [tokens[:, prefix:].mean(1)]
    assert torch.allclose(globals_, torch.stack(expected, 1), atol=1e-5, rtol=1e-5)


# Files as others lay them out


def test_metas_file_of_dinov2_is_read_and_brought_to_another_size(tmp_path):
    name = "vit_small_patch14_reg4_dinov2"
    torch.manual_seed(3)
    plain = timm.create_model(name, pretrained=False, num_classes=0, img_size=56)
    state = dict(plain.state_dict())
    theirs = {n.replace("reg_token", "register_tokens"): v for n, v in state.items()}
    first = torch.zeros(1, 1, 384)  # their table has a row for the class token
    theirs["pos_embed"] = torch.cat([first, state["pos_embed"]], 1)
    theirs["mask_token"] = torch.zeros(1, 384)
    torch.save(theirs, tmp_path / "dinov2_vits14_reg4_pretrain.pth")
    vision = load_vision(name, tmp_path / "dinov2_vits14_reg4_pretrain.pth", size=56)
    found = vision.model.state_dict()
    assert all(torch.equal(found[n], v) for n, v in state.items())
    larger = load_vision(name, tmp_path / "dinov2_vits14_reg4_pretrain.pth", size=84)
    assert larger.grid == (6, 6) and torch.equal(larger.model.reg_token, state["reg_token"])


def test_metas_file_of_dinov3_is_read_without_a_word_on_stdout(tmp_path):
    name = "vit_small_patch16_dinov3"
    torch.manual_seed(3)
    plain = timm.create_model(name, pretrained=False, num_classes=0, img_size=64)
    state = dict(plain.state_dict())
    theirs = {}
    for key, value in state.items():
        key = key.replace("reg_token", "storage_tokens").replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma")
        theirs[key] = value
    for k in range(12):
        theirs[f"blocks.{k}.attn.qkv.bias"] = torch.zeros(3 * 384)
        theirs[f"blocks.{k}.attn.qkv.bias_mask"] = torch.zeros(3 * 384)
    theirs["mask_token"], theirs["rope_embed.periods"] = torch.zeros(1, 384), torch.zeros(16)
    torch.save(theirs, tmp_path / "dinov3_vits16_pretrain_lvd1689m.pth")
    out = io.StringIO()
    with redirect_stdout(out):
        vision = load_vision(name, tmp_path / "dinov3_vits16_pretrain_lvd1689m.pth", size=64)
    assert out.getvalue() == ""
    assert all(torch.equal(vision.model.state_dict()[n], v) for n, v in state.items())


def test_a_folder_of_weights_and_what_it_must_hold(tmp_path, other_weights):
    for name in ("a.pth", "b.pth"):
        torch.save(other_weights, tmp_path / name)
    assert "which file of this folder? Weights in it: a.pth, b.pth; name one" in sentence(SMALL, weights=tmp_path)
    save_file(other_weights, tmp_path / "model.safetensors")
    vision = load_vision(SMALL, tmp_path, size=160)
    assert vision.origin == str((tmp_path / "model.safetensors").resolve())
    (tmp_path / "empty").mkdir()
    assert "Weights in it: none" in sentence(SMALL, weights=tmp_path / "empty")
    message = sentence(str(tmp_path), random=True)
    assert f"its weights go to --weights {tmp_path}" in message


def test_weights_of_another_architecture_name_the_tensors_that_differ(tmp_path, other_weights):
    save_file(other_weights, tmp_path / "w.safetensors")
    message = sentence("vit_tiny_patch16_224", weights=tmp_path / "w.safetensors", size=160)
    assert "these are no weights of vit_tiny_patch16_224" in message
    assert "have another shape" in message and "cls_token 1 x 1 x 64 for 1 x 1 x 192" in message
    assert "weights are missing" in message


def test_the_hub_is_named_where_it_cannot_be_reached(tmp_path):
    message = sentence("hf-hub:timm/vit_tiny_patch16_224.augreg_in21k")
    assert "hf-hub:timm/vit_tiny_patch16_224.augreg_in21k cannot be fetched" in message and "--weights FILE" in message
    message = sentence(SMALL, weights="hf-hub:timm/test_vit.r160_in1k", size=160)
    assert "cannot be fetched" in message and "--weights FILE" in message


# How it looks


@pytest.mark.parametrize("name, layer", [("tiny", 2), ("tiny", -2), (SMALL, 1), ("vit_medium_patch16_gap_240", -3)])
def test_another_layer_is_that_blocks_output_after_the_final_norm(name, layer):
    size = None if name == "tiny" else 64 if name != SMALL else 32
    vision = load_vision(name, random=name != "tiny", size=size, how=Looking(layer=layer))
    count, x = len(vision.model.blocks), pixels(2, vision.size)
    block = layer if layer > 0 else count + 1 + layer
    assert vision.record["layer"] == f"block {block} of {count}, final norm, prefix tokens dropped"
    kept = []
    vision.model.blocks[block - 1].register_forward_hook(lambda module, given, out: kept.append(out))
    patches, _ = vision(x)
    with torch.inference_mode():
        expected = F.normalize(vision.model.norm(kept[0])[:, vision.prefix :], dim=-1)
    assert torch.allclose(patches, expected, atol=1e-6)
    again = reload_vision(json.loads(json.dumps(vision.record)), vision.origin)
    assert torch.equal(again(x)[0], patches)
    last = load_vision(name, random=name != "tiny", size=size, how=Looking(layer=count))
    assert last.record == load_vision(name, random=name != "tiny", size=size).record
    with pytest.raises(UserError, match=f"--layer 99: {name} has the blocks 1 to {count}, or -1 to -{count}"):
        load_vision(name, random=True, size=size, how=Looking(layer=99))


def test_a_squashed_picture_shows_all_of_it():
    crop, squash = (load_vision("tiny", how=Looking(fit=fit)) for fit in ("crop", "squash"))
    wide = picture(400, 128)
    wide.paste((255, 0, 0), (0, 0, 60, 128))  # at the left edge
    reds = [int((v.pixels(wide)[0] > 250).sum() - (v.pixels(picture(400, 128))[0] > 250).sum()) for v in (crop, squash)]
    assert reds[0] == 0 and reds[1] > 128 * 15
    assert squash.pixels(wide).shape == (3, 128, 128)
    square = picture(200, 200)
    assert torch.equal(crop.pixels(square), squash.pixels(square))
    assert "squashed" in squash.record["preprocess"]["resize"] and crop.record != squash.record
    assert reload_vision(squash.record, "shipped").how.fit == "squash"


def test_colours_of_clip_and_the_models_own():
    own, clip = load_vision("tiny"), load_vision("tiny", how=Looking(norm="clip"))
    assert (clip.mean, clip.std) == CLIP != (own.mean, own.std)
    assert clip.record["preprocess"]["mean"] == list(CLIP[0])
    x = pixels(1, 128)
    assert not torch.equal(own(x)[0], clip(x)[0])
    assert torch.equal(reload_vision(clip.record, "shipped")(x)[0], clip(x)[0])


def test_half_precision_is_recorded_and_near():
    full, half = load_vision("tiny"), load_vision("tiny", how=Looking(precision="bf16"))
    assert "precision" not in full.record and half.record == full.record | {"precision": "bf16"}
    x = pixels(2, 128)
    cosine = (full(x)[0] * half(x)[0]).sum(-1)
    assert 0.999 < cosine.mean() < 1 and half(x)[0].dtype == torch.float32
    again = reload_vision(half.record, "shipped")  # on a CPU, where it would only lose
    assert torch.equal(again(x)[0], full(x)[0])


# The denoiser


def denoiser_state(channels, side=5):
    from timm.models.vision_transformer import Block

    torch.manual_seed(7)
    block = Block(channels, channels // 64, qkv_bias=True, norm_layer=partial(torch.nn.LayerNorm, eps=1e-6)).eval()
    return block, torch.randn(1, side * side, channels)


def test_a_denoiser_cleans_the_patches_and_leaves_the_class_token(tmp_path):
    block, position = denoiser_state(128, 16)
    state = {f"denoiser.{name}": value for name, value in block.state_dict().items()} | {"pos_embed": position}
    torch.save({"denoiser": state, "epoch": 3}, tmp_path / "d.pth")
    plain, clean = load_vision("tiny"), load_vision("tiny", how=Looking(denoiser=tmp_path / "d.pth"))
    x = pixels(2, 128)
    with torch.inference_mode():
        tokens = plain.model.forward_features((x.float() / 255 - 0.5) / 0.25)
        expected = block(tokens[:, 1:] + position)
    patches, globals_ = clean(x)
    assert torch.allclose(patches, F.normalize(expected, dim=-1), atol=1e-5)
    assert torch.equal(globals_[:, 0], plain(x)[1][:, 0])
    assert clean.record["denoiser"] != clean.record["weights"] and "denoiser" not in plain.record
    assert torch.equal(reload_vision(clean.record, clean.origin)(x)[0], patches)
    with pytest.raises(UserError, match="differs .* in denoiser"):
        reload_vision(clean.record, "shipped")
    # a table of another grid is resampled
    state["pos_embed"] = denoiser_state(128, 5)[1]
    save_file(state, tmp_path / "d.safetensors")
    assert load_vision("tiny", how=Looking(denoiser=tmp_path / "d.safetensors"))(x)[0].shape == (2, 256, 128)


def test_what_is_no_denoiser_gets_a_sentence(tmp_path):
    def refused(path):
        return sentence("tiny", how=Looking(denoiser=path))

    assert "no such file" in refused(tmp_path / "none.pth")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "w.pth")
    assert "is no block with pos_embed; found weight" in refused(tmp_path / "w.pth")
    (tmp_path / "t.pth").write_text("text")
    assert "cannot be read" in refused(tmp_path / "t.pth")
    block, position = denoiser_state(64)
    torch.save(block.state_dict() | {"pos_embed": position}, tmp_path / "s.pth")
    assert "has 64 channels, and the backbone 128" in refused(tmp_path / "s.pth")
    block, position = denoiser_state(128)
    state = block.state_dict() | {"pos_embed": position}
    del state["mlp.fc1.weight"]
    torch.save(state, tmp_path / "m.pth")
    assert "1 weights are missing or of another shape: mlp.fc1.weight" in refused(tmp_path / "m.pth")
