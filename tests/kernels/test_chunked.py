"""The form for CPUs against the definition: odd sizes, empty ones, many small parts, little memory."""

import pytest
import torch
import torch.nn.functional as F
from helpers.memory import peak_bytes

from fastzss import kernels
from fastzss.kernels import chunked, chunked_losses, parts, reference

pytestmark = pytest.mark.usefixtures("poison")


def unit(*sizes, dtype=torch.double):
    return F.normalize(torch.randn(*sizes, dtype=dtype), dim=-1)


def store(n, N, D, storage):
    if storage != torch.int8:
        return kernels.Patches(unit(n, N, D).to(storage))
    vectors = unit(n, N, D).float() + 0.1
    mean, std = vectors.mean((0, 1)), vectors.flatten(0, 1).std(0, unbiased=False) + 0.01
    return kernels.Patches(*kernels.quantise(vectors, mean, std), mean, std)


def gap(found, exact):
    """Relative root-mean-square distance."""
    assert found.shape == exact.shape and not found.isnan().any()
    return ((found.double() - exact.double()).norm() / exact.double().norm().clamp_min(1e-12)).item()


def with_gradients(form, *leaves, **inputs):
    """[output, gradient of each leaf] under an upstream gradient that is not the same everywhere."""
    leaves = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    output = form(*leaves, **inputs)
    upstream = torch.linspace(0.5, 1.5, max(1, output.numel()), dtype=output.dtype)[: output.numel()]
    return [output.detach(), *torch.autograd.grad(output, leaves, upstream.view(output.shape))]


@pytest.fixture(params=[1 << 20, 100], ids=["one part", "many parts"])
def part(request, monkeypatch):
    monkeypatch.setattr(parts, "PART", request.param)


