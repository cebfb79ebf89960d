"""Drawing: overlays of every size, charts."""

import re
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from fastzss.masks.colours import NOTHING, palette
from fastzss.masks.drawing import NARROW, WIDTH, borders, colour_mask, fitted, hatch, named, overlay
from fastzss.pages.charts import axis, curve_svg


def picture(width, height, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(noise)


def test_it_needs_no_torch():
    code = "import sys, fastzss.masks.drawing; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_mask_shows_the_colours_of_its_classes():
    mask = np.array([[0, 1, 255]], np.uint8)
    shown = np.asarray(colour_mask(mask, np.array([[1, 2, 3], [4, 5, 6]], np.uint8)))
    assert shown.tolist() == [[[1, 2, 3], [4, 5, 6], list(NOTHING)]]


def test_borders_are_one_pixel_wide():
    mask = np.array([[0, 0, 1], [0, 0, 1], [2, 2, 2]], np.uint8)
    assert borders(mask).astype(int).tolist() == [[0, 1, 0], [1, 1, 1], [0, 0, 0]]


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (37, 53), (128, 128)], ids=lambda s: "x".join(map(str, s)))
def test_an_overlay_keeps_the_size(size):
    mask = np.random.default_rng(1).integers(0, 4, size[::-1], np.uint8)
    shown = overlay(picture(*size), mask, palette(range(3)))
    assert shown.size == size and shown.mode == "RGB"


def test_an_overlay_mixes_grey_and_colour_and_leaves_nothing_alone():
    image = Image.fromarray(np.full((2, 4, 3), (200, 100, 0), np.uint8))
    grey = np.asarray(image.convert("L"), float)[0, 0]
    mask = np.array([[0, 0, 255, 255]] * 2, np.uint8)
    shown = np.asarray(overlay(image, mask, np.array([[0, 0, 250]], np.uint8), opacity=0.4))
    np.testing.assert_allclose(shown[0, 0], [0.6 * grey, 0.6 * grey, 0.6 * grey + 100], atol=1)
    assert (shown[:, 1] < shown[:, 0]).all()  # the outline is darker
    assert (shown[:, 2:] == (200, 100, 0)).all()


def test_an_overlay_of_one_class_has_no_outline():
    flat = overlay(Image.new("L", (9, 5), 128), np.zeros((5, 9), np.uint8), palette(["all"]))
    assert len(flat.getcolors()) == 1


def test_an_overlay_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"\(3, 2\), the mask \(2, 3\)"):
        overlay(picture(3, 2), np.zeros((3, 2), np.uint8), palette(["a"]))


@pytest.mark.parametrize(
    "size, least, most, expected",
    [((128, 128), 384, None, (384, 384)), ((100, 40), 384, None, (400, 160)), ((1, 1), 384, None, (384, 384)),
     ((3, 2000), 384, None, (3, 2000)), ((900, 600), 384, None, (900, 600)), ((2000, 1000), 256, 512, (512, 256)),
     ((3000, 1), 256, 512, (512, 1))],
)  # fmt: skip
def test_pictures_are_fitted(size, least, most, expected):
    mask = np.random.default_rng(0).integers(0, 3, size[::-1], np.uint8)
    image, fitted_mask = fitted(picture(*size), mask, least, most)
    assert image.size == expected and fitted_mask.shape == expected[::-1] and fitted_mask.dtype == np.uint8
    if expected[0] > size[0]:
        factor = expected[0] // size[0]
        assert (fitted_mask == mask.repeat(factor, 0).repeat(factor, 1)).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (128, 128), (641, 479)], ids=str)
