"""A frozen block behind a backbone that takes from its patches what is of their position and not of the picture.

    patches + a table of positions, resampled to their grid  ->  one pre-norm transformer block  ->  patches

The file holds a state of timm's `Block` and `pos_embed` [1, n, D], under any prefix, alone or under the key `denoiser`:
so do the files of Denoising Vision Transformers.  Only patches pass through; the class token does not.
"""

from functools import partial

import torch
from torch import nn

from fastzss.base.errors import UserError

HEAD = 64  # channels


class Denoiser(nn.Module):
    def __init__(self, path, channels, grid):
        super().__init__()
        from timm.layers import resample_abs_pos_embed
        from timm.models.vision_transformer import Block

        state = _state(path)
        position = next((value for name, value in state.items() if name.endswith("pos_embed")), None)
        first = next((name for name in state if name.endswith("norm1.weight")), None)
        if first is None or position is None or position.ndim != 3:
            raise UserError(
                f"--denoiser {path}: is no block with pos_embed; found {', '.join(list(state)[:4]) or 'none'}"
            )
        if position.shape[-1] != channels:
            raise UserError(f"--denoiser {path}: has {position.shape[-1]} channels, and the backbone {channels}")
        prefix = first.removesuffix("norm1.weight")
        own = {name.removeprefix(prefix): value.float() for name, value in state.items() if name.startswith(prefix)}
        bias = "attn.qkv.bias" in own
        self.block = Block(
            channels, max(1, channels // HEAD), qkv_bias=bias, norm_layer=partial(nn.LayerNorm, eps=1e-6)
        )
        wanted = self.block.state_dict()
        wrong = [name for name, value in wanted.items() if name not in own or own[name].shape != value.shape]
        if wrong:
            raise UserError(f"--denoiser {path}: {len(wrong)} weights are missing or of another shape: {wrong[0]}")
        self.block.load_state_dict({name: own[name] for name in wanted})
        table = resample_abs_pos_embed(position.float(), list(grid), num_prefix_tokens=0)
        self.register_buffer("position", table)

    def forward(self, patches):
        return self.block(patches + self.position)


def _state(path):
    try:
        if str(path).endswith(".safetensors"):
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
        state = state.get("denoiser", state)
        return {name: value for name, value in state.items() if torch.is_tensor(value)}
    except FileNotFoundError:
        raise UserError(f"--denoiser {path}: no such file") from None
    except Exception as problem:  # whatever safetensors and pickle say of a file that is none of theirs
        found = str(problem).strip().split("\n")[0][:200]
        raise UserError(f"--denoiser {path}: cannot be read ({found}); expected .safetensors or .pth") from None
