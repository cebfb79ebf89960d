"""What the demo's chapters share: stages with their times, rows of the table, pictures.

A chapter trains one method on the store and judges it on the same scenes as the others.
"""

import logging
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from fastzss import world
from fastzss.evaluation.evaluate import evaluate
from fastzss.evaluation.oracles import ceiling
from fastzss.pages.report import ROWS, SCORES
from fastzss.pages.scenes import Scene

log = logging.getLogger("fastzss")

# Tests harder than the test split, and how many scenes of it one of theirs stands for: large ones take their time.
HARDER = {"combinations": 2, "drawings": 2, "large": 4}
SCENES = 6  # pictures of the report: test scenes at equal distances, not chosen by hand


@dataclass(frozen=True)
class Chapter:
    """What a method adds to the report."""

    rows: list
    classes: dict  # row -> IoU of each class
    curves: dict  # run -> its metrics
    readout: dict
    scenes: list
    map: dict | None = None  # places of words and patches (pages/maps.py)


@contextmanager
def stage(name, times):
    """Note how long a stage takes; stages of one name add up."""
    log.info("%s", name)
    began = time.perf_counter()
    yield
    times[name] = round(times.get(name, 0) + time.perf_counter() - began, 1)


def judged_with_ceiling(vision, classifiers, data):
    """(scores of classifiers, those of the best mask the grid can draw); the scenes are made once for both."""
    data = replace(data, read=cache(data.read))
    return evaluate(vision, classifiers, data), ceiling(vision.grid[0], data)


def rows_of(found):
    """The table of {split: {row: the scores of each seed}}: the rows that the report knows."""
    return [table_row(row, split, scores[row]) for split, scores in found.items() for row in ROWS if row in scores]


def mean_of(seeds):
    return np.mean([scores["all"] for scores in seeds])


def table_row(name, split, seeds):
    """Means over the seeds, and the seeds."""
    keys = [key for key in SCORES if key in seeds[0]]
    return {
        "row": name,
        "split": split,
        **{key: float(np.mean([s[key] for s in seeds])) for key in keys},
        "seeds": [{"seed": number, **{key: s[key] for key in keys}} for number, s in enumerate(seeds)],
    }


def pictures(model, data, who=""):
    """Test scenes at equal distances, as the model sees them."""
    scenes = []
    for index in range(0, len(data), -(-len(data) // SCENES)):
        image, truth = data.read(index)
        result = model.segment(image, data.names)
        caption = world.scene("test", index).captions[0]
        scenes.append(Scene(image, result.mask, truth, f"{who}: {caption}" if who else caption, data.names))
    return scenes
