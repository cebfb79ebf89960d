"""The losses in their form for CPUs, see chunked.py: logits are made for some rows at a time, and again going back.

A row's cross-entropy is softplus(o - m), where m is the logit of its target and o the logarithm of the summed
exponentials of all others; its gradient is sigmoid(o - m) at m.  Nothing cancels where the loss is nearly zero.
"""

import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from fastzss.kernels.parts import parts, working
from fastzss.kernels.reference import identity

LOW = -1e30  # a logit that does not count: finite, so that 0 times it is 0


def concept_loss(pooled, classes, present, name, weight, scale, target="label", all_sum=identity):
    """As reference.concept_loss."""
    weight = weight.to(pooled.dtype)
    total = all_sum(weight.sum().detach())
    if len(name) == 0 or total == 0:  # no concept here: nothing to learn, yet the graph stays whole on every rank
        return 0.0 * (classes.sum() + pooled.sum())
    return _ConceptLoss.apply(pooled, classes, scale, present, name, weight / total, target == "argmax")


def clip_loss(images, texts, log_scale, first=0, all_sum=identity, all_max=identity, same=None):
    """As reference.clip_loss."""
    return _ClipLoss.apply(images, texts, log_scale, first, same, all_sum, all_max)


class _ConceptLoss(Function):
    @staticmethod
    def forward(ctx, pooled, classes, scale, present, name, share, argmax):
        wide = working(pooled)
        table, sharpness = classes.to(wide), torch.as_tensor(scale, dtype=wide, device=pooled.device)
        target, matched, others = name.long().clone(), *torch.empty(2, len(name), dtype=wide, device=pooled.device)
        for part in parts(len(name), len(classes)):
            logits = (unit(pooled[part].to(wide))[0] * sharpness) @ table.T
            logits.masked_fill_(~present, -torch.inf)
            if argmax:
                target[part] = logits.argmax(-1)
            matched[part], others[part] = against(logits, target[part])
        ctx.save_for_backward(pooled, classes, sharpness, present, target, matched, others, share)
        return (softplus(others - matched) * share).sum().to(pooled.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        pooled, classes, sharpness, present, target, matched, others, share = ctx.saved_tensors
        wide = matched.dtype
        table = classes.to(wide)
        share = share.to(wide) * gradient.to(wide)
        log_total = torch.logaddexp(others, matched)
        wrong = share * torch.sigmoid(others - matched)
        for_pooled, for_classes, for_scale = torch.empty_like(pooled), torch.zeros_like(table), 0.0
        for part in parts(len(target), len(classes)):
            units, length = unit(pooled[part].to(wide))
            logits = (units * sharpness) @ table.T
            logits.masked_fill_(~present, -torch.inf)
            logits.sub_(log_total[part].unsqueeze(1)).exp_().mul_(share[part].unsqueeze(1))
            logits.scatter_(1, target[part].unsqueeze(1), -wrong[part].unsqueeze(1))
            for_classes.addmm_(logits.T, units)
            along = logits @ table
            across = (along * units).sum(1, keepdim=True)
            for_scale = for_scale + across.sum()
            for_pooled[part] = (along - across * units) * (sharpness / length)
        wanted = ctx.needs_input_grad[2]
        return for_pooled, (for_classes * sharpness).to(classes.dtype), for_scale if wanted else None, *[None] * 4


class _ClipLoss(Function):
    @staticmethod
    def forward(ctx, images, texts, log_scale, first, same, all_sum, all_max):
        wide = working(texts)
        B, b = len(images), len(texts)
        own = slice(first, first + b)
        sharpness = log_scale.to(wide).exp()
        matched = torch.zeros(B, dtype=wide, device=texts.device)  # of the pairs; of other ranks' by the sum below
        matched[own] = (images[own].to(wide) * texts.to(wide)).sum(1) * sharpness
        text_top, text_sum = torch.empty(2, b, dtype=wide, device=texts.device)
        own_top, image_sum = torch.full_like(matched, LOW), torch.zeros_like(matched)
        for part, logits in others_of(images, texts, sharpness, first, same):
            text_top[part] = logits.amax(1)
            text_sum[part] = (logits - text_top[part].unsqueeze(1)).exp_().sum(1)
            top = torch.maximum(own_top, logits.amax(0))
            image_sum = image_sum * (own_top - top).exp() + logits.sub_(top).exp_().sum(0)
            own_top = top
        image_top = all_max(own_top)
        image_sum, matched = all_sum(torch.stack([image_sum * (own_top - image_top).exp(), matched]))
        by_text, by_image = text_top + text_sum.log(), image_top + image_sum.log()
        ctx.save_for_backward(
            images, texts, sharpness, matched, same,
            *with_own(text_top, text_sum, matched[own]), *with_own(image_top, image_sum, matched), by_text, by_image,
        )  # fmt: skip
        ctx.first, ctx.all_sum = first, all_sum
        return (softplus(by_image[own] - matched[own]) + softplus(by_text - matched[own])).sum() / (2 * B)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        images, texts, sharpness, matched, same, *sums, by_text, by_image = ctx.saved_tensors
        text_top, text_sum, image_top, image_sum = sums
        first, wide = ctx.first, matched.dtype
        own = slice(first, first + len(texts))
        share = torch.zeros_like(matched)
        share[own] = gradient.to(wide) / (2 * len(images))
        wrong = share[own] * (torch.sigmoid(by_image[own] - matched[own]) + torch.sigmoid(by_text - matched[own]))
        text_top, text_share = text_top.unsqueeze(1), (share[own] / text_sum).unsqueeze(1)
        image_share = ctx.all_sum(share) / image_sum
        table = images.to(wide)
        for_texts, for_scale = torch.empty_like(texts), 0.0
        learns = ctx.needs_input_grad[2]
        for part, logits in others_of(images, texts, sharpness, first, same):
            slope = (logits - text_top[part]).exp_().mul_(text_share[part])
            turned = (logits - image_top).exp_().mul_(image_share)
            if learns:  # against the pair's own logit: the sum over all logits would cancel
                for_scale = for_scale + total((logits - matched[own][part].unsqueeze(1)).mul_(slope))
                for_scale = for_scale + total(logits.sub_(matched).mul_(turned))
            slope.add_(turned).diagonal(first + part.start).copy_(-wrong[part])
            for_texts[part] = torch.mm(slope, table).mul_(sharpness)
        return None, for_texts, for_scale.to(wide) if learns else None, *[None] * 4


def with_own(top, total, matched):
    """(largest logit, sum of exponentials beside it) of the others -> of them and the pair's own.

    Kept apart: their logarithm would be rounded at the size of a logit, and the softmax would have that error.
    """
    most = torch.maximum(top, matched)
    return most, total * (top - most).exp() + (matched - most).exp()


def others_of(images, texts, sharpness, first, same):
    """Yield (part, logits [p, B] of some texts): LOW at their own image and its twins; overwritten by the next."""
    wide = sharpness.dtype
    columns = images.to(wide).T
    buffer = None
    for part in parts(len(texts), len(images)):
        if buffer is None:
            buffer = columns.new_empty(part.stop, len(images))
        logits = torch.mm(texts[part].to(wide) * sharpness, columns, out=buffer[: part.stop - part.start])
        if same is not None:
            logits.masked_fill_(same[first:][part].unsqueeze(1) == same, LOW)
        logits.diagonal(first + part.start).fill_(LOW)
        yield part, logits


def unit(rows):
    """(rows of length 1, their lengths), as F.normalize has them."""
    length = rows.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    return rows / length, length


def softplus(x):
    """log(1 + exp(x)); F.softplus is x itself above 20."""
    return torch.logaddexp(x, torch.zeros_like(x))


def total(matrix):
    """Its sum, float64; rows in their own dtype, which is many times faster."""
    return matrix.sum(1).sum(dtype=torch.float64)


def against(logits, target):
    """(logit of the target, log-sum-exp of the others), each [rows]; overwrites the target's logits."""
    at = target.unsqueeze(1)
    matched = logits.gather(1, at).squeeze(1)
    return matched, logits.scatter_(1, at, -torch.inf).logsumexp(1)
