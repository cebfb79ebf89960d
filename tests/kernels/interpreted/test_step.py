"""The fused local loss in Triton's interpreter against the definition in float64."""

import pytest
import torch
import torch.nn.functional as F
import triton.language as tl

from fastzss.kernels import fused_step, reference

pytestmark = pytest.mark.usefixtures("poison")

STORAGES = [torch.float32, torch.float16, torch.int8]
TARGETS = ["label", "argmax"]
# N, D, K: one patch, tiles of patches, channels and classes with and without a rest
SIZES = [(1, 96, 5), (15, 24, 32), (16, 128, 33), (50, 100, 40), (50, 192, 70)]
EXACT = 2e-6
SCALE = 1 / 0.07


def case(storage, N, D, K, counts=(1, 0, 17, 2)):
    """(classes, patches, row, name, present, weight); every third class is absent."""
    torch.manual_seed(0)
    vectors = F.normalize(torch.randn(len(counts), N, D) + torch.randn(D), dim=-1)
    patches = reference.Patches(vectors.to(storage))
    if storage == torch.int8:
        mean, std = vectors.mean((0, 1)), 0.02 + vectors.std((0, 1), correction=0)
        patches = reference.Patches(*reference.quantise(vectors, mean, std), mean, std)
    present = torch.arange(K) % 3 != 2
    row = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))[torch.randperm(sum(counts))]
    name = present.nonzero().flatten()[torch.randint(int(present.sum()), (len(row),))]
    classes = F.normalize(0.3 * torch.randn(K, D, dtype=torch.double) + torch.randn(D, dtype=torch.double), dim=-1)
    return classes * present[:, None], patches, row, name, present, torch.randint(1, 4, (len(row),)).double()


def results(op, classes, *rest, target="label", temperature=0.1, **more):
    classes = classes.clone().requires_grad_()
    loss = op(classes, *rest, temperature=temperature, scale=SCALE, target=target, **more)
    return loss.detach(), torch.autograd.grad(3 * loss, classes)[0]


def pool_then_classify(classes, patches, row, name, present, weight, *, temperature, scale, target):
    pooled = reference.concept_pool(classes, patches, row, name, temperature)
    return reference.concept_loss(pooled, classes, present, name, weight, scale, target)


def defined(classes, patches, *rest, **more):
    patches = patches if patches.scale is not None else reference.Patches(patches.tokens.double())
    return results(pool_then_classify, classes, patches, *rest, **more)


def fused(classes, *rest, **more):
    return results(fused_step.local_loss, classes.float(), *rest, fused=True, **more)


def gap(found, exact):
    assert found.shape == exact.shape and found.isfinite().all()
    return ((found.double() - exact.double()).norm() / (exact.norm() if exact.norm() > 1e-9 else 1)).item()


def same(found, exact, tolerance=EXACT):
    gaps = [gap(f, e) for f, e in zip(found, exact, strict=True)]
    assert max(gaps) <= tolerance, f"loss off by {gaps[0]:.2g}, gradient by {gaps[1]:.2g}"


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("storage", STORAGES, ids=str)
@pytest.mark.parametrize("N, D, K", SIZES)
def test_loss_and_gradient(N, D, K, storage, target):
    inputs = case(storage, N, D, K)
    same(fused(*inputs, target=target), defined(*inputs, target=target))


@pytest.mark.parametrize("target", TARGETS)
def test_the_size_of_the_default_backbone(target):
    inputs = case(torch.int8, 256, 768, 20, counts=(2,))
    same(fused(*inputs, target=target), defined(*inputs, target=target))


@pytest.mark.parametrize("storage", [torch.float16, torch.int8], ids=str)
def test_half_precision_products(storage):
    inputs = case(storage, 50, 96, 20)
    same(fused(*inputs, COMPUTE=tl.float16), defined(*inputs), 5e-3)


@pytest.mark.parametrize(
    "more", [dict(BN=16), dict(BK=16), dict(group=1), dict(TMA=False), dict(DC=32, CHUNKS=3)], ids=str
)
def test_tiles_chunks_and_groups_do_not_matter(more):
    inputs = case(torch.int8, 50, 96, 40, counts=(1, 0, 7))
    same(fused(*inputs, **more), defined(*inputs))


@pytest.mark.parametrize("storage", STORAGES, ids=str)
def test_it_is_pooling_and_cross_entropy(storage):
    inputs = case(storage, 16, 24, 20)
    same(fused(*inputs), results(fused_step.local_loss, inputs[0].float(), *inputs[1:]))


