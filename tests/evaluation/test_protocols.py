"""Evaluation sets: the built-in world, and folders as `tools/make_world.py` writes them."""

import json
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fastzss
from fastzss import world
from fastzss.base.errors import UserError
from fastzss.evaluation.datasets.folder import folder_set
from fastzss.evaluation.datasets.opened import sets_meant
from fastzss.evaluation.datasets.world import world_set
from fastzss.evaluation.protocols import NAMES, PRESETS, protocol_for, protocol_of
from fastzss.masks.inference import DEFAULT, PLAIN

BIN = Path(sys.executable).parent
TOOL = Path(__file__).parents[2] / "tools" / "make_world.py"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    command = [sys.executable, TOOL, folder, "--split", "test", "--n", "3", "--seed", "5"]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture
def small(tmp_path):
    """Two images of 13 x 7 with their labels."""
    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
    (tmp_path / "classes.txt").write_text("sky\nred car\n")
    for name in ("b", "a"):
        Image.new("RGB", (13, 7)).save(tmp_path / "images" / f"{name}.png")
        Image.fromarray(np.tile(np.array([0, 1, 255], np.uint8), 31)[:91].reshape(7, 13)).save(
            tmp_path / "labels" / f"{name}.png"
        )
    return tmp_path


def refused(data, read=None):
    with pytest.raises(UserError) as problem:
        found = folder_set(data)
        if read is not None:
            found.read(read)
    return str(problem.value)


def test_the_world_gives_its_scenes_and_true_masks():
    data = world_set("world:validation,n=3,seed=2")
    assert len(data) == 3 and data.names == world.NAMES
    image, mask = data.read(2)
    scene = world.scene("validation", 2, 2)
    assert np.array_equal(np.asarray(image), np.asarray(scene.image)) and np.array_equal(mask, scene.mask)
    assert mask.dtype == np.uint8 and mask.shape == (image.height, image.width)


def test_the_groups_of_the_world_are_things_and_stuff_and_share_out_all_classes():
    data = world_set(None)
    assert len(data) == 200 and data.ids[0] == "test-0-000000"
    assert [data.names[k] for k in data.groups["things"]] == list(world.THINGS)
    assert sorted(data.groups["things"] + data.groups["stuff"]) == list(range(len(world.NAMES)))


def test_the_protocol_world_takes_a_world_only(small):
    with pytest.raises(UserError, match="the protocol world takes world:SPLIT") as problem:
        world_set(f"folder:{small / 'images'}")
    assert problem.value.code == 2
    with pytest.raises(UserError, match='no split "tset" .did you mean "test"'):
        world_set("world:tset")


def test_a_made_world_is_read_back_as_the_world(made):
    data = folder_set(made)
    assert data.names == world.NAMES and data.ids == ["000000.jpg", "000001.jpg", "000002.jpg"]
    for index in range(3):
        image, mask = data.read(index)
        scene = world.scene("test", index, 5)
        assert np.array_equal(mask, scene.mask) and mask.dtype == np.uint8
        assert np.abs(np.asarray(image).astype(int) - np.asarray(scene.image)).mean() < 12  # a JPEG of it


def test_a_folder_is_read_in_order_of_the_names_with_255_kept(small):
    data = folder_set(str(small))
    assert data.ids == ["a.png", "b.png"] and data.names == ("sky", "red car") and data.groups == {}
    image, mask = data.read(0)
    assert image.size == (13, 7) and mask.shape == (7, 13)
    assert mask.ravel()[:4].tolist() == [0, 1, 255, 0]


def test_a_palette_label_is_read_as_its_indices(small):
    label = Image.new("P", (13, 7), 1)
    label.putpalette([9, 9, 9, 0, 0, 0])
    label.save(small / "labels" / "a.png")
    assert (folder_set(small).read(0)[1] == 1).all()


def test_a_folder_without_a_name_or_a_part_says_what_is_expected(small):
    assert "needs --data DIR with images/, labels/ and classes.txt" in refused(None)
    assert "has no images;" in refused(small / "missing")
    for part in ("images", "labels", "classes.txt"):
        (small / part).rename(small / "away")
        assert f"has no {part};" in refused(small)
        (small / "away").rename(small / part)
    folder_set(small)


