"""The text tower: a CLIP-style transformer that reads packed captions.

Causal, pre-norm, exact GELU (or QuickGELU, for weights that were trained with it), learned positions; the state dict
has the names and shapes of open_clip's TextTransformer, so weights move both ways unchanged.  Captions lie end to end
in rows of L tokens (packing.py); a token sees the earlier tokens of its own caption only.  Only the tokens somebody
uses are projected to the vision width.

Sizes: R rows of L tokens, W width, D vision width.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from fastzss import kernels
from fastzss.captions.tokens import CONTEXT

VOCABULARY = 49408


@dataclass(frozen=True)
class TowerSize:
    width: int = 512
    layers: int = 12
    heads: int = 8


PRESETS = {
    "tiny": TowerSize(128, 2, 4),
    "small": TowerSize(384, 6, 6),
    "base": TowerSize(512, 12, 8),
    "large": TowerSize(768, 12, 12),
    "huge": TowerSize(1024, 24, 16),
}


ACTIVATIONS = ("gelu", "quick_gelu")


class TextTower(nn.Module):
    def __init__(self, size, out, activation="gelu"):
        super().__init__()
        self.size, self.activation = size, activation
        self.token_embedding = nn.Embedding(VOCABULARY, size.width)
        self.positional_embedding = nn.Parameter(torch.empty(CONTEXT, size.width))
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.ModuleList(Block(size, activation) for _ in range(size.layers))
        self.ln_final = nn.LayerNorm(size.width)
        self.text_projection = nn.Parameter(torch.empty(size.width, out))
        self.reset()

    def reset(self):
        """CLIP's initialisation."""
        width, layers = self.size.width, self.size.layers
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)
        nn.init.normal_(self.text_projection, std=width**-0.5)
        for block in self.transformer.resblocks:
            nn.init.normal_(block.attn.in_proj_weight, std=width**-0.5)
            nn.init.normal_(block.attn.out_proj.weight, std=(2 * layers * width) ** -0.5)
            nn.init.normal_(block.mlp.c_fc.weight, std=(2 * width) ** -0.5)
            nn.init.normal_(block.mlp.c_proj.weight, std=(2 * layers * width) ** -0.5)
            for bias in (block.attn.in_proj_bias, block.attn.out_proj.bias, block.mlp.c_fc.bias, block.mlp.c_proj.bias):
                nn.init.zeros_(bias)

    def forward(self, ids, segment):
        """[R, L] ids and captions -> [R * L, W] token vectors after the final norm, not projected."""
        # an index's gradient would add up equal places in the order threads come, and on a GPU one by one
        x = self.token_embedding(ids) + F.embedding(positions(segment), self.positional_embedding)
        blocks = self.transformer.resblocks
        normal = blocks[0].ln_1(x)
        for block, norm in zip(blocks, [*(later.ln_1 for later in blocks[1:]), self.ln_final], strict=True):
            x, normal = block(x, normal, segment, norm)
        return normal.flatten(0, 1)

    def units(self, ids, segment, used, uses=None):
        """[U, D] unit vectors, in the vision space, of the flat token indices `used`."""
        return kernels.used_units(self(ids, segment), used, self.text_projection, uses)

    def vectors(self, ids, segment, used):
        """The same at their own length."""
        return self(ids, segment)[used] @ self.text_projection


class Block(nn.Module):
    def __init__(self, size, activation):
        super().__init__()
        self.quick = activation == ACTIVATIONS[1]
        self.ln_1 = nn.LayerNorm(size.width)
        self.attn = Attention(size)
        self.ln_2 = nn.LayerNorm(size.width)
        self.mlp = nn.Module()
        self.mlp.c_fc = nn.Linear(size.width, 4 * size.width)
        self.mlp.c_proj = nn.Linear(4 * size.width, size.width)

    def forward(self, x, normal, segment, norm):
        """The stream x [R, L, W] and its norm, by ln_1, -> the stream behind this block and its norm, by `norm`."""
        mixed, out, back = self.attn(normal, segment), self.attn.out_proj, self.mlp.c_proj
        x, normal = kernels.linear_residual_norm(mixed, out.weight, out.bias, x, self.ln_2.weight, self.ln_2.bias)
        hidden = kernels.linear_gelu(normal, self.mlp.c_fc.weight, self.mlp.c_fc.bias, self.quick)
        return kernels.linear_residual_norm(hidden, back.weight, back.bias, x, norm.weight, norm.bias)


class Attention(nn.Module):
    """Parameters under the names of nn.MultiheadAttention, around one attention inside captions."""

    def __init__(self, size):
        super().__init__()
        self.heads = size.heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * size.width, size.width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * size.width))
        self.out_proj = nn.Linear(size.width, size.width)

    def forward(self, x, segment):
        """[R, L, W]: what each token reads of the others, before out_proj."""
        return kernels.packed_attention(x, self.in_proj_weight, self.in_proj_bias, segment, self.heads)


def positions(segment):
    """[R, L] caption of each token -> its place inside the caption; 0 in free slots."""
    index = torch.arange(segment.shape[1], device=segment.device).expand_as(segment)
    begins = torch.ones_like(segment, dtype=torch.bool)
    begins[:, 1:] = segment[:, 1:] != segment[:, :-1]
    place = index - torch.where(begins, index, 0).cummax(1).values
    return torch.where(segment >= 0, place, 0)
