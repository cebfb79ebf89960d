"""Sources of images: what the user may type, and files as they are found in the wild."""

import io
import os
import sys

import numpy as np
import pytest
from PIL import Image

from fastzss import world
from fastzss.base.errors import UserError
from fastzss.sources import open_source, source_record
from fastzss.sources.images import SUFFIXES, ImageUnreadable, read_image

RAMP = np.arange(7 * 13 * 3, dtype=np.uint8).reshape(7, 13, 3) % 251  # 13 wide, 7 high: never square by luck


def refused(spec):
    with pytest.raises(UserError) as problem:
        open_source(spec)
    return str(problem.value)


# The built-in world


def test_the_world_has_its_defaults_and_takes_settings_in_any_order():
    plain = open_source("world:train")
    assert (plain.split, plain.seed, len(plain.ids)) == ("train", 0, 1200)
    set_ = open_source("world:validation,seed=7,n=3")
    assert (set_.split, set_.seed) == ("validation", 7)
    assert set_.ids == ["validation-7-000000", "validation-7-000001", "validation-7-000002"]
    assert plain.model == "tiny"


def test_the_world_gives_the_scenes_pictures_and_captions():
    source, scene = open_source("world:test,n=5,seed=3"), world.scene("test", 4, 3)
    assert source.captions(4) == scene.captions  # before the image was asked for, and after
    assert np.array_equal(np.asarray(source.image(4)), np.asarray(scene.image))
    assert source.captions(4) == scene.captions
    assert source.captions(3) == world.scene("test", 3, 3).captions


@pytest.mark.parametrize(
    "spec, parts",
    [
        ("world:trian", ['no split "trian"', 'did you mean "train"?', "train, validation, test"]),
        ("world:n=3", ['no split "n=3"', "train, validation, test"]),
        ("world:train,n=0", ["asks for no images", "at least 1"]),
        ("world:train,sed=1", ['"sed=1" is not understood (did you mean "seed"?', "world:SPLIT,n=COUNT,seed=SEED"]),
        ("world:train,n", ['"n" is not understood; expected world:SPLIT']),
        ("world:train,n=-3", ['"n=-3" is not understood; expected world:SPLIT']),
        ("world:train,n=many", ['"n=many"']),
        ("world:train,", ['"" is not understood']),
        ("wold:train", ['unknown source "wold:train" (did you mean "world"?', "world:SPLIT", "folder:DIR"]),
        ("flder:x", ['did you mean "folder"?']),
        ("world", ['unknown source "world"; expected one of world:SPLIT']),
        ("folder:", ['unknown source "folder:"; expected one of']),
        ("", ['unknown source ""']),
    ],
)
def test_a_source_that_is_not_understood_is_refused_with_what_was_expected(spec, parts):
    message = refused(spec)
    for part in parts:
        assert part in message


def test_a_bare_path_of_a_folder_gets_the_words_to_write(tmp_path):
    assert f"it is a folder, so write folder:{tmp_path}" in refused(str(tmp_path))
    odd = tmp_path / "a:b"
    odd.mkdir()
    assert f"write folder:{odd}" in refused(str(odd))


# Folders


