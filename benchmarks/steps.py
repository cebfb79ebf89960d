"""One training step in several forms: the reference formulation, then ours, one change at a time.

All forms have the same pairs, weights and loss.  A step is cut into parts, each timed by itself:

    vision      the frozen transformer looks at the images
    read        features, captions and mentions of the batch come to where they are needed
    text        forward pass of the text tower
    losses      both losses, forward and backward to the tower's outputs
    backward    of the text tower
    optimiser   AdamW, with a learning rate of 0: the work is done, and the weights stay comparable
"""

import contextlib
import functools
import os
import time
from typing import NamedTuple

import fake
import forms
import torch

from fastzss.loader import Loader
from fastzss.objective import simzss, used_units
from fastzss.settings import TrainConfig
from fastzss.text import CONTEXT, PRESETS
from fastzss.training import Learner
from fastzss.vision import load_vision

VISION = {
    "tiny": "tiny",
    "small": "vit_small_patch14_reg4_dinov2.lvd142m",
    "base": "vit_base_patch14_reg4_dinov2.lvd142m",
    "large": "vit_large_patch14_reg4_dinov2.lvd142m",
}
MENTION = 16  # tokens that the authors' code keeps room for in each mention
LOSS = {"local_weight": TrainConfig.local_weight, "temperature": TrainConfig.temperature}
PARTS = ("vision", "read", "text", "losses", "backward", "optimiser")


class Row(NamedTuple):
    """A form of the step; every part gets what the one before it gave."""

    label: str
    vision: object  # () -> features of the batch, or None
    read: object  # features -> inputs
    text: object  # inputs -> [*, D] unit vectors of tokens
    losses: object  # (vectors, inputs) -> Losses
    optimiser: object
    backend: str = "auto"
    slow: bool = False  # measured once where the others are measured several times


class Setting:
    """The batch, its images, the store and the weights that all rows share.

    Args:
        folder: where the store is written.
        images, captions: of the store; None: as many as the batch has pairs.
    """

    def __init__(self, folder, size, batch, *, device="cpu", dtype="int8", images=None, captions=None):
        self.device, self.dtype = torch.device(device), dtype
        self.vision = load_vision(VISION[size], random=True, device=device)
        pictures = fake.pictures(batch, self.vision.size)
        begin = time.perf_counter()
        patches, globals = (part.clone() for part in self.vision(pictures))
        self.vision_seconds = time.perf_counter() - begin
        fake.write_store(
            folder,
            images or batch,
            captions or batch,
            self.vision.grid,
            (patches.cpu(), globals[:, :1].cpu()),
            dtype=dtype,
            record=self.vision.record,
        )
        self.loader = Loader(folder, batch, captions="all", device=device)
        self.store = self.loader.store
        self.batch = self.loader.step(0).to("cpu")
        self.resident = self.store.load(device)
        self.images = self.store.globals().to(device)
        torch.manual_seed(0)
        self.learner = Learner(PRESETS[size], self.vision.channels).to(device)
        self.pictures = pictures[self.batch.row % batch]
        picture = self.batch.row.to(patches.device) % batch
        self.cached = patches[picture].half(), globals[picture, 0].half()  # what the careful user keeps in memory
        self.padded = forms.padded(self.batch, CONTEXT, MENTION).to(device)
        self.trimmed = forms.padded(self.batch).to(device)

    @property
    def amp(self):
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")

    def optimiser(self, **options):
        """AdamW that has taken its first step, so that its state is there."""
        groups = self.learner.groups(TrainConfig.weight_decay)
        optimiser = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), eps=1e-6, **options)
        for parameter in self.learner.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimiser.step()
        optimiser.zero_grad()
        return optimiser