def test_every_picture_can_have_names(size):
    names = [
        "a small thing",
        "b" * 500,
        "two\nlines",
        "cr\N{LATIN SMALL LETTER E WITH GRAVE}me",
        "",
        "\N{ZERO WIDTH SPACE}",
    ]
    mask = (np.arange(size[0] * size[1]).reshape(size[::-1]) // 50 % 7).astype(np.uint8)
    shown, _ = named(picture(*size), mask, names)
    assert shown.size == (size if size[0] >= NARROW else fitted(picture(*size), mask, WIDTH)[0].size)


def test_specks_belong_to_what_is_around_them():
    image, mask = Image.new("RGB", (400, 400), "white"), np.zeros((400, 400), np.uint8)
    mask[100:300, 100:300] = 1
    clean, _ = named(image, mask, ["wall", "door"])
    mask[5:15, 5:15], mask[150:160, 250:260] = 1, 0  # 100 pixels of 160,000
    assert named(image, mask, ["wall", "door"])[0].tobytes() == clean.tobytes()
    mask[5:45, 5:45] = 1
    assert named(image, mask, ["wall", "door"])[0].tobytes() != clean.tobytes()


def test_what_is_wrong_is_hatched():
    picture, wrong = Image.new("RGB", (600, 600), (200, 100, 50)), np.zeros((300, 300), bool)
    wrong[:150] = True
    hatch(picture, wrong)
    shown = (np.asarray(picture) == (200, 100, 50)).all(-1)
    assert shown[300:].all() and 0.7 < shown[:300].mean() < 0.9
    assert not shown[:300].all(0).any() and not shown[:300].all(1).any(), "every line of pixels has a stripe"


LINE = {"global only": [(0, 5.0), (100, 2.5), (200, 1.25)], "both": [(0, 4.0), (200, 1.0)]}


def test_a_chart_is_well_formed_and_draws_every_series():
    root = ElementTree.fromstring(curve_svg(LINE, "Loss", "step", "nats"))
    assert [len(p.get("points").split()) for p in root.iter("polyline")] == [3, 2]
    words = [t.text for t in root.iter("text")]
    assert {"Loss", "step", "nats", "global only", "both", "0", "200"} <= set(words)
    assert len({p.get("stroke") for p in root.iter("polyline")}) == 2


def test_a_chart_stays_inside_its_frame():
    root = ElementTree.fromstring(curve_svg(LINE, "Loss", "step", "nats"))
    width, height = (float(v) for v in root.get("viewBox").split()[2:])
    dots = [[float(v) for v in dot.split(",")] for p in root.iter("polyline") for dot in p.get("points").split()]
    assert all(0 <= x <= width and 0 <= y <= height for x, y in dots)
    assert dots[0][1] < dots[1][1] < dots[2][1]  # a smaller loss is drawn lower


def test_a_chart_takes_the_colours_of_its_page():
    svg = curve_svg(LINE, "Loss", "step", "nats", colours={"both": "var(--strong)"})
    assert 'stroke="var(--strong)"' in svg and "var(--series-1, #" in svg and "currentColor" in svg


def test_a_chart_escapes_what_it_is_told():
    svg = curve_svg({"<b>&": [(0, 1), (1, 2)]}, '"<script>', "<x>", "<y>")
    assert not re.search(r"<(script|b|x|y)>", svg)
    ElementTree.fromstring(svg)


@pytest.mark.parametrize(
    "series",
    [{}, {"empty": []}, {"nan": [(0, float("nan")), (1, float("inf"))]}, {"one": [(3, 2.0)]},
     {"flat": [(0, 0.0), (9, 0.0)]}, {"same": [(5, 1.0), (5, 1.0)]}, {"tiny": [(0, 1e-9), (1, 3e-9)]},
     {"huge": [(0, -1e12), (1e9, 1e12)]}, {"n" * 300: [(0, 1), (1, 2)]}, {str(k): [(0, k), (1, k)] for k in range(40)}],
    ids="none empty nan one flat same tiny huge long many".split(),
)  # fmt: skip
def test_odd_charts_are_drawn_too(series):
    svg = curve_svg(series, "t", "x", "y")
    ElementTree.fromstring(svg)
    assert "nan" not in svg.replace(">nan<", "") and "inf" not in svg
    assert svg.count("<circle") == (len(series) if "one" in series else 0)


def test_a_long_curve_is_drawn_as_means():
    points = [(x, float(x % 2)) for x in range(100_000)]
    svg = curve_svg({"noise": points}, "t", "x", "y")
    ys = {dot.split(",")[1] for dot in re.search(r'points="([^"]+)"', svg)[1].split()}
    assert len(svg) < 10_000 and len(ys) == 1


@pytest.mark.parametrize(
    "values, whole, labels",
    [([0, 300], False, ["0", "100", "200", "300"]), ([0.12, 0.57], True, ["0.0", "0.2", "0.4", "0.6"]),
     ([1.4, 5.5], True, ["0", "2", "4", "6"]), ([0, 20000], False, ["0", "5,000", "10,000", "15,000", "20,000"])],
)  # fmt: skip
def test_ticks_are_few_and_round(values, whole, labels):
    low, high, ticks = axis(values, whole)
    assert [label for _, label in ticks] == labels
    assert low <= min(values) and high >= max(values)
