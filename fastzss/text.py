"""The text tower: a CLIP-style transformer that reads packed captions.

Causal, pre-norm, exact GELU, learned positions; the state dict has the names and shapes of open_clip's
TextTransformer, so weights move both ways unchanged.  Captions lie end to end in rows of L tokens (batch.py); a token
sees the earlier tokens of its own caption only.  Only the tokens somebody uses are projected to the vision width.

Sizes: R rows of L tokens, W width, D vision width.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from fastzss import kernels

CONTEXT = 77
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


class TextTower(nn.Module):
    def __init__(self, size, out):
        super().__init__()
        self.size = size
        self.token_embedding = nn.Embedding(VOCABULARY, size.width)
        self.positional_embedding = nn.Parameter(torch.empty(CONTEXT, size.width))
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.ModuleList(Block(size) for _ in range(size.layers))
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
        x = self.token_embedding(ids) + self.positional_embedding[positions(segment)]
        mask = kernels.caption_mask(segment)
        for block in self.transformer.resblocks:
            x = block(x, mask)
        return self.ln_final(x).flatten(0, 1)

    def units(self, ids, segment, used):
        """[U, D] unit vectors, in the vision space, of the flat token indices `used`."""
        return kernels.used_units(self(ids, segment), used, self.text_projection)


class Block(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.ln_1 = nn.LayerNorm(size.width)
        self.attn = Attention(size)
        self.ln_2 = nn.LayerNorm(size.width)
        self.mlp = nn.Module()
        self.mlp.c_fc = nn.Linear(size.width, 4 * size.width)
        self.mlp.c_proj = nn.Linear(4 * size.width, size.width)

    def forward(self, x, mask):
        x = x + self.attn(self.ln_1(x), mask)
        return x + self.mlp.c_proj(F.gelu(self.mlp.c_fc(self.ln_2(x))))


class Attention(nn.Module):
    """Parameters under the names of nn.MultiheadAttention, around one masked attention call."""

    def __init__(self, size):
        super().__init__()
        self.heads = size.heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * size.width, size.width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * size.width))
        self.out_proj = nn.Linear(size.width, size.width)

    def forward(self, x, mask):
        R, L, W = x.shape
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        q, k, v = qkv.view(R, L, 3, self.heads, W // self.heads).permute(2, 0, 3, 1, 4)
        x = kernels.packed_attention(q, k, v, mask)
        return self.out_proj(x.transpose(1, 2).reshape(R, L, W))


def positions(segment):
    """[R, L] caption of each token -> its place inside the caption; 0 in free slots."""
    index = torch.arange(segment.shape[1], device=segment.device).expand_as(segment)
    begins = torch.ones_like(segment, dtype=torch.bool)
    begins[:, 1:] = segment[:, 1:] != segment[:, :-1]
    place = index - torch.where(begins, index, 0).cummax(1).values
    return torch.where(segment >= 0, place, 0)
