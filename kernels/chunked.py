"""The operations for CPUs, and for GPUs that Triton does not serve: parts that fit the cache, and explicit gradients.

Nothing of size [mentions, patches, D], [images, patches, D] or [B, B] is held.  A part's numbers are made in a buffer
that is used again and again, and made once more in the backward pass; what is kept between the two is one number per
logit of the pooling, and one or two per row of the losses.  reference.py says what each operation means.  The losses
are in chunked_losses.py, what filters a finished answer in chunked_filters.py.

Pooling: with v_n = mean + std * scale_n * q_n the codes q are only converted, never scaled:

    <w, v_n> = <w, mean> + scale_n <std * w, q_n>       the first term is the same for all patches: softmax drops it
    x        = mean + std * sum_n a_n scale_n q_n
    d_n      = scale_n <std * g, q_n>
    g_w      = std * sum_n e_n scale_n q_n / temperature,   e_n = a_n (d_n - sum_n a_n d_n)

All sums are taken in a fixed order: the same inputs and number of threads give the same bits.
"""

import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from fastzss.kernels import reference
from fastzss.kernels.chunked_losses import concept_loss
from fastzss.kernels.parts import parts, rows_of_a_part, working
from fastzss.kernels.reference import identity


def quantise(vectors, mean, std):
    """As reference.quantise."""
    D = vectors.shape[-1]
    flat = vectors.reshape(-1, D)
    codes = torch.empty(flat.shape, dtype=torch.int8, device=flat.device)
    scale = torch.empty(len(flat), dtype=torch.float16, device=flat.device)
    for part in parts(len(flat), D):
        codes[part], scale[part] = reference.quantise(flat[part], mean, std)
    return codes.view(vectors.shape), scale.view(vectors.shape[:-1])


def concept_pool(classes, patches, row, name, temperature, lists=None):
    """As reference.concept_pool."""
    return _ConceptPool.apply(classes, patches, row, name, temperature)


def local_loss(
    classes, patches, row, name, present, weight, *, temperature, scale, target="label", all_sum=identity, lists=None
):
    """As reference.local_loss."""
    pooled = concept_pool(classes, patches, row, name, temperature)
    return concept_loss(pooled, classes, present, name, weight, scale, target, all_sum)


def segment_match(segments, views):
    """As reference.segment_match."""
    with torch.no_grad():
        wide = working(segments)
        nearest = torch.cdist(segments.to(wide), views.to(wide), p=1.0).argmin(-1, keepdim=True)  # the first of equals
    return (segments - views.gather(1, nearest.expand(-1, -1, views.shape[-1]))).abs().mean()


class _ConceptPool(Function):
    @staticmethod
    def forward(ctx, classes, patches, row, name, temperature):
        wide = working(classes)
        order, groups = by_image(row, patches.tokens[0].numel())
        sharpness = (1 if patches.std is None else patches.std.to(wide)) / temperature
        queries = classes.to(wide)[name[order]] * sharpness  # [M, D], the mentions of an image side by side
        attention = torch.empty(len(order), patches.tokens.shape[1], dtype=wide, device=classes.device)
        sums = torch.empty_like(queries)
        for images, mentions, tokens in read(patches, groups, wide):
            logits = torch.bmm(per_image(queries[mentions], images), tokens.mT)
            if patches.scale is None:
                weights = torch.softmax(logits, -1)
                attention[mentions] = weights.flatten(0, 1)
            else:
                scale = patches.scale[images].to(wide).unsqueeze(1)
                weights = torch.softmax(logits.mul_(scale), -1)
                attention[mentions] = weights.flatten(0, 1)
                weights.mul_(scale)
            sums[mentions] = torch.bmm(weights, tokens).flatten(0, 1)
        if patches.std is not None:
            sums.mul_(patches.std.to(wide)).add_(patches.mean.to(wide))
        ctx.save_for_backward(attention, order, name)
        ctx.patches, ctx.groups, ctx.sharpness, ctx.classes = patches, groups, sharpness, (len(classes), classes.dtype)
        return torch.empty_like(sums).index_copy_(0, order, sums).to(classes.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        attention, order, name = ctx.saved_tensors
        patches, wide = ctx.patches, attention.dtype
        gradient = gradient.to(wide)[order]
        if patches.std is not None:
            gradient = gradient.mul_(patches.std.to(wide))
        out = torch.empty_like(gradient)
        for images, mentions, tokens in read(patches, ctx.groups, wide):
            along = torch.bmm(per_image(gradient[mentions], images), tokens.mT)
            weights = per_image(attention[mentions], images)
            if patches.scale is not None:
                scale = patches.scale[images].to(wide).unsqueeze(1)
                along.mul_(scale)
            along.sub_((weights * along).sum(-1, keepdim=True)).mul_(weights)
            if patches.scale is not None:
                along.mul_(scale)
            out[mentions] = torch.bmm(along, tokens).flatten(0, 1)
        names, dtype = ctx.classes
        sums = torch.zeros(names, out.shape[1], dtype=wide, device=out.device)
        return sums.index_add_(0, name[order], out.mul_(ctx.sharpness)).to(dtype), None, None, None, None


def by_image(row, size):
    """Put the mentions in an order in which equal parts can be cut from them.

    Args:
        row: [M] image of each mention.
        size: numbers in one image.

    Returns:
        order [M]: the mentions sorted by how many their image has, then by image; and a list of (images, mentions):
        parts of `order` whose images [i] all have the same number of mentions, so that nothing needs padding.
    """
    images, image, count = row.unique(return_inverse=True, return_counts=True)
    ranked = count.argsort(stable=True)
    place = torch.empty_like(ranked)
    place[ranked] = torch.arange(len(ranked), device=row.device)
    order = place[image].argsort(stable=True)
    groups, at, begin = [], 0, 0
    most = rows_of_a_part(size)
    for each, number in zip(*(t.tolist() for t in count[ranked].unique_consecutive(return_counts=True)), strict=True):
        for done in range(0, number, most):
            some = min(most, number - done)
            groups.append((images[ranked[at : at + some]], slice(begin, begin + some * each)))
            at, begin = at + some, begin + some * each
    return order, groups


def read(patches, groups, dtype):
    """Yield (images, mentions, tokens [i, N, D] converted to dtype); tokens are overwritten by the next part."""
    most = max((len(images) for images, _ in groups), default=0)
    buffer = torch.empty(most, *patches.tokens.shape[1:], dtype=dtype, device=patches.tokens.device)
    for images, mentions in groups:
        for place, image in enumerate(images.tolist()):
            buffer[place].copy_(patches.tokens[image])
        yield images, mentions, buffer[: len(images)]


def per_image(rows, images):
    """[i * c, *] -> [i, c, *]."""
    return rows.unflatten(0, (len(images), -1))
