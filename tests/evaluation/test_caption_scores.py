"""Held-out captions as a measure: the mathematics by hand, and a run that has learned beside one that has not."""

import pytest
import torch

from fastzss.base.errors import UserError
from fastzss.base.runs import Run
from fastzss.evaluation.caption_scores import average_precision, caption_scores, judged_rows, reciprocal_rank
from fastzss.methods.held_out import held_out
from fastzss.store.reading.reader import PatchStore
from fastzss.text.readout import Readout, load_tower
from fastzss.text.tower import PRESETS, TextTower


def test_reciprocal_rank_by_hand():
    similarity = torch.tensor([[0.9, 0.1, 0.3], [0.9, 0.1, 0.3], [0.5, 0.5, 0.4]])
    own = torch.tensor([0, 1, 1])  # first, third, and one of two equals, of which the worse place counts
    assert reciprocal_rank(similarity, own) == pytest.approx((1 + 1 / 3 + 1 / 2) / 3)


def test_average_precision_by_hand():
    score = torch.tensor([[0.9, 0.8, 0.1, 0.7], [1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]])
    right = torch.tensor([[1, 0, 0, 1], [1, 1, 1, 1], [1, 0, 0, 0]]).bool()
    # the first: places 1 and 3 are right; the second says nothing; of the third the last place is
    assert average_precision(score, right) == pytest.approx(((1 + 2 / 3) / 2 + 1 / 4) / 2)
    assert average_precision(score[1:2], right[1:2]) == 0


def test_who_has_learned_finds_more(store, trained):
    opened, run = PatchStore(store), Run.open(trained)
    rows = judged_rows(opened, held_out(len(opened), 0.4))
    learned = Readout(load_tower(run), "both")
    torch.manual_seed(0)
    blank = Readout(TextTower(PRESETS["tiny"], opened.plan.channels), "both")
    found, before = (caption_scores(words, opened, rows, feature="patch-mean") for words in (learned, blank))
    assert found["score"] == pytest.approx((found["image"] + found["patches"]) / 2)
    for key in ("image", "patches"):
        assert found[key] > before[key] + 10, key


def test_too_few_are_named(store, trained):
    opened = PatchStore(store)
    words = Readout(load_tower(Run.open(trained)), "both")
    with pytest.raises(UserError, match="1 images with 2 captions are held out, too few to judge by"):
        caption_scores(words, opened, judged_rows(opened, held_out(len(opened), 0.4))[:1])


def test_images_without_captions_are_no_judges(store):
    opened = PatchStore(store)
    held = held_out(len(opened), 0.5)
    rows = judged_rows(opened, held)
    assert held[rows].all() and set(rows) <= set(opened.captions.row.tolist())
    assert len(rows) == held.sum()
