"""The backbone and a fixed vocabulary as one module: images of any size -> how similar each patch is to each class.

    logits[b, k] = < unit patch, unit vector of class k >

At the size that the run was trained with, patches are those of the backbone, to the bit but for rounding.  At another,
the embeddings of places are interpolated (bicubic); sides are cut to whole patches.

Sizes: B images of H x W pixels, K classes, h x w patches, D channels.
"""

import torch
import torch.nn.functional as F
from torch import nn

PLAIN = ("TinyViT", "VisionTransformer")  # whose embeddings of places are a grid that is added once


class Dense(nn.Module):
    """RGB [B, 3, H, W] of 0..1 -> [B, K, h, w]."""

    def __init__(self, vision, vectors):
        super().__init__()
        model = self.model = vision.model
        self.grid, self.prefix = vision.grid, vision.prefix
        self.any_size = type(model).__name__ in PLAIN and getattr(model, "pos_embed", None) is not None
        self.register_buffer("mean", torch.tensor(vision.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(vision.std).view(1, 3, 1, 1))
        self.register_buffer("vectors", vectors.float().cpu().clone())
        if self.any_size:
            own = getattr(model, "no_embed_class", False)  # then the first tokens have no place
            first = [t for t in (model.cls_token, getattr(model, "reg_token", None)) if t is not None]
            first = torch.cat(first, 1) if first else torch.empty(1, 0, vision.channels)
            place = model.pos_embed
            if not own:
                first, place = first + place[:, : self.prefix], place[:, self.prefix :]
            self.register_buffer("first", first.detach().clone())
            self.register_buffer("place", place.detach().mT.unflatten(-1, self.grid).clone())

    def forward(self, images):
        x = (images - self.mean) / self.std
        tokens = self.tokens(x) if self.any_size else self.model.forward_features(x)
        patches = F.normalize(tokens[:, self.prefix :], dim=-1)
        scores = (patches @ self.vectors.T).mT
        h, w = (x.shape[-2] // self.patch, x.shape[-1] // self.patch) if self.any_size else self.grid
        return scores.unflatten(-1, (h, w))

    @property
    def patch(self):
        return self.model.patch_embed.proj.kernel_size[0]

    def tokens(self, x):
        x = self.model.patch_embed.proj(x)
        place = F.interpolate(self.place, x.shape[-2:], mode="bicubic", align_corners=False)
        x = (x + place).flatten(2).mT
        x = torch.cat([self.first.expand(x.shape[0], -1, -1), x], 1)
        if hasattr(self.model, "norm_pre"):
            x = self.model.norm_pre(x)
        return self.model.norm(self.model.blocks(x))
