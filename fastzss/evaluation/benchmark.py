"""A run on one set by one protocol, from the first image to the figures that are printed.

    {"miou", group: mIoU, ..., "aacc", "macc", "images", "classes": {name: IoU}, "confused": [...], "protocol", "hash"}

Points everywhere.  With a refinement there is a second reading of the same looks, whose mIoU is "miou_NAME".
"""

from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from fastzss.bank.embedding import run_record
from fastzss.base.files import identity
from fastzss.evaluation.datasets.opened import open_set
from fastzss.evaluation.evaluate import count, scores
from fastzss.evaluation.looks import Looks, WindowLooks
from fastzss.evaluation.progress import Progress
from fastzss.evaluation.reading import reading_of
from fastzss.evaluation.tally import Tally
from fastzss.evaluation.windows import patch_of

CONFUSED = 10  # pairs of classes that are told
TUNED = "chosen on the evaluated images: no score to be compared"


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What a user asks of an evaluation, besides the sets.

    Attributes:
        model, run: of `fastzss.load`, and the Run it is of.
        protocol: the Protocol.
        data: the user's --data.
        limits: of a sweep of the background.
        cache, out: folders, or None.
        limit: images of each set at most, at equal distances.
    """

    model: object
    run: object
    protocol: object
    ranks: object
    data: str | None = None
    limits: tuple = ()
    cache: object = None
    out: object = None
    limit: int | None = None
    skip: bool = False

    def opened(self, name):
        data = open_set(name, self.data, "--data", self.skip)
        if self.limit is None or self.limit >= len(data):
            return data
        chosen = np.unique(np.linspace(0, len(data) - 1, self.limit).round().astype(int)).tolist()
        truth = None if data.truth is None else lambda index: data.truth(chosen[index])
        ids = [data.ids[index] for index in chosen]
        return replace(data, ids=ids, read=lambda index: data.read(chosen[index]), truth=truth)

    def of(self, name):
        """(figures of a set, a function that gives its `shots`)."""
        data, protocol = self.opened(name), self.protocol.of_set(name)
        plain, protocol = reading_of(replace(protocol, refine=None), self.model, data)
        readings = {"": plain}
        if self.protocol.refine:
            readings[self.protocol.refine], _ = reading_of(self.protocol.of_set(name), self.model, data)
        limits = self.limits if data.background and plain.limit is not None else ()
        tallies = [Tally(reading, len(data.names), () if column else limits) for column, reading in readings.items()]
        looks, record = self.looks(name, data, protocol), protocol.record(self.model)
        progress = (
            None if self.out is None else Progress(self.out / "progress", name, self.key(data, record), self.ranks)
        )
        bad = (*data.bad, *count(looks, tallies, self.ranks, True, self.skip, progress))
        figures = self.figures(data, record, tallies[0], bad)
        for column, tally in list(zip(readings, tallies, strict=True))[1:]:
            figures[f"miou_{column}"] = scores(tally.matrix, {})["all"]
        return figures, partial(shots, looks, plain, tallies[0].images)

    def looks(self, name, data, protocol):
        """The Looks of a set, kept in --cache where that is given."""
        look, vision = protocol.windows, self.model.vision
        dense = look is None and protocol.inference.dense
        if look is None:
            looks = Looks(data, vision)
        else:
            looks = WindowLooks(data, vision, look, patch_of(vision), self.ranks.device)
        if self.cache is None:
            return looks
        looks.vision = lambda: vision
        plan = {
            "images": identity(list(data.ids)),
            "data": self.place,
            "vision": self.run.config["vision"],
            "look": {"dense": dense} if look is None else asdict(look),
        }
        shared = {"voc21": "voc20", "context60": "context59", "coco_object": "coco_stuff"}.get(name, name)
        folder = self.cache / f"{shared}-{identity(plan)[:12]}"
        looks.keep(folder, plan, self.ranks, self.ranks.first, self.skip, dense)
        return looks

    def key(self, data, record):
        memory = None if self.model.memory is None else len(self.model.memory.labels)
        parts = [
            list(data.ids),
            record,
            run_record(self.run)["checkpoint"],
            list(self.limits),
            memory,
            self.protocol.refine,
        ]
        return identity([*parts, self.place, list(data.names)])[:12]

    @property
    def place(self):
        """The user's --data, wherever it was said from."""
        return str(self.data if self.data is None or str(self.data).startswith("world:") else Path(self.data).resolve())

    def figures(self, data, record, tally, bad):
        found = scores(tally.matrix, data.groups)
        groups = {group: found[group] for group in data.groups}
        partial_set = bool(bad) or len(data) < (data.expected or 0) or self.limit is not None
        figures = {
            "miou": found["all"],
            **groups,
            "aacc": found["accuracy"],
            "macc": found["class_accuracy"],
            "images": len(tally.images),
            **({"of": data.expected} if data.expected else {}),
            "partial": partial_set,
            "bad": len(bad),
            "first_bad": bad[0] if bad else None,
            "labels": data.used or None,
            "classes": dict(zip(data.names, found["classes"], strict=True)),
            "confused": confused(tally.matrix, data.names),
            "background": None if not data.background else {
                key: record[key] for key in ("background", "value", "words")
            },
            "record": record,
            "hash": record["hash"],
        }  # fmt: skip
        if swept := tally.swept:
            best = max(swept, key=swept.get)
            figures["sweep"] = swept
            figures["tuned"] = {"value": best, "miou": swept[best], "note": TUNED}
        return {key: value for key, value in figures.items() if value is not None}


def shots(looks, reading, images):
    """[(what it is, id, points, PIL image, prediction, truth), ...] of the best, the middle and the worst image."""
    order = sorted((value, index) for index, value in images.items() if not np.isnan(value))
    chosen = {"best": order[-1], "middle": order[len(order) // 2], "worst": order[0]} if order else {}
    found, told = [], set()
    for what, (value, index) in chosen.items():
        if index in told:
            continue
        told.add(index)
        look, truth = looks[index]
        prediction = reading.settle(*reading.decide(look(reading.dense), truth.shape))
        image = looks.data.read(index)[0]
        found.append((what, looks.data.ids[index], value, image, prediction.astype(np.uint8), truth))
    return found


def confused(matrix, names):
    """[[true class, what it was taken for, its share of the true class's pixels in points, pixels], ...]."""
    wrong = matrix * (1 - np.eye(len(matrix), dtype=np.int64))
    order = np.argsort(-wrong, axis=None, kind="stable")[:CONFUSED]
    found = []
    for true, taken in zip(*np.unravel_index(order, wrong.shape), strict=True):
        if pixels := int(wrong[true, taken]):
            found.append([names[true], names[taken], 100 * pixels / int(matrix[true].sum()), pixels])
    return found
