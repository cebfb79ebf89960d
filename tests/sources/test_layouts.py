"""COCO, tables, folders of the datasets library, metadata of an imagefolder: the same images, and what is wrong."""

import csv
import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.layouts import LAYOUTS, NAMES, samples, strange, write_coco, write_folder, write_hf, write_table
from PIL import Image

from fastzss.base.errors import UserError
from fastzss.extraction.captions import texts_of
from fastzss.sources import open_source, source_record
from fastzss.sources.images import ImageUnreadable

FLAT = tuple(name.replace("/", "-") for name in NAMES)  # COCO has no folders below


def refused(spec):
    with pytest.raises(UserError) as problem:
        open_source(spec)
    return str(problem.value)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_images_and_captions_in_the_same_order(tmp_path, layout):
    found = samples(FLAT if layout == "coco" else NAMES)
    source = open_source(LAYOUTS[layout](tmp_path / "of a user", found))
    assert len(source.ids) == len(set(source.ids)) == len(found)
    assert source.model == "vit_base_patch14_reg4_dinov2.lvd142m" and not source.listed
    for index, (_, data, captions) in enumerate(found):
        expected = Image.open(io.BytesIO(data)).convert("RGB")
        assert np.array_equal(np.asarray(source.image(index)), np.asarray(expected))
        assert source.size(index) == expected.size
        assert sorted(source.captions(index)) == sorted(captions)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_limit_and_min_side_go_behind_any_source(tmp_path, layout):
    found = samples(FLAT)
    spec = LAYOUTS[layout](tmp_path, found)
    whole, two = open_source(spec), open_source(f"{spec},limit=2")
    assert two.ids == whole.ids[:2] and two.spec == f"{spec},limit=2"
    assert two.captions(1) == whole.captions(1) and two.image(1).size == whole.image(1).size
    sides = [min(whole.size(index)) for index in range(5)]
    large = open_source(f"{spec},min-side=136")
    assert large.ids == [name for name, side in zip(whole.ids, sides, strict=True) if side >= 136] != whole.ids
    assert np.array_equal(np.asarray(large.image(0)), np.asarray(whole.image(whole.ids.index(large.ids[0]))))
    assert open_source(f"{spec},min-side=136,limit=1").ids == large.ids[:1]
    assert "none of its 5 images has a short side of 999 pixels" in refused(f"{spec},min-side=999")
    assert '"limit=0" is not understood; expected limit=NUMBER' in refused(f"{spec},limit=0")


def test_the_world_takes_them_too():
    assert open_source("world:train,n=9,limit=4").ids == open_source("world:train,n=4").ids
    assert (
        source_record(open_source("world:train,n=9,limit=4"))["list"]
        == source_record(open_source("world:train,n=4"))["list"]
    )


# COCO


def test_coco_finds_its_split_and_the_other_years_names(tmp_path):
    found = samples(["COCO_val2014_000000000009.jpg", "COCO_val2014_000000000025.jpg"])
    spec = write_coco(tmp_path, found, "val2014")
    assert open_source(f"coco:{tmp_path}").ids == open_source(spec).ids
    assert open_source(spec).ids == [f"val2014/{name}" for name, *_ in found]
    for name, *_ in found:  # as 2017 names them
        (tmp_path / "val2014" / name).rename(tmp_path / "val2014" / name.rpartition("_")[2])
    assert open_source(spec).ids == ["val2014/000000000009.jpg", "val2014/000000000025.jpg"]
    (tmp_path / "images").mkdir()
    (tmp_path / "val2014").rename(tmp_path / "images" / "val2014")
    assert open_source(spec).image(1).size == (157, 136)
    write_coco(tmp_path, found, "train2017")
    assert open_source(f"coco:{tmp_path}").ids[0].startswith("train2017/")


