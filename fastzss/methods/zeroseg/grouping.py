"""Grouping: which group a patch belongs to, and what becomes of each group.

With X [N, d] patches, Q [K, d] group tokens, Xh = LN(X), and L the one-headed logits of (Wq Q, Wk Xh) / sqrt(d):

    Y = softmax over the groups of (L + Gumbel) / tau      in training; of L alone afterwards
    A = the likeliest group of each patch, with the gradient of Y (hard), or Y itself
    S_k = Wo ( sum_n A_kn (Wv Xh_n + bv) / (sum_n A_kn + eps) ) + bo + Q_k;     then S + MLP(LN(S))

So a group without patches is bo + Q_k before its MLP.  Wk and Wv never meet the N patches: they are folded around the
pooling, whose values are the normalised patches themselves,

    <Wq Q + bq, Wk (g Xn + b) + bk> = <((Wq Q + bq) Wk) g, Xn> + <Wq Q + bq, Wk b + bk>          g, b: LN's scale, shift
    sum_n a_n (Wv (g Xn_n + b) + bv) = Wv (g sum_n a_n Xn_n + r b) + r bv                        r = sum_n a_n

and r is what a channel of ones is pooled to.

Sizes: B images, N patches or groups below, K groups, d channels.
"""

import math

import torch.nn.functional as F
from torch import nn

from fastzss import kernels
from fastzss.backbones.tiny_vit import Mlp

CHANNELS_A_HEAD = 64


def heads_of(width):
    return max(1, width // CHANNELS_A_HEAD)


class Assign(nn.Module):
    """Patches and group tokens -> what the groups have become [B, K, d], and the logits [B, K, N] without noise."""

    def __init__(self, width, hard=True, tau=1.0, eps=1.0):
        super().__init__()
        self.hard, self.tau, self.eps = hard, tau, eps
        self.norm = nn.LayerNorm(width)
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = Mlp(width)

    def forward(self, x, tokens, noise=None, near=None):
        """`noise`: [B, K, N], in training; `near`: logits that are added to those learned."""
        plain = F.layer_norm(x, x.shape[-1:], eps=self.norm.eps)
        logits = self.logits(plain, tokens)
        logits = logits if near is None else logits + near
        made = tokens + self.pooled(plain, logits if noise is None else (logits + noise) / self.tau)
        return made + self.mlp(self.norm_mlp(made)), logits

    @property
    def projections(self):
        return self.q, self.k, self.v, self.out

    def logits(self, plain, tokens):
        """Of LayerNorm's result before its scale and shift."""
        asked = self.q(tokens) / math.sqrt(tokens.shape[-1])
        key = asked @ self.k.weight
        constant = key @ self.norm.bias + asked @ self.k.bias
        return (key * self.norm.weight) @ plain.mT + constant.unsqueeze(-1)

    def pooled(self, plain, logits):
        logits = logits.to(plain.dtype)
        mean = kernels.group_pool(logits, plain, self.hard, self.eps)
        r = kernels.group_pool(logits, plain.new_ones(*plain.shape[:-1], 1), self.hard, self.eps)
        values = (mean * self.norm.weight + r * self.norm.bias) @ self.v.weight.T + r * self.v.bias
        return self.out(values)


class GroupBlock(nn.Module):
    """The assignment, of group tokens that have first been mixed and have looked at the patches."""

    def __init__(self, width, inputs, groups, **assignment):
        super().__init__()
        self.mix = MixTokens(width, inputs, groups)
        self.norm_mixed, self.norm_x = nn.LayerNorm(width), nn.LayerNorm(width)
        self.look = CrossBlock(width)
        self.assign = Assign(width, **assignment)

    def forward(self, x, tokens, noise=None, near=None):
        queries = self.look(self.norm_mixed(self.mix(tokens)), self.norm_x(x))
        return self.assign(x, queries, noise, near)


class MixTokens(nn.Module):
    """[B, inputs, d] -> [B, groups, d]: an MLP along the axis of the tokens."""

    def __init__(self, width, inputs, groups):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(inputs, max(1, width // 2)), nn.Linear(max(1, width // 2), groups)

    def forward(self, tokens):
        return self.fc2(F.gelu(self.fc1(self.norm(tokens).mT))).mT


class CrossBlock(nn.Module):
    """Tokens look at patches, which are normed already: attention, MLP, a norm at the end."""

    def __init__(self, width):
        super().__init__()
        self.heads = heads_of(width)
        self.q, self.kv, self.proj = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.norm_mlp, self.norm_end = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = Mlp(width)

    def forward(self, tokens, x):
        B, K, d = tokens.shape
        q = self.q(tokens).view(B, K, self.heads, -1).transpose(1, 2)
        k, v = self.kv(x).view(B, -1, 2, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        tokens = tokens + self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B, K, d))
        return self.norm_end(tokens + self.mlp(self.norm_mlp(tokens)))
