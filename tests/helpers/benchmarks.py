"""Small trees in the layouts of the public sets: odd sizes, palette PNGs, whatever bytes a label has.

Every image is painted by its label: of each byte a colour of its own, so that a planted backbone can read the class.
"""

from pathlib import Path

import numpy as np
from PIL import Image

PLACES = {  # set -> images, labels, ends, list
    "voc20": ("VOCdevkit/VOC2012/JPEGImages", "VOCdevkit/VOC2012/SegmentationClass", ".jpg", ".png",
              "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt"),
    "context59": ("VOCdevkit/VOC2010/JPEGImages", "VOCdevkit/VOC2010/SegmentationClassContext", ".jpg", ".png",
                  "VOCdevkit/VOC2010/ImageSets/SegmentationContext/val.txt"),
    "coco_stuff": ("coco_stuff164k/images/val2017", "coco_stuff164k/annotations/val2017", ".jpg", "_labelTrainIds.png",
                   None),
    "coco_object": ("coco_stuff164k/images/val2017", "coco_stuff164k/annotations/val2017", ".jpg",
                    "_instanceTrainIds.png", None),
    "cityscapes": ("cityscapes/leftImg8bit/val", "cityscapes/gtFine/val", "_leftImg8bit.png",
                   "_gtFine_labelTrainIds.png", None),
    "ade20k": ("ade/ADEChallengeData2016/images/validation", "ade/ADEChallengeData2016/annotations/validation", ".jpg",
               ".png", None),
}  # fmt: skip
PLACES |= {"voc21": PLACES["voc20"], "context60": PLACES["context59"]}


def colour(byte):
    """A colour that says its byte, through the noise of a JPEG: three digits of base 7."""
    return np.array([byte // 49, byte // 7 % 7, byte % 7]) * 40 + 8


def byte_of(rgb):
    """The byte of each colour [..., 3]."""
    digits = np.clip(np.rint((np.asarray(rgb, float) - 8) / 40), 0, 6).astype(int)
    return digits[..., 0] * 49 + digits[..., 1] * 7 + digits[..., 2]


def plant(root, name, masks, label_end=None, truths=None):
    """Write masks {key: uint8 [H, W]} and images painted by them as the set lies; `truths`: other labels than these."""
    images, labels, image_end, usual, listed = PLACES[name]
    for key, mask in masks.items():
        image, label = (
            Path(root) / part for part in (f"{images}/{key}{image_end}", f"{labels}/{key}{label_end or usual}")
        )
        image.parent.mkdir(parents=True, exist_ok=True)
        label.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(colours()[mask])
        picture.save(image, quality=100, subsampling=0) if image_end == ".jpg" else picture.save(image)
        save_label(label, (truths or masks)[key])
    if listed is not None:
        path = Path(root) / listed
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{key}\n" for key in masks))


def colours():
    return np.stack([colour(byte) for byte in range(256)]).astype(np.uint8)


def save_label(path, mask):
    """A palette PNG whose colours are no help: whoever converts it gets other bytes."""
    label = Image.fromarray(mask)
    label.putpalette(np.random.default_rng(1).integers(0, 256, 768, np.uint8).tobytes())
    label.save(path)
