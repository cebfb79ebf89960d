"""A ZeroSeg step from cached patches and views, beside one in which backbone and teacher look at every image again.

The same images, weights and student; no time is shown before the losses agree, to 1e-3 (float16 store).  The teacher is
of the paper's size for a base or large student, and looks at the paper's 30 views of each image.
"""

import functools
import statistics

import fake
import torch
import torch.nn.functional as F
from measuring import in_turn
from steps import AT_ONCE, VISION, now

from fastzss.backbones import load_vision
from fastzss.backbones.clip import load_teacher
from fastzss.base.errors import UserError
from fastzss.kernels import Patches
from fastzss.methods.zeroseg.objective import cover_of, losses, view_area
from fastzss.methods.zeroseg.segmenter import CHOSEN, head_of
from fastzss.methods.zeroseg.task import ZeroSegTask
from fastzss.store.views import SCALES, view_boxes
from fastzss.training.settings import RECIPES, TrainConfig
from fastzss.training.step import parameter_groups

TEACHERS = {size: f"vit_{size}_patch{patch}_clip_224" for size, patch in (("base", 16), ("large", 14))}
TEACHER = {"tiny": "tiny", "small": TEACHERS["base"], "base": TEACHERS["large"], "large": TEACHERS["large"]}
TOLERANCE = 1e-3


class Setting:
    """Pictures, all that looks at them, what it said of them, and a student."""

    def __init__(self, size, batch, device):
        self.device = torch.device(device)
        self.config = TrainConfig(**RECIPES["zeroseg-frozen"], store="", out="", lr=0.0)
        self.vision = load_vision(size if size == "tiny" else VISION.format(size), random=True, device=device)
        name = TEACHER[size]
        self.teacher = load_teacher(name, device=device) if name == "tiny" else untrained(name, device)
        self.amp = torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")
        self.pictures = fake.pictures(batch, self.vision.size)
        self.draws = torch.rand(batch, *self.noise_size, generator=torch.Generator().manual_seed(0)).to(device)
        patches, views = self.look()
        self.patches, self.views = Patches(patches.half()), views.half()
        self.area = view_area(SCALES, self.vision.grid).to(device)
        student = {key: getattr(self.config, key) for key in CHOSEN}
        student |= {"kind": "frozen", "width": patches.shape[2], "out": views.shape[2]}
        torch.manual_seed(0)
        self.learner = head_of(student | {"groups": list(self.config.group_counts)}).to(device)
        groups = parameter_groups(self.learner, self.config.weight_decay)
        self.optimiser = torch.optim.AdamW(groups, lr=0.0, fused=True, **ZeroSegTask.optimiser)

    @property
    def noise_size(self):
        return self.config.group_counts[0], self.vision.grid[0] * self.vision.grid[1]

    def noise(self, groups, below):
        """The same each time: both forms are to have the same losses."""
        return -(-self.draws[:, :groups, :below].clamp(1e-7, 1 - 1e-7).log()).log()

    def look(self):
        """(patches [B, N, d], what the teacher says of the views [B, V, D_t])."""
        with self.amp, torch.inference_mode():
            patches = torch.cat([self.vision(part)[0] for part in self.pictures.split(AT_ONCE)])
            views = torch.cat([self.teacher(self.views_of(picture)) for picture in self.pictures])
        return patches.float().clone(), views.float().view(len(self.pictures), -1, views.shape[-1]).clone()

    def views_of(self, picture):
        size, boxes = (self.teacher.size,) * 2, view_boxes(SCALES, picture.shape[-1])
        cut = (picture[None, :, top:bottom, left:right].float() for left, top, right, bottom in boxes)
        return torch.cat([F.interpolate(view, size, mode="bilinear") for view in cut]).byte()

    def cached(self):
        return self.patches.take(torch.arange(len(self.views), device=self.device)), self.views

    def step(self, looked):
        """(milliseconds, the loss) of a step."""
        begin = now(self.device)
        patches, views = self.look() if looked else self.cached()
        with self.amp:
            segments = self.learner(patches, self.noise)
        segments = type(segments)(*(part.float() for part in segments))
        found = losses(segments, views, self.config, 1, cover=cover_of(segments, self.area))["loss"]
        found.backward()
        self.optimiser.step()
        self.optimiser.zero_grad()
        return (now(self.device) - begin) * 1e3, found.item()


def untrained(name, device):
    """A teacher of timm with random weights: as slow as one that knows something."""
    import timm

    from fastzss.backbones.clip import Teacher

    model = timm.create_model(name, pretrained=False)
    return Teacher(
        model, lambda model, x: model(x), name, 224, model.num_classes, (0.5,) * 3, (0.5,) * 3, "bilinear", "none",
        "random", device, None,
    )  # fmt: skip


def run(args, folder=None):
    setting = Setting(args.size, args.batch, args.device)
    works = [functools.partial(setting.step, looked) for looked in (True, False)]
    (_, exact), (_, loss) = (work() for work in works)
    if not abs(loss - exact) <= TOLERANCE * abs(exact):
        raise UserError(f"no times: the loss is {loss:.6g} from the cache, {exact:.6g} without; expected the same")
    looked, cached = in_turn(works, args.steps)
    pairs = [a / b for (a, _), (b, _) in zip(looked, cached, strict=True)]
    return {
        "kind": "zeroseg",
        "machine": args.machine,
        "settings": {"size": args.size, "batch": args.batch, "steps": args.steps, "teacher": setting.teacher.name,
                     "views": setting.views.shape[1]},
        "looking_ms": statistics.median(ms for ms, _ in looked),
        "cached_ms": statistics.median(ms for ms, _ in cached),
        "loss": exact,
        "speedup": statistics.median(pairs),
    }  # fmt: skip


def show(result):
    said = "a ZeroSeg step that looks {looking_ms:.1f} ms, from the cache {cached_ms:.1f} ms: {speedup:.1f}x"
    print(said.format(**result))