@pytest.mark.parametrize("storage", [torch.int8, torch.float16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("N, D", [(1, 5), (7, 12), (50, 33)])
@pytest.mark.parametrize("rows", [[], [3], [4, 0, 4, 4, 2, 0, 4, 1] * 3], ids=["none", "one", "ragged"])
@pytest.mark.parametrize("dtype, tolerance", [(torch.double, 1e-12), (torch.float32, 2e-6)], ids=["double", "single"])
def test_pooling(storage, N, D, rows, dtype, tolerance, part):
    torch.manual_seed(0)
    patches, row = store(5, N, D, storage), torch.tensor(rows, dtype=torch.long)
    inputs = {"patches": patches, "row": row, "name": torch.randint(6, row.shape), "temperature": 0.1}
    classes = unit(6, D)
    exact = with_gradients(reference.concept_pool, classes, **inputs)
    found = with_gradients(chunked.concept_pool, classes.to(dtype), **inputs)
    assert gap(found[0], exact[0]) < tolerance
    if N > 1:  # one patch: its weight is always 1 and the gradient is zero
        assert gap(found[1], exact[1]) < 10 * tolerance
    else:
        assert found[1].abs().max() < 10 * tolerance


@pytest.mark.parametrize("target", ["label", "argmax"])
@pytest.mark.parametrize("M, K, D", [(1, 1, 5), (9, 4, 12), (31, 17, 33)])
def test_concept_loss(M, K, D, target, part):
    torch.manual_seed(0)
    present = torch.rand(K) < 0.6
    present[0] = True
    inputs = {"present": present, "name": present.nonzero()[:, 0][torch.randint(int(present.sum()), (M,))]}
    inputs |= {"weight": torch.randint(3, (M,)).float() + 1, "target": target}
    leaves = torch.randn(M, D).double(), unit(K, D), torch.tensor(14.0, dtype=torch.double)
    form = lambda form: lambda pooled, classes, scale, **i: form(pooled, classes, scale=scale, **i)  # noqa: E731
    exact = with_gradients(form(reference.concept_loss), *leaves, **inputs)
    for found, wanted in zip(with_gradients(form(chunked_losses.concept_loss), *leaves, **inputs), exact, strict=True):
        assert (found - wanted).norm() <= 1e-12 * max(1, wanted.norm())
    single = [leaf.float() for leaf in leaves]
    for found, wanted in zip(with_gradients(form(chunked_losses.concept_loss), *single, **inputs), exact, strict=True):
        assert (found - wanted).norm() <= 5e-6 * max(1, wanted.norm())


@pytest.mark.parametrize("same", [None, [5, 6, 5, 7, 8, 6, 5, 9, 10, 11, 12]], ids=["apart", "twins"])
@pytest.mark.parametrize("B, b, first", [(1, 1, 0), (11, 11, 0), (11, 4, 3)])
def test_contrastive_loss(B, b, first, same, part):
    torch.manual_seed(0)
    images, texts = unit(B, 7), unit(b, 7)
    inputs = {"first": first, "same": None if same is None else torch.tensor(same[:B])}
    leaves = texts, torch.tensor(2.2, dtype=torch.double)
    form = lambda form: lambda t, s, **i: form(images, t, s, **i)  # noqa: E731
    if b == B:
        exact = with_gradients(form(reference.clip_loss), *leaves, **inputs)
        for found, wanted in zip(with_gradients(form(chunked_losses.clip_loss), *leaves, **inputs), exact, strict=True):
            assert (found - wanted).norm() <= 1e-12 * max(1, wanted.norm())
    else:  # the share of one rank, were it not told of the others
        found, exact = (form(f.clip_loss)(*leaves, **inputs) for f in (chunked_losses, reference))
        assert torch.allclose(found, exact)


def test_a_pair_that_fits_perfectly_still_has_an_exact_loss_and_gradient():
    """Where softmax minus one would leave nothing of float32."""
    torch.manual_seed(0)
    images = torch.eye(6, 8)
    texts = F.normalize(images + 0.05 * unit(6, 8, dtype=torch.float32), dim=-1)
    form = lambda form: lambda t, s: form(images.to(t.dtype), t, s)  # noqa: E731
    exact = with_gradients(form(reference.clip_loss), texts.double(), torch.tensor(3.0, dtype=torch.double))
    assert 0 < exact[0] < 1e-7
    for found, wanted in zip(
        with_gradients(form(chunked_losses.clip_loss), texts, torch.tensor(3.0)), exact, strict=True
    ):
        assert gap(found, wanted) < 1e-5


def test_gradients_are_those_of_finite_differences(part):
    torch.manual_seed(0)
    patches, row, name = store(4, 7, 5, torch.int8), torch.tensor([2, 0, 2, 3]), torch.tensor([1, 0, 0, 2])
    classes, log_scale = unit(3, 5).requires_grad_(), torch.tensor(2.0, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda c: chunked.concept_pool(c, patches, row, name, 0.2), classes)
    present, weight = torch.ones(3, dtype=torch.bool), torch.tensor([1.0, 2.0, 1.0, 1.0])
    loss = lambda c, s: chunked.local_loss(  # noqa: E731
        c, patches, row, name, present, weight, temperature=0.2, scale=s.exp()
    )
    assert torch.autograd.gradcheck(loss, (classes, log_scale))
    images, same = unit(4, 5), torch.tensor([0, 1, 0, 2])
    contrast = lambda t, s: chunked_losses.clip_loss(images, t, s, same=same)  # noqa: E731
    assert torch.autograd.gradcheck(contrast, (unit(4, 5).requires_grad_(), log_scale))


def test_matches():
    torch.manual_seed(0)
    segments, views = unit(3, 4, 6), unit(3, 5, 6)
    exact = with_gradients(reference.segment_match, segments, views=views)
    for found, wanted in zip(with_gradients(chunked.segment_match, segments, views=views), exact, strict=True):
        assert gap(found, wanted) < 1e-12


def test_quantised_in_parts_is_the_same(part):
    torch.manual_seed(0)
    vectors, mean, std = unit(3, 11, 24).half(), torch.randn(24) / 10, torch.rand(24) + 0.1
    for found, wanted in zip(chunked.quantise(vectors, mean, std), reference.quantise(vectors, mean, std), strict=True):
        assert torch.equal(found, wanted)


def test_views_of_other_tensors_are_taken_as_they_lie():
    torch.manual_seed(0)
    patches = kernels.Patches(unit(4, 9, 12).half()[:, ::2, ::2])
    classes = unit(6, 10).T[::2, ::1][:, :6]
    row, name = torch.tensor([3, 1, 3, 0])[::2], torch.tensor([0, 0, 2, 0])[::2]
    found = chunked.concept_pool(classes, patches, row, name, 0.1)
    assert gap(found, reference.concept_pool(classes, patches, row, name, 0.1)) < 1e-12
    images, texts = unit(6, 10).T[:5], unit(6, 5).T[:, :6].T[:5, :5]
    images = images[:, :5]
    scale = torch.tensor(1.6)
    assert torch.allclose(chunked_losses.clip_loss(images, texts, scale), reference.clip_loss(images, texts, scale))


def test_the_same_inputs_give_the_same_bits():
    torch.manual_seed(0)
    patches, row = store(6, 20, 24, torch.int8), torch.randint(6, (40,))
    inputs = {"patches": patches, "row": row, "name": torch.randint(5, (40,)), "temperature": 0.1}
    classes = unit(5, 24, dtype=torch.float32)
    first, second = (with_gradients(chunked.concept_pool, classes, **inputs) for _ in range(2))
    assert all(map(torch.equal, first, second))


def test_the_order_of_mentions_does_not_matter():
    torch.manual_seed(0)
    patches, row, name = store(6, 20, 24, torch.int8), torch.randint(6, (15,)), torch.randint(5, (15,))
    classes, shuffle = unit(5, 24), torch.randperm(15)
    found = chunked.concept_pool(classes, patches, row[shuffle], name[shuffle], 0.1)
    assert gap(found, chunked.concept_pool(classes, patches, row, name, 0.1)[shuffle]) < 1e-12


def test_equal_patches_pool_to_themselves_and_teach_nothing():
    patches = kernels.Patches(unit(1, 1, 9).expand(3, 8, 9).half())
    row, name = torch.tensor([0, 2]), torch.tensor([1, 0])
    inputs = {"patches": patches, "row": row, "name": name, "temperature": 0.1}
    pooled, gradient = with_gradients(chunked.concept_pool, unit(2, 9), **inputs)
    assert gap(pooled, patches.tokens[row, 0]) < 1e-12
    assert gradient.abs().max() < 1e-12


def test_a_larger_scale_of_smaller_codes_is_the_same():
    patches = store(3, 8, 12, torch.int8)
    half = patches._replace(tokens=patches.tokens // 2)
    twice, once = half._replace(scale=patches.scale * 2), half._replace(tokens=half.tokens * 2)
    row, name, classes = torch.tensor([2, 1]), torch.tensor([0, 1]), unit(2, 12)
    a, b = (chunked.concept_pool(classes, p, row, name, 0.1) for p in (twice, once))
    assert gap(a, b) < 1e-12


def test_no_large_temporaries(monkeypatch):
    monkeypatch.setattr(parts, "PART", 1 << 15)
    torch.manual_seed(0)
    patches, row = store(64, 64, 96, torch.int8), torch.randint(64, (60,))
    inputs = {"patches": patches, "row": row, "name": torch.randint(30, (60,)), "temperature": 0.1}
    classes = unit(30, 96, dtype=torch.float32)
    pooling = peak_bytes(lambda: with_gradients(chunked.concept_pool, classes, **inputs))
    assert pooling < patches.tokens.numel(), "less than the codes themselves, a quarter of the patches as float32"
    images, texts = unit(1024, 16, dtype=torch.float32), unit(1024, 16, dtype=torch.float32)
    contrast = peak_bytes(
        lambda: with_gradients(lambda t: chunked_losses.clip_loss(images, t, torch.tensor(2.3)), texts)
    )
    assert contrast < 2 * 1024**2, "less than half of one matrix of logits"
