"""What ZeroSeg is compared with: answers of the same teacher that took no training.

    random tokens     the same student with weights that have learned nothing
    k-means           the image's patches in eight clusters, each named by what the teacher says of its place
    teacher patches   the teacher's own patch tokens, projected as its class token is, against the names

Clusters and names are scored as segments are (methods/zeroseg/model.py).  A cluster is called what the views of grids
are, by how much of them is the cluster's: of the store's (`views`), or of finer ones too (`more views`).
"""

import torch
import torch.nn.functional as F
from PIL import Image

from fastzss.backbones import tiny_clip
from fastzss.backbones.vision import as_tensor
from fastzss.masks.naming import REGIONS, cluster
from fastzss.methods.zeroseg.model import SegmentVocabulary, student_of
from fastzss.store.views import SCALES, view_boxes

STORED = (1, 2, 3)  # the store's; finer views of this world the teacher names wrongly more often than not
PLACES = {"views": STORED[1:], "more views": SCALES[1:]}


def untrained(record, seed):
    """A student that has learned nothing."""
    torch.manual_seed(seed)
    return student_of(record | {"places": "random"})


class Clusters(SegmentVocabulary):
    """k-means regions of the same patches, named by the same teacher."""

    def __init__(self, vectors, teacher, scoring, inference, place):
        super().__init__(vectors, None, scoring, inference)
        self.teacher, self.grids = teacher, PLACES[place]

    def windows(self, field):
        (h, w), cell = field.grid, field.cell
        points = F.normalize(field.patches, dim=-1)
        centres = cluster(points, REGIONS)
        own = F.one_hot((points @ centres.T).argmax(1), len(centres)).float()  # [n, M]
        image = Image.fromarray(field.pixels.permute(1, 2, 0).numpy())
        own = own[:, own.sum(0) > 0]
        maps = own.T.view(-1, h, w)
        boxes = [(0, 0, *image.size), *view_boxes(self.grids, min(image.size))]
        said = self.look(image, boxes)
        at = torch.tensor(boxes[1:]) / cell
        cover = torch.stack([maps[:, t:b, left:r].mean((1, 2)) for left, t, r, b in rounded(at)], 1)  # [M, V]
        segments = (cover / cover.sum(1, keepdim=True).clamp_min(1e-6)) @ F.normalize(said[1:], dim=-1)
        yield (0, 0, h, w), own, segments, said[0]

    def look(self, image, boxes):
        return self.teacher(torch.stack([self.teacher.view(image, box) for box in boxes])).cpu()


def rounded(boxes):
    """Whole cells, at least one a side."""
    return [(left, t, max(left + 1, r), max(t + 1, b)) for left, t, r, b in boxes.round().int().tolist()]


class TeacherPatches:
    """The tiny teacher as a backbone: what masks.field.see wants, with patches in the space of the names."""

    globals = ("cls",)

    def __init__(self, teacher, like):
        """`like`: the store's backbone, at whose resolution an image is looked at."""
        self.teacher, self.like = teacher, like
        self.size, self.channels, self.device = teacher.size, teacher.channels, teacher.device
        self.grid = (tiny_clip.SIZE // tiny_clip.PATCH,) * 2

    def resize(self, image):
        return self.like.resize(image)

    def pixels(self, image):
        return as_tensor(self.resize(image))

    @torch.inference_mode()
    def __call__(self, pixels):
        tokens = self.teacher.model.visual(self.teacher.normalised(pixels)) @ self.teacher.model.projection
        return F.normalize(tokens[:, 1:].float(), dim=-1), tokens[:, :1].float()
