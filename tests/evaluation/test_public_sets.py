"""The eight public sets in their real layouts, small: the traps of their labels, and scores known beforehand."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.benchmarks import PLACES, byte_of, colours, plant
from PIL import Image

from fastzss.bank.sets import class_groups
from fastzss.base.errors import UserError
from fastzss.evaluation.datasets import coco
from fastzss.evaluation.datasets.opened import PUBLIC, check, open_set, sets_meant
from fastzss.evaluation.evaluate import count, scores
from fastzss.evaluation.looks import WindowLooks
from fastzss.evaluation.protocols import protocol_of
from fastzss.evaluation.reading import WindowReading
from fastzss.evaluation.tally import Tally

CLASSES = {"voc20": 20, "voc21": 21, "context59": 59, "context60": 60, "coco_stuff": 171, "coco_object": 81,
           "cityscapes": 19, "ade20k": 150}  # fmt: skip
REDUCED = ("voc20", "context59", "ade20k")
PATCH = 16


class Planted:
    """A backbone that reads in the colours of an image which byte each patch shows most: a patch is one of 256."""

    mean, device, channels = (0.5, 0.5, 0.5), torch.device("cpu"), 256
    size, grid = 448, (28, 28)

    def at(self, height, width):
        return lambda pixels: (self.patches(pixels), None)

    def patches(self, pixels):
        cells = byte_of(pixels.permute(0, 2, 3, 1).numpy())
        n, h, w = len(cells), cells.shape[1] // PATCH, cells.shape[2] // PATCH
        cells = cells.reshape(n, h, PATCH, w, PATCH).transpose(0, 1, 3, 2, 4).reshape(n * h * w, -1)
        most = np.array([np.bincount(cell, minlength=256).argmax() for cell in np.minimum(cells, 255)])
        return torch.nn.functional.one_hot(torch.from_numpy(most), 256).float().view(n, h * w, 256)


def halves(size, left, right, band):
    """Two classes side by side, `band` ignored pixels on each side of the border, as the real labels have them."""
    mask = np.full(size, left, np.uint8)
    mask[:, size[1] // 2 :] = right
    label = mask.copy()
    label[:, size[1] // 2 - band : size[1] // 2 + band] = 255
    return mask, label


def judge(root, name, moved=0, skip=False):
    """Scores of a reading that takes each byte for its class, `moved` classes on."""
    data, protocol = open_set(name, root, skip=skip), protocol_of("tcl").of_set(name)
    K, offset = len(data.names), int(name in REDUCED)
    vectors = torch.zeros(K, 256)
    for k in range(K):
        vectors[(k + moved) % K, k + offset] = 1
    reading = WindowReading(SimpleNamespace(values=lambda field: field.patches @ vectors.T), range(K), protocol, False)
    tally = Tally(reading, K)
    bad = count(WindowLooks(data, Planted(), protocol.windows), [tally], skip=skip)
    return scores(tally.matrix, {}), (*data.bad, *bad), tally


@pytest.fixture
def trees(tmp_path):
    """A function that plants two images of a set: classes a | b and c | c, with bytes as the set has them."""

    def made(name, a=3, b=7, c=5):
        offset = int(name in REDUCED)
        one, label = halves((375, 501), a + offset, b + offset, 30)
        other = np.full((333, 247), c + offset, np.uint8)
        void = other.copy()
        void[:40] = 0 if name in REDUCED else 255
        keys = ("frankfurt/frankfurt_000000_000294", "munster/munster_000001_000019")
        keys = keys if name == "cityscapes" else ("2007_000033", "2007_000042")
        plant(tmp_path, name, dict(zip(keys, (one, other))), truths=dict(zip(keys, (label, void))))  # noqa: B905
        return tmp_path

    return made


@pytest.mark.parametrize("name", PUBLIC)
def test_a_perfect_reading_of_a_real_layout_gets_all_points_and_a_shifted_one_what_is_due(trees, name):
    root = trees(name)
    data = open_set(name, root)
    assert len(data.names) == CLASSES[name] == len(set(data.names)) and data.background == (
        data.names[0] == "background"
    )
    perfect, bad, _ = judge(root, name)
    assert perfect["all"] == perfect["accuracy"] == perfect["class_accuracy"] == 100 and not bad
    assert sum(value is not None for value in perfect["classes"]) == 3
    # 3, 7 and 5 are taken for 7, 11 and 9: none is ever right, and 7 of one image is what another place was taken for
    shifted, _, tally = judge(root, name, moved=4)
    assert shifted["all"] == shifted["accuracy"] == 0
    assert {k for k, value in enumerate(shifted["classes"]) if value == 0} == {3, 5, 7, 9, 11}
    assert tally.matrix[3, 7] == tally.matrix[3].sum() > 0 and tally.matrix[5, 9] == tally.matrix[5].sum() > 0


def test_a_reading_that_is_right_in_one_image_gets_the_value_computed_by_hand(tmp_path):
    """Two images of one class each, 4 : 1 pixels; the smaller is taken for the larger's class: IoU 4/5 and 0."""
    sky, sea = np.full((400, 200), 4, np.uint8), np.full((100, 200), 9, np.uint8)
    plant(tmp_path, "ade20k", {"a": sky, "b": sky[:100]}, truths={"a": sky, "b": sea})
    found, _, _ = judge(tmp_path, "ade20k")
    assert found["all"] == pytest.approx((100 * 4 / 5 + 0) / 2) and found["accuracy"] == pytest.approx(80)