def test_what_coco_leaves_out_is_one_sentence_each(tmp_path, caplog):
    found = [*strange(), ("000000000099.jpg", b"", ["a lost dog"] * 5)]
    spec = write_coco(tmp_path, found)
    (tmp_path / "train2017" / "000000000099.jpg").unlink()
    (tmp_path / "train2017" / "unnamed.jpg").write_bytes(b"")
    path = tmp_path / "annotations" / "captions_train2017.json"
    content = json.loads(path.read_text())
    content["annotations"] += [{"image_id": 7, "id": 1, "caption": "of nothing"}]
    path.write_text(json.dumps(content))
    with caplog.at_level("WARNING", "fastzss"):
        source = open_source(spec)
    assert [name.rpartition("/")[2] for name in source.ids] == [name for name, *_ in strange()]
    told, folder = [record.getMessage().partition(": ")[2] for record in caplog.records], tmp_path / "train2017"
    assert told == [
        f"1 images are named there and lie not in {folder}; they are left out, such as 000000000099.jpg",
        "5 captions go with them",
        "1 images have captions and no entry among the images; these captions are left out, such as 7",
        "1 files are in no entry and left out, such as unnamed.jpg",
    ]
    assert source.image(3).size == (140, 170), "turned by its EXIF"
    with pytest.raises(ImageUnreadable, match="000000000036.jpg: not a readable image"):
        source.image(4)
    assert len(source.captions(4)) == 5


def test_what_is_no_coco_gets_a_sentence(tmp_path):
    spec, found = write_coco(tmp_path, samples(FLAT)), samples(FLAT)
    assert 'no captions of "train2071" (did you mean "train2017"?)' in refused(f"coco:{tmp_path}:train2071")
    assert "not COCO's layout (there is no" in refused(f"coco:{tmp_path / 'nowhere'}")
    write_coco(tmp_path, found, annotations=[])
    assert "captions_train2017.json: has no annotations; found info, licenses, images" in refused(spec)
    write_coco(tmp_path, found, annotations=[{"image_id": 100, "bbox": [1, 2, 3, 4]}])
    assert "annotations without 'caption'; expected a captions file of COCO" in refused(spec)
    write_coco(tmp_path, found, annotations=[{"image_id": "x9", "caption": "a dog"}])
    assert "the first is of the image 'x9', and such an id is not among its 5 images" in refused(spec)
    write_coco(tmp_path, found)
    (tmp_path / "annotations" / "captions_train2017.json").write_text('{"images": [')
    assert "captions_train2017.json: is no JSON" in refused(spec)
    write_coco(tmp_path, found)
    for path in (tmp_path / "train2017").iterdir():
        path.unlink()
    assert "none of the 5 images that" in refused(spec) and "Unpack the images of train2017 there" in refused(spec)
    (tmp_path / "train2017").rmdir()
    assert "no folder of images: neither" in refused(spec)


# Tables


def test_tables_of_every_kind_give_each_image_once_with_the_captions_of_all_its_rows(tmp_path):
    found = samples()
    write_folder(tmp_path, found, captions=False)
    rows = [(name, text) for name, _, texts in found for text in texts]
    for path, delimiter in ((tmp_path / "t.csv", ","), (tmp_path / "t.tsv", "\t")):
        with open(path, "w", newline="", encoding="utf-8") as file:
            csv.writer(file, delimiter=delimiter).writerows([("path", "title", "year"), *((n, t, 7) for n, t in rows)])
    lines = [json.dumps({"path": name, "year": 2, "title": texts}) for name, _, texts in found]
    (tmp_path / "t.jsonl").write_text("\n".join(lines), encoding="utf-8")
    write_table(tmp_path, found)
    for name in ("t.csv", "t.tsv", "t.jsonl", "t.parquet"):
        source = open_source(f"table:{tmp_path / name}")
        assert source.ids == [name for name, *_ in found]
        assert [source.captions(k) for k in range(5)] == [texts for *_, texts in found]
        assert source.image(2).size == Image.open(io.BytesIO(found[2][1])).size


def test_columns_are_named_where_there_are_several(tmp_path):
    found = samples()
    image = pa.array([data for _, data, _ in found])
    table = {"a": image, "b": image, "de": ["ein Hund"] * 5, "en": ["a dog", "a dog", "a cat", None, " "]}
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    spec = f"table:{tmp_path / 't.parquet'}"
    assert "several columns could be paths or bytes of images (a, b); name it: ,image=COLUMN" in refused(spec)
    assert "several columns could be captions (de, en); name it: ,caption=COLUMN" in refused(f"{spec},image=a")
    source = open_source(f"{spec},image=b,caption=en,caption=de")
    assert [source.captions(k) for k in range(5)] == [
        ["a dog", "ein Hund"], ["a dog", "ein Hund"], ["a cat", "ein Hund"], ["ein Hund"], ["ein Hund"],
    ]  # fmt: skip
    assert source.ids[4] == "row 00000004" and source.image(4).size == Image.open(io.BytesIO(found[4][1])).size
    assert "has no column 'enn' (did you mean \"en\"?); there are: a, b, de, en" in refused(
        f"{spec},image=a,caption=enn"
    )
    assert "the column 'a' holds no text" in refused(f"{spec},image=b,caption=a")
    assert "image= is given 2 times" in refused(f"{spec},image=a,image=b,caption=en")


