"""Gathered, projected unit vectors in Triton's interpreter against the definition in float64."""

import pytest
import torch
import torch.nn.functional as F
from helpers.exact import gap

from fastzss.kernels import fused_used, reference
from fastzss.kernels.lists import lists_of

pytestmark = pytest.mark.usefixtures("poison")
EXACT = 1e-6


def results(op, tokens, index, projection, dtype=torch.float32):
    tokens, projection = tokens.to(dtype).requires_grad_(), projection.to(dtype).requires_grad_()
    units = op(tokens, index, projection)
    upstream = torch.linspace(-1, 2, units.numel(), dtype=torch.double).reshape(units.shape).to(units.dtype)
    return units, *torch.autograd.grad(units, [tokens, projection], upstream)


def case(shape, U, D):
    torch.manual_seed(0)
    tokens = torch.randn(*shape, dtype=torch.double)
    return tokens, torch.randint(tokens.shape[:-1].numel(), (U,)), torch.randn(shape[-1], D, dtype=torch.double)


@pytest.mark.parametrize("index", [torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("shape, U, D", [((1, 4), 1, 1), ((3, 7, 12), 5, 16), ((77, 20), 150, 96), ((9, 8), 5, 1100)])
def test_units_and_gradients(shape, U, D, index):
    tokens, used, projection = case(shape, U, D)
    found = results(fused_used.used_units, tokens, used.to(index), projection)
    exact = results(reference.used_units, tokens, used, projection, torch.double)
    for f, e in zip(found, exact, strict=True):
        assert gap(f, e) <= EXACT


def test_no_token_used():
    tokens, projection = torch.ones(3, 4, requires_grad=True), torch.ones(4, 5, requires_grad=True)
    units = fused_used.used_units(tokens, torch.zeros(0, dtype=torch.long), projection)
    units.sum().backward()
    assert units.shape == (0, 5) and tokens.grad.eq(0).all() and projection.grad.eq(0).all()


def test_inputs_that_are_not_contiguous():
    tokens, used, projection = case((6, 12), 9, 8)
    views = tokens.T.contiguous().T, used.repeat_interleave(2)[::2], projection.T.contiguous().T
    exact = results(reference.used_units, tokens, used, projection, torch.double)
    for f, e in zip(results(fused_used.used_units, *views), exact, strict=True):
        assert gap(f, e) <= EXACT


@pytest.mark.parametrize("length", [0.0, 1e-14, 1.0, 1e15])
def test_unit_vectors_of_all_lengths(length):
    """As torch.nn.functional.normalize: below 1e-12 a vector only grows."""
    torch.manual_seed(0)
    rows = (length * F.normalize(torch.randn(5, 9, dtype=torch.double), dim=-1)).requires_grad_()
    upstream = torch.randn(5, 9, dtype=torch.double)
    exact = F.normalize(rows, dim=-1)
    x = rows.detach().float().requires_grad_()
    found = fused_used.unit(x)
    gradients = torch.autograd.grad(found, x, upstream.float())[0], torch.autograd.grad(exact, rows, upstream)[0]
    assert gap(found, exact) <= EXACT and gap(*gradients) <= EXACT


def test_the_scale_comes_before_the_rounding():
    rows = torch.randn(5, 9, dtype=torch.half, requires_grad=True)
    found, length = fused_used.unit_forward(rows.detach(), 14.0, torch.float16)
    exact = 14 * F.normalize(rows.double(), dim=-1)
    assert torch.equal(found, exact.half())
    gradient = fused_used.unit_backward(rows.detach(), length, torch.ones_like(found), 14.0)
    assert gap(gradient, torch.autograd.grad(exact.sum(), rows)[0]) <= 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("index", [[3, 0, 3, 4], []], ids=["some", "none"])
def test_rows_of_a_frozen_matrix(index, dtype):
    vectors, index = torch.randn(5, 9).T.contiguous().T, torch.tensor(index, dtype=torch.long)
    found = fused_used.unit_rows(vectors, index, dtype)
    assert found.dtype == dtype and gap(found, F.normalize(vectors.double()[index], dim=-1)) <= EXACT


def test_under_autocast_rows_are_as_short_as_products():
    vectors, index = torch.randn(5, 9), torch.tensor([3, 0, 3])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = fused_used.unit_rows(vectors, index, torch.float32)
    assert found.dtype == torch.bfloat16 and gap(found, F.normalize(vectors.double()[index], dim=-1)) <= 1e-2


def test_lists_made_beforehand_change_no_bit():
    tokens, used, projection = (t.float() if t.is_floating_point() else t for t in case((6, 12), 9, 8))
    found = results(lambda *inputs: fused_used.used_units(*inputs, lists_of(used, 6)), tokens, used, projection)
    for f, e in zip(found, results(fused_used.used_units, tokens, used, projection), strict=True):
        assert torch.equal(f, e)


def test_autocast_shortens_the_product_and_nothing_else():
    inputs = case((6, 12), 9, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = results(fused_used.used_units, *inputs)
    assert all(part.dtype == torch.float32 for part in found)
    for f, e in zip(found, results(reference.used_units, *inputs, torch.double), strict=True):
        assert gap(f, e) <= 1e-2