def save(path, image=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    (image or Image.fromarray(RAMP)).save(path, **options)
    return path


def test_a_folder_is_read_with_all_below_it_in_order_of_the_paths(tmp_path):
    for name in ("b.png", "a/z.JPG", "a/y/x.webp", "c.gif", "d/e.bmp"):
        save(tmp_path / name)
    (tmp_path / "notes.md").write_text("no image")
    (tmp_path / "folder.png").mkdir()
    source = open_source(f"folder:{tmp_path}")
    assert source.ids == ["a/y/x.webp", "a/z.JPG", "b.png", "c.gif", "d/e.bmp"]
    assert np.array_equal(np.asarray(source.image(2)), RAMP)
    assert source.model == "vit_base_patch14_reg4_dinov2.lvd142m"


def test_captions_lie_beside_the_image_one_a_line(tmp_path):
    for name in ("a.b.png", "none.png", "blank.png", "sub/d.png", "bom.png"):
        save(tmp_path / name)
    (tmp_path / "a.b.txt").write_bytes("a dog\r\n\n  a cat 猫 \n   \n".encode())
    (tmp_path / "blank.txt").write_text("\n  \n\n")
    (tmp_path / "sub" / "d.txt").write_text("last line without an end")
    (tmp_path / "bom.txt").write_text("a tree\n", encoding="utf-8-sig")
    source = open_source(f"folder:{tmp_path}")
    found = {name: source.captions(i) for i, name in enumerate(source.ids)}
    assert found == {
        "a.b.png": ["a dog", "a cat 猫"],
        "blank.png": [],
        "bom.png": ["a tree"],
        "none.png": [],
        "sub/d.png": ["last line without an end"],
    }


def test_captions_that_are_no_text_are_refused_by_name(tmp_path):
    save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    with pytest.raises(UserError, match="a.txt: cannot be read as text.*one a line"):
        open_source(f"folder:{tmp_path}").captions(0)


def test_a_folder_that_is_none_says_what_is_there_instead(tmp_path):
    save(tmp_path / "a.png")
    (tmp_path / "empty").mkdir()
    assert "it is a file" in refused(f"folder:{tmp_path / 'a.png'}")
    assert "there is nothing" in refused(f"folder:{tmp_path / 'missing'}")
    message = refused(f"folder:{tmp_path / 'empty'}")
    assert "no images in" in message and ".jpeg" in message


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_file_name_that_is_no_text_is_refused_by_name(tmp_path):
    save(tmp_path / "a.png")
    os.rename(tmp_path / "a.png", os.fsencode(tmp_path) + b"/\xff.png")
    assert "is not UTF-8; rename it" in refused(f"folder:{tmp_path}")


def test_the_record_of_a_source_changes_with_its_list_and_not_with_its_bytes(tmp_path):
    save(tmp_path / "a.png")
    save(tmp_path / "b.png")

    def record():
        return source_record(open_source(f"folder:{tmp_path}"))

    first = record()
    assert first["spec"] == f"folder:{tmp_path}" and record() == first
    save(tmp_path / "a.png", Image.new("RGB", (3, 5)))
    (tmp_path / "a.txt").write_text("a caption")
    assert record() == first
    save(tmp_path / "c.png")
    more = record()
    assert more["list"] != first["list"]
    (tmp_path / "c.png").unlink()
    (tmp_path / "b.png").rename(tmp_path / "d.png")
    assert record()["list"] not in (first["list"], more["list"])
    worlds = {
        source_record(open_source(f"world:{w}"))["list"]
        for w in ("train,n=9", "train,n=8", "train,n=9,seed=1", "test,n=9")
    }
    assert len(worlds) == 4


# Files as they are


def bytes_of(kind, image=None, **options):
    buffer = io.BytesIO()
    (image or Image.fromarray(RAMP)).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_every_promised_format_is_read_as_rgb(tmp_path, suffix):
    image = read_image(save(tmp_path / f"a{suffix}"))
    assert image.mode == "RGB" and image.size == (13, 7)
    if suffix in (".png", ".bmp", ".tif", ".tiff"):
        assert np.array_equal(np.asarray(image), RAMP)


JPEG = bytes_of("JPEG", Image.fromarray(np.tile(RAMP, (20, 20, 1))))
PNG = bytes_of("PNG", Image.fromarray(np.tile(RAMP, (20, 20, 1))))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"this is no image\n",
        JPEG[: len(JPEG) // 2],
        PNG[: len(PNG) // 2],
        PNG[:30],
        JPEG[:2],
        b"GIF89a",
        bytes(999),
    ],
    ids="0-byte text half-jpeg half-png png-head jpeg-head gif-head zeros".split(),
)
def test_a_file_that_cannot_be_decoded_is_one_unreadable_image_with_its_name(tmp_path, content):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageUnreadable, match="a.jpg: not a readable image"):
        read_image(path)
    with pytest.raises(ImageUnreadable, match="b.jpg: no such file"):
        read_image(tmp_path / "b.jpg")


