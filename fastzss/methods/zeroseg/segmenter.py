"""Students: what an image becomes in eight segments, each a vector in the teacher's space.

    frozen   patches ─► LN ─► 2 blocks with 32 group tokens ─► grouping ─► 2 blocks with 8 more ─► grouping ─► 1 block
    light    patches ─► 32 learned queries take them ─► 8 learned queries take these; nothing else sees a patch
    paper    pixels ─► an encoder of its own (pixels.py) ─► as frozen

    z   = f(mean_i g_i)     the image          e_i = f(g_i), or g_i itself     its segments

With the anchor, which the paper does not have, patches are standardised by the store's channels, and a segment also
says what a linear map W says of the mean of its own patches: e_i = f(g_i) + W mean_i, z = f(mean_i g_i) + W mean.  Both
are fitted to the store before the first step (anchor.py).  So are the centres c_k of `places` clusters: a patch begins
in the group whose centre is nearest; what the assignments learn is added to the logits -|x - c_k|^2 / (2 spread).

Sizes: B images, N patches, M segments, d channels of the student, D_t of the teacher.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastzss.backbones.tiny_vit import Block, truncated_normal
from fastzss.methods.zeroseg.grouping import Assign, GroupBlock, MixTokens, heads_of

# What decides a head beside its kind and sizes: of the settings, and of a run's record of its student.
CHOSEN = ("hard", "tau", "eps", "tokens_for_match", "token_projector", "anchor", "places")
SHARPNESS = 3.0  # gain of the assignment's queries at first: patches fall into groups before any is learned


class Segments(NamedTuple):
    vectors: Tensor  # [B, M, D_t], not normalised: e_i
    whole: Tensor  # [B, D_t]: z
    first: Tensor  # [B, K, N] logits of the patches over the first stage's groups, without noise
    second: Tensor  # [B, M, K] of those over the segments

    def shares(self):
        """[B, N, M]: how much of each patch is of each segment; they add up to 1."""
        return self.first.softmax(1).mT @ self.second.softmax(1).mT


class Head(nn.Module):
    """What the heads of all students share: the projector into the teacher's space."""

    def __init__(self, width, out, counts, tokens_for_match, token_projector, anchor, places):
        super().__init__()
        self.clustered = places == "clusters"
        if self.clustered:
            K, M = counts
            self.centres, self.merged = nn.Parameter(torch.zeros(K, width)), nn.Parameter(torch.zeros(M, K))
            self.register_buffer("spread", torch.ones(()))
        self.anchor = nn.Linear(width, out) if anchor == "linear" else None
        if self.anchor is not None:
            self.register_buffer("centre", torch.zeros(width))
            self.register_buffer("width", torch.ones(width))
        self.early, self.direct = tokens_for_match == "after4", token_projector == "none"
        self.projector = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, out))

    def segments(self, x, before, after, first, second):
        matched = before if self.early else after
        vectors = matched if self.direct else self.projector(matched)
        found = Segments(vectors, self.projector(after.mean(1)), first, second)
        if self.anchor is None:
            return found
        share = found.shares()
        own = share.mT @ x / share.sum(1).unsqueeze(-1).clamp_min(1e-6)
        return found._replace(vectors=vectors + self.anchor(own), whole=found.whole + self.anchor(x.mean(1)))

    def standard(self, x):
        """Patches whose channels have no mean and the same spread over the store: what all share tells none apart."""
        return x if self.anchor is None else (normed(x) - self.centre) / self.width

    def near(self, x):
        """[B, K, N]: how near the centres lie to the patches, and [M, K]: the groups to the segments; (None, None)."""
        if not self.clustered:
            return None, None
        logits = self.centres @ x.mT - self.centres.square().sum(1, keepdim=True) / 2  # |x|^2 is the same for all
        return logits / self.spread, self.merged

    def reset(self):
        """Small weights, but for the assignments: what is pooled counts at once, and patches fall into groups."""
        assigned = [linear for own in self.modules() if isinstance(own, Assign) for linear in own.projections]
        for module in self.modules():
            if isinstance(module, nn.Linear):
                truncated_normal(module.weight, 0.02)
                nn.init.zeros_(module.bias)
        for linear in assigned:
            nn.init.xavier_uniform_(linear.weight)
        for own in self.modules():
            if isinstance(own, Assign):
                own.q.weight.data.mul_(0 if self.clustered else SHARPNESS)
        if self.anchor is not None:  # what is learned begins from what the linear map says
            nn.init.zeros_(self.projector[-1].weight)


