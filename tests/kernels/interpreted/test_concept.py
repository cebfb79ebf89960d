"""The concept cross-entropy in Triton's interpreter against the definition in float64."""

import pytest
import torch
import torch.nn.functional as F
from helpers.exact import gap

from fastzss.kernels import fused_concept, reference

pytestmark = pytest.mark.usefixtures("poison")
SIZES = [(1, 1, 5), (5, 7, 16), (77, 96, 40), (96, 5, 128), (130, 200, 100)]  # mentions, classes, channels
LOSS, GRADIENT = 1e-6, 5e-6


def case(R, K, D, present=None, seed=0):
    """(pooled, classes, present, name, weight); a third of the classes are absent unless `present` tells them."""
    torch.manual_seed(seed)
    classes = F.normalize(torch.randn(K, D, dtype=torch.double), dim=-1)
    if present is None:
        present = torch.arange(K) % 3 != 2
    name = present.nonzero().flatten()[torch.randint(int(present.sum()), (R,))]
    pooled = 0.3 * (torch.randn(R, D, dtype=torch.double) + classes[name])
    return pooled, classes * present[:, None], present, name, torch.randint(1, 4, (R,)).double()


def results(op, pooled, classes, *rest, dtype=torch.float32, scale=14.0, **more):
    """(loss, gradient of the pooled vectors, gradient of the classes)."""
    pooled, classes = pooled.to(dtype).requires_grad_(), classes.to(dtype).requires_grad_()
    loss = op(pooled, classes, *rest, scale, **more)
    return loss, *torch.autograd.grad(loss, [pooled, classes])


def same_as_defined(found, exact, loss=LOSS, gradient=GRADIENT):
    assert gap(found[0], exact[0]) <= loss
    for f, e in zip(found[1:], exact[1:], strict=True):
        assert gap(f, e) <= gradient


@pytest.mark.parametrize("target", ["label", "argmax"])
@pytest.mark.parametrize("R, K, D", SIZES)
def test_loss_and_gradients(R, K, D, target):
    inputs = case(R, K, D)
    exact = results(reference.concept_loss, *inputs, dtype=torch.double, target=target)
    same_as_defined(results(fused_concept.concept_loss, *inputs, target=target), exact)


@pytest.mark.parametrize("target", ["label", "argmax"])
def test_one_class_present_teaches_nothing(target):
    inputs = case(37, 9, 24, present=torch.arange(9) == 6)
    found = results(fused_concept.concept_loss, *inputs, target=target)
    assert all(part.eq(0).all() for part in found)


@pytest.mark.parametrize("classes", [0, 4])
def test_no_mention_at_all(classes):
    pooled = torch.zeros(0, 8, requires_grad=True)
    W = torch.ones(classes, 8, requires_grad=True)
    none = torch.zeros(0, dtype=torch.long)
    loss = fused_concept.concept_loss(pooled, W, torch.zeros(classes, dtype=torch.bool), none, none.float(), 14.0)
    loss.backward()
    assert loss == 0 and W.grad.eq(0).all() and pooled.grad.shape == (0, 8)


def test_weights_of_zero_are_no_mentions():
    pooled, classes, present, name, weight = case(20, 12, 16)
    found = results(fused_concept.concept_loss, pooled, classes, present, name, 0 * weight)
    assert all(part.eq(0).all() for part in found)
    weight[::2] = 0
    some = results(fused_concept.concept_loss, pooled, classes, present, name, weight)
    fewer = results(
        reference.concept_loss, pooled[1::2], classes, present, name[1::2], weight[1::2], dtype=torch.double
    )
    same_as_defined((some[0], some[1][1::2], some[2]), fewer)


def test_of_equal_logits_the_first_is_the_target():
    classes = torch.eye(16)[[0, 1, 0, 2, 1]].repeat(20, 1)  # 100 classes, more than a tile
    pooled = classes[[2, 4, 3]].clone()
    label = torch.zeros(3, dtype=torch.long)
    present, weight, total = torch.ones(100, dtype=torch.bool), torch.ones(3), torch.tensor(3.0)
    _, (label, *_) = fused_concept.cross_entropy(pooled, classes, present, label, weight, total, True, dict(BN=32))
    assert label.tolist() == [0, 1, 3]


@pytest.mark.parametrize("options", [dict(BM=16, BN=32, BD=16), dict(chunk=32, BM=16)], ids=str)
@pytest.mark.parametrize("target", ["label", "argmax"])
def test_tiles_and_chunks_do_not_matter(options, target):
    inputs = case(77, 150, 40)
    found = results(fused_concept.concept_loss, *inputs, target=target, **options)
    same_as_defined(found, results(reference.concept_loss, *inputs, dtype=torch.double, target=target))


def test_a_loss_near_zero_keeps_its_digits():
    pooled, classes, present, name, weight = case(40, 30, 64)
    inputs = classes[name] + 0.01 * pooled, classes, present, name, weight
    exact = results(reference.concept_loss, *inputs, dtype=torch.double, scale=25.0)
    assert 0 < exact[0] < 1e-6
    same_as_defined(results(fused_concept.concept_loss, *inputs, scale=25.0), exact, 1e-4, 1e-4)


def test_inputs_that_are_not_contiguous():
    pooled, classes, present, name, weight = case(30, 20, 48)
    views = pooled.T.contiguous().T, classes.T.contiguous().T, present.repeat_interleave(2)[::2], name, weight
    exact = results(reference.concept_loss, pooled, classes, present, name, weight, dtype=torch.double)
    same_as_defined(results(fused_concept.concept_loss, *views), exact)


def test_float16_is_computed_from_the_rounded_vectors():
    pooled, classes, *rest = case(77, 96, 40)
    inputs = pooled.half(), classes.half(), *rest
    found = results(fused_concept.concept_loss, *inputs, dtype=torch.float16)
    same_as_defined(found, results(reference.concept_loss, *inputs, dtype=torch.double), 5e-4, 2e-3)


def test_a_scale_that_learns():
    inputs = case(20, 12, 16)
    scales = [torch.tensor(9.0, dtype=dtype, requires_grad=True) for dtype in (torch.float32, torch.double)]
    found = fused_concept.concept_loss(*(t.float() if t.is_floating_point() else t for t in inputs), scales[0])
    exact = reference.concept_loss(*inputs, scales[1])
    gradients = [torch.autograd.grad(loss, s)[0] for loss, s in zip((found, exact), scales, strict=True)]
    assert gap(found, exact) <= LOSS and gap(*gradients) <= GRADIENT


def test_an_unknown_target_is_refused():
    with pytest.raises(ValueError, match='"label" or "argmax"'):
        results(fused_concept.concept_loss, *case(5, 4, 8), target="nearest")


def test_float64_keeps_its_digits():
    """There are no kernels for it."""
    inputs = case(20, 12, 16)
    found = results(fused_concept.concept_loss, *inputs, dtype=torch.double)
    same_as_defined(found, results(reference.concept_loss, *inputs, dtype=torch.double), 1e-14, 1e-13)
