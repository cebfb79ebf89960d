"""Regions of scenes that seem to be one thing, as the backbone in training sees them: no labels, no masks.

A region begins at a seed patch and holds what resembles the seed and its like nearby. Seeds are drawn the more often
the fewer patches of the scene resemble them, so that small things are met nearly as often as the ground they lie on.
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from linear_probe import normalised
from pasted_views import patch_centres

from fastzss import world
from fastzss.backbones import tiny

FIRST = 100_000  # scenes from here on are never used by the demo
FRESH = 8  # scenes that are replaced each step
AT_ONCE = 50  # scenes that are looked at together
GRID = tiny.SIZE // tiny.PATCH
REACH = 42  # pixels that a region extends from its seed
ALIKE = 0.4  # cosine from which two patches resemble each other, about the mean of their scene
LEAST = 8  # patches that resemble a seed within its reach
RARITY = 1.5  # power of their number by which seeds are drawn less often


class Regions(NamedTuple):
    centre: torch.Tensor  # [n, 2], pixels of the scene
    alike: torch.Tensor  # [n, 1, GRID, GRID]: cosine of each patch with the region's mean


class Scenes:
    """A pool of scenes that is slowly replaced, so that the world is endless and drawing it costs little."""

    def __init__(self, seed, drawn, count, vit, device):
        """`count` scenes, from those on of which `drawn` are behind; `vit`, which improves meanwhile, looks at them."""
        self.seed, self.next, self.count, self.vit, self.device = seed, FIRST + drawn, count, vit, device
        self.place = patch_centres(tiny.SIZE, device)
        self.near = torch.cdist(self.place, self.place) < REACH
        self.pictures = torch.empty(count, 3, tiny.SIZE, tiny.SIZE, dtype=torch.uint8, device=device)
        self.seen = torch.empty(count, GRID**2, tiny.WIDTH, dtype=torch.float16, device=device)
        self.chance = torch.empty(count, GRID**2, device=device)  # of each patch, to be a seed
        for rows in torch.arange(count).split(AT_ONCE):
            self.renew(rows)

    def draw(self):
        picture = world.scene("train", self.next, self.seed).image
        self.next += 1
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1)

    @torch.inference_mode()
    def renew(self, rows):
        """Put new scenes into some rows of the pool, and look at them."""
        rows, pictures = rows.to(self.device), torch.stack([self.draw() for _ in rows]).to(self.device)
        patches = self.vit(normalised(pictures / 255))[:, 1:]
        patches = F.normalize(patches - patches.mean(1, keepdim=True), dim=-1)
        alike = patches @ patches.transpose(1, 2) > ALIKE
        enough = (alike & self.near).sum(-1) >= LEAST
        self.pictures[rows], self.seen[rows] = pictures, patches.half()
        self.chance[rows] = enough * alike.sum(-1) ** -RARITY + 1e-9  # a scene without such seeds takes any

    def batch(self, n):
        """n scenes with a region in each, and two grounds for each: pictures are [n, 3, SIZE, SIZE] in 0..1."""
        self.renew(torch.randperm(self.count)[:FRESH])
        order = torch.randperm(self.count)[: 3 * n].to(self.device)
        scenes, *grounds = self.pictures[order].float().div(255).chunk(3)
        return scenes, self.regions(order[:n]), grounds

    def regions(self, rows):
        """A region in each of some scenes of the pool."""
        patches, seed = self.seen[rows].float(), torch.multinomial(self.chance[rows], 1)[:, 0]
        near = self.near[seed]
        like_seed = (torch.einsum("npc,nc->np", patches, patches[torch.arange(len(rows)), seed]) > ALIKE) & near
        mean = F.normalize(torch.einsum("np,npc->nc", like_seed.float(), patches), dim=-1)
        alike = torch.einsum("npc,nc->np", patches, mean)
        held = ((alike > ALIKE) & near).float()
        centre = held @ self.place / held.sum(1, keepdim=True).clamp_min(1)
        return Regions(centre, alike.view(-1, 1, GRID, GRID))