def normed(x):
    """Patches of one length, whatever they are averages of."""
    return F.layer_norm(x, x.shape[-1:])


class SegmentHead(Head):
    def __init__(self, width, out, counts, assignment, **common):
        super().__init__(width, out, counts, **common)
        K, M = counts
        heads = heads_of(width)
        self.norm_in = nn.LayerNorm(width)
        self.first_tokens = nn.Parameter(torch.empty(K, width))
        self.second_tokens = nn.Parameter(torch.zeros(M, width))
        self.mix = MixTokens(width, K, M)
        self.stage1 = nn.ModuleList(Block(width, heads) for _ in range(2))
        self.stage2 = nn.ModuleList(Block(width, heads) for _ in range(2))
        self.stage3 = Block(width, heads)
        self.group1 = GroupBlock(width, K, K, **assignment)
        self.group2 = GroupBlock(width, M, M, **assignment)
        self.norm = nn.LayerNorm(width)
        self.reset()
        truncated_normal(self.first_tokens, 0.02)

    def forward(self, x, noise=None):
        """[B, N, d] -> Segments; `noise`: a function of a shape, in training."""
        patches = x = self.standard(x)
        near, merged = self.near(x)
        x, tokens = together(self.stage1, self.norm_in(x), self.first_tokens.expand(len(x), -1, -1))
        made, first = self.group1(x, tokens, noise and noise(tokens.shape[1], x.shape[1]), near)
        made, tokens = together(self.stage2, made, self.second_tokens + self.mix(tokens))
        last, second = self.group2(made, tokens, noise and noise(tokens.shape[1], made.shape[1]), merged)
        return self.segments(patches, last, self.norm(self.stage3(last)), first, second)


def together(blocks, x, tokens):
    """Patches and group tokens through blocks, in one sequence."""
    both = torch.cat([x, tokens], 1)
    for block in blocks:
        both = block(both)
    return both.split([x.shape[1], tokens.shape[1]], 1)


class LightHead(Head):
    def __init__(self, width, out, counts, assignment, **common):
        super().__init__(width, out, counts, **common)
        K, M = counts
        self.first_tokens, self.second_tokens = (nn.Parameter(torch.empty(count, width)) for count in (K, M))
        self.assign1, self.assign2 = Assign(width, **assignment), Assign(width, **assignment)
        self.norm = nn.LayerNorm(width)
        self.reset()
        for tokens in (self.first_tokens, self.second_tokens):
            truncated_normal(tokens, 1.0)  # nothing else tells the queries apart

    def forward(self, x, noise=None):
        x = self.standard(x)
        near, merged = self.near(x)
        first_tokens, second_tokens = (t.expand(len(x), -1, -1) for t in (self.first_tokens, self.second_tokens))
        made, first = self.assign1(x, first_tokens, noise and noise(first_tokens.shape[1], x.shape[1]), near)
        last, second = self.assign2(made, second_tokens, noise and noise(second_tokens.shape[1], made.shape[1]), merged)
        return self.segments(x, last, self.norm(last), first, second)


def head_of(record):
    """The head that a run's record of its student describes."""
    kind = LightHead if record["kind"] == "light" else SegmentHead
    return kind(
        record["width"], record["out"], record["groups"],
        {key: record[key] for key in ("hard", "tau", "eps")},
        **{key: record[key] for key in ("tokens_for_match", "token_projector", "anchor")},
        places=record.get("places", "random"),
    )  # fmt: skip
