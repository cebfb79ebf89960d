"""Windows of the public protocols: their grids, and that two matrices do what interpolations one by one would."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.backbones import SMALL, picture
from helpers.memory import peak_bytes
from hypothesis import given, settings
from hypothesis import strategies as st

from fastzss.backbones import load_vision
from fastzss.evaluation import pixels
from fastzss.evaluation.pixels import nearest, total
from fastzss.evaluation.score import confusion
from fastzss.evaluation.windows import WindowField, WindowLook, fitted, starts
from fastzss.masks.refine import refined
from fastzss.masks.windows import winners

TCL = WindowLook()
TALK2DINO = WindowLook(pad="square", align_corners=True)
SCLIP = WindowLook(short=336, window=224, stride=112)


@pytest.mark.parametrize(
    "size, resized, windows",  # (width, height), as published
    [
        ((500, 375), (597, 448), 2),
        ((640, 480), (597, 448), 2),
        ((2048, 1024), (896, 448), 3),
        ((683, 512), (598, 448), 2),
        ((3000, 500), (2048, 341), 9),
        ((1000, 200), (2048, 410), 9),
    ],
)
def test_sizes_and_windows_are_those_of_the_unified_protocol(size, resized, windows):
    assert fitted(size, 448, 2048) == resized
    rows, columns = TCL.sides(size[::-1], 14)
    assert len(rows.starts) * len(columns.starts) == windows


def test_the_windows_of_a_voc_image():
    rows, columns = TCL.sides((375, 500), 14)
    assert (rows.starts, columns.starts, rows.extent) == ([0], [0, 149], 448)


def test_windows_that_are_less_than_448_are_filled_up_or_made_square():
    (rows, _), (square, _) = TCL.sides((500, 3000), 14), TALK2DINO.sides((500, 3000), 14)
    assert (rows.extent, rows.seen, rows.before, rows.patches) == (341, 350, 4, 25)
    assert (square.extent, square.seen, square.patches) == (341, 448, 32)


@given(st.integers(1, 3000), st.sampled_from([(448, 224), (224, 112), (336, 112), (32, 32), (7, 3)]))
@settings(deadline=None)
def test_every_pixel_is_covered_and_windows_lie_inside(length, grid):
    window, stride = grid
    found = starts(length, window, stride)
    covered = np.zeros(length, int)
    for start in found:
        assert start >= 0 and start + min(window, length) <= length
        covered[start : start + window] += 1
    assert covered.min() >= 1 and found == sorted(found)
    # as mmsegmentation counts them
    assert len(found) == max(length - window + stride - 1, 0) // stride + 1


@given(st.integers(1, 900), st.integers(1, 900), st.sampled_from([TCL, TALK2DINO, SCLIP]))
@settings(deadline=None, max_examples=40)
def test_a_constant_stays_what_it_is_at_every_pixel(height, width, look):
    """Every pixel's weights add up to 1: nothing is counted twice, or lost."""
    for side, length in zip(look.sides((height, width), 14), (height, width), strict=True):
        assert side.matrix.shape == (length, len(side.starts) * side.patches)
        assert torch.allclose(side.matrix.sum(1), torch.ones(length), atol=1e-5)


