"""The map of concepts and patches: like is beside like, and every word can be read."""

import re

import numpy as np
import pytest
from helpers.pages import Page

from fastzss.pages.maps import SIDE, apart, layout, map_svg
from fastzss.pages.report import page


@pytest.fixture(scope="module")
def groups():
    """Unit vectors [60, 16] of five groups, and which group each is of."""
    random = np.random.default_rng(0)
    kind = np.arange(60) % 5
    vectors = np.eye(16)[kind] + 0.15 * random.standard_normal((60, 16))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), kind


def test_like_is_beside_like(groups):
    vectors, kind = groups
    places = layout(vectors)
    far = np.linalg.norm(places[:, None] - places[None], axis=-1)
    np.fill_diagonal(far, np.inf)
    assert np.isfinite(places).all() and (kind[far.argmin(1)] == kind).mean() > 0.98
    assert (layout(vectors) == places).all()  # always the same


def test_two_points_and_equal_points_have_a_place():
    assert np.isfinite(layout(np.eye(4)[:2])).all()
    assert np.isfinite(layout(np.ones((6, 3)) / 3**0.5)).all()


def test_no_word_lies_over_another():
    names = [f"word {n}" for n in range(20)]
    places = apart(names, [(300.0, 200.0)] * 20)
    half = 3.4 * len(names[-1])
    for one in range(20):
        for other in range(one):
            (x, y), (u, v) = places[one], places[other]
            assert abs(x - u) > 2 * half - 8 or abs(y - v) >= 12
    assert all(0 < x < SIDE[0] and 0 < y < SIDE[1] for x, y in places)


def test_the_report_has_it():
    found = {"names": ["a & b", "sky"], "concepts": [[0, 0], [2, 1]], "patches": [[0.1, 0, 0], [2, 1.1, 1], [1, 1, 0]]}
    svg = map_svg(found)
    assert svg.count("<circle") == 5 and "a &amp; b" in svg
    assert all(0 <= float(x) <= SIDE[0] for x in re.findall(r'cx="([^"]+)"', svg))
    html = page({"map": found}, [])
    assert Page(html).count("svg") == 1 and "Words and patches" in html
    assert "Words and patches" not in page({}, [])
