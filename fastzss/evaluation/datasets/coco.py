"""COCO val2017 with the pixel labels of COCO-Stuff.

    coco_stuff164k/images/val2017/*.jpg
    coco_stuff164k/annotations/val2017/*_labelTrainIds.png      171 classes, as mmseg converts them
    coco_stuff164k/annotations/val2017/*_instanceTrainIds.png   background and 80 things, as GroupViT converts them
    coco_stuff164k/annotations/val2017/*.png                    stuffthingmaps_trainval2017.zip as it comes

Raw bytes are COCO's category ids less one: 0 to 89 things, of which ten were never used, 91 to 181 stuff, 255 none.
For coco_object all that is no thing is background, unlabelled pixels too: nothing is ignored.
"""

from fastzss.evaluation.datasets.labels import IGNORE, plain, table
from fastzss.evaluation.datasets.layouts import Layout, PublicSet

NEVER = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82)
THINGS = [byte for byte in range(90) if byte not in NEVER]
RAW_STUFF = table({byte: k for k, byte in enumerate((*THINGS, *range(91, 182)))})
RAW_OBJECT = table(dict.fromkeys([*range(182), IGNORE], 0) | {byte: k + 1 for k, byte in enumerate(THINGS)})
FROM_STUFF = table(dict.fromkeys([*range(171), IGNORE], 0) | {k: k + 1 for k in range(80)})
INSTANCE, STUFF, RAW = "_instanceTrainIds.png", "_labelTrainIds.png", ".png"
ROOTS = (
    ("coco_stuff164k/images/val2017", "coco_stuff164k/annotations/val2017"),
    ("val2017", "stuffthingmaps/val2017"),
    ("images/val2017", "stuffthingmaps/val2017"),
)


def layouts(*kinds):
    return tuple(
        Layout(
            images=images,
            labels=labels,
            image_end=".jpg",
            label_end=end,
            means=means,
            what=f"{labels}, {what}",
            others="TrainIds.png" if end == RAW else None,
        )
        for end, means, what in kinds
        for images, labels in (ROOTS if end == RAW else ROOTS[:1])
    )


SETS = (
    PublicSet(
        "coco_stuff",
        "coco_stuff",
        5000,
        layouts((STUFF, plain(171), "labelTrainIds"), (RAW, RAW_STUFF, "stuffthingmaps")),
    ),
    PublicSet(
        "coco_object",
        "coco_object",
        5000,
        layouts(
            (INSTANCE, plain(81), "instanceTrainIds"),
            (RAW, RAW_OBJECT, "stuffthingmaps"),
            (STUFF, FROM_STUFF, "labelTrainIds"),
        ),
        background=True,
    ),
)
