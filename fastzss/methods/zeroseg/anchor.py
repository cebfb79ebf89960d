"""The anchor: channel statistics of the patches, and the linear map from a view's mean patch to what the teacher says.

    min over W, b of  sum_views | W m_k + b - v_k |^2 + RIDGE * mean square of m * |W|^2      m_k: a view's mean patch

and k-means of the patches themselves, so standardised.  Sums are taken in one order and nothing depends on the rank, so
that every process of a training begins with the same.
"""

import numpy as np
import torch
import torch.nn.functional as F

from fastzss.methods.zeroseg.segmenter import normed

IMAGES = 2000  # whose views are enough to fit it
RIDGE = 1e-3
AT_ONCE = 64
PATCHES, ROUNDS = 32768, 25  # of k-means
SHARPER = 8.0  # how much nearer than it is on average a patch is taken to lie to its centre


@torch.no_grad()
def fit_anchor(head, loader, area, norm_targets):
    """Give a head the statistics and the map of a store.  `area`: [V, N], of each view in each patch."""
    anchor, rows = head.anchor, loader.pool[:IMAGES]
    d, D = anchor.in_features, anchor.out_features
    share = (area / area.sum(-1, keepdim=True)).double().cpu()
    sums, squares, count = torch.zeros(d).double(), torch.zeros(d).double(), 0
    products, said = torch.zeros(d + 1, d + 1).double(), torch.zeros(d + 1, D).double()
    for begin in range(0, len(rows), AT_ONCE):
        some = np.asarray(rows[begin : begin + AT_ONCE])
        patches = normed(loader.store.take(some).take(torch.arange(len(some)))).double()
        sums, squares = sums + patches.sum((0, 1)), squares + patches.square().sum((0, 1))
        count += patches.shape[0] * patches.shape[1]
        means = share @ patches
        means = torch.cat([means, means.new_ones(*means.shape[:2], 1)], -1).flatten(0, 1)
        views = loader.of("views", some).float()
        views = F.normalize(views, dim=-1) if norm_targets == "l2" else views
        products += means.T @ means
        said += means.T @ views.flatten(0, 1).double()
    centre = sums / count
    width = (squares / count - centre.square()).clamp_min(1e-12).sqrt()
    # the sums of (m - centre) / width, from those of m
    change = torch.diag(torch.cat([1 / width, torch.ones(1).double()]))
    change[:d, d] = -centre / width
    products, said = change @ products @ change.T, change @ said
    ridge = torch.full((d + 1,), RIDGE * float(products.diagonal()[:d].mean()), dtype=torch.double)
    ridge[d] = 0  # the bias is free
    solved = torch.linalg.solve(products + torch.diag(ridge), said)
    anchor.weight.copy_(solved[:d].T)
    anchor.bias.copy_(solved[d])
    head.centre.copy_(centre)
    head.width.copy_(width)


@torch.no_grad()
def fit_clusters(head, loader):
    """Give a head with an anchor the clusters of its store, and of these clusters those that its segments begin as."""
    rows, chosen = loader.pool[:IMAGES], torch.Generator().manual_seed(0)
    each, points = -(-PATCHES // len(rows)), []
    for begin in range(0, len(rows), AT_ONCE):
        some = np.asarray(rows[begin : begin + AT_ONCE])
        patches = head.standard(loader.store.take(some).take(torch.arange(len(some))).to(head.centre)).cpu()
        points += [one[torch.randperm(len(one), generator=chosen)[:each]] for one in patches]
    points = torch.cat(points).float()
    centres, distance = clusters(points, len(head.centres), chosen)
    segments, _ = clusters(centres, len(head.merged), chosen)
    own = torch.cdist(centres, segments).argmin(1)
    head.centres.copy_(centres)
    head.spread.copy_((distance.square().mean() / SHARPER).clamp_min(1e-6))
    head.merged.copy_(SHARPER * F.one_hot(own, len(segments)).T)


def clusters(points, count, chosen):
    """k-means: ([count, d] centres, [n] distance of each point to its own), begun with points far from one another."""
    if count >= len(points):
        return points, points.new_zeros(len(points))
    centres = points[torch.randint(len(points), (1,), generator=chosen)]
    squared = (points - centres).square().sum(1)
    while len(centres) < count:
        further = points[torch.multinomial(squared + 1e-12, 1, generator=chosen)]  # all may be alike
        centres, squared = torch.cat([centres, further]), squared.minimum((points - further).square().sum(1))
    for _ in range(ROUNDS):
        own = torch.cdist(points, centres).argmin(1)
        sums = torch.zeros_like(centres).index_add_(0, own, points)
        counts = torch.bincount(own, minlength=count).unsqueeze(1)
        centres = torch.where(counts > 0, sums / counts.clamp_min(1), centres)
    own = torch.cdist(points, centres).argmin(1)
    return centres, (points - centres[own]).norm(dim=1)
