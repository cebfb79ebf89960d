"""Class vectors in Triton's interpreter against the definition in float64."""

import pytest
import torch
import torch.nn.functional as F
from helpers.exact import gap

from fastzss.kernels import fused_classes, reference

pytestmark = pytest.mark.usefixtures("poison")
EXACT = 1e-6


def case(D, M, K, seed=0, longest=3):
    """(units, offset, name): mentions of 0 to `longest` tokens."""
    torch.manual_seed(seed)
    offset = torch.cat([torch.zeros(1), torch.randint(longest + 1, (M,)).cumsum(0)]).int()
    return F.normalize(torch.randn(int(offset[-1]), D, dtype=torch.double), dim=-1), offset, torch.randint(K, (M,))


def results(op, units, *rest, names, dtype=torch.float32):
    """(class vectors, gradient of the units) under an upstream gradient that is no multiple of the result."""
    units = units.to(dtype).requires_grad_()
    classes = op(units, *rest, names)
    upstream = torch.linspace(-1, 2, classes.numel(), dtype=torch.double).reshape(classes.shape).to(classes.dtype)
    return classes, torch.autograd.grad(classes, units, upstream)[0]


@pytest.mark.parametrize("D, M, K", [(5, 1, 1), (16, 7, 9), (77, 60, 5), (300, 20, 30)])
def test_vectors_and_gradients(D, M, K):
    inputs = case(D, M, K)
    found = results(fused_classes.class_vectors, *inputs, names=K)
    exact = results(reference.class_vectors, *inputs, names=K, dtype=torch.double)
    assert gap(found[0], exact[0]) <= EXACT and gap(found[1], exact[1]) <= EXACT


def test_one_name_with_more_tokens_than_all_tiles_hold():
    inputs = case(20, 200, 1, longest=5)
    assert len(inputs[0]) > 16 * fused_classes.SPLITS
    found = results(fused_classes.class_vectors, *inputs, names=1)
    exact = results(reference.class_vectors, *inputs, names=1, dtype=torch.double)
    assert gap(found[0], exact[0]) <= EXACT and gap(found[1], exact[1]) <= EXACT


def test_no_mention_at_all():
    units = torch.ones(4, 6, requires_grad=True)
    none = torch.zeros(0, dtype=torch.long)
    classes = fused_classes.class_vectors(units, torch.zeros(1, dtype=torch.int32), none, 3)
    classes.sum().backward()
    assert classes.eq(0).all() and classes.shape == (3, 6) and units.grad.eq(0).all()


def test_an_absent_name_is_zero_and_gets_no_gradient():
    units, offset, name = case(8, 6, 3)
    found = results(fused_classes.class_vectors, units, offset, 2 * name, names=7)
    assert found[0][1::2].eq(0).all()
    assert found[1].isfinite().all()


def test_tokens_beyond_the_last_mention_belong_to_nobody():
    units, offset, name = case(8, 6, 3)
    found = results(fused_classes.class_vectors, torch.cat([units, units[:3]]), offset, name, names=3)
    exact = results(fused_classes.class_vectors, units, offset, name, names=3)
    assert torch.equal(found[0], exact[0]) and torch.equal(found[1][:-3], exact[1]) and found[1][-3:].eq(0).all()


def test_inputs_that_are_not_contiguous():
    units, offset, name = case(8, 6, 3)
    views = units.T.contiguous().T, offset.repeat_interleave(2)[::2], name.repeat_interleave(2)[::2]
    found = results(fused_classes.class_vectors, *views, names=3)
    exact = results(reference.class_vectors, units, offset, name, names=3, dtype=torch.double)
    assert gap(found[0], exact[0]) <= EXACT and gap(found[1], exact[1]) <= EXACT


def test_float16_is_summed_in_float32():
    units, *rest = case(24, 300, 2)
    found = results(fused_classes.class_vectors, units.half(), *rest, names=2, dtype=torch.float16)
    exact = results(reference.class_vectors, units.half(), *rest, names=2, dtype=torch.double)
    assert gap(found[0], exact[0]) <= 5e-4 and gap(found[1], exact[1]) <= 2e-3


def test_same_bits_every_time():
    inputs = case(20, 200, 3)
    first, second = (results(fused_classes.class_vectors, *inputs, names=3) for _ in range(2))
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
