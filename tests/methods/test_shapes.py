"""One set of shapes for all steps of a run, and what fills a batch up changes nothing."""

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fastzss import kernels
from fastzss.base.ragged import offsets
from fastzss.methods.simzss.batch import Texts, collate
from fastzss.methods.simzss.loader import Loader
from fastzss.methods.simzss.objective import simzss, used_units
from fastzss.methods.simzss.shapes import ABSENT, Shapes, shapes_of
from fastzss.text.packing import pack, rows_needed
from fastzss.text.tower import TextTower, TowerSize

D = 16


@pytest.mark.parametrize("length", [64, 128])
@pytest.mark.parametrize("seed", range(20))
def test_rows_are_counted_as_they_are_packed(seed, length):
    random = np.random.default_rng(seed)
    lengths = random.integers(1 + seed % 3, random.integers(4, length + 1) + 1, random.integers(1, 400))
    counts = np.bincount(lengths, minlength=length + 1)
    assert rows_needed(counts, length) == pack(lengths, length)[1]


def some_texts(captions=90, seed=0):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(4, 30, captions)
    caption = np.sort(rng.integers(0, captions, 150))
    return Texts.of(
        ids=rng.integers(1, 400, lengths.sum()),
        ids_offset=offsets(lengths),
        row=rng.integers(0, 40, captions),
        caption=caption,
        name=rng.integers(0, 12, 150),
        token=np.concatenate([rng.choice(np.arange(1, lengths[c] - 1), 2) for c in caption]),
        token_offset=2 * np.arange(151),
    )


def learned(batch, rows=None, **options):
    """[losses, gradients] of a tower on a batch."""
    torch.manual_seed(0)
    patches = kernels.Patches(F.normalize(torch.randn(40, 9, D, dtype=torch.double), dim=-1))
    images, scale = torch.randn(40, D, dtype=torch.double), torch.tensor(2.5, dtype=torch.double, requires_grad=True)
    tower = TextTower(TowerSize(32, 2, 4), D).double()
    units = used_units(tower, batch, rows)
    losses = simzss(units, batch, patches, images, scale, local_weight=0.7, temperature=0.1, **options)
    losses.loss.backward()
    values = [losses.loss_global.detach(), losses.loss_local.detach(), scale.grad]
    return [*values, *(p.grad for p in tower.parameters())]


@pytest.mark.parametrize("options", [{}, {"target": "argmax"}, {"same": "mask"}, {"rows": 7}], ids=str)
@pytest.mark.parametrize("backend", ["chunked", "reference"])
def test_a_batch_that_is_filled_up_teaches_the_same(monkeypatch, backend, options):
    monkeypatch.setenv("FASTZSS_BACKEND", backend)
    texts, chosen = some_texts(), np.arange(0, 90, 2)
    alone = collate(texts, chosen)
    counts = len(alone.ids), len(alone.name), len(alone.token), len(alone.present)
    shapes = Shapes(128, *(count + more for count, more in zip(counts, (5, 9, 400, 6), strict=True)))
    full = collate(texts, chosen, shapes=shapes)
    assert full.ids.shape == (counts[0] + 5, 128)
    assert full.present.tolist() == alone.present.tolist() + 6 * [ABSENT]
    for found, expected in zip(learned(full, **options), learned(alone, **options), strict=True):
        assert expected.norm() > 0 and (found - expected).norm() <= 1e-6 * expected.norm()


def test_both_ranks_have_the_same_shapes():
    texts = some_texts()
    shapes = shapes_of(texts, [np.arange(90)], ranks=2)
    found = [sizes(collate(texts, np.arange(90), rank, 2, shapes)) for rank in range(2)]
    assert found[0] == found[1]


def test_a_rank_without_a_mention_has_the_class_vectors_of_the_others():
    texts = some_texts()
    silent = np.diff(texts.mention_offset) == 0
    chosen = np.concatenate([np.flatnonzero(silent)[:10], np.flatnonzero(~silent)[:10]])
    shapes = shapes_of(texts, [chosen], ranks=2)
    none, some = (collate(texts, chosen, rank, 2, shapes) for rank in range(2))
    assert not len(none.name) and len(some.name) == shapes.mentions
    assert none.present.tolist() == some.present.tolist() and len(some.present) == shapes.names


def test_a_batch_that_needs_more_than_was_counted_gets_the_next_size():
    texts = some_texts()
    shapes = shapes_of(texts, [np.arange(20)])
    larger = collate(texts, np.arange(90), shapes=shapes)
    assert len(larger.ids) % shapes.rows == 0 and len(larger.name) % shapes.mentions == 0
    for found, expected in zip(learned(larger), learned(collate(texts, np.arange(90))), strict=True):
        assert (found - expected).norm() <= 1e-6 * expected.norm()


def sizes(batch):
    names = "ids segment eot row token offset caption image name weight present".split()
    return tuple(tuple(getattr(batch, name).shape) for name in names)


def test_a_run_of_300_steps_on_captions_as_long_as_cocos_has_one_set_of_shapes(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    fake = importlib.import_module("fake")
    fake.write_store(tmp_path / "store", 2000, 10_000, (2, 2), fake.random_features(8, 4, 8))
    loader = Loader(tmp_path / "store", 512, captions="all")
    loader.load("device")
    assert not loader.constant, "on a CPU batches stay as they are"
    as_they_are = {sizes(batch) for batch, _ in loader.steps(0, 300)}
    loader.constant = True
    constant = [sizes(batch) for batch, _ in loader.steps(0, 300)]
    assert len(as_they_are) > 250 and len(constant) == 300 and len(set(constant)) == 1
    most = max(shape[0][0] for shape in as_they_are)
    assert most <= constant[0][0][0] < most + 16, "no more rows than the fullest step needs, but for alignment"
    assert set(sizes(batch) for batch, _ in loader.steps(150, 160)) != as_they_are