def test_same_bits_every_time():
    inputs = case(torch.int8, 50, 96, 40, counts=(1, 17))
    for first, second in zip(fused(*inputs), fused(*inputs), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("target", TARGETS)
def test_weight_two_is_the_mention_twice(target):
    *rest, row, name, present, weight = case(torch.int8, 15, 24, 8)
    weight = torch.ones(len(row))
    twice = torch.cat([torch.arange(len(row)), torch.tensor([0])])
    weight[0] = 2
    once = fused(*rest, row, name, present, weight, target=target)
    same(once, fused(*rest, row[twice], name[twice], present, torch.ones(len(twice)), target=target), 1e-6)


def test_absent_classes_are_no_candidates():
    classes, *rest, name, present, weight = case(torch.float32, 15, 24, 9)
    fewer, index = classes[present], present.cumsum(0) - 1
    loss, gradient = fused(classes, *rest, name, present, weight)
    expected = fused(fewer, *rest, index[name], torch.ones(len(fewer), dtype=torch.bool), weight)
    same((loss, gradient[present]), expected, 1e-6)
    assert gradient[~present].eq(0).all()


@pytest.mark.parametrize("fused_step_asked", ["0", "1"])
def test_no_mention_is_a_loss_of_zero_with_zero_gradient(fused_step_asked, monkeypatch):
    monkeypatch.setenv("FASTZSS_FUSED_STEP", fused_step_asked)
    classes, patches, _, _, present, _ = case(torch.int8, 15, 24, 8)
    none = torch.empty(0, dtype=torch.long)
    loss, gradient = results(fused_step.local_loss, classes.float(), patches, none, none, present, torch.empty(0))
    assert loss.item() == 0 and gradient.shape == classes.shape and gradient.eq(0).all()


def test_a_rank_gets_its_share():
    """Of a batch on two ranks: the shares of the halves add up to the loss of the whole."""
    classes, patches, row, name, present, weight = case(torch.int8, 15, 24, 8)
    whole, shares = fused(classes, patches, row, name, present, weight), []
    for half in (slice(0, 7), slice(7, None)):
        rank = (row[half], name[half], present, weight[half])
        shares.append(fused(classes, patches, *rank, all_sum=lambda _: weight.sum()))
    same([sum(part) for part in zip(*shares, strict=True)], whole, 1e-6)


def test_inputs_that_are_not_contiguous():
    classes, patches, row, name, present, weight = case(torch.int8, 15, 24, 8)
    expected = defined(classes, patches, row, name, present, weight)
    apart = [t.repeat_interleave(2)[::2] for t in (row, name, present, weight)]
    tokens = torch.zeros(4, 15, 48, dtype=torch.int8)[:, :, ::2].copy_(patches.tokens)
    found = fused(classes.T.contiguous().T, patches._replace(tokens=tokens), *apart)
    same(found, expected)


def test_autocast_shortens_the_products_and_nothing_else():
    inputs = case(torch.int8, 50, 96, 20)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = results(fused_step.local_loss, inputs[0].float(), *inputs[1:])
    assert all(part.dtype == torch.float32 for part in found)
    same(found, defined(*inputs), 1e-2)


def test_a_gradient_as_small_as_a_scaled_loss_makes_it_survives_float16():
    classes, *rest = case(torch.int8, 50, 96, 20)
    exact = defined(classes.half().double(), *rest)[1] / 3
    classes = classes.half().requires_grad_()
    for factor in (1e-4, 4096.0, -1.0):
        loss = fused_step.local_loss(classes, *rest, temperature=0.1, scale=SCALE)
        (found,) = torch.autograd.grad(loss * factor, classes)
        # a sum near 6e-8 has few bits as a float16; the sum itself is as exact as the classes' products are
        assert (found.double() - factor * exact).abs().max() <= 1e-2 * (factor * exact).abs().max() + 3e-8


@pytest.mark.parametrize("storage", STORAGES, ids=str)
def test_a_scale_that_learns(storage):
    """At a scale that is too large by far: near the best one its gradient is a difference of equals."""
    classes, patches, *rest = case(storage, 15, 24, 8)

    def learned(op, dtype):
        stored = patches if patches.scale is not None else reference.Patches(patches.tokens.to(dtype))
        leaves = classes.to(dtype).requires_grad_(), torch.tensor(40.0, dtype=dtype, requires_grad=True)
        loss = op(leaves[0], stored, *rest, temperature=0.1, scale=leaves[1])
        return [loss, *torch.autograd.grad(loss, leaves)]

    same(learned(fused_step.local_loss, torch.float32), learned(reference.local_loss, torch.double))
