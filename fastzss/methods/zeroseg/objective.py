"""ZeroSeg's losses: what segments and the whole are to resemble.

    L_ms    = mean over all views k of | z - v_k |_1                          z: the image, v_k: the teacher of view k
    L_match = mean over segments i of min over local views j of | e_i - v_j |_1      without the view of the whole image
    L_rec   = mean over hidden patches of the mean squared error of their pixels
    L_place = mean over all views k of | unit( sum_i c_ki e_i ) - v_k |_1
    loss    = w_rec L_rec + w_ms L_ms + w_match L_match + w_place L_place

L_place is not in the paper.  L_match is content when all segments say the same of one view that is easy to foretell,
and on frozen patches that is what they come to; here a view is what its segments say together, each by the share c_ki
of the view that is the segment's, so that what a segment says is tied to where it lies (docs/methods.md).

All are means over the images of the batch; a rank's share is its own mean, times its share of the images.  v, z and e
have length 1 (norm_targets l2) or are as they are (raw); | . |_1 is the mean over the channels, or, with the reduction
"sum", the sum over channels, views and segments.  What is nearest is nearest by the same distance, the first where
several are; two segments may have the same one.
"""

import torch
import torch.nn.functional as F

from fastzss import kernels
from fastzss.store.views import view_boxes


def losses(segments, views, config, whole_views, share=1.0, rec=None, cover=None):
    """{name: this rank's share}.

    Args:
        segments: Segments of b images.
        views: [b, V, D_t], frozen, as the store has them.
        config: the settings.
        whole_views: how many of the first views show the whole image: 0 or 1.
        share: the rank's images / those of the batch.
        rec: the reconstruction loss of these images, where there is one.
        cover: [b, V, M] share of each view that is each segment's; needed for w_place.
    """
    views, z, e = views.to(segments.whole.dtype), segments.whole, segments.vectors
    if config.norm_targets == "l2":
        views, z, e = (F.normalize(t, dim=-1) for t in (views, z, e))
    local = views[:, whole_views:].contiguous()
    ms, match = (z.unsqueeze(1) - views).abs().mean(), kernels.segment_match(e, local)
    if config.loss_reduction == "sum":
        ms, match = ms * views[0].numel(), match * e[0].numel()
    found = {"loss_ms": share * ms, "loss_match": share * match}
    loss = config.w_ms * found["loss_ms"] + config.w_match * found["loss_match"]
    if rec is not None:
        found["loss_rec"] = share * rec
        loss = loss + config.w_rec * found["loss_rec"]
    if config.w_place:
        said = cover.to(e.dtype) @ e
        place = ((F.normalize(said, dim=-1) if config.norm_targets == "l2" else said) - views).abs().mean()
        found["loss_place"] = share * (place * views[0].numel() if config.loss_reduction == "sum" else place)
        loss = loss + config.w_place * found["loss_place"]
    return {"loss": loss, **found}


def cover_of(segments, area):
    """[b, V, M]: the share of each view that is each segment's, from its area [b or 1, V, N] in each patch."""
    area = area / area.sum(-1, keepdim=True).clamp_min(1e-9)
    return area.to(segments.first.dtype) @ segments.shares()


def view_area(scales, grid):
    """[V, N]: how much of each view lies in each patch of a grid over the same square."""
    h, w = grid
    rows = []
    for left, top, right, bottom in view_boxes(scales, 1.0, exact=True):
        down = overlap(top * h, bottom * h, h)
        rows.append((down.unsqueeze(1) * overlap(left * w, right * w, w)).flatten())
    return torch.stack(rows)


def overlap(begin, end, cells):
    """[cells]: the length of an interval that lies in each cell of length 1."""
    at = torch.arange(cells, dtype=torch.float32)
    return (torch.clamp(at + 1, max=end) - torch.clamp(at, min=begin)).clamp_min(0)


@torch.no_grad()
def spread(segments, views, config, whole_views):
    """How much of what there is, is used: of an image the groups with a patch, the views that are nearest to a segment,
    and the mean cosine between two segments."""
    e, local = F.normalize(segments.vectors, dim=-1), views[:, whole_views:].to(segments.vectors.dtype)
    local = F.normalize(local, dim=-1) if config.norm_targets == "l2" else local
    held = e if config.norm_targets == "l2" else segments.vectors
    nearest = torch.cdist(held.float(), local.float(), p=1.0).argmin(-1)
    M = e.shape[1]
    own = segments.second.argmax(1).gather(1, segments.first.argmax(1))  # the segment of each patch
    used = F.one_hot(own, M).amax(1).sum(-1).float().mean()
    different = F.one_hot(nearest, local.shape[1]).amax(1).sum(-1).float().mean()
    alike = (e @ e.mT).sum((1, 2)).sub(M).div(max(1, M * (M - 1))).mean()
    return {"groups_used": used.item(), "views_matched": different.item(), "segments_alike": alike.item()}
