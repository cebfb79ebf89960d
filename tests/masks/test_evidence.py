"""Evidence: the formula by loops, what is left alone, and which name of a bank a phrase is about."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from fastzss.masks.evidence import KNOWN, NEARNESS, SPREAD, Known, guide
from fastzss.masks.inference import DEFAULT


@pytest.mark.parametrize(
    "phrase, name",
    [("tree", "tree"), ("blue tree", "tree"), ("Blue Trees", "tree"), ("dining table", "dining table"),
     ("a bowl of soup", "bowl"), ("table on a tree", "table"), ("treehouse", None), ("tree red", None), ("", None),
     ("of", None), ("red bowls of tree", "bowl")],
)  # fmt: skip
def test_a_phrase_is_about_its_longest_end_that_the_bank_has(phrase, name):
    rows = {name: row for row, name in enumerate(("table", "dining table", "tree", "bowl"))}
    assert guide(phrase, rows) == rows.get(name)


def known(classes, vectors, names="abcde", seed=1):
    named = F.normalize(torch.randn(len(names), 16, generator=torch.Generator().manual_seed(seed)), dim=-1)
    return Known(classes, vectors(named), list(names), named), named


def shares(places, names, seed=2):
    return torch.rand(places, names, generator=torch.Generator().manual_seed(seed)).softmax(-1)


def test_what_is_added_is_the_formula():
    found, named = known(["x1", "x2", "b"], lambda t: torch.stack([t[0], F.normalize(t[1] + 0.4 * t[2], dim=0), -t[1]]))
    guides = [named[0], F.normalize(named[1] + 0.4 * named[2], dim=0), named[1]]  # the bank has "b"
    evidence, own = shares(4, 5), replace(DEFAULT, evidence=0.3, floor=0.05, neutral=0.7)
    added = found.added(evidence, own)
    for p in range(4):
        most = math.log(max(evidence[p]) + 0.05)
        for k, g in enumerate(guides):
            near = [float(g @ t) for t in named]
            weights = [math.exp(s / NEARNESS) for s in near]
            m = sum(w * float(e) for w, e in zip(weights, evidence[p], strict=True)) / sum(weights)
            trust = 1 / (1 + math.exp(-(max(near) - KNOWN) / SPREAD))
            neutral = 0.7 * most + 0.3 * math.log(0.05)
            expected = 0.3 * (trust * math.log(m + 0.05) + (1 - trust) * neutral)
            assert float(added[p, k]) == pytest.approx(expected, abs=1e-5)


def test_classes_that_no_name_is_near_keep_the_order_of_the_text():
    found, _ = known(["x1", "x2", "x3"], lambda t: F.normalize(torch.eye(16)[:3], dim=-1))
    assert found.trust.max() < 0.01
    text = torch.randn(50, 3, generator=torch.Generator().manual_seed(3))
    order = (text + found.added(shares(50, 5), DEFAULT)).argsort(-1)
    assert torch.equal(order, text.argsort(-1))


def test_an_unknown_class_stands_between_no_evidence_and_the_most():
    found, _ = known(["a", "b", "x3"], lambda t: torch.stack([t[0], t[1], torch.eye(16)[0]]))
    evidence = torch.tensor([[1.0, 0, 0, 0, 0]])
    sure, without, unknown = found.added(evidence, DEFAULT)[0].tolist()
    assert without < unknown < sure


def test_classes_of_one_last_word_share_its_evidence_and_differ_by_the_text_alone():
    found, _ = known(["red a", "blue a", "b"], lambda t: F.normalize(torch.randn(3, 16), dim=-1))
    added = found.added(shares(9, 5), DEFAULT)
    assert torch.equal(added[:, 0], added[:, 1]) and not torch.allclose(added[:, 0], added[:, 2])


def test_a_class_of_several_words_is_known_by_any_of_them():
    found, _ = known([("x1", "b")], lambda t: torch.eye(16)[:1])
    assert found.trust.min() > 0.9 and found.weights[0].argmax() == 1
