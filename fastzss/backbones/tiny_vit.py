"""The vision transformer of the tiny backbone, written out.

timm's has the same weights and gives the same numbers to the bit (a test holds it to that), but importing timm brings
torchvision and takes seconds: more than all else that `fastzss segment` does with a photo.

Sizes: B images, L = 1 + N tokens, the class token first, D channels.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn


class TinyViT(nn.Module):
    """[B, 3, size, size] -> [B, 1 + N, D]: what comes out of the final norm."""

    num_prefix_tokens = 1

    def __init__(self, size, patch, width, depth, heads):
        super().__init__()
        self.num_features = width
        self.patch_embed = PatchEmbed(size, patch, width)
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + self.patch_embed.num_patches, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        # in the order of timm, so that a seed gives its weights
        truncated_normal(self.pos_embed, 0.02)
        nn.init.normal_(self.cls_token, std=1e-6)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                truncated_normal(module.weight, 0.02)
                nn.init.zeros_(module.bias)

    def set_input_size(self, img_size):
        """Bring the positions to images of (H, W) pixels, as timm does it."""
        grid, patch = self.patch_embed.grid_size, self.patch_embed.proj.kernel_size[0]
        self.patch_embed.grid_size = tuple(side // patch for side in img_size)
        first, rest = self.pos_embed.detach().split([1, self.pos_embed.shape[1] - 1], 1)
        rest = rest.reshape(1, *grid, -1).permute(0, 3, 1, 2)
        rest = F.interpolate(rest, self.patch_embed.grid_size, mode="bicubic", antialias=True)
        self.pos_embed = nn.Parameter(torch.cat([first, rest.flatten(2).mT], 1), requires_grad=False)

    def forward_features(self, x):
        x = self.patch_embed(x)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        return self.norm(self.blocks(x))

    forward = forward_features

    def forward_intermediates(self, x, indices, **_):
        """[(patches, class token)] of blocks, after the final norm: what timm's gives when it is asked for these."""
        found = []
        x = self.patch_embed(x)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in indices:
                tokens = self.norm(x)
                found.append((tokens[:, 1:], tokens[:, :1]))
        return found


class PatchEmbed(nn.Module):
    def __init__(self, size, patch, width):
        super().__init__()
        self.grid_size = (size // patch, size // patch)
        self.num_patches = (size // patch) ** 2
        self.proj = nn.Conv2d(3, width, patch, patch)

    def forward(self, x):
        return self.proj(x).flatten(2).transpose(1, 2)


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x):
        B, L, D = x.shape
        q, k, v = self.qkv(x).reshape(B, L, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B, L, D))


class Mlp(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


@torch.no_grad()
def truncated_normal(values, std):
    """Normal values, none beyond 2, by the inverse of the distribution."""
    edge = math.erf(2 / std / math.sqrt(2))
    values.uniform_(-edge, edge).erfinv_().mul_(std * math.sqrt(2)).clamp_(-2, 2)