def test_what_is_no_table_gets_a_sentence(tmp_path):
    write_table(tmp_path, samples())
    assert "there is no such file; expected a table: .parquet, .csv" in refused(f"table:{tmp_path / 'x.csv'}")
    assert "it is a folder" in refused(f"table:{tmp_path}")
    (tmp_path / "t.xlsx").write_bytes(b"")
    assert "is no table that is known here" in refused(f"table:{tmp_path / 't.xlsx'}")
    (tmp_path / "t.parquet").write_bytes(b"PAR1 and so on")
    assert "t.parquet: cannot be read as parquet" in refused(f"table:{tmp_path / 't.parquet'}")
    (tmp_path / "t.jsonl").write_text('{"image": "a.jpg"}\n["a.jpg"]\n')
    assert "t.jsonl, line 2: is no JSON object" in refused(f"table:{tmp_path / 't.jsonl'}")
    (tmp_path / "u.csv").write_text("image,caption\nhttps://example.com/a.jpg,a dog\n")
    with pytest.raises(
        UserError, match="is an address, and images are not fetched one by one. Fetch them with img2data"
    ):
        open_source(f"table:{tmp_path / 'u.csv'}").image(0)


# Folders of the datasets library


def test_datasets_of_several_splits_take_train_or_what_is_named(tmp_path):
    found = samples()
    write_hf(tmp_path, found, "test")
    write_hf(tmp_path, found[:3], "train")
    (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": ["test", "train"]}))
    assert len(open_source(f"hf:{tmp_path}").ids) == 3
    assert open_source(f"hf:{tmp_path},split=test").ids == [name for name, *_ in found]
    assert 'no split "tset" (did you mean "test"?); there are test, train' in refused(f"hf:{tmp_path},split=tset")
    (tmp_path / "empty").mkdir()
    assert "neither dataset_dict.json nor state.json" in refused(f"hf:{tmp_path / 'empty'}")
    assert "(there is nothing)" in refused(f"hf:{tmp_path / 'nowhere'}")
    (tmp_path / "train" / "data-00000-of-00002.arrow").write_bytes(b"no arrow")
    assert "data-00000-of-00002.arrow cannot be read" in refused(f"hf:{tmp_path}")


def test_one_name_in_two_sizes_is_two_images_and_one_in_one_size_is_one(tmp_path):
    found = samples()
    same = [("a.jpg", *found[0][1:]), ("b.jpg", *found[1][1:]), ("a.jpg", found[0][1], ["once more"])]
    source = open_source(write_hf(tmp_path / "same", same))
    assert source.ids == ["a.jpg", "b.jpg"] and source.captions(0) == [*found[0][2], "once more"]
    other = [("a.jpg", *found[0][1:]), ("b.jpg", *found[1][1:]), ("a.jpg", found[2][1], ["another"])]
    source = open_source(write_hf(tmp_path / "other", other))
    assert source.ids == ["row 00000000", "row 00000001", "row 00000002"] and source.captions(2) == ["another"]


# The metadata of an imagefolder


def test_metadata_files_give_captions_to_the_images_below_them(tmp_path, caplog):
    found = samples()
    write_folder(tmp_path, found, captions=False)
    (tmp_path / "metadata.csv").write_text("file_name,text\na b.jpg,of the csv\ngone.jpg,of nothing\n")
    rows = [{"file_name": "c.jpeg", "text": "one"}, {"file_name": "deeper/d.jpg", "text": "two"}]
    (tmp_path / "sub" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "a b.txt").write_text("beside it\n")
    with caplog.at_level("WARNING", "fastzss"):
        source = open_source(f"folder:{tmp_path}")
        told = texts_of(source)
    assert told == {
        "a b.jpg": ["beside it", "of the csv"], "sub/c.jpeg": ["one"], "sub/deeper/d.jpg": ["two"],
        "z-猫.PNG": [], "Ärger.JPG": [],
    }  # fmt: skip
    messages = " ".join(record.getMessage() for record in caplog.records)
    assert "1 images of its metadata do not lie there and are left out, such as gone.jpg" in messages
    assert "2 images without captions" in messages
    (tmp_path / "metadata.csv").write_text("name,text\na.jpg,x\n")
    assert "metadata.csv: has no column 'file_name'" in refused(f"folder:{tmp_path}")
