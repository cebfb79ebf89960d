"""The views of a teacher: the centre square of each image, cut by grids of several scales, each cell looked at.

    threads decode and cut ─► the teacher, view by view ─► a bounded queue ─► a thread writes and commits

The square is the one the backbone saw, at the resolution the image came in (or, `--view-source crop`, at the
backbone's), so that views and patches lie over the same places.
"""

import logging
from contextlib import closing, nullcontext

import torch
from PIL import Image

from fastzss.backbones.vision import as_tensor, thinned
from fastzss.extraction.claims import Claims
from fastzss.extraction.features import FeatureBatches, write_shards
from fastzss.extraction.unreadable import Unreadable
from fastzss.extraction.writing import of_part
from fastzss.sources.images import ImageUnreadable
from fastzss.store.reading.reader import PatchStore
from fastzss.store.upkeep.info import store_form
from fastzss.store.upkeep.origin import write_teacher
from fastzss.store.views import ViewPlan, ViewWriter, view_boxes

log = logging.getLogger("fastzss")

AT_ONCE = 480  # views that the teacher is given at a time


def view_plan(config, job):
    return ViewPlan(
        images=job.parts[0].plan.images,
        channels=job.teacher.channels,
        features=job.parts[0].plan.identity,
        teacher=job.teacher.record,
        scales=config.scales,
        cut=config.view_source,
        pixels=config.pixels,
    )


def add_views(config, job, ranks):
    """Make or continue the views of a store by a teacher; the features are not touched."""
    plan = view_plan(config, job)

    def begin():
        if config.part is None:
            PatchStore(config.store)  # finished, and whole
        write_teacher(config.store, plan.folder.partition("/")[2], job.teacher.origin)
        return ViewWriter(config.store, plan, store_form(config.store / "features"))

    writer = ranks.led(begin)
    todo = ranks.led(writer.todo)
    if ranks.first and len(todo) < plan.shards:
        log.info("%s: %d of %d shards of views are there already", writer.folder, plan.shards - len(todo), plan.shards)
    todo = of_part(todo, config.part)
    batches = ViewBatches(job, plan, max(1, AT_ONCE // plan.patches), Unreadable(config.store))
    with closing(Claims(writer.folder)) if ranks.count > 1 else nullcontext() as claims:
        write_shards(writer, batches, todo, ranks, {}, claims, name="views")
    ranks.wait()
    if ranks.first and not writer.todo() and not (writer.folder / "manifest.json").exists():
        writer.finish()
    ranks.wait()


class ViewBatches(FeatureBatches):
    """The teacher at work: views of whole shards, in always the same batches."""

    def __init__(self, job, plan, batch, unreadable):
        part = job.parts[0]
        super().__init__(part.source, job.vision, part.plan, batch, unreadable)  # in the order of the features
        self.teacher, self.plan = job.teacher, plan

    def _features(self, shard, at, loads):
        """(shard, place in it, views [b, V, D_t], pixels [b, 3, P, P] or None, valid [b])."""
        found, plan = [load.result() for load in loads], self.plan
        valid = torch.tensor([one is not None for one in found], dtype=torch.uint8)
        size, side = self.teacher.size, plan.pixels
        blank = torch.zeros(plan.patches, 3, size, size, dtype=torch.uint8), torch.zeros(3, side, side).byte()
        cut, pixels = zip(*(one or blank for one in found), strict=True)
        views = self.teacher(torch.cat(cut)).view(len(found), plan.patches, -1)
        return shard, at, views, torch.stack(pixels) if side else None, valid

    def _pixels(self, index):
        try:
            image = self.source.image(index)
        except ImageUnreadable as problem:
            self.unreadable.add(self.source.ids[index], problem)
            return None
        return cut_views(image, self.teacher, self.plan, self.vision)


def cut_views(image, teacher, plan, vision):
    """(uint8 [V, 3, S, S] views of a PIL image, uint8 [3, P, P] its centre square or None)."""
    if plan.cut == "crop":
        square = Image.fromarray(vision.pixels(image).permute(1, 2, 0).numpy())
    else:
        square = centre_square(image.convert("RGB"))
    views = torch.stack([teacher.view(square, box) for box in view_boxes(plan.scales, square.width)])
    size = (plan.pixels, plan.pixels)
    return views, as_tensor(square.resize(size, Image.Resampling.BICUBIC)) if plan.pixels else None


def centre_square(image):
    """The middle square of an image: what remains of it when its short side is resized and the centre is cropped."""
    image = thinned(image)
    side = min(image.size)
    left, top = (round((length - side) / 2) for length in image.size)
    return image.crop((left, top, left + side, top + side))
