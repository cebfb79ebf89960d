"""Evaluation: images -> vision -> masks of one or several classifiers -> score.

A classifier is a Reading, a Vocabulary, or a [K, D] tensor of unit vectors, one a class, wherever they come from, which
is read plainly.  Each image is looked at once for all classifiers that look in the same way.
"""

import numpy as np
import torch
from tqdm import tqdm

from fastzss.base.background import in_order
from fastzss.base.machine import cores
from fastzss.evaluation.looks import Looks
from fastzss.evaluation.reading import FieldReading
from fastzss.evaluation.score import iou, mean_accuracy, mean_iou, pixel_accuracy
from fastzss.evaluation.tally import Tally
from fastzss.masks.inference import PLAIN
from fastzss.masks.vocabulary import Vocabulary


def evaluate(vision, classifiers, data, ranks=None):
    """{name of the classifier: scores} on an EvaluationSet; see `scores`.

    A classifier is a Vocabulary, or the [K, D] vectors of one without any further step.
    """
    return judged(Looks(data, vision), classifiers, ranks)


def judged(looks, classifiers, ranks=None, shown=True):
    """The same for Looks."""
    data = looks.data
    classifiers = {
        name: Vocabulary(data.names, own, PLAIN) if isinstance(own, torch.Tensor) else own
        for name, own in classifiers.items()
    }
    tallies = {name: Tally(FieldReading(own), len(data.names)) for name, own in classifiers.items()}
    count(looks, list(tallies.values()), ranks, shown)
    return {name: scores(tally.matrix, data.groups) for name, tally in tallies.items()}


def count(looks, tallies, ranks=None, shown=True, skip=False, progress=None):
    """Count all images of some Looks into tallies: the one loop of all evaluations.

    Ranks share the images, and their tallies are summed: the counts are those of one process.  `progress`: where the
    counts of an interrupted evaluation are kept (progress.py).  Returns sentences about pairs that were skipped.
    """
    own, bad = list(range(len(looks)) if ranks is None else ranks.share(range(len(looks)))), {}
    done = 0 if progress is None else progress.resume(tallies, bad)
    shown = shown and (ranks is None or ranks.first)
    bar = tqdm(total=len(own), initial=done, unit="img", desc="evaluate", disable=None if shown else True)
    whole = True

    def judged_by_all(image):
        index, look, truth = image
        return *image, [] if look is None else [t.judge(look(t.reading.dense), truth) for t in tallies]

    try:
        with bar:
            for index, look, truth, found in in_order(judged_by_all, looks.each(own[done:], skip), at_once(ranks)):
                whole = False  # an interruption here leaves an image that is counted in part
                for tally, own_part in zip(tallies, found, strict=look is not None):
                    tally.add(index, own_part)
                if look is None:
                    bad[index] = str(truth)
                done += 1
                whole = True
                bar.update()
                if progress is not None:
                    progress.note(tallies, bad, done)
    finally:
        if progress is not None and whole:
            progress.note(tallies, bad, done, now=True)
    if ranks is not None:
        for tally in tallies:
            tally.join(ranks)
        bad = {index: sentence for part in ranks.gather(bad) for index, sentence in part.items()}
    return [bad[index] for index in sorted(bad)]


def at_once(ranks):
    """How many images are judged at a time: as many as PyTorch leaves cores for, where it was told to use fewer."""
    return max(1, cores() // torch.get_num_threads() // (1 if ranks is None else ranks.count))


def scores(matrix, groups):
    """mIoU of all classes and of each group, in points, with the IoU of every class (None where it has none)."""
    classes = iou(matrix) * 100
    return {
        "all": mean_iou(classes),
        **{group: mean_iou(classes[members]) for group, members in groups.items()},
        "accuracy": 100 * pixel_accuracy(matrix),
        "class_accuracy": 100 * mean_accuracy(matrix),
        "classes": [None if np.isnan(value) else float(value) for value in classes],
    }
