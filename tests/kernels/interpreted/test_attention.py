"""Attention inside captions, in Triton's interpreter, against the definition in float64."""

from unittest import mock

import pytest
import torch
import torch.nn.functional as F

from fastzss.kernels import fused_attention, reference

pytestmark = pytest.mark.usefixtures("poison")
# rows, tokens, heads, channels of a head
SIZES = [
    (3, 64, 2, 64),
    (1, 128, 1, 64),
    (2, 64, 3, 32),
    (2, 77, 1, 24),
    (1, 1, 2, 5),
    (2, 17, 2, 128),
    (1, 128, 1, 80),
]
EXACT = 2e-6  # relative, in float32


def gap(found, exact):
    """Relative distance from the exact tensor; where that is zero, the absolute one."""
    found, exact = found.detach().double(), exact.detach().double()
    assert found.shape == exact.shape
    return ((found - exact).norm() / (exact.norm() if exact.norm() > 0 else 1)).item()


def captions(R, L, seed=0):
    """[R, L] captions of 1 to 20 tokens, some free slots at the end of most rows."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 21, (R * L,), generator=generator)
    segment = torch.full((R, L), -1, dtype=torch.int32)
    for row in range(R):
        own = torch.arange(R * L).repeat_interleave(lengths)[: L - row % 3 * (L // 8)]
        segment[row, : len(own)] = own.int() + row * L
    return segment


def case(R, L, H, C, seed=0, sharp=1.0):
    torch.manual_seed(seed)
    W = H * C
    x, weight, bias = (torch.randn(*sizes, dtype=torch.double) for sizes in ((R, L, W), (3 * W, W), (3 * W,)))
    return sharp * x, weight * W**-0.5, bias, captions(R, L, seed), H


def results(op, x, weight, bias, segment, heads, dtype):
    """[output, gradients of x, weight and bias]."""
    leaves = [t.to(dtype).requires_grad_() for t in (x, weight, bias)]
    out = op(*leaves, segment, heads)
    upstream = torch.linspace(-1, 2, out.numel(), dtype=torch.double).reshape(out.shape).to(dtype)
    return [out, *torch.autograd.grad(out, leaves, upstream)]


@pytest.mark.parametrize("R, L, H, C", SIZES)
def test_values_and_gradients(R, L, H, C):
    inputs = case(R, L, H, C)
    found = results(fused_attention.packed_attention, *inputs, torch.float32)
    for f, e in zip(found, results(reference.packed_attention, *inputs, torch.double), strict=True):
        assert gap(f, e) <= EXACT


@pytest.mark.parametrize("R, L, H, C", [(3, 64, 2, 64), (1, 128, 1, 64), (2, 77, 1, 24)])
def test_float16_is_as_near_as_plain_pytorch(R, L, H, C):
    """Forward twice, backward three times the error of the definition in that dtype."""
    x, weight, bias, *rest = (t.half() if torch.is_tensor(t) and t.is_floating_point() else t for t in case(R, L, H, C))
    inputs = x, weight, bias, *rest
    found = results(fused_attention.packed_attention, *inputs, torch.float16)
    plain = results(reference.packed_attention, *inputs, torch.float16)
    exact = results(reference.packed_attention, *inputs, torch.double)
    for which, (f, p, e) in enumerate(zip(found, plain, exact, strict=True)):
        assert f.dtype == torch.float16
        assert gap(f, e) <= (3 if which else 2) * gap(p, e)


def test_rows_of_the_softmax_far_below_zero():
    """Scores of -1000 and +1000: where cuDNN's masked gradient is NaN."""
    inputs = case(2, 64, 1, 16, sharp=30.0)
    found = results(fused_attention.packed_attention, *inputs, torch.float32)
    exact = results(reference.packed_attention, *inputs, torch.double)
    for f, e in zip(found, exact, strict=True):
        assert f.isfinite().all() and gap(f, e) <= 1e-4


def test_free_rows_change_nothing():
    x, weight, bias, segment, H = case(3, 64, 2, 16)
    segment[2] = -1
    found = results(fused_attention.packed_attention, x, weight, bias, segment, H, torch.float32)
    assert all(f.isfinite().all() for f in found)
    fewer = fused_attention.packed_attention(x[:2].float(), weight.float(), bias.float(), segment[:2], H)
    assert torch.equal(found[0][:2], fewer)


def test_a_caption_cannot_be_read_from_another():
    x, weight, bias, segment, H = case(1, 64, 2, 16)
    weight, bias = weight.float(), bias.float()
    own = segment[0] == segment[0].mode().values
    before = fused_attention.packed_attention(x.float(), weight, bias, segment, H)
    x[0, ~own] = 7.0
    after = fused_attention.packed_attention(x.float(), weight, bias, segment, H)
    assert own.sum() > 2 and torch.equal(before[0, own], after[0, own]) and not torch.equal(before, after)


def test_same_bits_every_time():
    inputs = case(3, 64, 2, 16)
    first, second = (results(fused_attention.packed_attention, *inputs, torch.float32) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_inputs_that_are_not_contiguous():
    x, weight, bias, segment, H = case(2, 64, 2, 16)
    views = x.transpose(0, 1).contiguous().transpose(0, 1), weight.T.contiguous().T, bias, segment.long(), H
    found = results(fused_attention.packed_attention, *views, torch.float32)
    for f, e in zip(found, results(reference.packed_attention, x, weight, bias, segment, H, torch.double), strict=True):
        assert gap(f, e) <= EXACT


def test_autocast_shortens_the_products():
    x, weight, bias, segment, H = case(2, 64, 2, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = results(fused_attention.packed_attention, x, weight, bias, segment, H, torch.float32)
    assert found[0].dtype == torch.bfloat16 and all(f.dtype == torch.float32 for f in found[1:])
    exact = results(reference.packed_attention, x, weight, bias, segment, H, torch.double)
    assert all(gap(f, e) <= 2e-2 for f, e in zip(found, exact, strict=True))


def test_no_mask_is_formed():
    with mock.patch.object(F, "scaled_dot_product_attention", side_effect=AssertionError):
        with mock.patch.object(reference, "caption_mask", side_effect=AssertionError):
            results(fused_attention.packed_attention, *case(2, 64, 2, 16), torch.float32)


def test_longer_rows_than_a_tile_holds_are_the_definitions():
    inputs = case(1, 150, 2, 16)
    found = results(fused_attention.packed_attention, *inputs, torch.float32)
    for f, e in zip(found, results(reference.packed_attention, *inputs, torch.double), strict=True):
        assert gap(f, e) <= EXACT


def test_no_rows_at_all():
    x, weight, bias, segment, H = case(2, 64, 2, 16)
    found = results(fused_attention.packed_attention, x[:0], weight, bias, segment[:0], H, torch.float32)
    assert found[0].shape == (0, 64, 32) and all(f.eq(0).all() for f in found[2:])
