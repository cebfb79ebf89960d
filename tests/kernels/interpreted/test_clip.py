"""The contrastive loss in Triton's interpreter against the definition in float64."""

import pytest
import torch
import torch.nn.functional as F

from fastzss.kernels import fused_clip, reference

pytestmark = pytest.mark.usefixtures("poison")
SIZES = [(1, 5), (5, 16), (77, 96), (96, 128), (130, 100)]  # pairs, channels
LOSS, GRADIENT = 1e-6, 5e-6  # relative; a study measured 6e-6 and 1e-6 for the plain form


def gap(found, exact):
    """Relative distance from the exact tensor; where that is zero, the absolute one."""
    found, exact = found.detach().double(), exact.detach().double()
    assert found.shape == exact.shape
    return ((found - exact).norm() / (exact.norm() if exact.norm() > 0 else 1)).item()


def case(B, D, near=2.0, seed=0):
    """Unit vectors that point to their pair, but not so much that nothing is left to learn."""
    torch.manual_seed(seed)
    images = F.normalize(torch.randn(B, D, dtype=torch.double), dim=-1)
    texts = F.normalize(torch.randn(B, D, dtype=torch.double) + near * images, dim=-1)
    return images, texts, torch.tensor(14.0, dtype=torch.double).log()


def results(op, images, texts, scale, dtype=torch.float32, **more):
    """(loss, gradient of the texts, gradient of the scale)."""
    texts, scale = texts.to(dtype).requires_grad_(), scale.to(dtype).requires_grad_()
    loss = op(images.to(dtype), texts, scale, **more)
    return loss, *torch.autograd.grad(loss, [texts, scale])


def same_as_defined(found, exact, loss=LOSS, gradient=GRADIENT):
    assert gap(found[0], exact[0]) <= loss
    for f, e in zip(found[1:], exact[1:], strict=True):
        assert gap(f, e) <= gradient


@pytest.mark.parametrize("B, D", SIZES)
def test_loss_and_gradients(B, D):
    inputs = case(B, D)
    same_as_defined(results(fused_clip.clip_loss, *inputs), results(reference.clip_loss, *inputs, torch.double))


@pytest.mark.parametrize(
    "options", [dict(BM=32, BN=16, BD=16), dict(chunk=32, BM=16), dict(GROUP=1, BM=16, BN=64)], ids=str
)
def test_tiles_and_chunks_do_not_matter(options):
    inputs = case(77, 40)
    found = results(lambda *a: fused_clip.clip_loss(*a, **options), *inputs)
    same_as_defined(found, results(reference.clip_loss, *inputs, torch.double))


def test_same_bits_every_time():
    inputs = case(77, 40)
    first, second = (results(fused_clip.clip_loss, *inputs) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    "ids", [torch.arange(77) // 3 * 10**12, torch.arange(77) % 5, torch.arange(77)], ids="3 16 1".split()
)
def test_other_captions_of_the_same_image_are_no_negatives(ids):
    inputs = case(77, 40)
    found = results(fused_clip.clip_loss, *inputs, same=ids)
    same_as_defined(found, results(reference.clip_loss, *inputs, torch.double, same=ids))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_one_image_alone_teaches_nothing(dtype):
    found = results(fused_clip.clip_loss, *case(37, 24), dtype, same=torch.full((37,), 5))
    assert all(part.eq(0).all() for part in found)


def test_a_loss_near_zero_keeps_its_digits():
    """There the plain form in float32 has no correct digit left."""
    images, texts, _ = case(40, 64, near=1e3)
    inputs = images, texts, torch.tensor(25.0, dtype=torch.double).log()
    exact = results(reference.clip_loss, *inputs, torch.double)
    assert 0 < exact[0] < 1e-6
    same_as_defined(results(fused_clip.clip_loss, *inputs), exact, 1e-4, 1e-4)


def test_inputs_that_are_not_contiguous():
    images, texts, scale = case(50, 48)
    wide = torch.zeros(50, 96, dtype=torch.double)
    wide[:, ::2] = images
    found = results(fused_clip.clip_loss, wide[:, ::2], texts.T.contiguous().T, scale)
    same_as_defined(found, results(reference.clip_loss, images, texts, scale, torch.double))


def test_float16_is_computed_from_the_rounded_vectors():
    images, texts, scale = (t.half() for t in case(77, 96))
    found = results(fused_clip.clip_loss, images, texts, scale, torch.float16)
    assert found[1].dtype == torch.float16
    same_as_defined(found, results(reference.clip_loss, images, texts, scale, torch.double), 1e-5, 1e-3)


def test_a_gradient_as_small_as_a_scaled_loss_makes_it_survives_float16():
    images, texts, scale = (t.half() for t in case(77, 96))
    texts = texts.requires_grad_()
    for factor in (1e-4, 4096.0, -1.0):
        (found,) = torch.autograd.grad(fused_clip.clip_loss(images, texts, scale) * factor, texts)
        exact = results(reference.clip_loss, images, texts.detach(), scale, torch.double)[1] * factor
        # a sum near 6e-8 has few bits as a float16; the sum itself is exact
        assert (found.double() - exact).abs().max() <= 1e-3 * exact.abs().max() + 3e-8


def test_a_scale_that_does_not_learn():
    images, texts, _ = case(20, 16)
    texts = texts.float().requires_grad_()
    scale = torch.tensor(9.0).log()
    loss = fused_clip.clip_loss(images.float(), texts, scale)
    assert gap(loss, reference.clip_loss(images, texts.double(), scale.double())) <= LOSS
    assert torch.autograd.grad(loss, texts)[0].isfinite().all()


def test_autocast_shortens_the_products_and_nothing_else():
    images, texts, scale = case(77, 96)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = results(fused_clip.clip_loss, images, texts, scale)
    assert all(part.dtype == torch.float32 for part in found)
    exact = results(reference.clip_loss, images.bfloat16(), texts.bfloat16(), scale, torch.double)
    same_as_defined(found, exact, 1e-5, 1e-2)


def test_float64_keeps_its_digits():
    """There are no kernels for it."""
    images, texts, scale = case(20, 16)
    found = fused_clip.clip_loss(images.float(), texts, scale)
    assert gap(found, reference.clip_loss(images.float().double(), texts, scale)) <= 1e-14


@pytest.mark.parametrize("b, D, parts", [(16384, 768, 3), (32768, 768, 16), (8192, 768, 1), (3, 16, 1)])
def test_a_backward_pass_holds_so_much_and_has_few_parts(b, D, parts):
    """Its tile of a whole batch, in a dtype of two bytes, with the gradient and the short texts."""
    chunk = fused_clip.texts_at_once(b, D, 2 * b, 128)
    assert chunk % 128 == 0 and -(-b // chunk) == parts
    assert min(b, chunk) * 2 * b + 6 * b * D <= fused_clip.HELD
