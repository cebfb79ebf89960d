"""Folders of small pictures with captions, and a backbone that costs nothing to look at them with."""

import sys

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from fastzss.backbones import Looking


def draw(folder, numbers, caption="a dog on a red car number {}"):
    """Pictures NN.png of noise, each with a caption beside it."""
    folder.mkdir(exist_ok=True, parents=True)
    for i in numbers:
        noise = np.random.default_rng(i).integers(0, 256, (9, 8, 3), np.uint8)
        Image.fromarray(noise).save(folder / f"{i:02d}.png")
        if caption:
            (folder / f"{i:02d}.txt").write_text(caption.format(i))
    return folder


class ToyBackbone:
    """Looks at eight by eight pixels, in patches of two by two; `seen` counts the images."""

    size, channels, grid, prefix, globals, origin = 8, 12, (4, 4), 0, ("patch-mean",), "random"
    record = {"model": "toy", "weights": "0", "licence": "none", "size": 8}
    device = torch.device("cpu")
    how = Looking()
    seen = 0

    def pixels(self, image):
        return torch.from_numpy(np.array(image.resize((8, 8)))).permute(2, 0, 1).contiguous()

    def __call__(self, pixels):
        self.seen += len(pixels)
        x = F.pixel_unshuffle(pixels.float(), 2).flatten(2).transpose(1, 2) + 1
        return F.normalize(x, dim=-1), x.mean(1, keepdim=True)


def look_with_toys():
    """Let extraction look with a ToyBackbone, whatever model is asked for; returns what undoes that, and the toy."""
    flow, toy = sys.modules["fastzss.extraction.flow"], ToyBackbone()
    real = flow.load_vision
    flow.load_vision = lambda *_: toy
    return (lambda: setattr(flow, "load_vision", real)), toy
