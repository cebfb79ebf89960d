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
from ops import peak_megabytes
from torch.utils.flop_counter import FlopCounterMode

from fastzss.kernels import Patches
from fastzss.loader import Loader
from fastzss.objective import simzss, used_units
from fastzss.settings import TrainConfig
from fastzss.text import CONTEXT, PRESETS
from fastzss.training.step import BETAS, EPS, Learner
from fastzss.vision import load_vision

VISION = {
    "tiny": "tiny",
    "small": "vit_small_patch14_reg4_dinov2.lvd142m",
    "base": "vit_base_patch14_reg4_dinov2.lvd142m",
    "large": "vit_large_patch14_reg4_dinov2.lvd142m",
}
AT_ONCE = 256  # images in a forward pass of the vision
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
    replay: object = None  # inputs -> Losses: all behind reading in one, where it is a CUDA graph


class Ours:
    """A store, the loader, what learns: all that our form of the step needs.

    Args:
        folder: where the store is written.
        text: size of the text tower, one of PRESETS.
        features: (unit patches [f, N, D], globals [f, 1, D]); row r of the store is the (r % f)-th of them.
        images, captions: of the store; None: as many as the batch has pairs.
        rank, world: of this process, and of how many.
        learner: of another setting, to be shared; None: a new one.
    """

    def __init__(self, folder, text, batch, features, grid, *, device="cpu", dtype="int8", images=None, captions=None,
                 record=None, rank=0, world=1, learner=None):  # fmt: skip
        self.device = torch.device(device)
        if rank == 0:
            fake.write_store(folder, images or batch, captions or batch, grid, features, dtype=dtype, record=record)
        if world > 1:
            torch.distributed.barrier()
        self.loader = Loader(folder, batch, captions="all", device=device, rank=rank, world=world)
        self.store = self.loader.store
        self.patches = self.store.load(device)
        self.images = self.store.globals().to(device)
        torch.manual_seed(0)
        self.learner = learner or Learner(PRESETS[text], self.store.plan.channels).to(device)

    @property
    def amp(self):
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")

    def optimiser(self, **options):
        """AdamW that has taken its first step, so that its state is there."""
        groups = self.learner.groups(TrainConfig.weight_decay)
        optimiser = torch.optim.AdamW(groups, lr=0.0, betas=BETAS, eps=EPS, **options)
        for parameter in self.learner.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimiser.step()
        optimiser.zero_grad()
        return optimiser

    def row(self, label, optimiser, backend="auto"):
        return Row(label, nothing, self.read, self.text, self.losses, optimiser, backend)

    def read(self, _=None):
        return self.loader.step(0).to(self.device)

    def text(self, batch):
        return used_units(self.learner.text, batch)

    def losses(self, units, batch):
        return simzss(units, batch, self.patches, self.images, self.learner.logit_scale, **LOSS)


class Setting(Ours):
    """Beside ours: the images, the transformer that looks at them, and the batch in the forms of others."""

    def __init__(self, folder, size, batch, *, device="cpu", **options):
        self.device = torch.device(device)
        self.vision = load_vision(VISION[size], random=True, device=device)
        self.pictures = fake.pictures(batch, self.vision.size)
        self.vision_cost, (patches, globals) = cost(self.look, self.device)
        features, record = (patches.cpu(), globals.cpu().unsqueeze(1)), self.vision.record
        super().__init__(folder, size, batch, features, self.vision.grid, device=device, record=record, **options)
        self.batch = self.read().to("cpu")
        picture = self.batch.row % batch
        self.pictures = self.pictures[picture]
        self.features = patches[picture.to(device)], globals[picture.to(device)]
        self.cached = tuple(part.half() for part in self.features)  # what the careful user keeps in memory
        self.read_into = Patches(
            *(p if p is None else torch.empty_like(p) for p in self.patches[:2]), *self.patches[2:]
        )
        self.padded = forms.padded(self.batch, CONTEXT, MENTION).to(device)
        self.trimmed = forms.padded(self.batch).to(device)

    def look(self):
        """(unit patches [B, N, D], global vectors [B, D]) of the images of the batch."""
        patches, globals = zip(*map(self.vision, self.pictures.split(AT_ONCE)), strict=True)
        return torch.cat(patches), torch.cat(globals)[:, 0]


def cost(call, device):
    """(FLOPs and most megabytes of a call, its result)."""
    results = []
    with FlopCounterMode(display=False) as counter:  # sees the products of PyTorch, not those of Triton kernels
        peak = peak_megabytes(lambda: results.append(call()), device.type)
    return {"flops": counter.get_total_flops(), "peak_mb": peak}, results[0]


def nothing():
    """The vision part of a form that has cached it."""
    return None


def rows(setting):
    """The reference, the careful user's form, and ours one change at a time."""
    tower, scale, store = setting.learner.text, setting.learner.logit_scale, setting.store
    plain, fused = setting.optimiser(), setting.optimiser(fused=True)

    def beside(features):
        return setting.padded, *features

    def careful(_):
        return setting.trimmed, *(part.float() for part in setting.cached)

    def from_disk(_):
        rows = setting.batch.row
        patches = store.take(rows, device=setting.device).take(slice(None))
        return setting.padded, patches, store.globals(rows).to(setting.device).float()

    def disk_patches(_):
        """A batch whose patches were just read to where it looks for them."""
        batch = setting.read()
        taken = store.take(batch.row, device=setting.device)
        for part, whole in zip(taken[:2], setting.read_into[:2], strict=True):
            if part is not None:
                whole.index_copy_(0, batch.row, part)
        return batch

    def disk_losses(units, batch):
        return simzss(units, batch, setting.read_into, setting.images, scale, **LOSS)

    def text(inputs):
        return forms.tower_tokens(tower, inputs[0].ids)

    def losses(tokens, inputs):
        return forms.losses(tokens, *inputs, scale, fake.NAMES, **LOSS)

    def amp_look():
        with setting.amp:
            return tuple(part.float() for part in setting.look())

    return [
        Row("(A) reference: vision every step, 77 tokens", amp_look, beside, text, losses, plain, slow=True),
        Row("careful user: cached, trimmed, plain PyTorch", nothing, careful, text, losses, plain),
        Row("cache: features from the store on disk", nothing, from_disk, text, losses, plain, slow=True),
        Row("+ packing: captions end to end", nothing, disk_patches, setting.text, disk_losses, plain, "reference"),
        Row("+ fused losses", nothing, disk_patches, setting.text, disk_losses, plain),
        setting.row("+ resident: patches in memory", plain),
        setting.row("+ fused optimiser (B)", fused),
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
        if row.replay:
            return row.replay(inputs)
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
