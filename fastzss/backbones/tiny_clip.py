"""The tiny teacher's image tower: a CLIP vision encoder small enough to ship, for views of the built-in world.

48 px in patches of 8 px, width 128, depth 4; the class token is projected to 128 channels, which the text tower shares.
Its weights and those of the text tower, `tiny_clip.safetensors` beside this file, are made by
`tools/backbone/make_teacher.py` from scenes and whole captions, without masks.

    visual.*        TinyViT          projection   [128, 128]
    text.*          TextTower, of whose token table only the rows of `tokens` int32 [V] are kept
"""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from fastzss.backbones.tiny_vit import TinyViT
from fastzss.backbones.weights import first_line
from fastzss.base.errors import UserError

SIZE, PATCH, WIDTH = 48, 8, 128
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
WEIGHTS = Path(__file__).parent / "tiny_clip.safetensors"


class TinyClip(nn.Module):
    """[B, 3, SIZE, SIZE], normalised -> [B, WIDTH], not normalised."""

    def __init__(self):
        super().__init__()
        self.visual = TinyViT(SIZE, PATCH, WIDTH, depth=4, heads=4)
        self.projection = nn.Parameter(torch.randn(WIDTH, WIDTH) * WIDTH**-0.5)

    def forward(self, x):
        return self.visual(x)[:, 0] @ self.projection


def load_weights(path=None):
    """{name: tensor} of both towers."""
    path = Path(path) if path else WEIGHTS
    try:
        state = load_file(path)
        TinyClip().load_state_dict(visual_part(state))
    except Exception as problem:  # whatever safetensors and torch say of a file that is none of theirs
        raise UserError(f"{path}: these are no weights of the tiny teacher ({first_line(problem)})") from None
    return state


def visual_part(state):
    return {name: value.float() for name, value in state.items() if name.startswith(("visual.", "projection"))}
