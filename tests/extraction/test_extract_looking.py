"""What extraction may look at otherwise: crops, fast decoding, and images that cannot be read."""

import io

import numpy as np
import pytest
from helpers.backbones import picture
from helpers.layouts import encoded, samples, write_folder
from PIL import Image

from fastzss.base.errors import UserError
from fastzss.extraction.crops import Views, boxes
from fastzss.extraction.flow import extract
from fastzss.extraction.settings import ExtractConfig
from fastzss.sources import open_source
from fastzss.sources.images import read_image
from fastzss.store.reading.reader import PatchStore


def config(source, store, **changes):
    return ExtractConfig(source=source, store=store, model="tiny", bank="none", device="cpu", **changes)


def test_boxes_have_nine_tenths_of_the_area_and_lie_inside():
    names = [str(number) for number in range(1000)]
    found = boxes(names, 2, 3)
    assert np.array_equal(found, boxes(names, 2, 3)) and not np.array_equal(found, boxes(names, 2, 4))
    assert np.array_equal(found[2:], boxes(names[1:], 2, 3)), "a box is its image's own, whatever else is there"
    assert len(np.unique(found, axis=0)) > 1990
    left, top, right, bottom = found.T
    assert (found >= 0).all() and (found <= 1).all()
    area, shape = (right - left) * (bottom - top), (right - left) / (bottom - top)
    assert 0.8998 < area.min() < 0.905 and 0.995 < area.max() <= 1
    assert 0.8998 < shape.min() < 0.92 and 1.08 < shape.max() < 1.1112


def test_views_are_rows_of_their_own_with_boxes_and_the_captions_of_the_whole(tmp_path):
    spec = write_folder(tmp_path / "in", samples())
    source = open_source(spec)
    views = Views(source, 3, 0)
    assert len(views.ids) == len(set(views.ids)) == 15 and views.captions(4) == source.captions(1)
    name, _, box = views.ids[4].partition("#")
    width, height = source.image(1).size
    left, top, right, bottom = np.rint(np.array(box.split(","), float) * (width, height, width, height)).astype(int)
    assert name == source.ids[1]
    assert np.array_equal(np.asarray(views.image(4)), np.asarray(source.image(1))[top:bottom, left:right])
    assert views.size(4) == views.image(4).size
    extract(config(spec, tmp_path / "s", crops=3))
    store = PatchStore(tmp_path / "s")
    assert sorted(store.captions.images) == sorted(views.ids) and len(store.captions.texts) == 3 * 7
    with pytest.raises(UserError, match="images is 15, now 10.*source.crops is 3, now 2"):
        extract(config(spec, tmp_path / "s", crops=2))


def test_fast_decoding_reads_less_of_a_large_jpeg_and_is_recorded(tmp_path):
    large = encoded(picture(1600, 1200), quality=95)
    assert read_image(io.BytesIO(large), "a", 128).size == (200, 150)
    assert read_image(io.BytesIO(large), "a", 700).size == (1600, 1200)
    png = encoded(picture(1600, 1200), "PNG")
    assert read_image(io.BytesIO(png), "a", 128).size == (1600, 1200)
    spec = write_folder(tmp_path / "in", [("a.jpg", large, ["a dog"])])
    stores = {}
    for decode in ("exact", "fast"):
        extract(config(spec, tmp_path / decode, decode=decode, dtype="float16"))
        stores[decode] = PatchStore(tmp_path / decode)
    assert stores["fast"].plan.vision["preprocess"]["decode"] == "fast"
    assert "decode" not in stores["exact"].plan.vision["preprocess"]
    exact, fast = (store.load().tokens.float() for store in stores.values())
    assert 0.99 < float((exact * fast).sum(-1).mean()) < 1


@pytest.mark.parametrize("size", [(5000, 1), (1, 5000), (30_000, 2)])
@pytest.mark.parametrize("fit", ["crop", "squash"])
def test_a_picture_like_a_thread_costs_no_memory(tmp_path, size, fit):
    Image.new("RGB", size, (9, 99, 199)).save(tmp_path / "a.png")
    extract(config(f"folder:{tmp_path}", tmp_path / "s", fit=fit))
    assert PatchStore(tmp_path / "s").valid().all()


def test_every_unreadable_image_is_named_once_and_counted_at_the_end(tmp_path, caplog):
    found = samples([f"{k}.jpg" for k in range(9)])
    broken = [(name, b"" if k in (2, 5) else data, texts) for k, (name, data, texts) in enumerate(found)]
    spec = write_folder(tmp_path / "in", broken)
    with caplog.at_level("INFO", "fastzss"):
        extract(config(spec, tmp_path / "s"))
    lines = (tmp_path / "s.unreadable.log").read_text().splitlines()
    assert sorted(line.partition("\t")[0] for line in lines) == ["2.jpg", "5.jpg"]
    assert all("not a readable image" in line for line in lines)
    told = [record.getMessage() for record in caplog.records]
    assert sum("its row stays empty" in message for message in told) == 1, "the first speaks for all"
    assert any(m.startswith("2 of 9 images cannot be read; ") and "s.unreadable.log" in m for m in told)
    assert any("images/s: decode" in message and "forward" in message and "write" in message for message in told)
    extract(config(spec, tmp_path / "s"))
    assert (tmp_path / "s.unreadable.log").read_text().splitlines() == lines
