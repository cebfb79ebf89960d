"""Pooling by groups and matching of segments in Triton's interpreter against the definition in float64."""

import pytest
import torch

from fastzss.kernels import fused_group, fused_match, reference

pytestmark = pytest.mark.usefixtures("poison")


def gap(found, exact):
    """Relative root-mean-square distance."""
    assert found.shape == exact.shape and found.isfinite().all()
    return ((found.double() - exact.double()).norm() / exact.double().norm().clamp_min(1e-12)).item()


def with_gradients(op, leaves, dtype, *rest, **options):
    leaves = [leaf.to(dtype).requires_grad_() for leaf in leaves]
    out = op(*leaves, *rest, **options)
    upstream = torch.linspace(-1, 2, out.numel(), dtype=torch.double).reshape(out.shape).to(dtype)
    return [out.detach(), *torch.autograd.grad(out, leaves, upstream)]


def as_good_as_plain(op, plain, leaves, dtype, *rest, **options):
    """Within twice the error of plain PyTorch in the same dtype, of what float64 gives from the same numbers."""
    leaves = [leaf.to(dtype) for leaf in leaves]
    exact = with_gradients(plain, leaves, torch.double, *rest)
    usual = with_gradients(plain, leaves, dtype, *rest)
    for found, same, right in zip(with_gradients(op, leaves, dtype, *rest, **options), usual, exact, strict=True):
        assert found.dtype == dtype
        assert gap(found, right) <= max(2 * gap(same, right), 2e-6 if dtype == torch.float32 else 1e-3)


def groups(B, G, N, C):
    torch.manual_seed(0)
    return [2 * torch.randn(B, G, N), torch.randn(B, N, C)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("hard, eps", [(True, 1.0), (False, 1.0), (True, 0.25)])
@pytest.mark.parametrize(
    "B, G, N, C", [(1, 1, 1, 1), (2, 8, 37, 40), (3, 32, 50, 96), (1, 5, 130, 200), (2, 64, 9, 17)]
)
def test_pooling(B, G, N, C, hard, eps, dtype):
    as_good_as_plain(fused_group.group_pool, reference.group_pool, groups(B, G, N, C), dtype, hard, eps)


@pytest.mark.parametrize("forced", [dict(BN=16), dict(BC=16), dict(BG=64), dict(BN=128, BC=64)], ids=str)
def test_tiles_of_pooling_do_not_matter(forced):
    as_good_as_plain(
        fused_group.group_pool, reference.group_pool, groups(2, 12, 70, 40), torch.float32, True, 1.0, **forced
    )


def test_frozen_patches_get_no_gradient():
    logits, values = groups(2, 4, 20, 8)
    out = fused_group.group_pool(logits.requires_grad_(), values, True)
    out.sum().backward()
    exact = torch.autograd.grad(reference.group_pool(logits, values, True).sum(), logits)[0]
    assert values.grad is None and gap(logits.grad, exact) < 1e-5


def test_of_equal_groups_the_first_is_taken():
    logits, values = torch.zeros(1, 6, 20), torch.ones(1, 20, 3)
    found = fused_group.group_pool(logits, values, True)
    assert torch.equal(found[0, 1:], torch.zeros(5, 3)) and torch.allclose(found[0, 0], torch.full((3,), 20 / 21))


def test_nothing_to_pool():
    logits, values = torch.zeros(2, 3, 0, requires_grad=True), torch.zeros(2, 0, 5)
    found = fused_group.group_pool(logits, values, True)
    found.sum().backward()
    assert torch.equal(found, torch.zeros(2, 3, 5)) and logits.grad.shape == (2, 3, 0)


def test_far_apart_logits_overflow_nothing():
    logits, values = groups(1, 4, 30, 8)
    as_good_as_plain(fused_group.group_pool, reference.group_pool, [1e4 * logits, values], torch.float32, False)


def match(views):
    return lambda segments, *rest: reference.segment_match(segments, views.to(segments.dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("B, M, V, D", [(1, 1, 1, 1), (3, 8, 29, 96), (2, 11, 5, 700), (2, 3, 29, 1100)])
def test_matching(B, M, V, D, dtype):
    torch.manual_seed(0)
    segments, views = torch.randn(B, M, D), torch.randn(B, V, D).to(dtype)

    def fused(segments, **forced):
        return fused_match.segment_match(segments, views, **forced)

    as_good_as_plain(fused, match(views), [segments], dtype)
    if D == 96:
        as_good_as_plain(fused, match(views), [segments], dtype, BM=16, BD=32)


def test_of_equal_views_the_first_is_matched():
    segments = torch.tensor([[[0.0, 0.0]]], requires_grad=True)
    views = torch.tensor([[[1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]]])
    loss = fused_match.segment_match(segments, views)
    loss.backward()
    assert loss.item() == 1 and segments.grad.tolist() == [[[-0.5, 0.5]]]
