"""The views of a store: what a teacher says of the parts of each image, at several scales.

    views/TEACHER/  plan.json  zarr.json  commit/  manifest.json      as in features/; TEACHER begins the teacher's hash
      views/   float16 [n, V, D_t]          not normalised: 1 x 1, then 2 x 2 row by row, ...
      valid/   uint8 [n]
      pixels/  uint8 [n, 3, P, P]           the centre crop itself, where it was asked for

A layer of its own beside the features, in their order of images: it is added to a finished store without touching it.

Sizes: n images, V views, D_t channels of the teacher's space, P pixels a side.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from fastzss.base.errors import UserError
from fastzss.base.files import canonical, identity
from fastzss.store.features import FeatureWriter, ShardWriter
from fastzss.store.layers import read_record
from fastzss.store.plan import FeaturePlan, differences

TEACHER_DIGITS = 12  # of a teacher's hash that name its folder
SCALES = (1, 2, 3, 4)


@dataclass(frozen=True, kw_only=True)
class ViewPlan:
    """What a views layer holds; two plans with the same `identity` describe the same bytes."""

    images: int
    channels: int  # D_t
    features: str  # identity of the features whose images these are, in their order
    teacher: dict  # backbones.clip.Teacher.record
    scales: tuple = SCALES
    cut: str = "original"  # views are cut from the centre square as it came, or as the backbone saw it ("crop")
    pixels: int = 0  # P; 0: none are kept
    dtype = "float16"

    def __post_init__(self):
        object.__setattr__(self, "scales", tuple(self.scales))
        object.__setattr__(self, "teacher", json.loads(canonical(self.teacher)))

    @property
    def identity(self):
        return identity(self.to_json())

    @property
    def patches(self):
        """Vectors of an image, as of features: V."""
        return sum(scale**2 for scale in self.scales)

    @property
    def arrays(self):
        """name -> (shape, numpy dtype, chunk shape); a chunk is one image."""
        n, V, D, P = self.images, self.patches, self.channels, self.pixels
        arrays = {"views": ((n, V, D), np.dtype("<f2"), (1, V, D)), "valid": ((n,), np.dtype("u1"), (1,))}
        if P:
            arrays["pixels"] = ((n, 3, P, P), np.dtype("u1"), (1, 3, P, P))
        return arrays

    # the arithmetic of shards is that of the features
    bytes_per_image = FeaturePlan.bytes_per_image
    shard_images = FeaturePlan.shard_images
    shards = FeaturePlan.shards
    rows = FeaturePlan.rows

    @property
    def folder(self):
        """Below the store's."""
        return f"views/{identity(self.teacher)[:TEACHER_DIGITS]}"

    def to_json(self):
        return {**asdict(self), "scales": list(self.scales)}

    @classmethod
    def from_json(cls, obj):
        return cls(**obj)


def view_boxes(scales, side, exact=False):
    """[(left, top, right, bottom)] of all views of a square: at each scale they tile it; in pixels, or `exact`."""
    boxes = []
    for scale in scales:
        at = [i * side / scale if exact else round(i * side / scale) for i in range(scale + 1)]
        boxes += [(at[j], at[i], at[j + 1], at[i + 1]) for i in range(scale) for j in range(scale)]
    return boxes


class ViewWriter(FeatureWriter):
    """Writes the views of a store, or continues to."""

    layer = "views"

    def __init__(self, store, plan, form=None):
        super().__init__(store, plan, form, folder=plan.folder)

    def read_plan(self):
        return read_view_plan(self.folder)

    def refuse_other(self, found):
        if found.identity != self.plan.identity:
            raise UserError(
                f"{self.folder}: these views were begun with other settings: "
                f"{'; '.join(differences(found, self.plan))}. Give those it was begun with, or delete the folder"
            )

    def begin(self, shard):
        if self._buffers is None:
            self._buffers = self.form.buffers(self.plan)
        return ViewShard(self, shard, self._buffers)


class ViewShard(ShardWriter):
    def put(self, at, views, pixels, valid):
        """Some images: views [b, V, D_t], pixels [b, 3, P, P] or None, valid [b]; rows that are not valid are zeros."""
        good = torch.as_tensor(valid) != 0
        views = views * good.to(views.device).view(-1, 1, 1)
        halves = views.half()
        if not torch.isfinite(halves).all():
            raise ValueError("views hold values beyond float16, infinite ones or NaN")
        self._fill("views", at, halves)
        if pixels is not None:
            self._fill("pixels", at, pixels)
        self._fill("valid", at, good.to(torch.uint8))
        self.filled[at : at + len(views)] = True


def read_view_plan(folder):
    """The ViewPlan of a views layer, finished or not."""
    path = Path(folder) / "plan.json"
    record = read_record(path, "views")
    try:
        plan = ViewPlan.from_json(record["plan"])
    except (TypeError, ValueError) as problem:
        raise UserError(f"{path}: does not fit this version of fastzss: {problem}. Make the views anew.") from None
    if plan.identity != record["identity"]:
        raise UserError(f"{path}: says it is {record['identity']}, but its plan is {plan.identity}. Make it anew.")
    return plan


def view_folders(store):
    """The folders of a store's views layers."""
    return sorted(path.parent for path in (Path(store) / "views").glob("[!.]*/plan.json"))
