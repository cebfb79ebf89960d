"""One training step in several forms: the reference formulation, then ours, one change at a time.

All have the same pairs, weights and loss.  A step is cut into parts, each timed by itself:

    vision      the frozen transformer looks at the images
    read        features, captions and mentions of the batch come to where they are needed
    text        forward pass of the text tower
    losses      both losses, forward and backward to the tower's outputs
    backward    of the text tower
    optimiser   AdamW, with a learning rate of 0: the work is done, and the weights stay comparable
"""

import contextlib
import os
import time
from typing import NamedTuple
from unittest import mock

import fake
import forms
import torch
from measuring import peak_megabytes, seconds
from torch.utils.flop_counter import FlopCounterMode

from fastzss.backbones import load_vision
from fastzss.methods.simzss.loader import Loader
from fastzss.methods.simzss.objective import simzss, used_units
from fastzss.methods.simzss.task import Learner, SimZSSTask
from fastzss.text.tower import CONTEXT, PRESETS
from fastzss.training.settings import RECIPES, TrainConfig
from fastzss.training.step import parameter_groups

VISION = "vit_{}_patch14_reg4_dinov2.lvd142m"  # of each size but tiny
AT_ONCE = 256  # images in a forward pass of the vision
MENTION = 16  # tokens that the authors' code keeps room for in each mention
LOSS = {"local_weight": RECIPES["simzss-coco"]["local_weight"], "temperature": TrainConfig.temperature}
PARTS = ("vision", "read", "text", "losses", "backward", "optimiser")


class Row(NamedTuple):
    """A form of the step; every part gets what the one before it gave."""

    label: str
    vision: object  # () -> features of the batch; None: they are cached
    read: object  # features -> inputs
    text: object  # inputs -> [*, D] unit vectors of tokens
    losses: object  # (vectors, inputs) -> Losses
    optimiser: object
    backend: str = "auto"


class Ours:
    """A store, the loader, what learns: all that our form of the step needs.

    The store is written to `folder` from a few images' `features`, repeated; `learner` may be another setting's.
    """

    def __init__(self, folder, text, batch, features, grid, *, device="cpu", dtype="int8", captions=None, learner=None):
        self.device = torch.device(device)
        fake.write_store(folder, batch, captions or batch, grid, features, dtype=dtype)
        self.loader = Loader(folder, batch, captions="all", device=device)
        self.store = self.loader.store
        self.patches = self.store.load(device)
        self.images = self.store.globals().to(device)
        torch.manual_seed(0)
        self.learner = learner or Learner(PRESETS[text], self.store.plan.channels).to(device)
        self.amp = torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")

    def optimiser(self, **options):
        """AdamW that has taken its first step, so that its state is there."""
        groups = parameter_groups(self.learner, TrainConfig.weight_decay)
        optimiser = torch.optim.AdamW(groups, lr=0.0, **SimZSSTask.optimiser, **options)
        for parameter in self.learner.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimiser.step()
        optimiser.zero_grad()
        return optimiser

    def row(self, label, optimiser):
        return Row(label, None, self.read, self.text, self.losses, optimiser)

    def read(self, _=None):
        return self.loader.step(0).to(self.device)

    def text(self, batch):
        return used_units(self.learner.text, batch)

    def losses(self, units, batch):
        return simzss(units, batch, self.patches, self.images, self.learner.logit_scale, **LOSS)


class Setting(Ours):
    """Beside ours: the images, the transformer that looks at them, and the batch in the forms of others."""

    def __init__(self, folder, size, batch, *, device="cpu", **more):
        self.device = torch.device(device)
        self.vision = load_vision(size if size == "tiny" else VISION.format(size), random=True, device=device)
        self.pictures = fake.pictures(batch, self.vision.size)
        self.vision_cost, (patches, images) = cost(self.look, self.device)
        features = patches.cpu(), images.cpu().unsqueeze(1)
        super().__init__(folder, size, batch, features, self.vision.grid, device=device, **more)
        self.batch = self.read().to("cpu")
        picture = self.batch.row % batch
        self.pictures = self.pictures[picture]
        self.features = patches[picture.to(device)], images[picture.to(device)]
        self.cached = [part.half() for part in self.features]  # what the careful user keeps in memory
        self.padded = forms.padded(self.batch, CONTEXT, MENTION).to(device)
        self.trimmed = forms.padded(self.batch).to(device)

    def look(self):
        """(unit patches [B, N, D], global vectors [B, D]) of the images of the batch."""
        patches, images = zip(*map(self.vision, self.pictures.split(AT_ONCE)), strict=True)
        return torch.cat(patches), torch.cat(images)[:, 0]


