"""Every operation in plain PyTorch (those of the text tower: reference_tower.py): the definition, and the judge of all
faster forms.

A patch is stored as a unit vector, quantised or not:

    v_n = mean + std * scale_n * q_n          int8, channel mean/std and one scale a patch
    v_n = q_n                                 float16 and wider

The local loss of SimZSS on captions i, mentions m (caption i_m, name k_m, tokens S_m, weight w_m) with unit token
vectors u:

    W_k = unit( sum_{m: k_m = k} sum_{t in S_m} u_t )            class_vectors
    a_n = softmax_n( <W_{k_m}, v_n> / temperature )              concept_pool, over the patches n of i_m's image
    x_m = sum_n a_n v_n
    L_l = sum_m w_m CE( scale <unit(x_m), W>, y_m ) / sum_m w_m  concept_loss, y_m = k_m or the largest logit

and the global loss is the symmetric contrastive loss of captions and images (clip_loss).

Ranks: a batch may lie on several processes.  Each calls these functions with its own captions, and gets its *share* of
the loss: the shares add up to the loss of the whole batch.  What must be known of the others travels through
`all_sum(tensor)` (whose backward is again a sum over ranks) and `all_max(tensor)` (no gradient).

Sizes: n images in the store, N patches, D channels, B captions, b of them on this rank, M mentions, T mention tokens,
K names present in the batch.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Patches(NamedTuple):
    """Stored unit patch vectors of many images."""

    tokens: Tensor  # [n, N, D] int8, or any float type
    scale: Tensor | None = None  # [n, N] float16, int8 only
    mean: Tensor | None = None  # [D] float32, int8 only
    std: Tensor | None = None  # [D] float32, int8 only

    def take(self, rows, dtype=torch.float32):
        """[len(rows), N, D]: the vectors of some images as numbers."""
        values = self.tokens[rows].to(dtype)
        if self.scale is None:
            return values
        values.mul_(self.scale[rows].to(dtype).unsqueeze(-1))
        return values.mul_(self.std.to(dtype)).add_(self.mean.to(dtype))

    def to(self, device):
        return Patches(*(None if t is None else t.to(device) for t in self))


def identity(tensor):
    """all_sum and all_max of a single process."""
    return tensor


def quantise(vectors, mean, std):
    """[..., D] unit vectors -> int8 [..., D] and float16 scale [...], so that mean + std * scale * q is near them."""
    if not torch.isfinite(vectors).all():
        raise ValueError("quantise: vectors hold NaN or infinite values; expected finite unit vectors")
    centred = (vectors.float() - mean) / std
    # the scale is rounded to float16 first, so that q is the best code for the scale that is stored
    scale = (centred.abs().amax(-1) / 127).clamp_min(2.0**-24).half()
    codes = (centred / scale.float().unsqueeze(-1)).round_().clamp_(-127, 127)
    return codes.to(torch.int8), scale


def unit_rows(vectors, index, dtype):
    """[U, D] of a dtype: the rows `index` [U] of a frozen matrix, brought to length 1."""
    return F.normalize(vectors[index].to(dtype), dim=-1)


def used_units(tokens, index, projection, uses=None):
    """[U, D]: the token vectors `index` points at, projected and brought to length 1; the others are never projected.

    Args:
        tokens: [*, W] token vectors; their leading dimensions count as one.
        index: [U].
        projection: [W, D].
        uses: Lists of the places in `index` that name each token, if somebody has made them.
    """
    return F.normalize(tokens.flatten(0, -2).index_select(0, index) @ projection, dim=-1)


def class_vectors(units, offset, name, names, all_sum=identity, lists=None):
    """Token vectors -> [names, D] unit class vectors; zero without a mention.

    Args:
        units: [T, D] unit token vectors; mention m owns units[offset[m] : offset[m + 1]].
        offset: [M + 1].
        name: [M] row of the result that each mention adds to.
        names: number of rows of the result.
        lists: class_lists of these, if somebody has made them.
    """
    owner = torch.repeat_interleave(torch.arange(len(name), device=name.device), offset.diff())
    sums = torch.zeros(names, units.shape[-1], dtype=units.dtype, device=units.device)
    return F.normalize(all_sum(sums.index_add(0, name[owner], units[: offset[-1]])), dim=-1)


def concept_pool(classes, patches, row, name, temperature, lists=None):
    """[M, D]: each mention's image pooled under the softmax of its patches' similarity to the mention's class vector.

    Args:
        classes: [K, D] class vectors; receives a gradient.
        patches: Patches of the store; frozen.
        row: [M] image of each mention, a row of `patches`.
        name: [M] class of each mention, a row of `classes`.
        lists: mention_lists of these, if somebody has made them.
    """
    images, image_of = row.unique(return_inverse=True)
    vectors = patches.take(images, classes.dtype)[image_of]
    attention = (torch.einsum("md,mnd->mn", classes[name], vectors) / temperature).softmax(-1)
    return torch.einsum("mn,mnd->md", attention, vectors)


def concept_loss(pooled, classes, present, name, weight, scale, target="label", all_sum=identity):
    """Share of the weighted mean cross-entropy of pooled vectors against the class vectors of the present names.

    Args:
        pooled: [M, D], not normalised.
        classes: [K, D] unit class vectors.
        present: [K] bool: names with a mention somewhere in the batch; the others are no candidates.
        name: [M] the mention's class, a row of `classes`.
        weight: [M].
        scale: inverse temperature of the logits.
        target: "label" (the mention's own class) or "argmax" (the class with the largest logit).
    """
    total = all_sum(weight.to(pooled.dtype).sum().detach())
    if len(name) == 0 or total == 0:  # no concept here: nothing to learn, yet the graph stays whole on every rank
        return 0.0 * (classes.sum() + pooled.sum())
    logits = scale * F.normalize(pooled, dim=-1) @ classes.T
    logits = logits.masked_fill(~present, -torch.inf)
    if target == "argmax":
        name = logits.detach().argmax(-1)
    elif target != "label":
        raise ValueError(f'concept_loss: target is {target!r}; expected "label" or "argmax"')
    losses = F.cross_entropy(logits, name, reduction="none")
    return (losses * weight.to(pooled.dtype)).sum() / total


def local_loss(
    classes, patches, row, name, present, weight, *, temperature, scale, target="label", all_sum=identity, lists=None
):
    """Share of the local loss: concept_loss of what concept_pool gathers; arguments as in those two."""
    pooled = concept_pool(classes, patches, row, name, temperature)
    return concept_loss(pooled, classes, present, name, weight, scale, target, all_sum)


def clip_loss(images, texts, log_scale, first=0, all_sum=identity, all_max=identity, same=None):
    """Share of the symmetric contrastive loss; images are frozen, so only this rank's columns are ever formed.

    Args:
        images: [B, D] unit image vectors of the whole batch, the same on all ranks.
        texts: [b, D] unit caption vectors of this rank.
        log_scale: logarithm of the inverse temperature, a tensor that may learn.
        first: column of the batch at which this rank's captions begin.
        same: [B] image row of each pair: another pair of the same image is no negative.  None: all others are.
    """
    logits = log_scale.exp() * images @ texts.T  # [B, b]
    own = torch.arange(len(texts), device=texts.device)
    matched = logits[first + own, own]
    if same is not None:
        twin = same.unsqueeze(1) == same[first : first + len(texts)]
        twin[first + own, own] = False
        logits = logits.masked_fill(twin, -torch.inf)
    by_text = logits.logsumexp(0)
    top = all_max(logits.detach().amax(1))
    by_image = top + all_sum((logits - top.unsqueeze(1)).exp().sum(1)).log()
    return (by_text + by_image[first + own] - 2 * matched).sum() / (2 * len(images))


def group_pool(logits, values, hard, eps=1.0):
    """[B, G, C]: each group's mean of the patches that belong to it, with `eps` more in the denominator.

    Args:
        logits: [B, G, N] of which group a patch belongs to; the softmax is over the groups.
        values: [B, N, C].
        hard: a patch belongs to its likeliest group only, with the gradient of the softmax; else to all by its share.
    """
    share = logits.softmax(1)
    if hard:
        sharp = torch.zeros_like(share).scatter_(1, share.argmax(1, keepdim=True), 1.0)
        share = sharp - share.detach() + share
    return share @ values / (share.sum(-1, keepdim=True) + eps)


def segment_match(segments, views):
    """Mean over all segments of the distance to the nearest view of their image, the first where several are as near.

    Args:
        segments: [B, M, D].
        views: [B, V, D], frozen.
    """
    distance = (segments.unsqueeze(2) - views.unsqueeze(1)).abs().mean(-1)  # [B, M, V]
    nearest = distance.argmin(-1, keepdim=True)
    return distance.gather(-1, nearest).mean()


def smooth_patches(patches, values, temperature):
    """[B, N, V]: what lies at the patches, averaged over the patches of the same image that resemble each.

    Similarity is the cosine of patches from which their image's mean was taken, and what it weighs is

        softmax_m( <c_n, c_m> / temperature )          c = unit( patch - mean of the image's patches )

    Args:
        patches: [B, N, D]; frozen.
        values: [B, N, V], the patches themselves or anything known of them; frozen.
        temperature: a number, or one for each image [B].
    """
    centred = F.normalize(patches - patches.mean(1, keepdim=True), dim=-1)
    temperature = torch.as_tensor(temperature, dtype=patches.dtype, device=patches.device).reshape(-1, 1, 1)
    return (centred @ centred.mT / temperature).softmax(-1) @ values


def refine_scores(image, scores, iterations=10, dilations=(1, 2, 4, 8, 12, 24)):
    """[K, H, W]: scores that follow the edges of the image (pixel-adaptive mask refinement, Araslanov & Roth 2020).

    Again and again each pixel's scores become the mean of its neighbours', eight at each dilation d: those d pixels
    away in a row, a column or both.  What they weigh is the same in all iterations:

        softmax_p( mean over colours of -|I_p - I| / (0.1 spread + 1e-8) )

    where the spread is the standard deviation of the colour over the 3 x 3 windows of all dilations, each with the
    pixel itself.  Beyond the border the nearest pixel of the border stands.

    Args:
        image: [C, H, W], of any range; frozen.
        scores: [K, H, W], of classes that do not know each other; frozen.
    """
    wide = image.to(torch.promote_types(image.dtype, torch.float32))
    apart = torch.stack(list(around(wide, dilations))) - wide  # [P, C, H, W]
    spread = torch.cat([apart, torch.zeros_like(apart[: len(dilations)])]).std(0)
    weights = (-apart.abs() / (0.1 * spread + 1e-8)).mean(1).softmax(0).to(scores.dtype)
    for _ in range(iterations):
        scores = sum(weight * moved for weight, moved in zip(weights, around(scores, dilations), strict=True))
    return scores


def around(planes, dilations):
    """Yield planes [*, H, W] moved so that each pixel holds one of its neighbours, for all neighbours."""
    H, W = planes.shape[-2:]
    for dy, dx in neighbours(dilations):
        rows = (torch.arange(H, device=planes.device) + dy).clamp_(0, H - 1)
        columns = (torch.arange(W, device=planes.device) + dx).clamp_(0, W - 1)
        yield planes[..., rows.unsqueeze(1), columns]


def neighbours(dilations):
    """[(dy, dx)] of the eight neighbours at each dilation, row by row."""
    return [(y * d, x * d) for d in dilations for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]
