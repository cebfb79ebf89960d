"""Attention inside captions, in Triton's interpreter, against the definition in float64."""

from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from helpers.exact import gap

from fastzss.kernels import fused_attention, reference_tower

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
    """qkv without bias, their bias, captions, heads."""
    torch.manual_seed(seed)
    qkv, bias = (torch.randn(*sizes, dtype=torch.double) for sizes in ((R, L, 3 * H * C), (3 * H * C,)))
    return sharp * qkv, bias, captions(R, L, seed), H


def slopes(out):
    return torch.linspace(-1, 2, out.numel(), dtype=torch.double).reshape(out.shape).to(out.dtype)


def ours(qkv, bias, segment, heads, dtype):
    """[output, gradients of qkv and bias]."""
    qkv, bias = qkv.to(dtype), bias.to(dtype)
    out, sums = fused_attention.attention(qkv, bias, segment, heads), torch.empty(len(qkv), 2, len(bias))
    gradient = fused_attention.attention_gradient(qkv, bias, segment, heads, slopes(out), sums[:, 1])
    return [out, gradient, sums[:, 1].sum(0)]


def defined(qkv, bias, segment, heads, dtype):
    leaves = [t.to(dtype).requires_grad_() for t in (qkv, bias)]
    out = reference_tower.attention(leaves[0] + leaves[1], reference_tower.caption_mask(segment), heads)
    return [out, *torch.autograd.grad(out, leaves, slopes(out))]


@pytest.mark.parametrize("R, L, H, C", SIZES)
def test_values_and_gradients(R, L, H, C):
    inputs = case(R, L, H, C)
    for f, e in zip(ours(*inputs, torch.float32), defined(*inputs, torch.double), strict=True):
        assert gap(f, e) <= EXACT


@pytest.mark.parametrize("R, L, H, C", [(3, 64, 2, 64), (1, 128, 1, 64), (2, 77, 1, 24)])
def test_float16_is_as_near_as_plain_pytorch(R, L, H, C):
    """Forward twice, backward three times the error of the definition in that dtype."""
    qkv, bias, *rest = case(R, L, H, C)
    inputs = qkv.half(), bias.half(), *rest
    found, plain, exact = ours(*inputs, torch.float16), defined(*inputs, torch.float16), defined(*inputs, torch.double)
    assert [f.dtype for f in found] == [torch.float16, torch.float16, torch.float32]
    for which, (f, p, e) in enumerate(zip(found, plain, exact, strict=True)):
        assert gap(f, e) <= (3 if which else 2) * gap(p, e)


def test_rows_of_the_softmax_far_below_zero():
    """Scores of -1000 and +1000: where cuDNN's masked gradient is NaN."""
    inputs = case(2, 64, 1, 16, sharp=30.0)
    for f, e in zip(ours(*inputs, torch.float32), defined(*inputs, torch.double), strict=True):
        assert f.isfinite().all() and gap(f, e) <= 1e-4


def test_free_rows_change_nothing():
    qkv, bias, segment, H = case(3, 64, 2, 16)
    segment[2] = -1
    found = ours(qkv, bias, segment, H, torch.float32)
    assert all(f.isfinite().all() for f in found)
    assert torch.equal(found[0][:2], ours(qkv[:2], bias, segment[:2], H, torch.float32)[0])


def test_a_caption_cannot_be_read_from_another():
    qkv, bias, segment, H = case(1, 64, 2, 16)
    own = segment[0] == segment[0].mode().values
    before = ours(qkv, bias, segment, H, torch.float32)[0]
    qkv[0, ~own] = 7.0
    after = ours(qkv, bias, segment, H, torch.float32)[0]
    assert own.sum() > 2 and torch.equal(before[0, own], after[0, own]) and not torch.equal(before, after)


def test_same_bits_every_time():
    inputs = case(3, 64, 2, 16)
    first, second = (ours(*inputs, torch.float32) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_no_mask_is_formed():
    with mock.patch.object(F, "scaled_dot_product_attention", side_effect=AssertionError):
        with mock.patch.object(reference_tower, "caption_mask", side_effect=AssertionError):
            ours(*case(2, 64, 2, 16), torch.float32)


def test_no_rows_at_all():
    qkv, bias, segment, H = case(2, 64, 2, 16)
    found = ours(qkv[:0], bias, segment[:0], H, torch.float32)
    assert found[0].shape == (0, 64, 32) and found[1].shape == (0, 64, 96) and found[2].eq(0).all()
