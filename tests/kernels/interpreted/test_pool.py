"""Concept pooling in Triton's interpreter against the definition in float64."""

import pytest
import torch
import torch.nn.functional as F
import triton.language as tl

from fastzss.kernels import fused_pool, reference
from fastzss.kernels.configs import arch_of, chunks, options
from fastzss.kernels.fused_sums import sum_rows
from fastzss.kernels.lists import groups, lists_of

pytestmark = pytest.mark.usefixtures("poison")

STORAGES = [torch.float32, torch.float16, torch.int8]
# N and D: one patch, tiles with and without a rest, chunks with and without padding
SIZES = [(1, 96), (15, 128), (16, 24), (16, 192), (50, 384), (50, 100), (256, 128)]
EXACT = 2e-6
TEMPERATURE = 0.1


def stored(storage, n, N, D, seed=0):
    """Unit patches with a mean that is not zero, stored."""
    torch.manual_seed(seed)
    vectors = F.normalize(torch.randn(n, N, D, dtype=torch.double) + torch.randn(D, dtype=torch.double), dim=-1)
    if storage != torch.int8:
        return reference.Patches(vectors.to(storage))
    mean, std = vectors.mean((0, 1)).float(), 0.02 + vectors.std((0, 1), correction=0).float()
    return reference.Patches(*reference.quantise(vectors, mean, std), mean, std)


def mentions(counts, K):
    """(row, name) in mixed order: image i has counts[i] mentions."""
    row = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return row[torch.randperm(len(row))], torch.randint(K, (len(row),))


def case(storage, N, D, counts=(1, 0, 17, 16), K=5):
    patches = stored(storage, len(counts), N, D)
    row, name = mentions(counts, K)
    return F.normalize(torch.randn(K + 1, D, dtype=torch.double), dim=-1), patches, row, name


def exact(patches):
    return patches if patches.scale is not None else reference.Patches(patches.tokens.double())


def results(op, classes, patches, row, name, size=1.0, **more):
    """(pooled, gradient of the classes) under an upstream gradient of the given size."""
    classes = classes.clone().requires_grad_()
    pooled = op(classes, patches, row, name, TEMPERATURE, **more)
    upstream = torch.randn(pooled.shape, generator=torch.Generator().manual_seed(1), dtype=torch.double)
    return pooled.detach(), torch.autograd.grad(pooled, classes, size * upstream.to(pooled.dtype))[0]


def defined(classes, patches, *rest, **more):
    return results(reference.concept_pool, classes, exact(patches), *rest, **more)


def fused(classes, *rest, **more):
    return results(fused_pool.concept_pool, classes.float(), *rest, **more)


def gap(found, exact):
    """Relative distance from the exact tensor; where that is zero, the absolute one."""
    assert found.shape == exact.shape and found.isfinite().all()
    return ((found.double() - exact.double()).norm() / (exact.norm() if exact.norm() > 1e-9 else 1)).item()


def same(found, exact, tolerance=EXACT):
    gaps = [gap(f, e) for f, e in zip(found, exact, strict=True)]
    assert max(gaps) <= tolerance, f"pooled off by {gaps[0]:.2g}, gradient by {gaps[1]:.2g}"


@pytest.mark.parametrize("tma", [False, True], ids=["pointers", "descriptors"])
@pytest.mark.parametrize("storage", STORAGES, ids=str)
@pytest.mark.parametrize("N, D", SIZES)
def test_pooled_vectors_and_gradients(N, D, storage, tma):
    inputs = case(storage, N, D)
    # one patch: attention is 1 whatever the query, and the gradient a difference of equal numbers
    same(fused(*inputs, TMA=tma), defined(*inputs), 1e-5 if N == 1 else EXACT)


@pytest.mark.parametrize("storage", STORAGES, ids=str)
def test_the_size_of_the_default_backbone(storage):
    inputs = case(storage, 256, 768, counts=(2, 1))
    same(fused(*inputs), defined(*inputs))


@pytest.mark.parametrize("D", [1024, 1100])
def test_the_largest_sizes(D):
    inputs = case(torch.int8, 20, D, counts=(2,))
    same(fused(*inputs), defined(*inputs))


@pytest.mark.parametrize("size", [1.0, 1e-7])
@pytest.mark.parametrize("storage", [torch.float16, torch.int8], ids=str)
def test_half_precision_products(storage, size):
    """As on a GPU; a gradient far below the smallest float16 must come through as well as a large one."""
    inputs = case(storage, 50, 96)
    pooled, gradient = fused(*inputs, size=size, COMPUTE=tl.float16)
    expected = defined(*inputs, size=size)
    assert gap(pooled, expected[0]) <= 1e-3
    assert ((gradient - expected[1]).norm() / expected[1].norm()).item() <= 2e-3


