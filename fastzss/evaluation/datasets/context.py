"""PASCAL Context, val, with the labels that mmseg's pascal_context.py writes: 0 is background.

    VOCdevkit/VOC2010/{JPEGImages, SegmentationClassContext, ImageSets/SegmentationContext/val.txt}

Its classes are in alphabetical order: an early version of that script had another, in which no score is right.
"""

from functools import partial

from fastzss.evaluation.datasets.labels import plain, reduced
from fastzss.evaluation.datasets.layouts import PublicSet, devkit_layouts

HINT = "; its labels are made by tools/convert_datasets/pascal_context.py of mmsegmentation from trainval_merged.json"


ROOTS = ("VOCdevkit/VOC2010", "VOC2010")
layouts = partial(devkit_layouts, ROOTS, "SegmentationClassContext", "SegmentationContext")

SETS = (
    PublicSet("context59", "context59", 5104, layouts(reduced(59)), hint=HINT),
    PublicSet("context60", "context59", 5104, layouts(plain(60)), background=True, hint=HINT),
)
