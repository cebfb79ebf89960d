"""The operations: their meaning on examples one can check by hand, their gradients, their invariances.

Every test runs on the definition and on the form for CPUs.
"""

import pytest
import torch
import torch.nn.functional as F

from fastzss import kernels
from fastzss.kernels import reference_tower

B, N, D, K = 5, 7, 6, 4


@pytest.fixture(autouse=True, params=["reference", "chunked"])
def backend(request, monkeypatch):
    monkeypatch.setenv("FASTZSS_BACKEND", request.param)


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
    return kernels.class_vectors(units[case["token"]], case["offset"], case["name"], K)


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
    assert torch.autograd.gradcheck(lambda t, s: kernels.clip_loss(images, t, s), (texts, log_scale))


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
    classes = kernels.class_vectors(units, torch.zeros(1, dtype=torch.int32), none, K)
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
    assert torch.allclose(kernels.clip_loss(images, texts, torch.tensor(9.0).log()), expected)


def test_other_captions_of_the_same_image_are_no_negatives(case):
    images, texts = case["patches"][:, 0], case["units"][:B]
    images[3] = images[1]
    logits = 9.0 * images @ texts.T
    logits[1, 3] = logits[3, 1] = -torch.inf
    own = torch.arange(B)
    expected = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    same = torch.tensor([7, 4, 9, 4, 2])
    assert torch.allclose(kernels.clip_loss(images, texts, torch.tensor(9.0).log(), same=same), expected)


def test_the_local_loss_is_the_concept_loss_of_the_pooled_patches(case):
    classes = classes_of(case, case["units"])
    everyone = torch.tensor([True, False, True, True])
    patches = kernels.Patches(case["patches"])
    found = kernels.local_loss(
        classes, patches, case["row"], case["name"], everyone, case["weight"], temperature=0.1, scale=14.0
    )
    assert torch.allclose(found, local(case, case["units"]))


def test_only_used_tokens_are_projected(case):
    tokens, projection = torch.randn(2, 10, 3, dtype=torch.double), torch.randn(3, D, dtype=torch.double)
    index = torch.tensor([0, 13, 13, 19], dtype=torch.int32)
    found = kernels.used_units(tokens, index, projection)
    assert torch.allclose(found, F.normalize(tokens.view(20, 3) @ projection, dim=-1)[index.long()])


@pytest.mark.parametrize("hard", [False, True])
def test_groups_share_the_patches(case, hard):
    logits = torch.randn(2, 3, N, dtype=torch.double, requires_grad=True)
    values = torch.randn(2, N, 4, dtype=torch.double)
    share = logits.softmax(1)
    weights = F.one_hot(logits.argmax(1), 3).mT.double() if hard else share
    found = kernels.group_pool(logits, values, hard)
    assert torch.allclose(found, (weights @ values) / (weights.sum(-1, keepdim=True) + 1))
    g = torch.randn_like(found)
    if hard:  # straight through: the gradient of the soft weights, taken where the hard ones are
        sharp = weights.detach().clone().requires_grad_()
        slope = torch.autograd.grad((sharp @ values) / (sharp.sum(-1, keepdim=True) + 1), sharp, g)[0]
        expected = torch.autograd.grad(share, logits, slope)[0]
        assert torch.allclose(torch.autograd.grad(found, logits, g)[0], expected)
    else:
        assert torch.autograd.gradcheck(lambda x: kernels.group_pool(x, values, False), logits)


def test_a_segment_is_matched_with_its_nearest_view():
    views = torch.tensor([[[0.0, 0.0], [4.0, 4.0], [2.0, 2.0]]])
    segments = torch.tensor([[[1.0, 1.0], [3.5, 4.0]]], requires_grad=True)  # the first is as near to the third view
    loss = kernels.segment_match(segments, views)
    loss.backward()
    assert loss.item() == pytest.approx((1 + 1 + 0.5 + 0) / 4)
    assert segments.grad.tolist() == [[[0.25, 0.25], [-0.25, 0.0]]]


def test_packed_captions_do_not_see_each_other():
    qkv = torch.randn(2, 9, 96, dtype=torch.double)
    segment = torch.tensor([[0, 0, 0, 1, 1, 1, 1, -1, -1], [2, 2, 2, 2, 2, 2, 2, 2, 2]], dtype=torch.int32)
    found = reference_tower.attention(qkv, reference_tower.caption_mask(segment), 4)
    q, k, v = qkv[:1, 3:7].view(1, 4, 3, 4, 8).permute(2, 0, 3, 1, 4)
    alone = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(1, 4, 32)
    assert torch.allclose(found[:1, 3:7], alone)
    assert found.isfinite().all()


def test_masked_attention_never_goes_to_cudnn(monkeypatch):
    real, seen = F.scaled_dot_product_attention, []

    def watched(*rest, **more):
        seen.append(torch.backends.cuda.cudnn_sdp_enabled())
        return real(*rest, **more)

    monkeypatch.setattr(F, "scaled_dot_product_attention", watched)
    before = torch.backends.cuda.cudnn_sdp_enabled()
    reference_tower.attention(torch.randn(1, 5, 24), reference_tower.caption_mask(torch.zeros(1, 5).int()), 2)
    assert seen == [False] and before and torch.backends.cuda.cudnn_sdp_enabled()


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