def test_palette_labels_are_read_raw_whatever_their_colours(trees):
    root = trees("voc21")
    path = root / PLACES["voc21"][1] / "2007_000033.png"
    with Image.open(path) as label:
        assert label.mode == "P" and not np.array_equal(np.asarray(label.convert("L")), np.asarray(label))
        raw = np.asarray(label)
    assert np.array_equal(open_set("voc21", root).read(0)[1], raw)


@pytest.mark.parametrize("name", REDUCED)
def test_zero_and_255_are_ignored_where_zero_is_no_class(tmp_path, name):
    mask = np.array([[0, 1, 2, 255]], np.uint8).repeat(9, 0)
    plant(tmp_path, name, {"a": mask})
    assert open_set(name, tmp_path).read(0)[1][0].tolist() == [255, 0, 1, 255]


def test_254_is_no_class_of_a_set_without_zero(tmp_path):
    """Bytes that wrap around must not become class 253, nor be lost: they are named."""
    plant(tmp_path, "voc20", {"a": np.full((9, 9), 254, np.uint8)})
    with pytest.raises(UserError, match="a.png: holds class 254, voc20 names 0 to 20"):
        open_set("voc20", tmp_path).read(0)


def test_context_classes_are_in_alphabetical_order():
    names = open_names("context60")
    assert names[:5] == ("background", "aeroplane", "bag", "bed", "bedclothes") and list(names[1:]) == sorted(names[1:])


def open_names(name):
    public = PUBLIC[name]
    return ("background",) * public.background + tuple(class_groups(public.classes))


def test_raw_stuffthingmaps_are_mapped_and_converted_ones_come_first(tmp_path):
    raw = np.array([[0, 10, 12, 89, 91, 181, 255, 91]], np.uint8).repeat(8, 0)
    plant(tmp_path, "coco_stuff", {"000000000139": raw}, label_end=".png")
    stuff, things = open_set("coco_stuff", tmp_path), open_set("coco_object", tmp_path)
    assert stuff.read(0)[1][0].tolist() == [0, 10, 11, 79, 80, 170, 255, 80] and "stuffthingmaps" in stuff.used
    assert things.read(0)[1][0].tolist() == [1, 11, 12, 80, 0, 0, 0, 0] and "stuffthingmaps" in things.used
    assert [stuff.names[k] for k in (0, 11, 79, 80, 170)] == ["person", "stop sign", "toothbrush", "banner", "wood"]
    assert things.names[12] == "stop sign"
    plant(tmp_path, "coco_stuff", {"000000000139": np.full((8, 8), 3, np.uint8)})
    plant(tmp_path, "coco_object", {"000000000139": np.full((8, 8), 4, np.uint8)})
    for name, value in (("coco_stuff", 3), ("coco_object", 4)):
        data = open_set(name, tmp_path)
        assert data.ids == ["000000000139"] and "TrainIds" in data.used and (data.read(0)[1] == value).all()


def test_ids_that_coco_never_used_are_no_classes(tmp_path):
    assert len(coco.THINGS) == 80 and (coco.RAW_STUFF[[11, 25, 82, 90]] == -1).all()
    plant(tmp_path, "coco_stuff", {"a": np.full((8, 8), 11, np.uint8)}, label_end=".png")
    with pytest.raises(UserError, match="holds class 11"):
        open_set("coco_stuff", tmp_path).read(0)


def test_things_can_be_read_from_the_labels_of_stuff(tmp_path):
    plant(tmp_path, "coco_stuff", {"a": np.array([[0, 79, 80, 170, 255]], np.uint8).repeat(5, 0)})
    assert open_set("coco_object", tmp_path).read(0)[1][0].tolist() == [1, 80, 0, 0, 0]


