"""The operations of the text tower in plain PyTorch: their definition, and the judge of all faster forms.

A pre-norm transformer on captions that lie end to end in rows; with linear layers in, out, fc and proj, a block is

    x := x + out(attention(in(normal)))        normal := norm(x)
    x := x + proj(activation(fc(normal)))      normal := norm(x), the first of the next block, or the last

Sizes: R rows of L tokens, W channels, V of the hidden layer.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

# Not cuDNN: its plans are built anew for every number of rows, and its masked gradient is NaN where all scores of a row
# are far below zero (pytorch #196678).
MASKED = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
NORM_EPS = 1e-5  # of torch.nn.LayerNorm


class BlockWeights(NamedTuple):
    """The weights of one block of a transformer, and of the norm behind it: the next block's first, or the last."""

    in_weight: Tensor  # [3 W, W] of queries, keys and values in this order
    in_bias: Tensor  # [3 W]
    out_weight: Tensor  # [W, W]
    out_bias: Tensor  # [W]
    gain: Tensor  # [W] of the norm in the middle
    shift: Tensor  # [W]
    fc_weight: Tensor  # [V, W]
    fc_bias: Tensor  # [V]
    proj_weight: Tensor  # [W, V]
    proj_bias: Tensor  # [W]
    next_gain: Tensor  # [W] of the norm behind the block
    next_shift: Tensor  # [W]


def embed_norm(words, places, index, segment, gain, shift):
    """([R, L, W], [R, L, W]): what each token is, by its word and its place in its caption; and the layer norm of that.

    Args:
        words: [*, W].
        places: [*, W].
        index: [R, L] rows of `words`.
        segment: [R, L] caption of each token; captions lie end to end, and are negative in free slots.
        gain, shift: [W], of the norm.
    """
    # an index's gradient would add up equal places in the order threads come, and on a GPU one by one
    x = F.embedding(index, words) + F.embedding(positions(segment), places)
    return x, F.layer_norm(x, gain.shape, gain, shift, NORM_EPS)


def positions(segment):
    """[R, L] caption of each token -> its place inside the caption; 0 in free slots."""
    index = torch.arange(segment.shape[1], device=segment.device).expand_as(segment)
    begins = torch.ones_like(segment, dtype=torch.bool)
    begins[:, 1:] = segment[:, 1:] != segment[:, :-1]
    place = index - torch.where(begins, index, 0).cummax(1).values
    return torch.where(segment >= 0, place, 0)


def transformer_blocks(x, normal, segment, blocks, heads, quick=False):
    """([R, L, W], [R, L, W]): the stream behind some blocks, and its norm by the last of them.

    Args:
        x, normal: [R, L, W] the stream and its norm before the first block.
        segment: [R, L] caption of each token, negative in free slots.
        blocks: BlockWeights, at least one.
        heads: how many share the W channels in attention.
        quick: as in `activation`.
    """
    mask = caption_mask(segment)
    for block in blocks:
        mixed = attention(F.linear(normal, block.in_weight, block.in_bias), mask, heads)
        x, normal = residual_norm(F.linear(mixed, block.out_weight, block.out_bias), x, block.gain, block.shift)
        hidden = activation(F.linear(normal, block.fc_weight, block.fc_bias), quick)
        y = F.linear(hidden, block.proj_weight, block.proj_bias)
        x, normal = residual_norm(y, x, block.next_gain, block.next_shift)
    return x, normal


def attention(qkv, mask, heads):
    """[R, L, W]: causal self-attention in which a token sees the tokens of its own caption only.

    Args:
        qkv: [R, L, 3 W] queries, keys and values of captions that lie end to end.
        mask: caption_mask.
    """
    R, L, _ = qkv.shape
    q, k, v = qkv.view(R, L, 3, heads, -1).permute(2, 0, 3, 1, 4)
    with sdpa_kernel(MASKED):
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return mixed.transpose(1, 2).reshape(R, L, -1)


def caption_mask(segment):
    """bool [R, 1, L, L]: who sees whom; free slots see each other, so no softmax is empty."""
    L = segment.shape[1]
    causal = torch.ones(L, L, dtype=torch.bool, device=segment.device).tril()
    return ((segment.unsqueeze(2) == segment.unsqueeze(1)) & causal).unsqueeze(1)


def activation(y, quick=False):
    """GELU; `quick`: y sigmoid(1.702 y), for weights that were trained with it."""
    return F.silu(1.702 * y) / 1.702 if quick else F.gelu(y)  # in this form one tensor less is kept for the gradient


def residual_norm(y, x, gain, shift):
    """x + y, and its layer norm."""
    x = x + y
    return x, F.layer_norm(x, gain.shape, gain, shift, NORM_EPS)
