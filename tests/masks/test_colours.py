"""Colours of classes: apart from each other, near what is usual, the same for the same names."""

import numpy as np
import pytest

from fastzss import world
from fastzss.masks.colours import NOTHING, oklab, palette, usual_colours


def luminance(rgb):
    linear = np.where(rgb <= 10, rgb / 255 / 12.92, ((rgb / 255 + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize("count, least", [(12, 0.07), (32, 0.07), (150, 0.04), (256, 0.03)])
def test_colours_can_be_told_apart(count, least):
    colours = palette(range(count))
    assert colours.shape == (count, 3) and colours.dtype == np.uint8
    lab = oklab(np.vstack([colours, [NOTHING]]))  # 0.02 is about what the eye can just tell apart
    gaps = np.linalg.norm(lab[:, None] - lab[None], axis=-1) + 9 * np.eye(count + 1)
    assert gaps.min() > least


def test_a_colour_depends_on_the_names_alone():
    assert (palette(["cat", "dog"]) == palette(("cat", "dog"))).all()
    assert palette([]).shape == (0, 3)
    palette(["cat"])[:] = 0  # what a caller does to its palette is its own affair
    assert palette(["cat"]).any()


def test_things_have_their_usual_colour_and_stay_apart():
    names = ["mug", "sky", "the grass", "red car", "trees", "key", "sea", "lake"]
    colours = oklab(palette(names)).round(2)
    for name, word in [("sky", "sky"), ("the grass", "grass"), ("red car", "red"), ("trees", "tree"), ("sea", "sea")]:
        assert np.linalg.norm(colours[names.index(name)] - usual_colours()[word]) < 0.08
    lab = oklab(palette(world.NAMES))
    gaps = np.linalg.norm(lab[:, None] - lab[None], axis=-1) + 9 * np.eye(len(lab))
    assert gaps.min() > 0.07
    assert (palette(["red"] * 40)[1:] != palette(["red"])).any(1).all(), "one that is taken is not taken again"


def test_more_classes_than_colours_begin_anew():
    colours = palette(range(600))
    assert (colours[:256] == colours[256:512]).all() and len(np.unique(colours, axis=0)) == 256


def test_colours_show_on_light_and_on_dark():
    light = luminance(palette(range(256)).astype(float))
    assert (1.05 / (light + 0.05)).min() > 1.3 and ((light + 0.05) / 0.06).min() > 1.8


def test_oklab_of_white_and_black_are_1_and_0():
    np.testing.assert_allclose(oklab([[255, 255, 255], [0, 0, 0]]), [[1, 0, 0], [0, 0, 0]], atol=1e-6)
