"""The ledger of a step: what is known by hand is counted, and what must not be there would be seen."""

import importlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fastzss import kernels
from fastzss.kernels import reference_tower
from fastzss.text.tower import PRESETS

pytest.importorskip("triton", reason="triton is not installed")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def ledger(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("ledger")


def test_products_and_attention_are_those_of_the_formulas(ledger):
    size, batch, D = PRESETS["small"], ledger.coco_batch(2048), 384
    counts = ledger.counted(size, batch, 16, D)
    (R, L), W = batch.ids.shape, size.width
    used = len(batch.eot) + len(batch.token)
    assert counts.flops["products"] == 3 * (24 * W * W * R * L * size.layers + 2 * used * W * D)
    assert counts.flops["attention"] == 7 * 2 * L * L * W * R * size.layers
    mentions, names = len(batch.name), len(batch.present)
    losses = 4 * 2 * 2048**2 * D / 4 * 3 + 8 * mentions * 16 * D + 8 * mentions * names * D
    assert counts.flops["losses"] == pytest.approx(losses, rel=0.35)
    assert counts.launches["attention"] == 2 * size.layers


def test_launches_of_a_layer_and_of_the_rest_of_the_tower(ledger):
    size, batch = PRESETS["tiny"], ledger.coco_batch(128)
    more, fewer = (ledger.counted(replace(size, layers=n), batch, 4, 128).launches for n in (5, 4))
    # twelve products; what lies between them: attention, two norms and an activation, there and back
    assert {kind: more[kind] - fewer[kind] for kind in ("products", "attention", "elementwise")} == {
        "products": 12,
        "attention": 2,
        "elementwise": 6,
    }
    # words, places and their norm: 5; copies of the matrices and sums of the blocks: 3; tokens that are used: 12
    assert more["elementwise"] - 6 * 5 <= 20


def test_launches_over_lists_of_tensors(ledger):
    """By hand: a launch is full with 36 tensors of 4 lists, 64 of 2, or with 320 blocks of 65,536 numbers."""
    small, wide = torch.empty(1000), torch.empty(65536 * 200 + 1, device="meta")
    assert [ledger.launches_over([small] * 73, lists) for lists in (4, 2, 1)] == [3, 2, 1]
    assert ledger.launches_over([wide], 4) == 1 and ledger.launches_over([wide] * 8, 4) == 6  # 1608 blocks
    assert ledger.launches_over([wide, *[small] * 36], 4) == 2  # 36 and one
    assert ledger.launches_over([], 4) == 0


def test_attention_with_a_mask_would_be_seen(ledger, monkeypatch):
    size, batch = replace(PRESETS["tiny"], layers=1), ledger.coco_batch(128)
    assert not ledger.counted(size, batch, 4, 128).masks
    monkeypatch.setattr(kernels, "transformer_blocks", reference_tower.transformer_blocks)
    assert ledger.counted(size, batch, 4, 128).masks


def test_the_recipe_by_its_flag(ledger, capsys):
    """Twice as much as this were the elementwise bytes of a layer before norms and GELU were one pass each."""
    assert importlib.import_module("throughput").main(["--ledger", "--json", "--device", "cpu", "--copy", "1000"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["settings"]["batch"] == 16384 and found["settings"]["copy"] == 1000
    assert found["elementwise_bytes_per_layer"] <= 12e9 and not found["masks"]
    for key in ("flops", "bytes", "launches"):
        assert found[key].keys() == {"products", "attention", "elementwise", "losses", "optimiser"}
    assert found["flops"]["products"] == pytest.approx(52.8e12, rel=0.01)
    assert found["seconds"]["elementwise"] == pytest.approx(found["bytes"]["elementwise"] / 1e12)
    assert found["seconds_recipe"] == pytest.approx(280 * sum(found["seconds"].values()))
