"""The tiny backbone: a vision transformer small enough to ship, for the built-in world.

128 px in patches of 8 px: a 16 x 16 grid of 128 channels and a class token, 0.85 M parameters. Its weights,
`tiny.safetensors` beside this file, are made by `tools/make_tiny_backbone.py` without labels, masks or captions.
Inputs are RGB scaled to 0..1, then normalised by MEAN and STD.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file

from fastzss.backbones.tiny_vit import TinyViT
from fastzss.backbones.vision import Vision
from fastzss.backbones.weights import first_line
from fastzss.base.errors import UserError

SIZE = 128
PATCH = 8
WIDTH = 128
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def tiny_vit():
    """The model with random weights; its output is [B, 1 + 256, 128], the class token first."""
    return TinyViT(SIZE, PATCH, WIDTH, depth=4, heads=4)


def load(name, weights, random, size, origin, device, how):
    """The Vision of it, with its shipped, given or random weights."""
    if size not in (None, SIZE):
        raise UserError(f"--model tiny looks at images of {SIZE} pixels only; --size is {size}", code=2)
    model = tiny_vit()
    if not random:
        load_weights(model, Path(weights) if weights else Path(__file__).parent / "tiny.safetensors")
    return Vision(model, name, SIZE, MEAN, STD, "bicubic", "Apache-2.0", origin, device, how)


def load_weights(model, path):
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict({name: value.float() for name, value in state.items()})
    except Exception as problem:  # whatever safetensors, pickle and torch say of a file that is none of theirs
        found = first_line(problem)
        raise UserError(f"--weights {path}: these are no weights of the tiny backbone ({found})") from None
