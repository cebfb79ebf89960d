"""What true masks would give: the best a grid of patches can draw, the mean patch of each class.  No competitors."""

import numpy as np
import torch
from tqdm import tqdm

from fastzss.evaluation.evaluate import scores
from fastzss.evaluation.score import IGNORE, confusion
from fastzss.masks.windows import winners


def ceiling(cells, data):
    """Scores of the best mask a grid can draw with `cells` along an image's short side: of each cell its true class."""
    K = len(data.names)
    matrix = np.zeros((K, K), np.int64)
    for index in range(len(data)):
        _, truth = data.read(index)
        grid = tuple(round(side * cells / min(truth.shape)) for side in truth.shape)
        matrix += confusion(truth, winners(shares_of(truth, K, grid), truth.shape)[1].numpy(), K)
    return scores(matrix, data.groups)


def class_means(vision, data):
    """[K, D]: unit mean of the patches of each class, by true masks: what supervision would give a nearest mean."""
    K = len(data.names)
    sums = torch.zeros(K, vision.channels, dtype=torch.double)
    for index in tqdm(range(len(data)), unit="img", desc="class means", disable=None):
        image, truth = data.read(index)
        patches, _ = vision(vision.pixels(image)[None])
        shares = shares_of(truth, K, vision.grid).flatten(1).double()
        pure = shares * (shares > 0.5)
        sums += pure @ patches[0].double().cpu()
    return torch.nn.functional.normalize(sums, dim=-1).float()


def shares_of(truth, classes, grid):
    """float32 [K, h, w]: what share of each cell of a grid belongs to each class."""
    known = torch.from_numpy(truth != IGNORE)
    labels = torch.from_numpy(np.where(truth == IGNORE, 0, truth).astype(np.int64))
    onehot = torch.nn.functional.one_hot(labels, classes) * known.unsqueeze(-1)
    return torch.nn.functional.adaptive_avg_pool2d(onehot.permute(2, 0, 1).float(), grid)
