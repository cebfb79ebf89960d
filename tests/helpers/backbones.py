"""Small backbones and pictures for their tests."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastzss.backbones import load_vision, vision
from fastzss.base.errors import UserError

SHIPPED = Path(vision.__file__).parent / "tiny.safetensors"
SMALL = "test_vit"  # timm's own toy: 64 channels, patches of 16, a class token


def pixels(count, size, seed=0):
    return torch.randint(256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def picture(width, height, seed=0):
    """Smooth enough to resize, and different everywhere."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 11, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def sentence(*args, **named):
    with pytest.raises(UserError) as problem:
        load_vision(*args, **named)
    return str(problem.value)
