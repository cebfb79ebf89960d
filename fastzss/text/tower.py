"""The text tower: a CLIP-style transformer that reads packed captions.

Causal, pre-norm, exact GELU (or QuickGELU, for weights that were trained with it), learned positions; the state dict
has the names and shapes of open_clip's TextTransformer, so weights move both ways unchanged.  Captions lie end to end
in rows of L tokens (packing.py); a token sees the earlier tokens of its own caption only.  Only the tokens somebody
uses are projected to the vision width.

Sizes: R rows of L tokens, W width, D vision width.
"""

from dataclasses import dataclass

import torch
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
        self.blocks_at_once = None  # whose gradients come together; None: all
        self.token_embedding = nn.Embedding(VOCABULARY, size.width)
        self.positional_embedding = nn.Parameter(torch.empty(CONTEXT, size.width))
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.ModuleList(Block(size.width) for _ in range(size.layers))
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
        resblocks, first = self.transformer.resblocks, self.transformer.resblocks[0].ln_1
        norms = [*(later.ln_1 for later in resblocks[1:]), self.ln_final]
        blocks = [block.weights(norm) for block, norm in zip(resblocks, norms, strict=True)]
        tables = self.token_embedding.weight, self.positional_embedding
        x, normal = kernels.embed_norm(*tables, ids, segment, first.weight, first.bias)
        each, quick = self.blocks_at_once or len(blocks), self.activation == ACTIVATIONS[1]
        for start in range(0, len(blocks), each):
            part = blocks[start : start + each]
            x, normal = kernels.transformer_blocks(x, normal, segment, part, self.size.heads, quick)
        return normal.flatten(0, 1)

    def units(self, ids, segment, used, uses=None):
        """[U, D] unit vectors, in the vision space, of the flat token indices `used`."""
        return kernels.used_units(self(ids, segment), used, self.text_projection, uses)

    def vectors(self, ids, segment, used):
        """The same at their own length."""
        return self(ids, segment)[used] @ self.text_projection


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = Attention(width)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.Module()
        self.mlp.c_fc = nn.Linear(width, 4 * width)
        self.mlp.c_proj = nn.Linear(4 * width, width)

    def weights(self, norm):
        """As kernels.transformer_blocks takes them; `norm` is the one behind this block."""
        attn, middle, fc, proj = self.attn, self.ln_2, self.mlp.c_fc, self.mlp.c_proj
        return kernels.BlockWeights(
            *(attn.in_proj_weight, attn.in_proj_bias, attn.out_proj.weight, attn.out_proj.bias),
            *(middle.weight, middle.bias),
            *(fc.weight, fc.bias, proj.weight, proj.bias),
            *(norm.weight, norm.bias),
        )


class Attention(nn.Module):
    """Parameters under the names of nn.MultiheadAttention."""

    def __init__(self, width):
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = nn.Linear(width, width)
