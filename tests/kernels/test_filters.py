"""The filters of a finished answer: their meaning written out, and the form for CPUs against the definition."""

import pytest
import torch
import torch.nn.functional as F
from helpers.memory import peak_bytes

from fastzss import kernels
from fastzss.kernels import chunked_filters, parts, reference

pytestmark = pytest.mark.usefixtures("poison")
SIZES = [(1, 1), (1, 9), (9, 1), (7, 13), (40, 33)]
DILATIONS = [(1,), (1, 2, 4, 8), (24, 3, 2**40)]


@pytest.fixture(params=["reference", "chunked"])
def backend(request, monkeypatch):
    monkeypatch.setenv("FASTZSS_BACKEND", request.param)


@pytest.fixture(params=[False, True], ids=["one part", "many parts"])
def many(request, monkeypatch):
    if request.param:
        monkeypatch.setattr(parts, "PART", 1000)
        monkeypatch.setattr(chunked_filters, "CLASSES", 2)


def gap(found, exact):
    """Relative root-mean-square distance."""
    assert found.shape == exact.shape and not found.isnan().any()
    return ((found.double() - exact.double()).norm() / exact.double().norm().clamp_min(1e-12)).item()


def patches_of(B, N, D, V, dtype=torch.double):
    """(patches, values): unit patches around a mean that is far from zero."""
    torch.manual_seed(0)
    patches = F.normalize(torch.randn(B, N, D, dtype=torch.double) + 2 * torch.randn(D, dtype=torch.double), dim=-1)
    return patches.to(dtype), torch.randn(B, N, V, dtype=torch.double).to(dtype)


