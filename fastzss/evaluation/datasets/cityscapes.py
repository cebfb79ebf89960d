"""Cityscapes, val: a folder a city.

cityscapes/leftImg8bit/val/CITY/*_leftImg8bit.png
cityscapes/gtFine/val/CITY/*_gtFine_labelTrainIds.png, or *_gtFine_labelIds.png as they are downloaded
"""

from fastzss.evaluation.datasets.labels import IGNORE, plain, table
from fastzss.evaluation.datasets.layouts import Layout, PublicSet

IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)  # of the 19 classes that count
LABEL_IDS = table(dict.fromkeys(range(34), IGNORE) | {byte: k for k, byte in enumerate(IDS)})


def layout(end, means):
    return Layout(
        images="cityscapes/leftImg8bit/val",
        labels="cityscapes/gtFine/val",
        image_end="_leftImg8bit.png",
        label_end=f"_gtFine_{end}.png",
        means=means,
        what=f"cityscapes/gtFine/val, {end}",
    )


SETS = (
    PublicSet("cityscapes", "cityscapes", 500, (layout("labelTrainIds", plain(19)), layout("labelIds", LABEL_IDS))),
)