def test_parts_of_the_wrong_kind_are_refused(small):
    (small / "images").rename(small / "away")
    (small / "images").write_text("a file")
    assert "images is no folder; expected images/, labels/ and classes.txt" in refused(small)
    (small / "images").unlink()
    (small / "images").mkdir()
    message = refused(small)
    assert "no images in images/" in message and ".png" in message


@pytest.mark.parametrize("content", [b"", b"\n \n", b"sky\ncar\nsky\n"], ids=["empty", "blank", "twice"])
def test_classes_must_be_there_once(small, content):
    (small / "classes.txt").write_bytes(content)
    message = refused(small)
    assert "classes.txt holds" in message and ("no class" in message or "one twice (sky)" in message)


def test_classes_must_be_text(small):
    (small / "classes.txt").write_bytes(b"caf\xe9\n")
    assert str(small) in refused(small)
    (small / "classes.txt").write_bytes("\ufeffsky\r\n\ncafé \r\n".encode())
    assert folder_set(small).names == ("sky", "café")


def test_images_without_a_label_are_counted_and_the_first_is_named(small):
    (small / "labels" / "a.png").unlink()
    message = refused(small)
    assert f"{small / 'images' / 'a.png'}: an image without a label PNG" in message and "more like it" not in message
    (small / "labels" / "b.png").unlink()
    assert "a.png: an image without" in refused(small) and "(and 1 more like it)" in refused(small)


def test_a_label_without_an_image_is_named(small):
    (small / "images" / "a.png").unlink()
    assert f"{small / 'labels' / 'a.png'}: a label without an image" in refused(small)


def test_bad_pairs_may_be_skipped_and_are_counted(small):
    (small / "labels" / "a.png").unlink()
    data = folder_set(small, skip=True)
    assert data.ids == ["b.png"] and len(data.bad) == 1


def test_subfolders_are_read_and_ids_name_them(small):
    for part in ("images", "labels"):
        (small / part / "more").mkdir()
        (small / part / "a.png").rename(small / part / "more" / "a.png")
    data = folder_set(small)
    assert data.ids == ["b.png", "more/a.png"] and data.read(1)[1].shape == (7, 13)


def test_an_image_that_cannot_be_read_is_named(small):
    (small / "images" / "a.png").write_bytes(b"")
    message = refused(small, 0)
    assert message.startswith(f"{small / 'images' / 'a.png'}: not a readable image")
    folder_set(small).read(1)


def test_a_label_that_cannot_be_read_is_named(small):
    for content in (b"", (small / "labels" / "b.png").read_bytes()[:40], b"\x89PNG\r\n\x1a\n" + bytes(30)):
        (small / "labels" / "a.png").write_bytes(content)
        message = refused(small, 0)
        assert str(Path("labels") / "a.png") in message and "not a readable label" in message


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "I;16", "1"])
def test_a_label_that_is_no_index_picture_is_refused(small, mode):
    Image.new(mode, (13, 7)).save(small / "labels" / "a.png")
    assert f"a label of mode {mode}; expected one byte a pixel" in refused(small, 0)


def test_a_label_of_another_size_is_refused_with_both_sizes(small):
    Image.new("L", (7, 13)).save(small / "labels" / "a.png")
    assert "has 7 x 13 pixels, its image 13 x 7" in refused(small, 0)


@pytest.mark.parametrize("value", [2, 254])
def test_a_class_without_a_name_is_refused(small, value):
    Image.new("L", (13, 7), value).save(small / "labels" / "a.png")
    assert f"holds class {value}, classes.txt names 0 to 1 (255 is ignored)" in refused(small, 0)


def test_protocols_are_known_by_name_and_each_is_a_file_of_the_package():
    assert sorted(NAMES) == sorted(path.stem for path in PRESETS.glob("*.yaml"))
    assert all(protocol_of(name).name == name for name in NAMES)


def test_what_a_score_depends_on_stands_beside_it(trained):
    model, protocol = fastzss.load(trained, "cpu"), protocol_of("world")
    record = protocol.record(model)
    assert record["templates"] == ["a {}", "the {}"] and record["readout"] == "both" and record["inference"]["dense"]
    others = [
        replace(protocol, **change).record(model)["hash"]
        for change in ({"templates": ("{}",)}, {"readout": "eot"}, {"inference": PLAIN}, {"name": "folder"})
    ]
    assert len({record["hash"], *others}) == 5


