"""The ledger of a step: what is known by hand is counted, and what must not be there would be seen."""

import importlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fastzss import kernels
from fastzss.kernels import reference_tower
from fastzss.methods.simzss.task import Learner
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
    layer, projection = 24 * W * W * R * L, 2 * used * W * D  # going forward; twice that going back
    assert counts.flops["products"] == 3 * (layer * size.layers + projection)
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
    assert found["launches_step"] <= 300
    for key in ("flops", "bytes", "launches"):
        assert found[key].keys() == {"products", "attention", "elementwise", "losses", "optimiser"}
    assert found["flops"]["products"] == pytest.approx(52.8e12, rel=0.01)
    assert found["launches"]["losses"] <= 32 and found["bytes"]["losses"] < 7.6e9
    around_the_projection = [f"elementwise: {name}" for name in ("index_select", "fused_used", "fused_sums")]
    counts = [n for key, n in found["operations"].items() if key.startswith(tuple(around_the_projection))]
    assert sum(counts) == 4, "a gather, the lengths, and back; with three products and a cast 40 launches in all"
    assert found["seconds"]["elementwise"] == pytest.approx(found["bytes"]["elementwise"] / 1e12)
    assert found["seconds_recipe"] == pytest.approx(280 * sum(found["seconds"].values()))


def test_one_of_several_ranks_computes_its_share_and_says_what_the_losses_and_gradients_need(ledger):
    size, D, ranks = PRESETS["small"], 384, 4
    batch = ledger.coco_batch(2048, ranks)
    counts = ledger.counted(size, batch, 16, D)
    (R, L), W, K = batch.ids.shape, size.width, len(batch.present)
    assert len(batch.eot) == 512 and len(batch) == 2048
    used = len(batch.eot) + len(batch.token)
    layer, projection = 24 * W * W * R * L, 2 * used * W * D  # going forward; twice that going back
    assert counts.flops["products"] == 3 * (layer * size.layers + projection)
    losses, gradients = counts.traffic.sums[:5], counts.traffic.sums[5:]
    assert [s.shape for s in losses] == [[2048], [2, 2048], [K, D], [], [K, D]]  # tops, sums, classes, weights
    assert all(s.waited for s in losses) and not any(s.waited for s in gradients)
    with torch.device("meta"):
        learner = Learner(size, D)
    assert sum(s.size for s in gradients) == sum(4 * p.numel() for p in learner.parameters())
    done = [s.done[0]["products"] for s in gradients]
    assert done[0] == layer * (size.layers + 2 * 4) + 3 * projection, "25 MB are there after 4 of the 6 layers"
    assert done == sorted(done)
    assert counts.traffic.end[0]["products"] == counts.flops["products"]
    whole = ledger.counted(size, ledger.coco_batch(2048), 16, D)
    assert counts.flops["losses"] < 1.1 * whole.flops["losses"] / ranks, "its own columns of the contrastive loss"
    assert not whole.traffic.sums


@pytest.mark.parametrize("fused", ["0", "1"])
def test_a_rank_without_a_mention_asks_for_the_same_sums_in_the_same_order(ledger, monkeypatch, fused):
    """On the path of a GPU; where they differed, all would wait for ever."""
    monkeypatch.setenv("FASTZSS_FUSED_STEP", fused)
    batch = ledger.coco_batch(1024, 4)
    none = {name: getattr(batch, name)[:0] for name in ("token", "caption", "image", "name", "weight", "place")}
    silent = replace(batch, used=batch.eot, offset=batch.offset[:1], **none).with_lists()
    found = [ledger.counted(PRESETS["tiny"], own, 4, 128).traffic.sums for own in (batch, silent)]
    asked = [[(each.shape, each.size, each.waited) for each in own] for own in found]
    assert asked[0] == asked[1] and len(asked[0]) == 5 + 2


def test_what_hides_behind_the_backward_pass(ledger):
    """A byte of memory takes a second, 100 bytes on the link too, of which a ring of two sends each once."""
    counts = ledger.Counts(ledger.coco_batch(128))
    work = [(1, 100, True), (1, 200, False), (0.5, 200, False)]
    for seconds, size, waited in work:
        counts.add("elementwise", "", 0, seconds)
        counts.traffic.all_reduce(torch.empty(size, dtype=torch.uint8), async_op=not waited)
    counts.add("elementwise", "", 0, 1.5)
    counts.traffic.wait()
    counts.add("optimiser", "", 0, 1)
    two, four = (ledger.projection.shared(counts, ranks, {"copy": 1e-9, "matmul": 1.0}, 1e-7) for ranks in (2, 4))
    # 1 s of work, 1 s of waiting, 1 s of work, the link is busy from 3 to 7; the backward pass ends at 5, AdamW takes 1
    assert two["seconds_computing"] == pytest.approx(5) and two["seconds_link"] == pytest.approx(5)
    assert two["seconds_step"] == pytest.approx(8) and two["seconds_hidden"] == pytest.approx(2)
    assert ledger.projection.shared(counts, 4, {"copy": 1e-9, "matmul": 1.0}, 1e-7)["seconds_link"] == pytest.approx(
        7.5
    )


def test_a_table_for_ranks_by_its_flag(ledger, capsys):
    main, small = importlib.import_module("throughput").main, ["--ledger", "--size", "tiny", "--device", "cpu"]
    assert main([*small, "--batch", "1024", "--ranks", "8", "--link", "100", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["ranks"] for row in found["ranks"]] == [1, 2, 4, 8] and found["settings"]["link"] == 100
    one, *more = found["ranks"]
    assert one["sums"] == [] and one["seconds_step"] == one["seconds_computing"]
    for row in more:
        sent = 2 * (row["ranks"] - 1) / row["ranks"] * sum(s["bytes"] for s in row["sums"])
        assert row["seconds_link"] == pytest.approx(sent / 100e9)
        assert row["seconds_step"] == pytest.approx(
            row["seconds_computing"] + row["seconds_link"] - row["seconds_hidden"]
        )
        assert 0 < row["seconds_hidden"] < row["seconds_link"] and row["flops"] < one["flops"] / row["ranks"] * 1.2
    assert found["seconds_step"] == more[-1]["seconds_step"] and found["flops"]["products"] < more[-1]["flops"]
    assert main([*small, "--batch", "1024", "--ranks", "8"]) == 0
    shown = capsys.readouterr().out
    assert "a projection, not a measurement: sums over ranks at 450 GB/s in one direction, as NVIDIA states" in shown
    assert main([*small, "--batch", "1024", "--ranks", "3"]) == 1
    assert "--ranks 3: 1024 pairs do not divide among them" in capsys.readouterr().err
