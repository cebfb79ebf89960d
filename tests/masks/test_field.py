"""A field against plain loops: patches of all windows and shifts on one grid, and what is done on it."""

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from fastzss import world
from fastzss.backbones import load_vision
from fastzss.backbones.vision import as_tensor
from fastzss.kernels import reference
from fastzss.masks import field as field_module
from fastzss.masks.field import Field, see


class Colours:
    """A backbone whose patches are mean colours, as unit vectors: what a view shows can be worked out by hand."""

    size, grid, channels, device = 16, (4, 4), 3, torch.device("cpu")

    def resize(self, image):
        short = min(image.size)
        return image.resize([self.size * side // short for side in image.size])

    def __call__(self, pixels):
        patches = F.avg_pool2d(pixels.float() + 1, self.size // self.grid[0])
        return F.normalize(patches.flatten(2).mT, dim=-1), None


def noise(width, height):
    pixels = torch.randint(256, (height, width, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


def patch_at(pixels, y, x, side):
    return F.normalize((pixels[:, y : y + side, x : x + side].float() + 1).mean((1, 2)), dim=0)


def test_a_cell_is_the_mean_of_the_patches_over_it():
    """One window: a cell of half a patch lies under four patches, those at multiples of half a patch around it."""
    vision, image = Colours(), noise(16, 16)
    found = see(vision, image)
    assert found.grid == (8, 8) and found.cell == 2 and found.size == (16, 16)
    padded = F.pad(as_tensor(image)[None].float(), [2, 0, 2, 0], mode="reflect")[0]
    pixels = as_tensor(image)
    assert torch.equal(padded[:, 2:, 2:], pixels.float())
    for y in range(8):
        for x in range(8):
            over, weights = [], []
            for dy in (0, 1):
                for dx in (0, 1):
                    row, column = (y + dy) // 2, (x + dx) // 2  # the patch of a view that is shifted by (dy, dx)
                    if row < 4 and column < 4:
                        over.append(patch_at(padded, 2 + 4 * row - 2 * dy, 2 + 4 * column - 2 * dx, 4))
                        weights.append(min(row + 1, 4 - row) * min(column + 1, 4 - column))
            mean = sum(w * p for w, p in zip(weights, over, strict=True)) / sum(weights)
            assert torch.allclose(found.patches[8 * y + x], mean, atol=1e-5), (y, x)


def test_one_window_seen_once_is_what_the_backbone_gives():
    vision = load_vision("tiny")
    image = world.scene("test", 3).image
    found = see(vision, image, dense=False)
    assert found.grid == (16, 16) and found.cell == 8
    assert torch.allclose(found.patches, vision(as_tensor(image)[None])[0][0], atol=1e-6)


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("size", [(16, 16), (37, 16), (16, 41), (160, 16), (18, 17)])
def test_windows_cover_an_image_of_any_shape(size, dense):
    """Of one colour everywhere all cells are the same vector; the grid ends where the image does."""
    found = see(Colours(), Image.new("RGB", size, (200, 30, 90)), dense)
    h, w = found.grid
    assert 0 <= h * found.cell - found.size[0] < found.cell and 0 <= w * found.cell - found.size[1] < found.cell
    one = F.normalize(torch.tensor([201.0, 31.0, 91.0]), dim=0)
    assert torch.allclose(found.patches, one.expand(h * w, 3), atol=1e-5)


def test_where_windows_overlap_patches_are_averaged_by_their_place():
    """Mean colours do not depend on the window: any weights give the patches of the image itself."""
    image = noise(32, 16)
    found = see(Colours(), image, dense=False)
    for y in range(4):
        for x in range(8):
            assert torch.allclose(found.patches[8 * y + x], patch_at(as_tensor(image), 4 * y, 4 * x, 4), atol=1e-5)

    class Windowed(Colours):  # a window's patches are its first pixel: whose they are is seen
        def __call__(self, pixels):
            first = F.normalize(pixels[:, :, 0, 0].float() + 1, dim=-1)
            return first.unsqueeze(1).expand(-1, 16, -1), None

    found = see(Windowed(), image, dense=False)
    left, middle = (patch_at(as_tensor(image), 0, x, 1) for x in (0, 8))
    # the third column of cells: third of the window at 0 (weight 2 of 4), first of that at 8 (weight 1)
    assert torch.allclose(found.patches[2], (2 * left + middle) / 3, atol=1e-5)


def test_the_same_image_is_the_same_field():
    vision, image = load_vision("tiny"), world.scene("large", 1).image
    assert torch.equal(see(vision, image).patches, see(vision, image).patches)


def some_field(h, w, seed=0):
    patches = F.normalize(torch.randn(h * w, 8, generator=torch.Generator().manual_seed(seed)), dim=-1)
    return Field(patches, (h, w), 4, torch.zeros(3, h * 4, w * 4, dtype=torch.uint8))


def test_smoothing_is_the_operation_and_none_changes_nothing():
    field = some_field(5, 7)
    values = torch.randn(35, 3)
    assert field.smooth(values, 0) is values
    plain = reference.smooth_patches(field.patches[None], values[None], 0.1)[0]
    assert torch.allclose(field.smooth(values, 0.1), plain, atol=1e-5)
    assert torch.allclose(field.smoothed(0.1), field.smooth(field.patches, 0.1))
    assert field.smoothed(0.1) is field.smoothed(0.1)


@pytest.mark.parametrize("h, w", [(3, 40), (40, 3)])
def test_a_long_image_is_smoothed_in_bands_across_it(h, w, monkeypatch):
    monkeypatch.setattr(field_module, "BAND", 30)  # ten rows or columns of three
    field = some_field(h, w)
    values = torch.randn(h * w, 2)
    found = field.smooth(values, 0.2).view(h, w, 2)
    for begin in range(0, 40, 10):
        part = (slice(None), slice(begin, begin + 10)) if w > h else (slice(begin, begin + 10),)
        own, there = field.patches.view(h, w, 8)[part], values.view(h, w, 2)[part]
        plain = reference.smooth_patches(own.reshape(1, 30, 8), there.reshape(1, 30, 2), 0.2).view(there.shape)
        assert torch.allclose(found[part], plain, atol=1e-5)


def test_maps_are_bilinear_and_end_where_the_image_does():
    field = some_field(4, 5)
    field.pixels = torch.zeros(3, 15, 18, dtype=torch.uint8)
    values = torch.randn(20, 3)
    plain = F.interpolate(values.T.view(1, 3, 4, 5), (16, 20), mode="bilinear")[0, :, :15, :18]
    assert torch.allclose(field.maps(values), plain, atol=1e-5)
