"""The reference operations: their meaning on examples one can check by hand, their gradients, their invariances."""

import pytest
import torch
import torch.nn.functional as F

from fastzss import kernels

B, N, D, K = 5, 7, 6, 4


@pytest.fixture
def case():
    torch.manual_seed(0)
    unit = lambda *shape: F.normalize(torch.randn(*shape, dtype=torch.double), dim=-1)  # noqa: E731
    return {
        "units": unit(20, D),
        "token": torch.tensor([0, 3, 4, 4, 9, 11, 12], dtype=torch.int32),
        "offset": torch.tensor([0, 2, 3, 6, 7], dtype=torch.int32),
        "name": torch.tensor([2, 0, 2, 3]),
        "row": torch.tensor([1, 4, 4, 0]),
        "patches": unit(B, N, D),
        "weight": torch.tensor([1.0, 2.0, 1.0, 1.0], dtype=torch.double),
    }


def classes_of(case, units):
    return kernels.class_vectors(units, case["token"], case["offset"], case["name"], K)


def test_class_vectors_sum_all_tokens_of_all_mentions(case):
    u = case["units"]
    found = classes_of(case, u)
    assert torch.allclose(found[2], F.normalize(u[0] + u[3] + u[4] + u[9] + u[11], dim=0))
    assert torch.allclose(found[0], u[4])
    assert found[1].eq(0).all(), "a name without a mention has no direction"


def test_pooling_is_a_softmax_over_the_patches_of_the_mentions_image(case):
    classes = classes_of(case, case["units"])
    pooled = kernels.concept_pool(classes, kernels.Patches(case["patches"]), case["row"], case["name"], 0.1)
    for m, (row, name) in enumerate(zip(case["row"], case["name"], strict=True)):
        weights = ((case["patches"][row] @ classes[name]) / 0.1).softmax(0)
        assert torch.allclose(pooled[m], weights @ case["patches"][row])


def local(case, units, target="label", permute=None):
    classes = classes_of(case, units)
    patches = case["patches"] if permute is None else case["patches"][:, permute]
    pooled = kernels.concept_pool(classes, kernels.Patches(patches), case["row"], case["name"], 0.1)
    present = torch.tensor([True, False, True, True])
    return kernels.concept_loss(pooled, classes, present, case["name"], case["weight"], 14.0, target)


@pytest.mark.parametrize("target", ["label", "argmax"])
def test_gradients_are_those_of_finite_differences(case, target):
    units = case["units"].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda u: local(case, u, target), units)
    images, texts = case["patches"][:, 0], case["units"][:B].clone().requires_grad_()
    log_scale = torch.tensor(2.0, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t, s: kernels.clip_loss(images, t, s.exp()), (texts, log_scale))


def test_the_order_of_patches_does_not_matter(case):
    shuffled = local(case, case["units"], permute=torch.randperm(N))
    assert torch.allclose(shuffled, local(case, case["units"]))


def test_an_absent_class_changes_nothing(case):
    classes = classes_of(case, case["units"])
    pooled = kernels.concept_pool(classes, kernels.Patches(case["patches"]), case["row"], case["name"], 0.1)
    present = torch.tensor([True, False, True, True])
    loss = kernels.concept_loss(pooled, classes, present, case["name"], case["weight"], 14.0)
    fewer, name = classes[present], torch.tensor([1, 0, 1, 2])
    assert torch.allclose(
        loss, kernels.concept_loss(pooled, fewer, torch.ones(3, dtype=torch.bool), name, case["weight"], 14.0)
    )


def test_weight_two_is_the_mention_twice(case):
    classes = classes_of(case, case["units"])
    pooled = kernels.concept_pool(classes, kernels.Patches(case["patches"]), case["row"], case["name"], 0.1)
    present = torch.ones(K, dtype=torch.bool)
    weighted = kernels.concept_loss(pooled, classes, present, case["name"], case["weight"], 14.0)
    twice = [0, 1, 1, 2, 3]
    repeated = kernels.concept_loss(pooled[twice], classes, present, case["name"][twice], torch.ones(5), 14.0)
    assert torch.allclose(weighted, repeated)


def test_no_mention_is_a_loss_of_zero_with_zero_gradient(case):
    units = case["units"].clone().requires_grad_()
    none = torch.empty(0, dtype=torch.long)
    classes = kernels.class_vectors(units, none, torch.zeros(1, dtype=torch.int32), none, K)
    pooled = kernels.concept_pool(classes, kernels.Patches(case["patches"]), none, none, 0.1)
    loss = kernels.concept_loss(pooled, classes, torch.zeros(K, dtype=torch.bool), none, torch.empty(0), 14.0)
    loss.backward()
    assert loss.item() == 0
    assert units.grad.eq(0).all()


def test_an_unknown_target_is_refused(case):
    with pytest.raises(ValueError, match='"label" or "argmax"'):
        local(case, case["units"], "nearest")


def test_the_contrastive_loss_is_two_cross_entropies(case):
    images, texts = case["patches"][:, 0], case["units"][:B]
    logits = 9.0 * images @ texts.T
    own = torch.arange(B)
    expected = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    assert torch.allclose(kernels.clip_loss(images, texts, torch.tensor(9.0)), expected)


def test_quantised_patches_come_back(case):
    torch.manual_seed(0)
    vectors = torch.randn(200, N, 32) * torch.linspace(0.1, 30, 32)  # channels of very different size
    vectors = F.normalize(vectors + 5 * torch.arange(32), dim=-1)
    mean, std = vectors.mean((0, 1)), vectors.std((0, 1))
    codes, scale = kernels.quantise(vectors, mean, std)
    assert codes.dtype == torch.int8 and scale.dtype == torch.float16
    assert codes.abs().amax(-1).eq(127).float().mean() > 0.99, "every patch uses the whole range"
    back = kernels.Patches(codes, scale, mean, std).take(torch.arange(200))
    apart = 1 - F.cosine_similarity(back, vectors, dim=-1)
    assert apart.mean() < 1e-4 and apart.max() < 1e-3


def test_float16_patches_are_taken_as_they_are(case):
    patches = kernels.Patches(case["patches"].half())
    assert torch.equal(patches.take(torch.tensor([3, 3]), torch.double), patches.tokens[[3, 3]].double())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_features_that_are_no_numbers_are_not_stored(bad):
    vectors = torch.ones(2, 3, 4)
    vectors[1, 2, 3] = bad
    with pytest.raises(ValueError, match="NaN or infinite"):
        kernels.quantise(vectors, torch.zeros(4), torch.ones(4))


def test_a_constant_patch_quantises_without_a_division_by_zero():
    codes, scale = kernels.quantise(torch.full((1, 1, 4), 0.5), torch.full((4,), 0.5), torch.ones(4))
    assert codes.eq(0).all() and scale.isfinite().all()
