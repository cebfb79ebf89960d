"""The views layer: beside the features, continued, checked, converted, joined; and what is said of bad input."""

import json
import shutil

import numpy as np
import pytest
import torch
from helpers.stores import tree
from PIL import Image

from fastzss import cli
from fastzss.backbones import load_vision
from fastzss.backbones.clip import load_teacher
from fastzss.base.errors import UserError
from fastzss.extraction.flow import extract
from fastzss.extraction.settings import ExtractConfig
from fastzss.extraction.views import centre_square, cut_views
from fastzss.sources import open_source
from fastzss.store.reading.reader import PatchStore
from fastzss.store.reading.views import ViewStore
from fastzss.store.upkeep.repair import repair
from fastzss.store.upkeep.transfer import convert, merge
from fastzss.store.upkeep.verify import verify
from fastzss.store.views import ViewPlan, view_boxes

SOURCE = "world:train,n=20"


def views_of(path, **changes):
    settings = {"source": SOURCE, "store": path, "parser": "bank", "teacher": "tiny", "views": "1,2", "pixels": 32}
    return extract(ExtractConfig(**{**settings, **changes}))


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    path = tmp_path_factory.mktemp("views") / "bare"
    extract(ExtractConfig(source=SOURCE, store=path, parser="bank"))
    return path


@pytest.fixture(scope="module")
def viewed(bare, tmp_path_factory):
    path = tmp_path_factory.mktemp("views") / "store"
    shutil.copytree(bare, path)
    views_of(path)
    return path


@pytest.mark.parametrize("scales", [(1,), (1, 2, 3, 4), (3,), (2, 7)], ids=str)
@pytest.mark.parametrize("side", [128, 224, 331])
def test_boxes_tile_the_crop_once_a_scale(scales, side):
    covered = np.zeros((side, side), int)
    boxes = view_boxes(scales, side)
    assert len(boxes) == sum(s * s for s in scales)
    for left, top, right, bottom in boxes:
        assert right > left and bottom > top
        covered[top:bottom, left:right] += 1
    assert (covered == len(scales)).all()
    if scales == (1, 2, 3, 4) and side == 224:
        assert [box[0] for box in boxes[5:8]] == [0, 75, 149], "as the paper's 3 x 3 of 224"


def test_views_are_added_without_touching_the_store(bare, viewed):
    before, after = tree(bare), tree(viewed)
    assert {name: after[name] for name in before if name != "origin.json"} == {
        name: data for name, data in before.items() if name != "origin.json"
    }
    assert all(name.startswith("views/") for name in set(after) - set(before))
    views = ViewStore(viewed)
    assert views.plan.features == PatchStore(viewed).identity and views.plan.patches == 5 and views.valid().all()


def test_a_view_is_what_the_teacher_says_of_its_box(viewed):
    store, views, source = PatchStore(viewed), ViewStore(viewed), open_source(SOURCE)
    teacher, vision = load_teacher("tiny"), load_vision("tiny")
    rows = [3, 17, 3]
    found, pixels = views.take(rows), views.take(rows, "pixels")
    assert torch.equal(found, views.all()[rows])
    for row, own, square in zip(rows, found, pixels, strict=True):
        image = source.image(int(store.plan.order()[row]))
        cut, kept = cut_views(image, teacher, views.plan, vision)
        assert torch.allclose(own.float(), teacher(cut), atol=2e-2, rtol=2e-3)
        assert torch.equal(square, kept)
        whole = teacher.view(image.convert("RGB"), (64, 0, 128, 64))
        assert torch.equal(cut[2], whole), "the second of the 2 x 2"


def test_the_square_is_the_one_the_backbone_saw():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 200, 3), np.uint8))
    square = centre_square(image)
    assert square.size == (90, 90) and square.getpixel((0, 0)) == image.getpixel((55, 0))


def test_a_stopped_extraction_goes_on_and_gives_the_same_bytes(viewed, bare, tmp_path, monkeypatch):
    path = tmp_path / "store"
    shutil.copytree(bare, path)
    from fastzss.store.views import ViewShard

    real, done = ViewShard.commit, []

    def stop(self):
        real(self)
        done.append(self.shard)
        if len(done) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(ViewShard, "commit", stop)
    with pytest.raises(KeyboardInterrupt):
        views_of(path)
    monkeypatch.setattr(ViewShard, "commit", real)
    with pytest.raises(UserError, match="2 of 20 shards are written|not finished"):
        ViewStore(path)
    views_of(path)
    assert tree(path) == tree(viewed)
    views_of(path)
    assert tree(path) == tree(viewed), "twice is once"


@pytest.mark.parametrize("form", [("webdataset", None), ("zarr", "zstd")], ids=str)
def test_converted_there_and_back(viewed, tmp_path, form):
    convert(viewed, tmp_path / "other", *form)
    assert torch.equal(ViewStore(tmp_path / "other").all(), ViewStore(viewed).all())
    assert not verify(tmp_path / "other", 3)
    convert(tmp_path / "other", tmp_path / "back", "zarr")
    assert tree(tmp_path / "back") == tree(viewed)


