"""Evaluation sets: the built-in world, and folders as `tools/make_world.py` writes them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastzss import world
from fastzss.errors import UserError
from fastzss.protocols import PROTOCOLS, folder_set, world_set

TOOL = Path(__file__).parent.parent / "tools" / "make_world.py"


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
    assert "expected images/, labels/ and classes.txt" in refused(small)
    (small / "images").unlink()
    (small / "images").mkdir()
    message = refused(small)
    assert "no images in images/" in message and ".png" in message


@pytest.mark.parametrize("content", [b"", b"\n \n", b"sky\ncar\nsky\n"], ids=["empty", "blank", "twice"])
def test_classes_must_be_there_once(small, content):
    (small / "classes.txt").write_bytes(content)
    assert "no class or one twice; expected a class a line" in refused(small)


def test_classes_must_be_text(small):
    (small / "classes.txt").write_bytes(b"caf\xe9\n")
    assert str(small) in refused(small)
    (small / "classes.txt").write_bytes("\ufeffsky\r\n\ncafé \r\n".encode())
    assert folder_set(small).names == ("sky", "café")


def test_images_without_a_label_are_counted_and_the_first_is_named(small):
    (small / "labels" / "a.png").unlink()
    assert "1 of 2 images have no label PNG" in refused(small) and "(the first is a.png)" in refused(small)


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


def test_protocols_are_known_by_name():
    assert PROTOCOLS == {"world": world_set, "folder": folder_set}
