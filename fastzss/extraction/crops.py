"""Several crops of each image of a source, each an image of its own, with the captions of the whole.

The id of a crop says where it is: NAME#LEFT,TOP,RIGHT,BOTTOM in parts of the picture.  A box has 0.9 to 1 of the area,
as SimZSS draws them, and is as much wider or higher than the picture as that allows.
"""

import numpy as np
import xxhash

from fastzss.store.plan import hashes, splitmix64

AREA = (0.9, 1.0)


class Views:
    """`count` crops of each image: the boxes are fixed by `seed` and the image's name."""

    def __init__(self, source, count, seed):
        self.source, self.crops = source, count
        self.spec, self.form, self.model, self.listed = source.spec, source.form, source.model, source.listed
        self.settings, self.captions_first = source.settings, source.captions_first
        self.boxes = boxes(source.ids, count, seed)
        self.ids = [
            f"{source.ids[index // count]}#{','.join(f'{side:.4f}' for side in box)}"
            for index, box in enumerate(self.boxes.tolist())
        ]

    def image(self, index, enough=None):
        image = self.source.image(index // self.crops, enough)
        return image.crop(tuple(np.rint(self.boxes[index] * (*image.size, *image.size)).astype(int).tolist()))

    def size(self, index):
        width, height = self.source.size(index // self.crops)
        left, top, right, bottom = np.rint(self.boxes[index] * (width, height, width, height)).astype(int).tolist()
        return right - left, bottom - top

    def captions(self, index):
        return self.source.captions(index // self.crops)


def boxes(names, count, seed):
    """float64 [len(names) * count, 4]: left, top, right, bottom of the boxes of each image, rounded as ids say them."""
    own = np.array([xxhash.xxh3_64_intdigest(name.encode()) for name in names], np.uint64)
    keys = splitmix64(own[:, None] ^ hashes(count, seed)).flatten()
    area, wider, left, top = (splitmix64(keys + np.uint64(part)) / 2.0**64 for part in range(4))
    area = AREA[0] + area * (AREA[1] - AREA[0])
    wider = area ** (2 * wider - 1)  # so that neither side is longer than the picture's
    width, height = np.sqrt(area * wider), np.sqrt(area / wider)
    left, top = left * (1 - width), top * (1 - height)
    return np.round(np.stack([left, top, left + width, top + height], 1), 4)
