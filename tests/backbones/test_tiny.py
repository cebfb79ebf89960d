"""The shipped backbone: what it gives, its weights, and that it is timm's transformer to the bit."""

import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.backbones import SHIPPED, pixels, sentence
from safetensors.torch import load_file, save_file

from fastzss.backbones import load_vision, tiny
from fastzss.backbones.weights import weights_hash


def test_tiny_gives_unit_patches_and_raw_globals(small):
    x = pixels(3, tiny.SIZE)
    patches, global_vectors = small(x)
    assert patches.shape == (3, 256, 128) and global_vectors.shape == (3, 2, 128)
    assert patches.dtype == global_vectors.dtype == torch.float32
    assert torch.allclose(patches.norm(dim=-1), torch.ones(3, 256), atol=1e-5)

    model = tiny.tiny_vit().eval()
    model.load_state_dict({name: value.float() for name, value in load_file(SHIPPED).items()})
    with torch.inference_mode():
        tokens = model((x.float() / 255 - 0.5) / 0.25)
    assert tokens.shape == (3, 257, 128)
    assert torch.allclose(patches, F.normalize(tokens[:, 1:], dim=-1), atol=1e-5)
    assert small.globals == ("cls", "patch-mean")
    assert torch.allclose(global_vectors[:, 0], tokens[:, 0], atol=1e-4)
    assert torch.allclose(global_vectors[:, 1], tokens[:, 1:].mean(1), atol=1e-4)


def test_tiny_is_the_shipped_file(small):
    assert (small.name, small.size, small.grid, small.channels) == ("tiny", 128, (16, 16), 128)
    assert small.origin == "shipped" and small.record["licence"] == "Apache-2.0"
    again = load_vision("tiny")
    assert again.record == small.record
    given = load_vision("tiny", weights=SHIPPED)
    assert given.record == small.record and given.origin == str(SHIPPED.resolve())
    assert load_vision("tiny", random=True).record["weights"] != small.record["weights"]


def test_no_weight_is_trained(small):
    assert not small.model.training and not any(p.requires_grad for p in small.model.parameters())


def test_an_image_has_the_same_features_alone_and_in_a_batch(small):
    x = pixels(5, tiny.SIZE)
    patches, global_vectors = small(x)
    for i in range(5):
        alone, own = small(x[i : i + 1])
        assert (alone[0] - patches[i]).abs().max() < 1e-5
        assert (own[0] - global_vectors[i]).norm() < 1e-5 * global_vectors[i].norm()


def test_the_hash_knows_every_value_and_name_and_nothing_else():
    def model(**change):
        m = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.BatchNorm1d(5))
        state = {name: torch.full_like(value, 2) for name, value in m.state_dict().items()}
        m.load_state_dict(state | change)
        return m

    first = weights_hash(model())
    assert first == weights_hash(model())
    bias = torch.full((5,), 2.0)
    bias[4] = float(np.nextafter(np.float32(2), np.float32(3)))
    assert weights_hash(model(**{"0.bias": bias})) != first
    assert weights_hash(model(**{"1.num_batches_tracked": torch.tensor(3)})) != first
    assert weights_hash(torch.nn.ModuleDict({"x": model()})) != first


def test_tiny_looks_at_one_size_only():
    assert "128 pixels only; --size is 64" in sentence("tiny", size=64)
    assert load_vision("tiny", size=128).size == 128


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_tiny_takes_weights_from_a_file(tmp_path, suffix):
    path, model = tmp_path / f"w.{suffix}", load_vision("tiny", random=True).model
    save_file(model.state_dict(), path) if suffix == "safetensors" else torch.save(model.state_dict(), path)
    assert load_vision("tiny", weights=path).record["weights"] == weights_hash(model)


def test_tiny_refuses_a_file_that_is_none_of_its_weights(tmp_path, other_weights):
    (tmp_path / "text.safetensors").write_text("no weights")
    (tmp_path / "text.pth").write_text("no weights")
    (tmp_path / "half.safetensors").write_bytes(SHIPPED.read_bytes()[:9999])
    save_file(other_weights, tmp_path / "other.safetensors")
    for name in ("text.safetensors", "text.pth", "half.safetensors", "other.safetensors"):
        message = sentence("tiny", weights=tmp_path / name)
        assert f"--weights {tmp_path / name}: these are no weights of the tiny backbone" in message
    assert "no such file" in sentence("tiny", weights=tmp_path / "missing")


def test_tiny_is_timms_transformer_to_the_bit_and_needs_no_timm():
    from timm.models.vision_transformer import VisionTransformer

    made = dict(img_size=128, patch_size=8, embed_dim=128, depth=4, num_heads=4, num_classes=0, global_pool="")
    torch.manual_seed(3)
    theirs = VisionTransformer(**made).eval()
    drawn = torch.rand(1)
    torch.manual_seed(3)
    ours = tiny.tiny_vit().eval()
    assert torch.equal(torch.rand(1), drawn), "a seed goes on as it would"
    state = theirs.state_dict()
    assert list(ours.state_dict()) == list(state)
    assert all(torch.equal(value, state[name]) for name, value in ours.state_dict().items())
    shipped = {name: value.float() for name, value in load_file(SHIPPED).items()}
    theirs.load_state_dict(shipped)
    ours.load_state_dict(shipped)
    for batch in (1, 4):
        x = torch.randn(batch, 3, 128, 128)
        assert torch.equal(ours(x), theirs(x))

    code = "import sys; from fastzss.backbones import load_vision; load_vision('tiny'); "
    code += "from fastzss.captions.tokens import Tokenizer; Tokenizer()('a dog'); "
    code += "sys.exit(' '.join({'timm', 'torchvision', 'torch._dynamo'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr.strip() == ""