def rows(setting):
    """The reference, the careful user's form, and ours one change at a time."""
    tower, scale = setting.learner.text, setting.learner.logit_scale
    plain, fused = setting.optimiser(), setting.optimiser(fused=True)

    def amp_look():
        with setting.amp:
            return [part.float() for part in setting.look()]

    def careful(_):
        return setting.trimmed, *(part.float() for part in setting.cached)

    def cached(_):
        rows = setting.batch.row.to(setting.device)
        return setting.padded, setting.patches.take(rows), setting.images[rows].float()

    def text(inputs):
        return forms.tower_tokens(tower, inputs[0].ids)

    def losses(tokens, inputs):
        return forms.losses(tokens, *inputs, scale, fake.NAMES, **LOSS)

    first, ours = (text, losses, plain), setting.row("+ fused losses", plain)
    return [
        Row("(A) reference: vision every step, 77 tokens", amp_look, lambda seen: (setting.padded, *seen), *first),
        Row("careful user: cached, trimmed, plain PyTorch", None, careful, *first),
        Row("cache: features of the store, in memory", None, cached, *first),
        ours._replace(label="+ packing: captions end to end", backend="reference"),
        ours,
        setting.row("+ fused optimiser (B)", fused),
    ]


def now(device):
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def step(row, setting, ms=None, exact=False):
    """Take one step; returns its losses.  `ms` gets the milliseconds of each part; `exact`: in float32 throughout."""
    last = now(setting.device)

    def done(part):
        nonlocal last
        if ms is not None:
            before, last = last, now(setting.device)
            ms[part] = (last - before) * 1e3

    with mock.patch.dict(os.environ, FASTZSS_BACKEND=row.backend):
        features = row.vision() if row.vision else None
        done("vision")
        inputs = row.read(features)
        done("read")
        with contextlib.nullcontext() if exact else setting.amp:
            units = row.text(inputs)
        done("text")
        leaf = units.detach().float().requires_grad_()
        losses = row.losses(leaf, inputs)
        losses.loss.backward()
        done("losses")
        units.backward(leaf.grad.to(units.dtype))
        done("backward")
        row.optimiser.step()
        row.optimiser.zero_grad()
        done("optimiser")
    return losses


def timed(row, setting):
    """(milliseconds of a step, of its parts); on a GPU in two steps, for waiting between parts costs time."""
    parts = {}
    step(row, setting, parts)
    return sum(parts.values()) if setting.device.type == "cpu" else whole(row, setting), parts


def whole(row, setting):
    """Milliseconds of a step."""
    begin = now(setting.device)
    step(row, setting)
    return (now(setting.device) - begin) * 1e3


def cost(call, device):
    """(FLOPs and most megabytes of a call, its result)."""
    results = []
    with FlopCounterMode(display=False) as counter:  # sees the products of PyTorch, not those of Triton kernels
        peak = peak_megabytes(lambda: results.append(call()), device.type)
    return {"flops": counter.get_total_flops(), "peak_mb": peak}, results[0]


def matmul_rate(device):
    """FLOP/s of a large matrix product, in the precision of the tower."""
    size, dtype = (8192, torch.bfloat16) if device.type == "cuda" else (1024, torch.float32)
    a, b = torch.randn(2, size, size, device=device, dtype=dtype)

    def product():
        a @ b
        now(device)

    return 2 * size**3 / min(seconds(product) for _ in range(6))
