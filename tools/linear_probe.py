"""How much of the truth a linear readout finds in the patch features of a tiny backbone.

The readout is trained with masks; the backbone is not touched. It measures the self-supervised training, and takes no
part in it.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from fastzss import world
from fastzss.backbones import tiny


def normalised(pictures):
    mean, std = (torch.tensor(v, device=pictures.device)[:, None, None] for v in (tiny.MEAN, tiny.STD))
    return (pictures - mean) / std


def load(path):
    from safetensors.torch import load_file

    vit = tiny.tiny_vit()
    vit.load_state_dict(load_file(path))
    return vit


def features(vit, split, n, seed):
    """Patch features and patch labels (the class most of its pixels have) of n scenes: [n * P, D], [n * P]."""
    patch, made, labels = tiny.PATCH, [], []
    for start in range(0, n, 50):
        scenes = [world.scene(split, index, seed) for index in range(start, min(n, start + 50))]
        pictures = torch.stack([torch.from_numpy(np.array(s.image)) for s in scenes]).permute(0, 3, 1, 2) / 255
        with torch.inference_mode():
            made.append(vit(normalised(pictures))[:, 1:].flatten(0, 1))
        masks = torch.from_numpy(np.stack([s.mask for s in scenes])).long()
        votes = F.one_hot(masks, len(world.NAMES)).permute(0, 3, 1, 2).float()
        labels.append(F.avg_pool2d(votes, patch).argmax(1).flatten())
    return torch.cat(made).clone(), torch.cat(labels)


def probe(vit, seed=0):
    """mIoU of a linear readout trained with masks: all, things, stuffs. Not part of the training: a measure of it."""
    vit = vit.eval().cpu()
    x, y = features(vit, "train", 300, seed)
    x_new, y_new = features(vit, "validation", 100, seed)
    mean, std = x.mean(0), x.std(0) + 1e-6
    x, x_new = (x - mean) / std, (x_new - mean) / std
    readout = nn.Linear(x.shape[1], len(world.NAMES))
    nn.init.zeros_(readout.weight)
    stepper = torch.optim.LBFGS(readout.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def loss():
        stepper.zero_grad()
        value = F.cross_entropy(readout(x), y) + 1e-4 * readout.weight.square().sum()
        value.backward()
        return value

    stepper.step(loss)
    k = len(world.NAMES)
    table = torch.bincount(y_new * k + readout(x_new).argmax(1), minlength=k * k).view(k, k).double()
    hit = table.diagonal()
    iou = 100 * hit / (table.sum(0) + table.sum(1) - hit)
    things = len(world.THINGS)
    return {"all": iou.mean().item(), "things": iou[:things].mean().item(), "stuffs": iou[things:].mean().item()}


def untrained(seed):
    torch.manual_seed(seed)
    return tiny.tiny_vit()


def shown(scores):
    return " / ".join(f"{value:.1f}" for value in scores.values())