def picture(H, W, K, C=3, dtype=torch.double):
    """(image, scores): noise on blocks of few colours, so that some windows are flat and some are edges."""
    torch.manual_seed(0)
    blocks = torch.randint(3, (C, -(-H // 4), -(-W // 4)), dtype=torch.double) / 3
    image = blocks.repeat_interleave(4, 1).repeat_interleave(4, 2)[:, :H, :W]
    image = torch.where(torch.rand(H, W) < 0.5, image, image + 0.1 * torch.rand(C, H, W))
    return image.float().to(dtype), torch.randn(K, H, W, dtype=torch.double).float().to(dtype)


def test_smoothing_is_a_softmax_over_patches_that_resemble_each_other(backend):
    patches, values = patches_of(2, 5, 4, 3)
    found = kernels.smooth_patches(patches, values, 0.3)
    for b in range(2):
        centred = [patch - sum(patches[b]) / 5 for patch in patches[b]]
        for n in range(5):
            alike = [torch.dot(centred[n], c) / centred[n].norm() / c.norm() for c in centred]
            weight = [torch.exp(a / 0.3) for a in alike]
            mean = sum(w * v for w, v in zip(weight, values[b], strict=True)) / sum(weight)
            assert torch.allclose(found[b, n], mean)


def test_what_smoothing_does_not_depend_on(backend):
    patches, values = patches_of(2, 9, 6, 4)
    found = kernels.smooth_patches(patches, values, 0.1)
    shuffle = torch.randperm(9)
    assert torch.allclose(kernels.smooth_patches(patches[:, shuffle], values[:, shuffle], 0.1), found[:, shuffle])
    assert torch.allclose(kernels.smooth_patches(3 * patches + 1, values, 0.1), found)
    assert torch.allclose(kernels.smooth_patches(patches, 2 * values - 1, 0.1), 2 * found - 1)
    assert torch.allclose(kernels.smooth_patches(patches[1:], values[1:], 0.1), found[1:])


def test_the_limits_of_the_temperature(backend):
    patches, values = patches_of(2, 9, 6, 4)
    assert torch.allclose(kernels.smooth_patches(patches, values, 1e-4), values)
    everywhere = values.mean(1, keepdim=True).expand_as(values)
    assert torch.allclose(kernels.smooth_patches(patches, values, 1e6), everywhere, atol=1e-5)
    each = kernels.smooth_patches(patches, values, torch.tensor([0.1, 0.3]))
    for b, temperature in enumerate((0.1, 0.3)):
        alone = kernels.smooth_patches(patches[b : b + 1], values[b : b + 1], temperature)
        assert torch.allclose(each[b : b + 1], alone, rtol=1e-6)


def test_patches_that_are_all_alike_get_the_mean(backend):
    values = patches_of(1, 7, 3, 2)[1]
    found = kernels.smooth_patches(torch.full((1, 7, 4), 0.5, dtype=torch.double), values, 1e-3)
    assert torch.allclose(found, values.mean(1, keepdim=True).expand_as(values))


@pytest.mark.parametrize("dtype", [torch.double, torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("B, N, D, V", [(1, 1, 5, 2), (3, 7, 4, 5), (2, 50, 33, 17), (1, 300, 24, 1)])
def test_smoothing_for_cpus(B, N, D, V, dtype, many):
    patches, values = patches_of(B, N, D, V, dtype)
    exact = reference.smooth_patches(patches.double(), values.double(), 0.1)
    off = gap(chunked_filters.smooth_patches(patches, values, 0.1), exact)
    if N == 1:
        assert off == 0
    elif dtype == torch.double:
        assert off <= 1e-12
    else:
        assert off <= max(2 * gap(reference.smooth_patches(patches, values, 0.1), exact), 1e-7)
        assert dtype != torch.float32 or off <= 1e-5


def by_hand(image, scores, iterations, dilations):
    """refine_scores, pixel by pixel as the article has it."""
    C, H, W = image.shape
    weights, places = {}, {}
    near = [-1, 0, 1]
    for y in range(H):
        for x in range(W):
            window = [(y + a * d, x + b * d, (a, b) != (0, 0)) for d in dilations for a in near for b in near]
            window = [(min(max(v, 0), H - 1), min(max(u, 0), W - 1), other) for v, u, other in window]
            spread = torch.stack([image[:, v, u] for v, u, _ in window]).std(0)
            places[y, x] = [(v, u) for v, u, other in window if other]
            apart = torch.stack([(image[:, v, u] - image[:, y, x]).abs() for v, u in places[y, x]])
            weights[y, x] = (-apart / (1e-8 + 0.1 * spread)).mean(1).softmax(0)
    for _ in range(iterations):
        before, scores = scores, torch.empty_like(scores)
        for (y, x), around in places.items():
            scores[:, y, x] = sum(w * before[:, v, u] for w, (v, u) in zip(weights[y, x], around, strict=True))
    return scores


@pytest.mark.parametrize("dilations", [(1,), [2, 1, 5]], ids=str)
def test_refining_is_what_the_article_says(dilations, backend):
    image, scores = picture(6, 7, 2)
    found = kernels.refine_scores(image, scores, 3, dilations)
    assert torch.allclose(found, by_hand(image, scores, 3, dilations), rtol=1e-10)


def test_where_the_image_is_flat_all_neighbours_count_the_same(backend):
    scores = torch.zeros(1, 5, 5)
    scores[0, 2, 2] = 8.0
    found = kernels.refine_scores(torch.full((3, 5, 5), 0.3), scores, 1, (1,))
    expected = torch.zeros(5, 5)
    expected[1:4, 1:4] = 1.0
    expected[2, 2] = 0.0  # a pixel is no neighbour of itself
    assert torch.allclose(found[0], expected)
    scores = scores.roll((-2, -2), (1, 2))  # in the corner, which stands for all that is beyond it
    found = kernels.refine_scores(torch.full((3, 5, 5), 0.3), scores, 1, (1,))
    expected = torch.zeros(5, 5)
    expected[:2, :2] = torch.tensor([[3.0, 2.0], [2.0, 1.0]])
    assert torch.allclose(found[0], expected)


def test_a_border_between_classes_moves_to_the_border_between_colours(backend):
    image = torch.zeros(3, 12, 20)
    image[:, :, 9:] = torch.tensor([0.9, 0.4, 0.1]).view(3, 1, 1)
    scores = torch.linspace(-1, 1, 20).repeat(12, 1)  # crosses zero half a pixel beside the edge, and slowly
    found = kernels.refine_scores(image, torch.stack([-scores - 0.3, scores + 0.3]), 10, (1, 2, 4))
    assert torch.equal(found.argmax(0), (image[0] > 0).long())
    step = found[1, :, 9] - found[1, :, 8]
    assert (step > 5 * (scores[0, 9] - scores[0, 8])).all(), "and is sharp there"


def test_what_refining_does_not_depend_on(backend):
    image, scores = picture(9, 11, 4)
    found = kernels.refine_scores(image, scores, 3, (1, 3))
    alone = [kernels.refine_scores(image, scores[k : k + 1], 3, (1, 3)) for k in range(4)]
    assert torch.allclose(torch.cat(alone), found)
    assert torch.allclose(kernels.refine_scores(255 * image + 4, scores, 3, (1, 3)), found, atol=1e-6)
    assert torch.allclose(kernels.refine_scores(image, 2 * scores - 1, 3, (1, 3)), 2 * found - 1)
    turned = kernels.refine_scores(image.mT.flip(1), scores.mT.flip(1), 3, (3, 1))
    assert torch.allclose(turned.flip(1).mT, found)
    assert found.min() > scores.min() and found.max() < scores.max(), "means"


@pytest.mark.parametrize("dilations", DILATIONS, ids=str)
@pytest.mark.parametrize("H, W", SIZES)
def test_refining_for_cpus(H, W, dilations, many):
    image, scores = picture(H, W, 5)
    exact = reference.refine_scores(image, scores, 10, dilations)
    assert gap(chunked_filters.refine_scores(image, scores, 10, dilations), exact) <= 1e-12
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        low = scores.to(dtype)
        exact = reference.refine_scores(image, low.double(), 10, dilations)
        off = gap(chunked_filters.refine_scores(image.float(), low, 10, dilations), exact)
        assert off <= max(2 * gap(reference.refine_scores(image.float(), low, 10, dilations), exact), 1e-7)
        assert dtype != torch.float32 or off <= 1e-5


def test_an_image_of_other_numbers_than_the_scores(backend):
    image, scores = picture(8, 6, 3)
    half = image.half()
    exact = kernels.refine_scores(half.double(), scores)
    assert gap(kernels.refine_scores(half, scores.float()), exact) <= 1e-5
    assert gap(kernels.refine_scores(half.double(), scores.float()), exact) <= 1e-5
    grey = kernels.refine_scores(half[:1].double(), scores)
    assert torch.allclose(kernels.refine_scores(half[:1].expand(4, -1, -1).double(), scores), grey)


def test_colours_that_hardly_differ_are_told_apart():
    """On top of a large number: what lies between two colours must not be lost in their size."""
    image, scores = picture(12, 10, 2)
    image = (200 + 1e-3 * image).float()
    exact = reference.refine_scores(image.double(), scores, 10, (1, 2, 4))
    assert gap(chunked_filters.refine_scores(image, scores.float(), 10, (1, 2, 4)), exact) <= 1e-5


def test_views_of_other_tensors_are_taken_as_they_lie(backend):
    patches, values = patches_of(4, 18, 12, 6)
    exact = kernels.smooth_patches(patches[::2, 1::2, ::3].contiguous(), values[::2, ::2, 1::2].contiguous(), 0.1)
    assert torch.allclose(kernels.smooth_patches(patches[::2, 1::2, ::3], values[::2, ::2, 1::2], 0.1), exact)
    image, scores = picture(24, 14, 8)
    image, scores = image[:, ::2].flip(2), scores[1::3, ::2]
    exact = kernels.refine_scores(image.contiguous(), scores.contiguous(), 2, (1, 4))
    assert torch.allclose(kernels.refine_scores(image, scores, 2, (1, 4)), exact)
    last = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)  # colours side by side, as in a picture file
    assert torch.allclose(kernels.refine_scores(last, scores, 2, (1, 4)), exact)


def test_nothing_in_nothing_out(backend):
    for B, N, V in ((0, 4, 2), (2, 0, 3), (2, 4, 0)):
        assert kernels.smooth_patches(torch.randn(B, N, 5), torch.randn(B, N, V), 0.1).shape == (B, N, V)
    assert kernels.refine_scores(torch.rand(3, 4, 5), torch.rand(0, 4, 5)).shape == (0, 4, 5)


def test_the_inputs_stay_as_they_are(backend):
    for inputs, call in (
        (picture(8, 9, 3, dtype=torch.float32), lambda *i: kernels.refine_scores(*i, 1, (1, 2))),
        (picture(8, 9, 3, dtype=torch.float32), lambda *i: kernels.refine_scores(*i, 2, (1, 2))),
        (patches_of(2, 6, 5, 4, torch.float32), lambda *i: kernels.smooth_patches(*i, 0.1)),
    ):
        before = [tensor.clone() for tensor in inputs]
        call(*inputs)
        assert all(map(torch.equal, inputs, before))


def test_the_same_inputs_give_the_same_bits():
    image, scores = picture(30, 20, 7, dtype=torch.float32)
    assert torch.equal(*(chunked_filters.refine_scores(image, scores) for _ in range(2)))
    patches, values = patches_of(2, 60, 24, 9, torch.float32)
    assert torch.equal(*(chunked_filters.smooth_patches(patches, values, 0.1) for _ in range(2)))


def test_memory_does_not_grow_with_the_classes_nor_with_the_square_of_the_patches(monkeypatch):
    monkeypatch.setattr(parts, "PART", 1 << 15)
    monkeypatch.setattr(chunked_filters, "TABLE", 4 * 64 * 64)
    part = 4 << 15  # bytes
    patches, values = patches_of(1, 2048, 8, 4, torch.float32)
    assert peak_bytes(lambda: chunked_filters.smooth_patches(patches, values, 0.1)) < 4 * part, (
        "one in 32 of all similarities"
    )
    image, scores = picture(64, 64, 40, dtype=torch.float32)
    weights, tables = 16 * image[0].nbytes, 2 * (64 + 2 + 2) * 64 * 4 * 4
    for K in (4, 40):
        peak = peak_bytes(lambda K=K: chunked_filters.refine_scores(image, scores[:K], 2, (1, 2)))
        assert peak < scores[:K].nbytes + weights + tables + 3 * part
