"""Regions of masks against a search by hand; outlines that give back their mask."""

import numpy as np
import pytest

from fastzss.masks.regions import Regions, outlines


def flooded(mask):
    """int [H, W]: numbers of connected regions, found by walking."""
    found, count = np.full(mask.shape, -1), 0
    for start in np.ndindex(mask.shape):
        if found[start] >= 0:
            continue
        found[start], todo = count, [start]
        while todo:
            y, x = todo.pop()
            for near in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                inside = 0 <= near[0] < mask.shape[0] and 0 <= near[1] < mask.shape[1]
                if inside and found[near] < 0 and mask[near] == mask[y, x]:
                    found[near] = count
                    todo.append(near)
        count += 1
    return found


@pytest.fixture(params=range(40))
def mask(request):
    random = np.random.default_rng(request.param)
    shape, kinds = random.integers(1, 20, 2), random.integers(1, 5)
    return random.integers(0, kinds, shape).astype((np.uint8, np.uint16)[request.param % 2])


def test_regions_are_those_found_by_walking(mask):
    regions, expected = Regions(mask), flooded(mask)
    assert np.array_equal(regions.painted(np.arange(len(regions))), expected)
    assert np.array_equal(regions.painted(regions.kind), mask)
    assert np.array_equal(regions.pixels, np.bincount(expected.ravel()))
    y, x = np.indices(mask.shape)
    assert np.array_equal(regions.at(y, x), expected)
    for region, box in enumerate(regions.box.tolist()):
        ys, xs = np.nonzero(expected == region)
        assert box == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


def test_no_small_region_stays(mask):
    cleaned = Regions(Regions(mask).without_small(6))
    assert len(cleaned) == 1 or cleaned.pixels.min() >= 6
    assert np.array_equal(Regions(mask).without_small(0), mask)


def test_a_small_region_becomes_its_largest_neighbour():
    mask = np.zeros((9, 12), np.uint8)
    mask[:, 8:] = 1
    mask[4, 7] = 2  # between the two
    assert np.array_equal(Regions(mask).without_small(2)[:, :8], np.zeros((9, 8)))
    assert np.array_equal(Regions(mask).without_small(1), mask)


def test_outlines_filled_give_back_the_mask(mask):
    inside, filled, area = mask == 0, np.zeros(mask.shape, bool), 0
    for ring in outlines(inside):
        following = np.roll(ring, -1, 0)
        assert ((ring == following).sum(1) == 1).all(), "sides are upright or level, and none is without length"
        area += (ring[:, 0] * following[:, 1] - ring[:, 1] * following[:, 0]).sum() / 2
        for (x, y), (to, bottom) in zip(ring, following, strict=True):
            if x == to:
                filled[min(y, bottom) : max(y, bottom), x:] ^= True
    assert np.array_equal(filled, inside)
    assert area == inside.sum(), "holes go the other way round"


def test_a_ring_and_its_hole():
    inside = np.ones((5, 6), bool)
    inside[1:3, 2:4] = False
    outer, hole = outlines(inside)
    assert outer.tolist() == [[0, 0], [6, 0], [6, 5], [0, 5]]
    assert sorted(hole.tolist()) == [[2, 1], [2, 3], [4, 1], [4, 3]]
    assert outlines(np.zeros((3, 3), bool)) == []
