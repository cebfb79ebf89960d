"""Refinement: classes are left out only where nothing changes."""

import pytest
import torch

from fastzss import world
from fastzss.backbones.vision import as_tensor
from fastzss.kernels import reference
from fastzss.masks.refine import possible, refined


def shares(classes, sharpness, seed=0):
    random = torch.Generator().manual_seed(seed)
    lumps = torch.randn(1, classes, 6, 6, generator=random) - torch.arange(classes).view(1, -1, 1, 1) / 8
    return (sharpness * torch.nn.functional.interpolate(lumps, (48, 48), mode="bilinear")[0]).softmax(0)


@pytest.mark.parametrize("sharpness", [1, 4, 20])
def test_the_winners_are_those_of_all_classes(sharpness):
    pixels, found = as_tensor(world.scene("test", 2).image)[:, :48, :48], shares(20, sharpness)
    whole = reference.refine_scores(pixels.float() / 255, found, 5, (1, 2, 4))
    own = refined(pixels, found, 5, (1, 2, 4))
    assert torch.equal(own.argmax(0), whole.argmax(0))
    kept = possible(found.amax((1, 2)))
    assert torch.allclose(own[kept], whole[kept], atol=1e-5) and (own[~kept] == 0).all()
    assert kept[whole.argmax(0).unique()].all() and (not kept.all() or sharpness == 1)


def test_what_can_win_is_worked_out_by_hand():
    # 3 classes share at least 1; the third never has a third of it; the others then share at least 0.9
    assert possible(torch.tensor([0.9, 0.6, 0.1])).tolist() == [True, True, False]
    # a quarter each at least: the last two go, then 0.6 is left for two: 0.3 each
    assert possible(torch.tensor([0.9, 0.29, 0.2, 0.2])).tolist() == [True, False, False, False]
    assert possible(torch.full((7,), 1 / 7)).all()


def test_edges_of_the_image_hold_the_shares_apart():
    """Scores that bleed over an edge of the image are drawn back to it; on an even image they are only spread."""
    edge = torch.zeros(3, 24, 24, dtype=torch.uint8)
    edge[:, :, 12:] = 255
    bled = torch.full((24,), 0.1)
    bled[:14] = 0.9  # two columns too far
    found = torch.stack([bled.expand(24, 24), 1 - bled.expand(24, 24)])
    masks = [refined(pixels, found, 10, (1, 2, 4, 8)).argmax(0) for pixels in (edge, torch.zeros_like(edge))]
    truth = (torch.arange(24) >= 12).long().expand(24, 24)
    assert torch.equal(masks[0], truth) and not torch.equal(masks[1], truth)