def field_of(size, look, classes, seed=0, patch=14, smooth=0):
    """A WindowField, and values [P, classes] of it."""
    sides, generator = look.sides(size, patch), torch.Generator().manual_seed(seed)
    windows = len(sides[0].starts) * len(sides[1].starts)
    values = torch.randn(windows, classes, sides[0].patches, sides[1].patches, generator=generator)
    for _ in range(smooth):
        values = F.avg_pool2d(F.pad(values, (2, 2, 2, 2), mode="replicate"), 5, 1)
    values = values.permute(0, 2, 3, 1).reshape(-1, classes).contiguous()
    return WindowField(torch.zeros(windows, len(values) // windows, 4), sides, None), values


def one_by_one(field, values, size):
    """[K, H, W] by the book: every window's maps to its pixels, summed, divided, brought to the size of the labels."""
    rows, columns = field.sides
    maps = values.view(-1, rows.patches, columns.patches, values.shape[1]).permute(0, 3, 1, 2)
    sums = torch.zeros(maps.shape[1], rows.resized, columns.resized)
    counts, number = torch.zeros(rows.resized, columns.resized), 0
    for y in rows.starts:
        for x in columns.starts:
            seen = (rows.seen, columns.seen) if rows.pad == "patch" else (rows.extent, columns.extent)
            full = F.interpolate(maps[number : number + 1], seen, mode="bilinear", align_corners=rows.align_corners)[0]
            inside = full[:, rows.before :, columns.before :][:, : rows.extent, : columns.extent]
            sums[:, y : y + rows.extent, x : x + columns.extent] += inside
            counts[y : y + rows.extent, x : x + columns.extent] += 1
            number += 1
    return F.interpolate((sums / counts)[None], size, mode="bilinear")[0]


@pytest.mark.parametrize("look", [TCL, TALK2DINO, SCLIP], ids=["tcl", "talk2dino", "sclip"])
@pytest.mark.parametrize("size", [(375, 500), (100, 733), (51, 37)], ids=["voc", "panorama", "small"])
@pytest.mark.parametrize("smooth", [0, 2], ids=["noise", "smooth"])
def test_two_matrices_do_what_interpolations_one_by_one_do(look, size, smooth):
    field, values = field_of(size, look, 21, smooth=smooth)
    expected = one_by_one(field, values, size)
    best, winner = nearest(field.on_grid(values), *field.matrices())
    assert (best - expected.amax(0)).abs().max() < 1e-5
    second = expected.topk(2, 0).values
    clear = second[0] - second[1] > 1e-5
    assert clear.float().mean() > 0.99 and torch.equal(winner[clear], expected.argmax(0)[clear])
    every = pixels.of_all(field.on_grid(values), *field.matrices())
    assert (every[0] - best).abs().max() < 1e-5 and torch.equal(every[1][clear], winner[clear])
    assert torch.allclose(total(field.on_grid(values), *field.matrices(), 7.0), (7 * expected).logsumexp(0), atol=1e-4)


@pytest.fixture(scope="module")
def vision():
    return load_vision(SMALL, random=True, size=224)


def look_at(look, image):
    return (image.height, image.width), look.resized(image)


@pytest.mark.parametrize("look", [WindowLook(short=96, window=96, stride=48, long=256), SCLIP], ids=["small", "sclip"])
def test_windows_together_are_windows_one_by_one(vision, look):
    images = [look_at(look, picture(*size, seed)) for seed, size in enumerate([(130, 97), (97, 130), (300, 61)])]
    together = look.see(vision, images)
    for image, field in zip(images, together, strict=True):
        rows, columns = field.sides
        eye = vision.at(rows.seen, columns.seen)
        alone = torch.cat([eye(view[None])[0] for view in look.views(image[1], image[0], vision)]).flatten(0, 1)
        assert (field.patches - alone).abs().max() < 1e-5 and field.size == tuple(image[1].shape[1:])


def test_an_image_is_resized_as_opencv_does_it():
    """Bilinear without smoothing: of a step in the middle of two pixels, nothing but their two values and means."""
    image = picture(500, 375)
    found = TCL.resized(image)
    exact = F.interpolate(
        torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].double(), (448, 597), mode="bilinear"
    )
    assert found.shape == (3, 448, 597) and (found.double() - exact[0]).abs().max() <= 0.5 + 1e-3


def test_a_backbone_at_another_size_shares_its_weights_and_is_itself_at_its_own(vision):
    other = vision.at(96, 128)
    assert vision.at(224, 224) is vision and vision.at(96, 128) is other and other.grid == (6, 8)
    assert other.model.blocks[0].mlp.fc1.weight is vision.model.blocks[0].mlp.fc1.weight
    assert vision.grid == (14, 14) and vision.model.pos_embed.shape[1] == 14 * 14 + 1
    x = torch.randint(256, (1, 3, 96, 128), dtype=torch.uint8)
    assert other(x)[0].shape == (1, 48, vision.channels)


def test_the_tiny_backbone_meets_other_sizes_as_timm_would():
    import timm

    tiny = load_vision("tiny")
    same = timm.create_model(
        "vit_tiny_patch16_224", img_size=128, patch_size=8, embed_dim=128, depth=4, num_heads=4, num_classes=0
    )
    same.load_state_dict(tiny.model.state_dict(), strict=False)
    same.set_input_size(img_size=(96, 160))
    assert torch.equal(tiny.at(96, 160).model.pos_embed, same.pos_embed)


def test_a_large_image_with_171_classes_needs_little_memory():
    """2048 x 1024: beyond the model less than 2 GB, refined as well; a map of all classes would be 1.4 GB."""
    field, values = field_of((1024, 2048), TCL, 171, smooth=2)
    truth = np.zeros((1024, 2048), np.uint8)

    def plain():
        winner = nearest(field.on_grid(values), *field.matrices())[1]
        confusion(truth, winner.numpy(), 171)

    def edges():
        maps = field.maps(values).mul_(20).softmax(0)
        image = torch.zeros(3, *maps.shape[1:], dtype=torch.uint8)
        winners(refined(image, maps, 1, (1, 2, 4, 8, 12, 24)), truth.shape)

    assert peak_bytes(plain) < 2e8
    assert peak_bytes(edges) < 2e9
