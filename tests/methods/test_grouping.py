"""The facts of grouping, each against what is written out by hand."""

import math

import pytest
import torch
import torch.nn.functional as F

from fastzss import kernels
from fastzss.methods.zeroseg.grouping import Assign, GroupBlock
from fastzss.methods.zeroseg.segmenter import head_of

D, N, K = 12, 9, 4
RECORD = {"kind": "frozen", "width": D, "out": 10, "groups": [K, 3], "hard": True, "tau": 1.0, "eps": 1.0,
          "tokens_for_match": "after5", "token_projector": "shared", "anchor": "none"}  # fmt: skip


def assignment(**settings):
    torch.manual_seed(0)
    assign = Assign(D, **settings).double()
    for parameter in assign.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return assign, torch.randn(2, N, D).double(), torch.randn(2, K, D).double()


def by_hand(assign, x, tokens, noise=None):
    """The block with every projection where its formula has it: nothing folded."""
    xh = assign.norm(x)
    logits = assign.q(tokens) @ assign.k(xh).mT / math.sqrt(D)
    y = (logits if noise is None else (logits + noise) / assign.tau).softmax(1)
    if assign.hard:
        best = F.one_hot(y.argmax(1), K).mT
        a = best - y.detach() + y
    else:
        a = y
    made = assign.out(a @ assign.v(xh) / (a.sum(-1, keepdim=True) + assign.eps)) + tokens
    return made + assign.mlp(assign.norm_mlp(made)), logits


@pytest.mark.parametrize("settings", [{}, {"hard": False}, {"tau": 0.5, "eps": 0.25}], ids=str)
@pytest.mark.parametrize("noisy", [False, True])
def test_folded_projections_change_nothing(settings, noisy):
    assign, x, tokens = assignment(**settings)
    noise = -torch.rand(2, K, N).double().log().neg().log() if noisy else None
    outputs = [op(x, tokens, noise) for op in (assign, lambda *inputs: by_hand(assign, *inputs))]
    for found, exact in zip(*outputs, strict=True):
        assert torch.allclose(found, exact, atol=1e-12)
    weights = [*assign.parameters()]
    gradients = [torch.autograd.grad(made.square().sum(), weights) for made, _ in outputs]
    for found, exact in zip(*gradients, strict=True):
        assert torch.allclose(found, exact, atol=1e-9)


def test_the_softmax_is_over_the_groups_and_its_columns_sum_to_one():
    head = head_of(RECORD).double().eval()
    found = head(torch.randn(2, N, D).double())
    assert found.first.shape == (2, K, N) and found.second.shape == (2, 3, K)
    assert torch.allclose(found.first.softmax(1).sum(1), torch.ones(2, N).double())
    assert torch.allclose(found.shares().sum(-1), torch.ones(2, N).double())


def test_every_patch_is_of_one_group():
    logits = torch.randn(3, K, N, dtype=torch.double)
    ones = torch.ones(3, N, 1, dtype=torch.double)
    share = kernels.group_pool(logits, ones, True)[..., 0]
    counts = share / (1 - share)  # r = c / (c + 1)
    assert torch.allclose(counts, counts.round(), atol=1e-9) and torch.allclose(
        counts.sum(1), torch.full((3,), 9.0).double()
    )


def test_a_group_without_patches_is_its_bias_and_its_query():
    assign, x, tokens = assignment()
    logits = torch.full((2, K, N), -50.0).double()
    logits[:, 0] = 50.0
    plain = F.layer_norm(x, (D,), eps=assign.norm.eps)
    pooled = assign.pooled(plain, logits)
    assert torch.allclose(pooled[:, 1:], assign.out.bias.expand(2, K - 1, D), atol=1e-12)
    assert not torch.allclose(pooled[:, 0], assign.out.bias.expand(2, D), atol=1e-3)


def test_noise_is_there_in_training_only():
    torch.manual_seed(0)
    head, x = head_of(RECORD).double(), torch.randn(2, N, D).double()
    asked = []

    def noise(*shape):
        asked.append(shape)
        return torch.randn(2, *shape).double()

    assert torch.equal(head(x).vectors, head(x).vectors), "without noise nothing is random"
    noisy = head(x, noise)
    assert asked == [(K, N), (3, K)]
    assert not torch.equal(noisy.vectors, head(x).vectors)
    assert torch.equal(noisy.first, head(x).first), "masks are made without it"


def test_a_group_block_is_differentiable():
    torch.manual_seed(0)
    block = GroupBlock(8, 5, 3, hard=False, tau=1.0, eps=1.0).double()
    x, tokens = torch.randn(1, 6, 8).double().requires_grad_(), torch.randn(1, 5, 8).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: block(a, b)[0], (x, tokens))


@pytest.mark.parametrize("kind", ["frozen", "light"])
@pytest.mark.parametrize("change", [{}, {"tokens_for_match": "after4"}, {"token_projector": "none", "out": D}], ids=str)
def test_heads_and_their_choices(kind, change):
    torch.manual_seed(0)
    head = head_of({**RECORD, "kind": kind, **change})
    found = head(torch.randn(2, N, D))
    out = change.get("out", 10)
    assert found.vectors.shape == (2, 3, out) and found.whole.shape == (2, out)
    (found.vectors.square().sum() + found.whole.square().sum()).backward()
    without = [name for name, p in head.named_parameters() if p.grad is None]
    assert not without, without


def test_a_student_sees_a_set_of_patches():
    torch.manual_seed(0)
    head, x = head_of(RECORD).double().eval(), torch.randn(1, N, D).double()
    order = torch.randperm(N)
    one, other = head(x), head(x[:, order])
    assert torch.allclose(one.vectors, other.vectors) and torch.allclose(one.first[..., order], other.first)