def test_cityscapes_as_downloaded_is_mapped(tmp_path):
    raw = np.array([[7, 8, 11, 33, 0, 9, 255]], np.uint8).repeat(7, 0)
    plant(tmp_path, "cityscapes", {"ulm/ulm_1": raw}, label_end="_gtFine_labelIds.png")
    data = open_set("cityscapes", tmp_path)
    assert data.read(0)[1][0].tolist() == [0, 1, 2, 18, 255, 255, 255] and "labelIds" in data.used
    assert data.names[0] == "road" and data.names[18] == "bicycle" and data.ids == ["ulm/ulm_1"]


def test_check_says_what_is_there_what_is_missing_and_where_it_belongs(trees):
    root = trees("voc20")
    rows = {row["set"]: row for row in check(root)}
    assert set(rows) == set(PUBLIC) and rows["voc20"]["state"] == rows["voc21"]["state"] == "incomplete"
    assert rows["voc20"]["images"] == "2 of 1449" and "1447 of its 1449 images" in rows["voc20"]["missing"]
    assert rows["ade20k"]["state"] == "not there"
    assert f"{root}/ade/ADEChallengeData2016/images/validation" in rows["ade20k"]["missing"]
    (root / PLACES["voc20"][1] / "2007_000042.png").unlink()
    (row,) = [row for row in check(root) if row["set"] == "voc20"]
    assert (
        row["images"] == "1 of 1449" and f"{root / PLACES['voc20'][1]}/2007_000042.png: no such label" in row["missing"]
    )
    assert sets_meant("all", root) == sets_meant(None, root) == ["voc20", "voc21"]
    with pytest.raises(UserError, match="--check .*no such folder"):
        check(root / "no")


def test_a_whole_set_is_complete(tmp_path):
    plant(tmp_path, "cityscapes", {"ulm/ulm_1": np.full((7, 7), 0, np.uint8)})
    row = replace(PUBLIC["cityscapes"], images=1).check(tmp_path)
    assert row["state"] == "complete" and row["missing"] == "nothing" and row["images"] == "1 of 1"


def spoil(path, how):
    data = {"cut": path.read_bytes()[:60], "empty": b"", "text": b"no picture"}
    path.write_bytes(data[how])


@pytest.mark.parametrize("how", ["cut", "empty", "text"])
@pytest.mark.parametrize("what", ["image", "label"])
def test_what_cannot_be_read_is_named_or_skipped_and_counted(trees, how, what):
    root = trees("voc20")
    images, labels, *_ = PLACES["voc20"]
    spoil(path := root / (f"{images}/2007_000033.jpg" if what == "image" else f"{labels}/2007_000033.png"), how)
    with pytest.raises(UserError, match=f"{path.name}: not a readable {what}"):
        judge(root, "voc20")
    found, bad, tally = judge(root, "voc20", skip=True)
    assert found["all"] == 100 and list(tally.images) == [1] and len(bad) == 1 and str(path) in bad[0]


def test_missing_images_and_labels_are_named_or_skipped(trees):
    root = trees("ade20k")
    images, labels, *_ = PLACES["ade20k"]
    (root / images / "2007_000033.jpg").unlink()
    with pytest.raises(UserError, match=r"ade20k: .*annotations/validation/2007_000033.png: a label without an image"):
        open_set("ade20k", root)
    assert len(open_set("ade20k", root, skip=True)) == 1
    root = trees("voc20")
    (root / PLACES["voc20"][0] / "2007_000033.jpg").unlink()
    with pytest.raises(UserError, match="JPEGImages/2007_000033.jpg: no such image; --skip-bad"):
        open_set("voc20", root)
    (root / PLACES["voc20"][4]).unlink()
    with pytest.raises(UserError, match="voc20 is not there; expected .*JPEGImages"):
        open_set("voc20", root)


def test_a_label_of_another_size_is_named(trees):
    root = trees("cityscapes")
    path = root / PLACES["cityscapes"][1] / "frankfurt/frankfurt_000000_000294_gtFine_labelTrainIds.png"
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(path)
    with pytest.raises(UserError, match="labelTrainIds.png: has 5 x 4 pixels, its image 501 x 375"):
        judge(root, "cityscapes")


def test_a_set_that_is_not_there_says_where_it_belongs(tmp_path):
    with pytest.raises(UserError, match="the set voc20 needs --data DIR; expected DIR/VOCdevkit"):
        open_set("voc20", None)
    with pytest.raises(UserError, match="context60 is not there.*pascal_context.py"):
        open_set("context60", tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        open_set("ade20k", tmp_path / "no")


def test_colours_of_all_bytes_differ():
    assert np.array_equal(byte_of(colours()), np.arange(256))