@pytest.mark.parametrize(
    "more",
    [dict(BN=16), dict(BN=64), dict(group=1), dict(group=5), dict(DC=32, CHUNKS=3), dict(DC=128, CHUNKS=1, TMA=False)],
    ids=str,
)
def test_tiles_chunks_and_groups_do_not_matter(more):
    inputs = case(torch.int8, 50, 96, counts=(1, 0, 9))
    same(fused(*inputs, **more), defined(*inputs))


def test_same_bits_every_time():
    inputs = case(torch.int8, 50, 96, counts=(1, 17))
    for first, second in zip(fused(*inputs), fused(*inputs), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("tma", [False, True], ids=["pointers", "descriptors"])
def test_other_images_are_not_looked_at(tma):
    classes, patches, row, name = case(torch.float32, 15, 24, counts=(0, 3, 0))
    patches.tokens[[0, 2]] = torch.nan
    inputs = classes, reference.Patches(patches.tokens[1:2]), row - 1, name
    same(fused(classes, patches, row, name, TMA=tma), defined(*inputs))


def test_the_order_of_mentions_is_kept():
    classes, patches, row, name = case(torch.float16, 16, 24)
    order = torch.randperm(len(row))
    pooled, gradient = fused(classes, patches, row, name)
    shuffled = fused_pool.concept_pool(classes.float(), patches, row[order].int(), name[order].int(), TEMPERATURE)
    assert gap(shuffled, pooled[order]) <= 1e-6


@pytest.mark.parametrize("storage", STORAGES, ids=str)
def test_inputs_that_are_not_contiguous(storage):
    classes, patches, row, name = case(storage, 15, 48, counts=(2, 0, 1))
    expected = defined(classes, patches, row, name)
    wide = torch.zeros(3, 30, 96, dtype=storage)
    for view in (wide[:, :15, :48], wide[:, 1::2, :48], wide[:, :15, ::2], wide.transpose(0, 1)[:3, :15, :48]):
        if view.shape == patches.tokens.shape:
            view.copy_(patches.tokens)
            other = patches._replace(tokens=view)
            if patches.scale is not None:
                other = other._replace(
                    scale=patches.scale.T.contiguous().T, std=torch.stack([patches.std] * 2, 1)[:, 0]
                )
            same(fused(classes.T.contiguous().T, other, row.repeat_interleave(2)[::2], name), expected)
    classes = classes.float().requires_grad_()
    fused_pool.concept_pool(classes, patches, row, name, TEMPERATURE).sum().backward()  # an expanded upstream gradient


@pytest.mark.parametrize("storage", STORAGES, ids=str)
def test_no_mention(storage):
    classes, patches, *_ = case(storage, 16, 24)
    none = torch.empty(0, dtype=torch.long)
    pooled, gradient = fused(classes, patches, none, none)
    assert pooled.shape == (0, 24) and gradient.eq(0).all()


def test_storages_the_kernels_do_not_have_are_served_all_the_same():
    inputs = case(torch.float64, 16, 24)
    same(results(fused_pool.concept_pool, *inputs), defined(*inputs), 1e-10)


def test_a_class_with_many_mentions_and_one_with_none():
    values, name = torch.randn(100, 200), torch.full((100,), 2)
    sums = sum_rows(values, lists_of(name, 4))
    assert gap(sums[2], values.double().sum(0)) <= EXACT and sums[[0, 1, 3]].eq(0).all()


def test_groups_are_of_one_image_and_at_most_so_many():
    row = torch.tensor([7, 2, 7, 7, 2, 9])
    order, first = groups(row, 2)
    cut = [order[a:b].tolist() for a, b in zip(first[:-1], first[1:], strict=True)]
    assert cut == [[1, 4], [0, 2], [3], [5], [], []]


@pytest.mark.parametrize("D", [1, 16, 24, 96, 128, 192, 384, 500, 768, 1024, 1280, 5000])
@pytest.mark.parametrize("most, widest", [(4, 256), (8, 128)])
def test_chunks_hold_all_channels(D, most, widest):
    size, count = chunks(D, most, widest)
    assert size & (size - 1) == 0 and size >= 16 and count <= most and size * (count - 1) < D <= size * count
    assert size <= widest or D > most * widest


def test_a_measured_entry_wins_over_the_default(monkeypatch):
    monkeypatch.setattr("fastzss.kernels.configs.TUNED", {("op", 90, 768, 256, "int8"): {"BN": 64}})
    assert options("op", 90, 768, 200, torch.int8, {"BN": 32, "num_warps": 8}) == {"BN": 64, "num_warps": 8}
    assert options("op", 80, 768, 200, torch.int8, {"BN": 32}) == {"BN": 32}
    assert arch_of("cpu") == 0
