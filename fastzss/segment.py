"""Segmentation: features + class names -> masks.

A class becomes a vector by the run's readout: `concept`, the normalised sum of its words' unit token vectors inside a
template (what the local loss trains), or `eot`, the caption vector; several templates are averaged.  An image is
brought to the backbone's size by its short side and looked at through windows half a window apart; each patch is
compared with each class, the scores are averaged where windows overlap, brought to the size of the image, and the
nearest class wins.

Sizes: K classes, an image of H x W pixels, D channels.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from fastzss.batch import Texts, collate, offsets
from fastzss.captions import Tokenizer
from fastzss.captions.tokens import tokens_of
from fastzss.drawing import labelled
from fastzss.errors import UserError
from fastzss.images import ImageUnreadable, read_image
from fastzss.protocols import TEMPLATES
from fastzss.runs import Run
from fastzss.text import TextTower, TowerSize
from fastzss.vision import as_tensor, reload_vision

READOUTS = ("concept", "eot")
AT_ONCE = 16  # classes brought to the size of an image at a time
LARGEST = 255  # classes: a mask is uint8, and 255 is the usual mark for "nothing"


@dataclass(frozen=True)
class Result:
    """What a model saw in an image."""

    image: Image.Image
    mask: np.ndarray  # uint8 [H, W]: index into `names` of every pixel
    names: tuple
    scores: dict  # name -> {"share": of the pixels, "confidence": mean similarity where it won}

    def save(self, path):
        """The image under its mask, with a legend; as NAME.mask.png beside it, the mask itself as an index PNG."""
        path = Path(path)
        labelled(self.image, self.mask, self.names).save(path)
        Image.fromarray(self.mask).save(path.with_suffix(".mask.png"))


class Model:
    """A trained run with its backbone, ready to look at images."""

    def __init__(self, vision, tower, readout, templates=TEMPLATES):
        self.vision, self.tower, self.readout, self.templates = vision, tower.eval(), readout, templates
        self.tokenizer = Tokenizer()

    def segment(self, image, classes):
        """A Result for an image (PIL, or the path of a file) and a list of class names."""
        if not isinstance(image, Image.Image):
            try:
                image = read_image(image)
            except ImageUnreadable as problem:
                raise UserError(str(problem)) from None
        names = check_classes(classes)
        scores = similarity(self.vision, image, self.class_vectors(names))
        confidence, mask = winners(scores, (image.height, image.width))
        mask = mask.numpy().astype(np.uint8)
        found = {
            name: {
                "share": float((mask == k).mean()),
                "confidence": float(confidence[torch.from_numpy(mask == k)].mean()),
            }
            for k, name in enumerate(names)
            if (mask == k).any()
        }
        return Result(image, mask, names, found)

    @torch.inference_mode()
    def class_vectors(self, names, readout=None):
        """[K, D] unit vectors of class names, by `readout` (by default the run's own)."""
        readout = readout or self.readout
        if readout not in READOUTS:
            raise UserError(f'unknown readout "{readout}"; expected {" or ".join(READOUTS)}', code=2)
        vectors = [self._in_template(names, template, readout) for template in self.templates]
        return F.normalize(torch.stack(vectors).mean(0), dim=-1)

    def _in_template(self, names, template, readout):
        """[K, D] unit vectors of the names, each standing in a template."""
        head = self.tokenizer.clean(template.partition("{}")[0])
        rows, words = [], []
        for name in names:
            text = self.tokenizer.clean(template.format(name))
            begin = text.find(self.tokenizer.clean(name), len(head))
            tokens = self.tokenizer(text)
            rows.append(tokens.ids)
            words.append(tokens_of(tokens.spans, begin, begin + len(self.tokenizer.clean(name))))
        lengths = [len(row) for row in rows]
        none = np.empty(0, np.int64)
        texts = Texts.of(
            np.concatenate(rows), offsets(lengths), np.arange(len(rows)), none, none, none, np.zeros(1, int)
        )
        device = next(self.tower.parameters()).device
        batch = collate(texts, np.arange(len(rows))).to(device)
        if readout == "eot":
            return self.tower.units(batch.ids, batch.segment, batch.eot)
        start = (batch.eot.cpu().numpy() + 1 - lengths).tolist()
        used = torch.tensor([begin + token for own, begin in zip(words, start, strict=True) for token in own])
        units = self.tower.units(batch.ids, batch.segment, used.to(device))
        sums = [own.sum(0) for own in units.split([len(own) for own in words])]
        return F.normalize(torch.stack(sums), dim=-1)


def similarity(vision, image, vectors):
    """float32 [K, h, w]: similarity of each class vector [K, D] with the image, brought to the backbone's size."""
    return compare(*look(vision, image), vectors, vision.grid)


@torch.inference_mode()
def look(vision, image):
    """What the backbone sees of an image brought to its size (h, w): unit patches [w, N, D] of windows, and (h, w)."""
    S, pixels = vision.size, as_tensor(vision.resize(image))
    size = tuple(pixels.shape[1:])
    windows = [vision(pixels[None, :, y : y + S, x : x + S])[0] for y, x in corners(size, S)]
    return torch.cat(windows), size


@torch.inference_mode()
def compare(windows, size, vectors, grid):
    """float32 [K, h, w]: similarity of class vectors [K, D] with what `look` saw."""
    S = min(size)  # the short side is brought to the side of a window
    total = torch.zeros(len(vectors), *size)
    count = torch.zeros(size)
    for patches, (y, x) in zip(windows, corners(size, S), strict=True):
        scores = (patches @ vectors.to(patches.device).T).T.reshape(1, -1, *grid)
        total[:, y : y + S, x : x + S] += F.interpolate(scores, (S, S), mode="bilinear")[0].cpu()
        count[y : y + S, x : x + S] += 1
    return total / count


def corners(size, window):
    """(y, x) of each window over an image of that size."""
    return [(y, x) for y in window_starts(size[0], window) for x in window_starts(size[1], window)]


def winners(scores, size):
    """(score, class) of the nearest class at each pixel of an image of size (H, W), from [K, h, w] scores.

    A few classes at a time are brought to that size, so that many classes on a large image need no [K, H, W].
    """
    best, winner = torch.full(size, -torch.inf), torch.zeros(size, dtype=torch.long)
    for first in range(0, len(scores), AT_ONCE):
        maps = F.interpolate(scores[None, first : first + AT_ONCE], size, mode="bilinear")[0]
        score, index = maps.max(0)
        nearer = score > best
        best, winner = torch.where(nearer, score, best), torch.where(nearer, index + first, winner)
    return best, winner


def load(path, device=None, weights=None):
    """The model of a run folder.

    Args:
        path: the run.
        device: "cpu", "cuda", ...; by default cuda where there is one.
        weights: file of the backbone's weights, where they are not where they were.
    """
    run = Run.open(path)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    config = run.config
    vision = reload_vision(config["vision"], config["weights"], weights, device)
    size = {key: config["text"][key] for key in ("width", "layers", "heads")}
    tower = TextTower(TowerSize(**size), config["text"]["out"]).to(device)
    state = {name.removeprefix("text."): t.float() for name, t in run.load_model().items() if name.startswith("text.")}
    tower.load_state_dict(state)
    return Model(vision, tower, config["readout"])


def check_classes(classes):
    """Class names as typed ("dog, red car") or as a list, checked."""
    names = classes.split(",") if isinstance(classes, str) else list(classes)
    names = tuple(" ".join(str(name).split()) for name in names)
    names = tuple(dict.fromkeys(name for name in names if name))
    if not names:
        raise UserError(
            'the class list is empty; expected names with commas between, such as "dog, red car, sky"', code=2
        )
    if len(names) > LARGEST:
        raise UserError(f"{len(names)} classes; a mask holds at most {LARGEST}", code=2)
    return names


def window_starts(length, window):
    """Where windows begin along one side: half a window apart, the last one shifted back inside."""
    stride = window // 2
    return [min(start, length - window) for start in range(0, length - window + stride, stride)]
