"""The ledger of a step: what is known by hand is counted, and what must not be there would be seen."""

import importlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from fastzss import kernels
from fastzss.kernels import reference
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


def test_attention_with_a_mask_would_be_seen(ledger, monkeypatch):
    size, batch = replace(PRESETS["tiny"], layers=1), ledger.coco_batch(128)
    assert not ledger.counted(size, batch, 4, 128).masks
    monkeypatch.setattr(kernels, "packed_attention", reference.packed_attention)
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
    assert found["launches"]["losses"] <= 32 and found["bytes"]["losses"] < 7.6e9
    around_the_projection = [f"elementwise: {name}" for name in ("index_select", "fused_used", "fused_sums")]
    counts = [n for key, n in found["operations"].items() if key.startswith(tuple(around_the_projection))]
    assert sum(counts) == 4, "a gather, the lengths, and back; with three products and a cast 40 launches in all"
    assert found["seconds"]["elementwise"] == pytest.approx(found["bytes"]["elementwise"] / 1e12)
    assert found["seconds_recipe"] == pytest.approx(280 * sum(found["seconds"].values()))
