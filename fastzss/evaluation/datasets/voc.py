"""PASCAL VOC 2012, val.  Palette PNGs: 0 is background, 255 the border of things.

VOCdevkit/VOC2012/{JPEGImages, SegmentationClass, ImageSets/Segmentation/val.txt}, or without VOCdevkit/
"""

from functools import partial

from fastzss.evaluation.datasets.labels import plain, reduced
from fastzss.evaluation.datasets.layouts import PublicSet, devkit_layouts

ROOTS = ("VOCdevkit/VOC2012", "VOC2012")
layouts = partial(devkit_layouts, ROOTS, "SegmentationClass", "Segmentation")

SETS = (
    PublicSet("voc20", "voc20", 1449, layouts(reduced(20))),
    PublicSet("voc21", "voc20", 1449, layouts(plain(21)), background=True),
)
