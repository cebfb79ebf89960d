"""The step of SimZSS as one writes it first, in plain PyTorch: what ours is measured against, on the same weights.

Captions are padded (to 77, or to the longest), mentions to the most that an image has; all tokens are projected and
normalised; the matrices of logits are formed whole.

Sizes: B pairs, L tokens of a padded caption, S mentions of at most T tokens each, N patches, D channels, K names.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fastzss.methods.simzss.objective import LOCAL_SCALE, Losses


class Padded(NamedTuple):
    """A Batch with padding in it."""

    ids: Tensor  # [B, L] int64, 0 behind the end
    eot: Tensor  # [B] position of the end token
    slots: Tensor  # [B, S, T] positions of the mentions' tokens, L where there is none
    name: Tensor  # [B, S] int64, 0 where there is no mention
    weight: Tensor  # [B, S] float32, 0 where there is no mention

    def to(self, device):
        return Padded(*(t.to(device) for t in self))


def padded(batch, L=None, T=None):
    """Batch -> Padded; without L or T as long as the longest caption or mention is."""
    flat, segment = batch.ids.flatten(), batch.segment.flatten()
    B = len(batch.eot)
    sizes = torch.bincount(segment[segment >= 0], minlength=B)
    start = batch.eot + 1 - sizes
    place = torch.arange(L or int(sizes.max()))
    inside, at = place < sizes.unsqueeze(1), (start.unsqueeze(1) + place).clamp_max(len(flat) - 1)

    caption, spans = batch.caption.long(), batch.offset.diff().long()
    counts = torch.bincount(caption, minlength=B)
    slot = torch.arange(len(caption)) - (counts.cumsum(0) - counts)[caption]
    shape = (B, max(1, int(counts.max())))
    name, weight = torch.zeros(shape, dtype=torch.long), torch.zeros(shape)
    name[caption, slot], weight[caption, slot] = batch.name.long(), batch.weight
    slots = torch.full((*shape, T or max([1, *spans.tolist()])), len(place))
    owner = torch.repeat_interleave(torch.arange(len(spans)), spans)
    within = torch.arange(len(owner)) - batch.offset[:-1].long()[owner]
    slots[caption[owner], slot[owner], within] = batch.token.long() - start[caption[owner]]
    return Padded(torch.where(inside, flat[at], 0).long(), sizes - 1, slots, name, weight)


def tower_tokens(tower, ids):
    """[B, L] ids -> [B, L, D]: every token's unit vector in the vision space, padding included."""
    x = tower.token_embedding(ids) + tower.positional_embedding[: ids.shape[1]]
    B, L, W = x.shape
    for block in tower.transformer.resblocks:
        attention = block.attn
        qkv = F.linear(block.ln_1(x), attention.in_proj_weight, attention.in_proj_bias)
        q, k, v = qkv.view(B, L, 3, tower.size.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + attention.out_proj(mixed.transpose(1, 2).reshape(B, L, W))
        x = x + block.mlp.c_proj(F.gelu(block.mlp.c_fc(block.ln_2(x))))
    return F.normalize(tower.ln_final(x) @ tower.text_projection, dim=-1)


def losses(tokens, batch: Padded, patches, images, log_scale, names, *, local_weight, temperature):
    """Losses of a padded batch, with all its intermediate results.

    `tokens` [B, L, D] are tower_tokens, `patches` [B, N, D] the unit vectors of each pair's image, `images` [B, D] its
    global vector; `names` is K, of the whole bank.
    """
    B, _, D = tokens.shape
    own = torch.arange(B, device=tokens.device)
    logits = log_scale.exp() * F.normalize(images, dim=-1) @ tokens[own, batch.eot].T
    loss_global = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2

    _, S, T = batch.slots.shape
    none = tokens.new_zeros(B, 1, D)  # what the slots without a token point at
    index = batch.slots.view(B, S * T, 1).expand(-1, -1, D)
    spans = torch.cat([tokens, none], 1).gather(1, index).view(B, S, T, D).sum(2)
    sums = tokens.new_zeros(names, D).index_add(0, batch.name.flatten(), spans.flatten(0, 1))
    classes = F.normalize(sums, dim=-1)
    attention = (classes[batch.name] @ patches.mT / temperature).softmax(-1)  # [B, S, N]
    pooled = F.normalize(attention @ patches, dim=-1)
    there = batch.weight.flatten() > 0
    present = torch.zeros(names, dtype=torch.bool, device=tokens.device)
    present[batch.name.flatten()[there]] = True
    logits = (LOCAL_SCALE * pooled @ classes.T).masked_fill(~present, -torch.inf).flatten(0, 1)  # [B * S, K]
    each = F.cross_entropy(logits, batch.name.flatten(), reduction="none").masked_fill(~there, 0.0)
    loss_local = (each * batch.weight.flatten()).sum() / batch.weight.sum()
    return Losses(loss_global + local_weight * loss_local, loss_global, loss_local)