def test_every_knob_of_the_windows_changes_the_hash(trained):
    model, protocol = fastzss.load(trained, "cpu"), protocol_of("tcl")
    changes = {
        "short": 336, "long": 1024, "window": 224, "stride": 112, "pad": "square", "align_corners": True,
        "templates": ("{}",), "order": "normalised", "synonyms": True, "readout": "eot", "background": "prob",
        "value": 0.3, "scale": 10.0, "capped": True, "words": ("sky",), "refine": "pamr", "inference": DEFAULT,
        "sets": {"voc21": {"value": 0.1}}, "look": "field", "name": "mine",
    }  # fmt: skip
    assert set(changes) == {f.name for f in fields(protocol)}
    hashes = {replace(protocol, **{key: value}).record(model)["hash"] for key, value in changes.items()}
    assert len(hashes | {protocol.record(model)["hash"]}) == len(changes) + 1


def test_a_protocol_of_ones_own_is_a_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("look: windows\nshort: 336\nsets:\n  voc21: {value: 0.4}\ntemplates: ['{}', 'a {}']\n")
    mine = protocol_of(str(path))
    assert mine.name == "mine" and mine.windows.short == 336 and mine.windows.stride == 224
    assert mine.templates == ("{}", "a {}") and mine.inference == PLAIN
    assert mine.of_set("voc21").value == 0.4 and mine.of_set("voc20").value is None


@pytest.mark.parametrize(
    "text, message",
    [
        ("shrot: 3", "unknown knob 'shrot' .did you mean \"short\""),
        ("short: big", "short is 'big'; expected a positive int"),
        ("look: window", "look is 'window' .did you mean \"windows\""),
        ("stride: 500", "windows of 448 pixels 500 apart leave gaps"),
        ("templates: tlc", 'unknown templates "tlc" .did you mean "tcl"'),
        ("templates: [a dog]", "expected texts with {} where the name goes"),
        ("value: high", "value is 'high'; expected a number"),
        ("words: sky", "words is 'sky'; expected stuff, or a list"),
        ("sets: {voc12: {value: 1}}", "an unknown set 'voc12' .did you mean"),
        ("sets: {voc21: {valeu: 1}}", "unknown knob 'valeu' .did you mean \"value\""),
        ("inference: {smooth: 1}", "inference has 'smooth'; its knobs are dense"),
        ("inference: {smoothing: -1}", "smoothing is -1"),
        ("refine: crf", "refine is 'crf'; expected none, pamr"),
        ("- a", "expected lines of `key: value`"),
    ],
)
def test_a_protocol_that_is_wrong_is_refused_in_one_sentence(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as problem:
        protocol_of(str(path))
    assert problem.value.code == 2 and "\n" not in str(problem.value)


def test_a_protocol_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match="no.yaml: cannot be read"):
        protocol_of(str(tmp_path / "no.yaml"))


def test_the_protocol_follows_from_the_sets():
    assert protocol_for(["world"]) == "world" and protocol_for(["folder"]) == "folder"
    assert protocol_for(["voc20", "ade20k"]) == "tcl"
    with pytest.raises(UserError, match="world, voc20 have no protocol in common"):
        protocol_for(["world", "voc20"])


def test_the_sets_follow_from_the_data(small):
    assert sets_meant(None, "world:drawings,n=3") == sets_meant(None, None) == ["world"]
    assert sets_meant(None, small) == ["folder"] and sets_meant("voc20, ade20k,voc20", None) == ["voc20", "ade20k"]
    with pytest.raises(UserError, match='unknown set "voc12" .did you mean "voc2.".*expected all, or world'):
        sets_meant("voc12", small)
    with pytest.raises(UserError, match="holds none of voc20.*--check"):
        sets_meant("all", small)
    with pytest.raises(UserError, match="no such folder"):
        sets_meant(None, small / "no")


def test_two_processes_score_what_one_does(trained):
    command = ["fastzss", "evaluate", trained, "--data", "world:test,n=5", "--json", "--device", "cpu"]
    launch = [str(BIN / "torchrun"), "--no-python", "--nproc_per_node", "2"]
    alone, together = (
        subprocess.run([*before, str(BIN / command[0]), *map(str, command[1:])], capture_output=True, text=True)
        for before in ([], launch)
    )
    assert alone.returncode == together.returncode == 0, together.stderr
    assert json.loads(together.stdout) == json.loads(alone.stdout)
