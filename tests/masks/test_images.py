"""Whatever holds an image becomes the same upright RGB image."""

import io
import pathlib

import numpy as np
import pytest
import torch
from PIL import Image

from fastzss.base.errors import UserError
from fastzss.masks.images import rgb

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)


def png(image, **options):
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def test_everything_that_is_taken_is_one_image(tmp_path):
    data = png(Image.fromarray(PIXELS))
    (tmp_path / "a.png").write_bytes(data)
    chw = torch.from_numpy(PIXELS).permute(2, 0, 1)
    with open(tmp_path / "a.png", "rb") as opened:
        given = [tmp_path / "a.png", str(tmp_path / "a.png"), data, bytearray(data), io.BytesIO(data), opened,
                 Image.fromarray(PIXELS), PIXELS, PIXELS / 255, (PIXELS / 255).astype(np.float16), chw, chw / 255,
                 chw.double() / 255, chw.clone().requires_grad_(False), PIXELS[:, ::-1][:, ::-1],
                 np.dstack([PIXELS, PIXELS[..., :1]])]  # fmt: skip
        for image in given:
            found = rgb(image)
            assert found.mode == "RGB" and np.array_equal(np.asarray(found), PIXELS), image


def test_grey_is_grey():
    grey = PIXELS[..., 0]
    for image in (grey, grey[..., None], torch.from_numpy(grey), torch.from_numpy(grey)[None], Image.fromarray(grey)):
        assert np.array_equal(np.asarray(rgb(image)), np.repeat(grey[..., None], 3, 2))
    assert np.array_equal(np.asarray(rgb(grey > 100))[..., 0], (grey > 100) * 255)


def test_a_camera_that_was_turned(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6
    data = png(Image.fromarray(PIXELS), exif=turned)
    expected = np.rot90(PIXELS, -1)
    for image in (data, Image.open(io.BytesIO(data))):
        assert np.array_equal(np.asarray(rgb(image)), expected)


@pytest.mark.parametrize(
    "image, found",
    [(3, "int"), (None, "NoneType"), ({}, "dict"), (PIXELS.astype(np.int32), "int32"),
     (PIXELS.astype(np.float32), "from 0 to 2"), (PIXELS / 255 - 0.1, "from -0.1"), (np.full((5, 7), np.nan), "nan"),
     (PIXELS.transpose(2, 0, 1), r"an array of uint8 \[3, 5, 7\]"), (np.zeros((0, 4, 3), np.uint8), r"\[0, 4, 3\]"),
     (torch.zeros(5, 7, 3), r"a tensor of float32 \[5, 7, 3\]"), (torch.zeros(2, 3, 5, 7), r"\[2, 3, 5, 7\]")],
)  # fmt: skip
def test_anything_else_is_a_type_error_of_one_sentence(image, found):
    with pytest.raises(TypeError, match=rf"an image is given as .*{found}.*; expected a path, bytes") as problem:
        rgb(image)
    assert "\n" not in str(problem.value)


@pytest.mark.parametrize("image, name", [(b"none", "4 bytes"), (pathlib.Path("no/file.jpg"), "no/file.jpg")])
def test_what_cannot_be_read_is_named(image, name):
    with pytest.raises(UserError, match=name):
        rgb(image)
    with pytest.raises(UserError, match="the opened file: not a readable image"):
        rgb(io.BytesIO(b"no image"))
