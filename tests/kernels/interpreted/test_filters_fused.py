"""Smoothing and refining in Triton's interpreter against the definition in float64."""

import pytest
import torch
import torch.nn.functional as F

from fastzss.kernels import fused_refine, fused_smooth, reference

pytestmark = pytest.mark.usefixtures("poison")


def gap(found, exact):
    """Relative root-mean-square distance."""
    assert found.shape == exact.shape and found.isfinite().all()
    return ((found.double() - exact.double()).norm() / exact.double().norm().clamp_min(1e-12)).item()


def as_good_as_plain(found, plain, exact):
    off = gap(found, exact)
    assert off <= max(2 * gap(plain, exact), 1e-7)
    assert found.dtype == plain.dtype and (found.dtype != torch.float32 or off <= 1e-5)


def patches_of(B, N, D, V, dtype=torch.float32):
    torch.manual_seed(0)
    patches = F.normalize(torch.randn(B, N, D) + 2 * torch.randn(D), dim=-1)
    return patches.to(dtype), torch.randn(B, N, V).to(dtype)


def picture(H, W, K, C=3, dtype=torch.float32):
    """Noise on half the pixels, so that some windows are flat and some are edges."""
    torch.manual_seed(0)
    noisy = torch.rand(H, W) < 0.5
    return torch.where(noisy, torch.rand(C, H, W), torch.rand(C, 1, 1)), torch.randn(K, H, W).to(dtype)


def smoothed(patches, values, temperature, **forced):
    exact = reference.smooth_patches(patches.double(), values.double(), temperature)
    plain = reference.smooth_patches(patches, values, temperature)
    as_good_as_plain(fused_smooth.smooth_patches(patches, values, temperature, **forced), plain, exact)


def refined(image, scores, iterations, dilations, **forced):
    exact = reference.refine_scores(image.double(), scores.double(), iterations, dilations)
    plain = reference.refine_scores(image, scores, iterations, dilations)
    as_good_as_plain(fused_refine.refine_scores(image, scores, iterations, dilations, **forced), plain, exact)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("B, N, D, V", [(3, 2, 5, 3), (2, 65, 40, 20), (1, 130, 96, 150), (2, 33, 100, 1)])
def test_smoothing(B, N, D, V, dtype):
    smoothed(*patches_of(B, N, D, V, dtype), 0.1)


@pytest.mark.parametrize("forced", [dict(BM=16, BN=16), dict(BV=16), dict(BD=16), dict(BM=128, BN=128)], ids=str)
def test_tiles_of_smoothing_do_not_matter(forced):
    smoothed(*patches_of(2, 70, 40, 33), 0.1, **forced)


@pytest.mark.parametrize("temperature", [1e-3, 1e3, torch.tensor([0.05, 0.3]), torch.tensor(0.2)], ids=str)
def test_temperatures(temperature):
    smoothed(*patches_of(2, 40, 24, 5), temperature)


def test_one_patch_and_patches_that_are_all_alike():
    patches, values = patches_of(2, 1, 8, 3)
    assert torch.equal(fused_smooth.smooth_patches(patches, values, 0.1), values)
    values = patches_of(1, 20, 8, 3)[1]
    found = fused_smooth.smooth_patches(torch.full((1, 20, 8), 0.5), values, 1e-3)
    assert gap(found, values.double().mean(1, keepdim=True).expand_as(values)) <= 1e-6


def test_other_images_are_not_looked_at():
    patches, values = patches_of(3, 20, 8, 5)
    alone = fused_smooth.smooth_patches(patches[1:2], values[1:2], 0.1)
    patches[[0, 2]], values[[0, 2]] = torch.nan, torch.nan
    assert torch.equal(fused_smooth.smooth_patches(patches, values, 0.1)[1:2], alone)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize(
    "H, W, K, dilations",
    [
        (1, 1, 1, (3,)),
        (1, 9, 2, (1, 2)),
        (9, 1, 9, [2**40, 1]),
        (7, 13, 5, (1, 2, 4)),
        (12, 11, 17, (1, 2, 4, 8, 12, 24)),
    ],
)
def test_refining(H, W, K, dilations, dtype):
    refined(*picture(H, W, K, dtype=dtype), 3, dilations)


@pytest.mark.parametrize("iterations", [1, 2, 10])
def test_iterations(iterations):
    image, scores = picture(6, 7, 3)
    before = scores.clone()
    refined(image, scores, iterations, (1, 2))
    assert torch.equal(scores, before), "the caller's scores are read, never written"


def test_parts_of_the_classes_and_tiles_do_not_matter(monkeypatch):
    image, scores = picture(7, 9, 11)
    refined(image, scores, 2, (1, 3), BK=2, BN=16)
    monkeypatch.setattr(fused_refine, "TABLE", 4 * 63)
    refined(image, scores, 3, (1, 3))


@pytest.mark.parametrize("C", [1, 4])
def test_other_numbers_of_colours(C):
    refined(*picture(7, 9, 3, C), 2, (1, 3))


def test_colours_that_hardly_differ_are_told_apart():
    image, scores = picture(8, 9, 3)
    refined(200 + 1e-3 * image, scores, 2, (1, 3))


def test_more_dilations_than_a_program_holds_and_float64_are_served_all_the_same():
    image, scores = picture(5, 6, 3)
    refined(image, scores, 1, range(1, fused_refine.DILATIONS + 2))
    refined(image, scores, 1, range(1, fused_refine.DILATIONS + 1))
    exact = reference.refine_scores(image.double(), scores.double(), 2, (1, 2))
    assert gap(fused_refine.refine_scores(image, scores.double(), 2, (1, 2)), exact) <= 1e-6


def test_inputs_that_are_not_contiguous():
    patches, values = patches_of(4, 18, 12, 6)
    smoothed(patches[::2, 1::2, ::3], values[::2, ::2, 1::2], 0.1)
    image, scores = picture(12, 14, 8)
    refined(image[:, ::2].flip(2), scores[1::3, ::2], 2, (1, 4))
    refined(image.permute(1, 2, 0).contiguous().permute(2, 0, 1), scores.mT.contiguous().mT, 2, (1, 4))


def test_nothing_in_nothing_out():
    for B, N, V in ((0, 4, 2), (2, 0, 3), (2, 4, 0)):
        assert fused_smooth.smooth_patches(torch.randn(B, N, 5), torch.randn(B, N, V), 0.1).shape == (B, N, V)
    assert fused_refine.refine_scores(torch.rand(3, 4, 5), torch.rand(0, 4, 5)).shape == (0, 4, 5)


def test_same_bits_every_time():
    image, scores = picture(7, 9, 3)
    assert torch.equal(*(fused_refine.refine_scores(image, scores, 3, (1, 2)) for _ in range(2)))
    patches, values = patches_of(2, 70, 24, 9)
    assert torch.equal(*(fused_smooth.smooth_patches(patches, values, 0.1) for _ in range(2)))
