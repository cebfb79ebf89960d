"""Two views of a region: pasted on two other scenes, each time turned, scaled, flipped and recoloured anew.

Points are pixels, as [..., 2] tensors of (x, y). An affine is [B, 2, 3] and takes points of a view to points of the
scene they come from. Pictures are [B, 3, H, W] in 0..1.
"""

import math

import torch
import torch.nn.functional as F

from fastzss.backbones import tiny

VIEW = 64  # pixels
STEEP = 12  # pixels for which the likeness of patches falls from 1 to 0, at the edge of a region


def uniform(n, low, high, device):
    return torch.rand(n, device=device) * (high - low) + low


def random_affine(centre, landing, scale, turn):
    """Affines that take `landing` [B, 2] in the view to `centre` [B, 2] in the scene."""
    n, device = len(centre), centre.device
    zoom = torch.exp(uniform(n, -math.log(scale), math.log(scale), device))
    angle = uniform(n, -turn, turn, device)
    flip = torch.where(torch.rand(n, device=device) < 0.5, -1.0, 1.0)
    cos, sin = zoom * angle.cos(), zoom * angle.sin()
    linear = torch.stack([torch.stack([flip * cos, -sin], -1), torch.stack([flip * sin, cos], -1)], -2)
    return torch.cat([linear, (centre - (linear @ landing[..., None])[..., 0])[..., None]], -1)


def apply(affine, points):
    """[B, 2, 3] on [B, P, 2]."""
    return points @ affine[:, :, :2].transpose(1, 2) + affine[:, None, :, 2]


def inverted(affine):
    back = torch.linalg.inv(affine[:, :, :2])
    return torch.cat([back, -(back @ affine[:, :, 2:])], -1)


def pick(pictures, points):
    """Bilinear samples of [B, C, H, W] at the points [B, P, 2] -> [B, P, C]; a pixel's centre is at +0.5."""
    size = torch.tensor([pictures.shape[3], pictures.shape[2]], device=pictures.device)
    grid = (points / size * 2 - 1)[:, :, None]
    found = F.grid_sample(pictures, grid, padding_mode="reflection", align_corners=False)
    return found[..., 0].transpose(1, 2)


def blob(points, centre, radius, wobble):
    """How far inside an uneven disc each point lies, in pixels; `wobble` [B, 3] shapes its edge."""
    x, y = (points - centre[:, None]).unbind(-1)
    angle, far = torch.atan2(y, x), torch.hypot(x, y)
    a, b, c = (w[:, None] for w in wobble.unbind(-1))
    edge = 1 + 0.18 * torch.sin(2 * angle + 6.3 * a) + 0.12 * torch.sin(3 * angle + 6.3 * b) * c
    inside = torch.minimum(points, tiny.SIZE - points).amin(-1)
    return torch.minimum(radius[:, None] * edge - far, inside)


def inside(points, alike, limit, outline):
    """How far inside a region each point of the scene lies, in pixels: within its disc, and like its patches."""
    like = pick(alike, points / tiny.PATCH)[..., 0]
    return torch.minimum(blob(points, *outline), (like - limit[:, None]) * STEEP)


def recoloured(pictures):
    """Random hue (30 degrees), saturation, contrast and brightness; one in five grey. [B, P, 3] in 0..1."""
    n, device = len(pictures), pictures.device
    to_yiq = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]], device=device)
    hue = torch.randn(n, device=device).clamp(-2, 2) * math.radians(30)
    strength = uniform(n, 0.6, 1.4, device) * (torch.rand(n, device=device) > 0.2)
    change = torch.zeros(n, 3, 3, device=device)
    change[:, 0, 0] = 1
    change[:, 1, 1] = change[:, 2, 2] = strength * hue.cos()
    change[:, 1, 2], change[:, 2, 1] = -strength * hue.sin(), strength * hue.sin()
    change = torch.linalg.inv(to_yiq) @ change @ to_yiq
    contrast, light = uniform(n, 0.65, 1.35, device)[:, None, None], uniform(n, -0.15, 0.15, device)[:, None, None]
    mean = pictures.mean(1, keepdim=True)
    return ((pictures - mean) @ change.transpose(1, 2) * contrast + mean @ change.transpose(1, 2) + light).clamp(0, 1)


def patch_centres(side, device):
    """Of a square picture of `side` pixels: [patches, 2]."""
    at = torch.arange(side // tiny.PATCH, device=device) * tiny.PATCH + tiny.PATCH / 2
    return torch.stack(torch.meshgrid(at, at, indexing="xy"), -1).reshape(-1, 2)


def make_view(scenes, regions, ground):
    """Paste the region of each scene on a ground; returns the pictures, and what leads back to points of the scene."""
    n, device, (centre, alike) = len(scenes), scenes.device, regions
    at = torch.arange(VIEW, device=device) + 0.5
    pixels = torch.stack(torch.meshgrid(at, at, indexing="xy"), -1).reshape(1, -1, 2).expand(n, -1, -1)
    landing = uniform((n, 2), 0.32 * VIEW, 0.68 * VIEW, device)
    affine = random_affine(centre, landing, 1.35, math.radians(30))
    # every view cuts its own outline: a shared one would be the easiest thing to recognise
    outline = centre, uniform(n, 24, 42, device), torch.rand(n, 3, device=device)
    cut = alike, uniform(n, 0.35, 0.6, device), outline
    middle = uniform((n, 2), 0.35 * tiny.SIZE, 0.65 * tiny.SIZE, device)
    behind = random_affine(middle, torch.full((n, 2), VIEW / 2, device=device), 1.3, math.radians(30))
    source = apply(affine, pixels)
    alpha = (inside(source, *cut) + 0.5).clamp(0, 1)[..., None]
    front = recoloured(pick(scenes, source))
    picture = front * alpha + recoloured(pick(ground, apply(behind, pixels))) * (1 - alpha)
    return picture.transpose(1, 2).reshape(n, 3, VIEW, VIEW), affine, cut