def test_parts_are_joined(viewed, tmp_path):
    for part in (1, 2):
        views_of(tmp_path / str(part), part=f"{part}/2", stats_from=viewed)
    merge([tmp_path / "1", tmp_path / "2"], tmp_path / "whole")
    assert torch.equal(ViewStore(tmp_path / "whole").all(), ViewStore(viewed).all())
    assert not verify(tmp_path / "whole", 2)


@pytest.mark.parametrize("name", ["views/c/3/0/0", "pixels/c/0/0/0/0", "commit/000002.json", "zarr.json"])
def test_damage_is_found_and_mended(viewed, tmp_path, name):
    path = tmp_path / "store"
    shutil.copytree(viewed, path)
    file = ViewStore(path).path / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    damages = verify(path, 2)
    assert [d.file for d in damages] == [file.relative_to(path).as_posix()]
    repair(path, damages)
    views_of(path)
    assert tree(path) == tree(viewed)


def test_an_image_that_cannot_be_read_is_a_row_of_zeros(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for number in range(3):
        Image.new("RGB", (60, 40), (number * 90, 10, 200)).save(images / f"{number}.png")
        (images / f"{number}.txt").write_text("a thing")
    (images / "1.png").write_bytes(b"none")
    views_of(tmp_path / "s", source=f"folder:{images}", model="tiny", pixels=0)
    views = ViewStore(tmp_path / "s")
    bad = int((~views.valid()).nonzero())
    assert views.all()[bad].eq(0).all() and views.all().ne(0).any(-1).sum() == 2 * 5


# what is said of bad input


@pytest.mark.parametrize("text", ["", "1,x", "2,1", "1,1", "0,1", "17", "1"])
def test_wrong_grids_are_one_sentence(text, tmp_path, capsys):
    code = cli.cache_main(["extract", SOURCE, str(tmp_path / "s"), "--teacher", "tiny", f"--views={text}"])
    assert code == 2
    said = capsys.readouterr().err.strip()
    assert "--views" in said and "expected" in said and "\n" not in said


@pytest.mark.parametrize(
    "teacher, sentence",
    [
        ("tinny", "is no vision encoder of the CLIP family"),
        ("vit_base_patch14_dinov2.lvd142m", "is no vision encoder of the CLIP family"),
        ("ViT-L-15/openai", "open_clip has no architecture 'ViT-L-15' .did you mean"),
        ("ViT-L-14/opnai", "no weights 'opnai' of ViT-L-14 .did you mean .openai"),
        ("ViT-B-32/openai", "its weights cannot be fetched .*--teacher-weights FILE"),
        ("vit_base_patch32_clip_224.openai", "its weights cannot be fetched .*--teacher-weights FILE"),
    ],
)
def test_unknown_teachers(teacher, sentence):
    with pytest.raises(UserError, match=sentence):
        load_teacher(teacher)


def test_weights_of_something_else(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"none")
    with pytest.raises(UserError, match="these are no weights of the tiny teacher"):
        load_teacher("tiny", tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="no such file"):
        load_teacher("tiny", tmp_path / "absent")


def test_other_grids_of_the_same_teacher_are_refused(viewed):
    with pytest.raises(UserError, match="begun with other settings: .*scales"):
        views_of(viewed, views="1,3")


def test_no_views_and_those_of_another(bare, viewed):
    with pytest.raises(UserError, match="has no views of a teacher. Add them with"):
        ViewStore(bare)
    with pytest.raises(UserError, match="has no views of the teacher ViT-L-14/openai; there are those of tiny"):
        ViewStore(viewed, "ViT-L-14/openai")


def test_pixels_and_weights_want_a_teacher(tmp_path):
    for change in ({"pixels": 8}, {"teacher_weights": tmp_path}):
        with pytest.raises(ValueError, match="go with --teacher"):
            ExtractConfig(source=SOURCE, store=tmp_path, **change)


def test_info_and_forecast_say_what_there_is(viewed, tmp_path, capsys):
    assert cli.cache_main(["info", str(viewed), "--json"]) == 0
    (said,) = json.loads(capsys.readouterr().out)["views"]
    assert said["teacher"] == "tiny" and said["views"] == 5 and said["finished"]
    assert cli.cache_main(["extract", SOURCE, str(tmp_path / "s"), "--teacher", "tiny", "--dry-run", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["views"] == 30 and said["bytes_of_views"] == 20 * (30 * 128 * 2 + 1)
    assert not (tmp_path / "s").exists()


def test_a_plan_survives_its_json():
    plan = ViewPlan(images=5, channels=4, features="ab", teacher={"model": "tiny"}, scales=(1, 3), pixels=8)
    assert ViewPlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    assert plan.arrays["views"][0] == (5, 10, 4)
