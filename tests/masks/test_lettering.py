"""Names on pictures: on their region, not over each other, in any script or as a number."""

import numpy as np
import pytest
from PIL import Image, ImageFont

from fastzss.masks import fonts
from fastzss.masks.colours import palette
from fastzss.masks.fonts import font_for
from fastzss.masks.lettering import depth, letter, places, plate


def overlapping(one, other):
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def test_a_name_stands_where_its_region_has_most_room():
    mask = np.zeros((300, 600), np.uint8)
    mask[100:200, 50:450] = 1
    mask[140:160, 450:] = 1  # a thin tail, which has no room
    found = {k: place for k, _, place in places(mask, {0: (60, 20), 1: (60, 20)})}
    assert mask[round(found[1][1]), round(found[1][0])] == 1 and abs(found[1][1] - 150) < 15
    assert 80 < found[1][0] < 420


def test_names_are_on_the_picture_and_not_over_each_other():
    random = np.random.default_rng(0)
    for _ in range(20):
        small = random.integers(0, 6, (5, 7)).astype(np.uint8)
        mask = np.asarray(Image.fromarray(small).resize((490, 350), Image.Resampling.NEAREST))
        sides = {k: (30 + 12 * k, 20) for k in range(6)}
        plates = [plate(place, sides[k]) for k, _, place in places(mask, sides)]
        assert len(plates) > 6
        for n, one in enumerate(plates):
            assert one[0] >= 0 and one[1] >= 0 and one[2] <= 490 and one[3] <= 350
            assert not any(overlapping(one, other) for other in plates[:n])


def test_a_region_smaller_than_its_name_stays_visible():
    mask = np.zeros((400, 400), np.uint8)
    mask[200:230, 200:230] = 1
    found = {k: (point, place) for k, point, place in places(mask, {0: (50, 20), 1: (80, 20)})}
    point, place = found[1]
    assert mask[round(point[1]), round(point[0])] == 1
    assert not overlapping(plate(place, (80, 20)), (205, 205, 225, 225))
    assert np.hypot(place[0] - 215, place[1] - 215) < 120


def test_a_minor_region_has_a_name_only_where_its_class_has_no_other():
    mask = np.zeros((400, 400), np.uint8)
    mask[10:40, 10:40], mask[300:330, 300:330], mask[100:200, 100:200] = 1, 2, 2  # 900 pixels of 160,000
    assert sorted(k for k, _, _ in places(mask, dict.fromkeys(range(3), (40, 15)))) == [0, 1, 2]


def test_depth_counts_steps_to_the_border():
    grid = np.zeros((5, 7), int)
    grid[:, 6] = 1
    assert depth(grid).tolist()[2] == [1, 2, 3, 3, 2, 1, 1]
    assert depth(np.zeros((1, 1), int)).tolist() == [[1]]


def test_a_name_changes_pixels_of_its_region_only():
    picture = Image.new("RGB", (600, 400), (90, 90, 90))
    mask = np.zeros((400, 600), np.uint8)
    mask[:, 300:] = 255
    assert letter(picture, mask, ["wall"], palette(["wall"])) == {}
    changed = (np.asarray(picture) != 90).any(-1)
    assert changed[:, :300].any() and not changed[:, 300:].any()


@pytest.mark.parametrize("text", ["caf\u00e9", "\u0441\u043e\u0431\u0430\u043a\u0430", "\u03b3\u03ac\u03c4\u03b1"])
def test_other_letters_get_a_font_that_has_them(text):
    if not fonts.files():
        pytest.skip("this machine has no fonts")
    font = font_for(text, 20)
    assert font is not None
    assert len({fonts.drawn(font, letter) for letter in set(text)}) == len(set(text)), "none is drawn as missing"


def test_a_name_that_no_font_can_write_is_a_number(monkeypatch):
    monkeypatch.setattr(fonts, "files", lambda: [])
    fonts.file_for.cache_clear()
    picture, mask = Image.new("RGB", (300, 200), (90, 90, 90)), np.zeros((200, 300), np.uint8)
    name = "\u72d7"
    assert letter(picture, mask, [name, "cat"], palette([name, "cat"])) == {0: name}
    number = Image.new("RGB", (300, 200), (90, 90, 90))
    letter(number, mask, ["0", "cat"], palette([name, "cat"]))
    assert picture.tobytes() == number.tobytes()
    fonts.file_for.cache_clear()


def test_a_damaged_font_is_passed_over(monkeypatch, tmp_path):
    (tmp_path / "a.ttf").write_bytes(b"no font")
    monkeypatch.setattr(fonts, "files", lambda: [str(tmp_path / "a.ttf")])
    fonts.file_for.cache_clear()
    assert font_for("\u00e9", 20) is None
    assert isinstance(font_for("cat", 20), ImageFont.FreeTypeFont)
    fonts.file_for.cache_clear()
