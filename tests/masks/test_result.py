"""What is asked of a result: its scores, boxes, outlines, probabilities, and the files that it becomes."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from fastzss.base.errors import UserError
from fastzss.masks import fonts
from fastzss.masks.colours import NOTHING, palette
from fastzss.masks.result import Result

NAMES = ("sky", "dog", "grass")


@pytest.fixture
def result():
    winner = np.zeros((40, 60), int)
    winner[20:] = 2
    winner[10:30, 5:15], winner[5:8, 50:55] = 1, 1
    winner[:, 59], winner[:5, 59] = -1, 3
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8))
    return Result.of(image, NAMES, np.full((40, 60), 0.25, np.float32), winner)


def test_shares_and_confidence(result):
    assert list(result.scores) == list(NAMES)
    assert result.scores["dog"] == {"share": pytest.approx(215 / 2400), "confidence": pytest.approx(0.25)}
    assert sum(s["share"] for s in result.scores.values()) == pytest.approx(59 / 60), "nothing is no class"
    assert result.mask.dtype == np.uint8 and (result.mask[:, 59] == 255).all()


def test_it_is_one_line(result):
    assert repr(result) == "<Result 60 x 40: grass 45 % (0.25), sky 44 % (0.25), dog 9 % (0.25)>"
    many = Result(result.image, result.mask, NAMES, {str(k): {"share": 0.1, "confidence": 0.2} for k in range(9)})
    assert repr(many).endswith("4 (0.20), 4 more>") or repr(many).endswith(", 4 more>")


def test_a_notebook_shows_the_picture(result):
    shown = Image.open(io.BytesIO(result._repr_png_()))
    assert shown.format == "PNG" and shown.tobytes() == result.picture.tobytes()


def test_boxes_are_those_of_regions_the_largest_first(result):
    boxes = result.boxes()
    assert boxes["dog"] == [(5, 10, 15, 30), (50, 5, 55, 8)]
    assert result.boxes(least=0.01)["dog"] == [(5, 10, 15, 30)]
    assert set(boxes) == set(NAMES) and all(boxes.values())


def test_polygons_are_the_outlines_of_classes(result):
    assert sorted(ring.tolist() for ring in result.polygons()["dog"]) == [
        [[5, 10], [15, 10], [15, 30], [5, 30]],
        [[50, 5], [55, 5], [55, 8], [50, 8]],
    ]


def test_more_than_255_classes_need_two_bytes(tmp_path):
    names = tuple(f"thing {k}" for k in range(300))
    winner = np.arange(300).reshape(10, 30)
    winner[0, 0] = -1
    result = Result.of(Image.new("RGB", (30, 10)), names, np.zeros((10, 30)), winner)
    assert result.mask.dtype == np.uint16 and result.mask[0, 0] == 65535 and result.mask[-1, -1] == 299
    _, mask = result.save(tmp_path / "many.png")
    assert np.array_equal(np.array(Image.open(mask)), result.mask)
    assert len(Result.of(result.image, names[:255], np.zeros((10, 30)), winner % 255).mask.tobytes()) == 300


def test_saved_masks_hold_their_names_and_colours(result, tmp_path):
    picture, mask = result.save(tmp_path / "new" / "folder" / "scene.png")
    assert sorted(p.name for p in picture.parent.iterdir()) == ["scene.mask.png", "scene.png"]
    with Image.open(mask) as saved:
        assert saved.mode == "P" and json.loads(saved.text["names"]) == list(NAMES)
        assert np.array_equal(np.array(saved), result.mask)
        colours = np.array(saved.getpalette(), np.uint8).reshape(-1, 3)
    assert (colours[:3] == palette(NAMES)).all() and (colours[255] == NOTHING).all()
    assert Image.open(picture).tobytes() == result.picture.tobytes()


@pytest.mark.parametrize("name, saved", [("a", "a.png"), ("a.jpg", "a.jpg"), ("b.webp", "b.webp"), ("A.PNG", "A.PNG")])
def test_the_ending_chooses_the_format(result, tmp_path, name, saved):
    picture, mask = result.save(tmp_path / name)
    assert picture == tmp_path / saved and mask.name.lower() == f"{name[0]}.mask.png".lower()
    assert Image.open(picture).size == result.picture.size


def test_a_place_that_is_none_is_one_sentence(result, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.png").mkdir()
    none = r"a.xyz: is no picture that can be written \(.xyz\); expected a file such as a.png"
    for path, sentence in [("a.xyz", none), ("folder.png", "is a folder"), ("file/a.png", "cannot write")]:
        with pytest.raises(UserError, match=sentence):
            result.save(tmp_path / path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.png"]


def test_names_that_no_font_has_stand_in_a_legend(result, tmp_path, monkeypatch):
    monkeypatch.setattr(fonts, "files", lambda: [])
    fonts.file_for.cache_clear()
    names = ("sky", "\u72d7", "grass")
    picture, _ = Result(result.image, result.mask, names, result.scores).save(tmp_path / "scene.png")
    fonts.file_for.cache_clear()
    assert picture.with_suffix(".legend.txt").read_text(encoding="utf-8") == "1\t\u72d7\n"


def test_probabilities_are_the_shares_of_classes_at_the_pixels():
    maps = (torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0)) * 3).softmax(0)
    image, winner = Image.new("RGB", (6, 8)), torch.cat([maps.argmax(0)] * 2).numpy()
    parts = (((0, 0, 6, 4), maps), ((0, 4, 6, 8), maps))
    found = Result.of(image, NAMES, np.zeros((8, 6)), winner, parts).probabilities()
    assert found.shape == (3, 8, 6) and np.allclose(found.sum(0), 1, atol=1e-6)
    assert np.allclose(found[:, 4:], maps.numpy(), atol=1e-6)
    assert np.array_equal(found.argmax(0), winner)
    with pytest.raises(ValueError, match="has no shares"):
        Result(image, winner.astype(np.uint8), NAMES, {}).probabilities()