@pytest.mark.filterwarnings("ignore")  # Pillow's, of damage it survives
def test_damaged_files_never_raise_anything_else(tmp_path):
    random, path, outcomes = np.random.default_rng(0), tmp_path / "a.bin", set()
    exif = Image.Exif()
    exif[0x112] = 6
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "BMP"):
        good = bytes_of(kind, **({"exif": exif} if kind in ("JPEG", "PNG", "WEBP") else {}))
        for _ in range(60):
            damaged = bytearray(good)
            for at in random.integers(0, min(len(good), 120), 3):
                damaged[at] = random.integers(256)
            path.write_bytes(damaged)
            try:
                outcomes.add(read_image(path).mode)
            except ImageUnreadable:
                outcomes.add("unreadable")
    assert outcomes == {"RGB", "unreadable"}


def test_cmyk_is_read_as_the_colours_it_shows(tmp_path):
    red = Image.new("CMYK", (16, 8), (0, 255, 255, 0))
    image = read_image(save(tmp_path / "a.jpg", red, quality=95))
    assert image.mode == "RGB"
    assert np.allclose(np.asarray(image), (255, 0, 0), atol=6)


def test_sixteen_bits_a_pixel_keep_their_shades(tmp_path):
    deep = np.linspace(0, 65535, 13 * 7).astype(np.uint16).reshape(7, 13)
    for name in ("a.png", "a.tif"):
        image = read_image(save(tmp_path / name, Image.fromarray(deep)))
        assert image.mode == "RGB"
        assert np.array_equal(np.asarray(image), np.repeat((deep >> 8)[..., None], 3, 2).astype(np.uint8))


@pytest.mark.parametrize("mode, value", [("L", 77), ("1", 1), ("LA", (77, 0)), ("RGBA", (1, 2, 3, 0))])
def test_other_modes_become_rgb_and_transparency_is_dropped(tmp_path, mode, value):
    image = read_image(save(tmp_path / "a.png", Image.new(mode, (13, 7), value)))
    expected = {"L": (77,) * 3, "1": (255,) * 3, "LA": (77,) * 3, "RGBA": (1, 2, 3)}[mode]
    assert image.mode == "RGB" and image.getpixel((12, 6)) == expected


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
def test_a_palette_with_transparency_gives_its_colours(tmp_path):
    picture = Image.new("P", (13, 7), 2)
    picture.putpalette([0, 0, 0, 255, 0, 0, 10, 200, 30])
    picture.putpixel((4, 5), 1)
    for transparency in (1, bytes([255, 0, 128])):
        image = read_image(save(tmp_path / "a.png", picture, transparency=transparency))
        assert image.mode == "RGB"
        assert image.getpixel((4, 5)) == (255, 0, 0) and image.getpixel((0, 0)) == (10, 200, 30)


def test_of_an_animation_the_first_frame_is_read(tmp_path):
    frames = [Image.new("RGB", (13, 7), colour) for colour in ("red", "lime", "blue")]
    image = read_image(save(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:]))
    assert image.getpixel((6, 3)) == (255, 0, 0) and image.size == (13, 7)


def test_a_picture_taken_with_the_camera_turned_is_upright(tmp_path):
    exif = Image.Exif()
    exif[0x112] = 6  # to be turned by 90 degrees clockwise
    image = read_image(save(tmp_path / "a.png", exif=exif))
    assert image.size == (7, 13)
    assert np.array_equal(np.asarray(image), np.rot90(RAMP, -1))


def test_hidden_files_and_what_macos_adds_are_no_images(tmp_path):
    for name in ("a.jpg", ".hidden.jpg", ".cache/b.jpg", "__MACOSX/._a.jpg", "sub/c.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    assert open_source(f"folder:{tmp_path}").ids == ["a.jpg", "sub/c.jpg"]
