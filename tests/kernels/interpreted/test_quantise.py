"""Quantising in Triton's interpreter: bit for bit the definition."""

import pytest
import torch
import torch.nn.functional as F

from fastzss.kernels import fused_quantise, reference

pytestmark = pytest.mark.usefixtures("poison")


def case(*shape, dtype=torch.float32):
    torch.manual_seed(0)
    channels = torch.linspace(0.1, 30, shape[-1])
    vectors = F.normalize(torch.randn(shape) * channels + 5, dim=-1).to(dtype)
    flat = vectors.float().reshape(-1, shape[-1])
    spread = flat.std(0, correction=0) if len(flat) else torch.ones(shape[-1])
    return vectors, flat.mean(0).nan_to_num(), spread + 1e-3


def same(vectors, mean, std):
    codes, scale = fused_quantise.quantise(vectors, mean, std)
    expected = reference.quantise(vectors, mean, std)
    assert codes.dtype == torch.int8 and scale.dtype == torch.float16
    assert torch.equal(codes, expected[0]) and torch.equal(scale, expected[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize(
    "shape", [(1, 1), (3, 7, 6), (33, 96), (2, 3, 5, 192), (5, 768), (3, 1100), (0, 4, 16)], ids=str
)
def test_codes_and_scales(shape, dtype):
    same(*case(*shape, dtype=dtype))


def test_halves_go_to_the_even_side():
    vectors = torch.tensor([[127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 126.5]])
    codes, _ = fused_quantise.quantise(vectors, torch.zeros(8), torch.ones(8))
    assert codes.tolist() == [[127, 0, 2, 2, 0, -2, -2, 126]]


def test_a_constant_patch():
    same(torch.full((1, 1, 4), 0.5), torch.full((4,), 0.5), torch.ones(4))


def test_inputs_that_are_not_contiguous():
    vectors, mean, std = case(6, 20, 48)
    same(vectors.transpose(0, 1), torch.stack([mean, mean], 1)[:, 0], std)
    same(vectors[:, ::2], mean, std)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # inf - inf, in the interpreter
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_is_refused(bad):
    vectors, mean, std = case(9, 48)
    vectors[8, 47] = bad
    with pytest.raises(ValueError, match="quantise: vectors hold NaN or infinite"):
        fused_quantise.quantise(vectors, mean, std)