def rows(setting):
    """(the reference, the careful user's form, ours one change at a time)."""
    tower, scale, store = setting.learner.text, setting.learner.logit_scale, setting.store
    plain, fused = setting.optimiser(), setting.optimiser(fused=True)

    def none():
        return None

    def look():
        with setting.amp:
            patches, globals = setting.vision(setting.pictures)
        return patches.float().clone(), globals[:, 0].float().clone()  # inference tensors have no part in autograd

    def beside(padded):
        return lambda features: (padded, *features)

    def from_disk(_):
        rows = setting.batch.row
        patches = store.take(rows, device=setting.device).take(slice(None))
        return setting.padded, patches, store.globals(rows).to(setting.device).float()

    def from_memory(_):
        rows = setting.batch.row.to(setting.device)
        return setting.padded, setting.resident.take(rows), setting.images[rows].float()

    def names_only(_):
        return setting.loader.step(0).to(setting.device)

    def padded_text(inputs):
        return forms.tower_tokens(tower, inputs[0].ids)

    def padded_losses(tokens, inputs):
        return forms.losses(tokens, *inputs, scale, fake.NAMES, **LOSS)

    def packed_text(batch):
        return used_units(tower, batch)

    def packed_losses(units, batch):
        return simzss(units, batch, setting.resident, setting.images, scale, **LOSS)

    def careful(_):
        return setting.trimmed, *(part.float() for part in setting.cached)

    padded = padded_text, padded_losses, plain
    packed = packed_text, packed_losses
    return [
        Row("(A) reference: vision every step, 77 tokens", look, beside(setting.padded), *padded, slow=True),
        Row("careful user: cached, trimmed, plain PyTorch", none, careful, *padded),
        Row("cache: features from the store on disk", none, from_disk, *padded, slow=True),
        Row("+ resident: patches in memory", none, from_memory, *padded, slow=True),
        Row("+ packing: captions end to end", none, names_only, *packed, plain, backend="reference"),
        Row("+ fused losses", none, names_only, *packed, plain),
        Row("+ fused optimiser (B)", none, names_only, *packed, fused),
    ]


class Clock:
    """Milliseconds between its calls, by the name of the part that ended."""

    def __init__(self, device, parts=True):
        self.device, self.parts, self.ms = device, parts, {}
        self.begin = self.last = self.now()

    def now(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def __call__(self, part):
        if self.parts:
            now = self.now()
            self.ms[part] = self.ms.get(part, 0.0) + (now - self.last) * 1e3
            self.last = now

    @property
    def total(self):
        return (self.now() - self.begin) * 1e3


def step(row, setting, clock=lambda part: None, exact=False):
    """Take one step; returns its losses.  `exact`: in float32 throughout, to be compared."""
    with backend(row.backend):
        features = row.vision()
        clock("vision")
        inputs = row.read(features)
        clock("read")
        with contextlib.nullcontext() if exact else setting.amp:
            units = row.text(inputs)
        clock("text")
        leaf = units.detach().float().requires_grad_()
        losses = row.losses(leaf, inputs)
        losses.loss.backward()
        clock("losses")
        units.backward(leaf.grad.to(units.dtype))
        clock("backward")
        row.optimiser.step()
        row.optimiser.zero_grad()
        clock("optimiser")
    return losses


@contextlib.contextmanager
def backend(name):
    before = os.environ.get("FASTZSS_BACKEND")
    os.environ["FASTZSS_BACKEND"] = name
    try:
        yield
    finally:
        os.environ.pop("FASTZSS_BACKEND") if before is None else os.environ.__setitem__("FASTZSS_BACKEND", before)


@functools.cache
def factors(size, device, dtype):
    return [torch.randn(size, size, device=device, dtype=dtype) for _ in range(2)]


def matmul_rate(device):
    """FLOP/s of a large matrix product, in the precision of the tower."""
    cuda = device.type == "cuda"
    a, b = factors(8192 if cuda else 1024, device, torch.bfloat16 if cuda else torch.float32)
    times = []
    for _ in range(6):
        clock = Clock(device)
        a @ b
        times.append(clock.total / 1e3)
    return 2 * len(a) ** 3 / min(times)
