"""The whole objective through the kernels: lists that come with a batch change no bit of it, nor do ranks its sum."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fastzss import kernels
from fastzss.base.ragged import offsets
from fastzss.methods.simzss.batch import Texts, collate
from fastzss.methods.simzss.loader import own_rows
from fastzss.methods.simzss.objective import simzss, used_units
from fastzss.methods.simzss.shapes import Shapes
from fastzss.text.tower import TextTower, TowerSize

pytestmark = pytest.mark.usefixtures("poison")
D = 16


def some_texts(captions=20, mentions=30):
    """Captions of one to three images; some mention nothing, and one image has more mentions than a program takes."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(4, 12, captions)
    caption = np.sort(rng.integers(0, captions - 3, mentions))
    row = rng.integers(1, 12, captions)
    row[: captions // 2] = 3
    return Texts.of(
        ids=rng.integers(1, 400, lengths.sum()),
        ids_offset=offsets(lengths),
        row=row,
        caption=caption,
        name=rng.integers(0, 7, mentions),
        token=np.concatenate([rng.choice(np.arange(1, lengths[c]), 2) for c in caption]),
        token_offset=2 * np.arange(mentions + 1),
    )


def learned(batch, backend, monkeypatch, dtype=torch.float32, **options):
    """Losses and gradients of a tower on a batch."""
    monkeypatch.setenv("FASTZSS_BACKEND", backend)
    torch.manual_seed(0)
    patches = kernels.Patches(F.normalize(torch.randn(12, 9, D), dim=-1).to(dtype))
    images, scale = torch.randn(12, D).to(dtype), torch.tensor(2.5, dtype=dtype, requires_grad=True)
    tower = TextTower(TowerSize(32, 1, 4), D).to(dtype)
    units = used_units(tower, batch)
    if batch.image.numel() and options.pop("own", False):
        rows, batch = own_rows(batch)
        patches = kernels.Patches(patches.tokens[rows])
    losses = simzss(units, batch, patches, images, scale, local_weight=0.7, temperature=0.1, **options)
    losses.loss.backward()
    return [losses.loss_global.detach(), losses.loss_local.detach(), scale.grad, *(p.grad for p in tower.parameters())]


@pytest.mark.parametrize("options", [{}, {"target": "argmax", "same": "mask"}, {"own": True}], ids=str)
@pytest.mark.parametrize("shapes", [None, Shapes(64, 6, 40, 80, 9)], ids=["as it is", "filled up"])
def test_lists_made_beforehand_change_no_bit(shapes, options, monkeypatch):
    batch = collate(some_texts(), np.arange(20), shapes=shapes)
    found = learned(batch.with_lists(), "interpret", monkeypatch, **options)
    for one, other in zip(found, learned(batch, "interpret", monkeypatch, **options), strict=True):
        assert torch.equal(one, other)
    exact = learned(batch, "reference", monkeypatch, torch.float64, **options)
    for one, other in zip(found, exact, strict=True):
        assert (one.double() - other).norm() <= 1e-5 * other.norm()


def test_no_mention_at_all(monkeypatch):
    texts = Texts.of([1, 2, 1, 2], [0, 2, 4], [0, 1], [], [], [], [0])
    batch = collate(texts, np.array([1, 0])).with_lists()
    found = learned(batch, "interpret", monkeypatch)
    assert found[1] == 0
    for one, other in zip(found, learned(batch, "reference", monkeypatch, torch.float64), strict=True):
        assert (one.double() - other).norm() <= 1e-5 * max(1, other.norm())
