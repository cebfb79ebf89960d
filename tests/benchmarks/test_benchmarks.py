"""The benchmarks run from end to end at toy sizes, compare what they say they compare, and refuse what is wrong."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fastzss.methods.simzss.task import SimZSSTask

ROOT = Path(__file__).parents[2]
TINY = ["--size", "tiny", "--batch", "12", "--steps", "1", "--device", "cpu", "--threads", "1"]


def test_the_table_comes_with_everything_that_makes_it_one(bench, capsys):
    assert bench("throughput").main([*TINY, "--dtype", "float16", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    rows = result["rows"]
    assert len(rows) == 6
    for row in rows:
        assert row["ms"] > 0 and row["flops"] > 0 and row["peak_mb"] > 0 and 0 < row["share"] < 1
        for name, value in row["losses"].items():
            assert value == pytest.approx(rows[0]["losses"][name], rel=1e-4)
        assert row["ms"] == row["rounds"][0]  # of one round the median is that round
        assert sum(row["parts"].values()) == pytest.approx(row["ms"], rel=0.02)
    assert rows[0]["parts"]["vision"] > 0 and all(row["parts"]["vision"] < 1 for row in rows[1:])
    assert result["speedup"] == pytest.approx(rows[0]["ms"] / rows[-1]["ms"], rel=1e-6)
    assert result["over_careful"] == pytest.approx(rows[1]["ms"] / rows[-1]["ms"], rel=1e-6)
    assert result["look_ms"] == pytest.approx(rows[0]["parts"]["vision"] / 12)
    assert {"device", "cores", "python", "torch", "date", "command", "load"} <= set(result["machine"])
    flops = [row["flops"] for row in rows]
    assert flops[0] > flops[2] > flops[3]  # vision is looked at once; packed captions have fewer tokens


def test_no_table_where_the_losses_differ(bench, monkeypatch, capsys):
    forms = bench("forms")
    right = forms.losses

    def off(tokens, batch, patches, images, *rest, **named):  # the patches of another image
        return right(tokens, batch, patches.roll(1, 0), images, *rest, **named)

    monkeypatch.setattr(forms, "losses", off)
    assert bench("throughput").main([*TINY, "--dtype", "float16"]) == 1
    out, err = capsys.readouterr()
    assert out == "" and "local loss" in err and "0.0001" in err


def test_the_plain_step_has_our_gradients(bench, tmp_path):
    """Not only our losses: every weight of the tower learns the same from both forms."""
    steps = bench("steps")
    torch.manual_seed(0)
    setting = steps.Setting(tmp_path, "tiny", 16, dtype="float16", captions=40)
    assert (setting.batch.row.bincount() > 1).any()  # several captions of one image, too
    rows, gradients = steps.rows(setting), []
    for row in (rows[0], rows[-1]):
        kept = {}

        class Keep:
            def step(self, kept=kept):
                kept.update({n: p.grad.clone() for n, p in setting.learner.named_parameters()})

            def zero_grad(self):
                setting.learner.zero_grad()

        steps.step(row._replace(optimiser=Keep()), setting)
        gradients.append(kept)
    assert len(gradients[0]) == len(list(setting.learner.parameters()))
    for name, exact in gradients[0].items():
        assert (gradients[1][name] - exact).norm() <= 1e-3 * exact.norm() + 1e-7, name


def test_made_up_captions_have_the_shape_of_coco(bench):
    fake = bench("fake")
    stated = json.loads(fake.LENGTHS.read_text())
    row, ids, offset = fake.captions(1000, 5003)
    assert np.bincount(row).min() == 5 and np.bincount(row).max() == 6
    assert np.diff(offset).mean() == pytest.approx(stated["mean"], abs=0.15)
    assert "APPROXIMATION" in stated["what"]
    assert (ids[offset[:-1]] == fake.START).all() and (ids[offset[1:] - 1] == fake.END).all()
    caption, name, token, token_offset = fake.mentions(offset)
    assert len(caption) / 5003 == pytest.approx(2.04, abs=0.1)
    assert name.max() < fake.NAMES and len(np.unique(name)) > 0.9 * fake.NAMES
    owner = np.repeat(caption, np.diff(token_offset))
    assert (token >= 1).all() and (token < np.diff(offset)[owner] - 1).all()  # words, never the special tokens


def test_made_up_stores_repeat_their_features(bench, tmp_path):
    fake = bench("fake")
    patches, of_images = features = fake.random_features(3, 4, 8)
    store = fake.write_store(tmp_path, 70, 150, (2, 2), features, dtype="float16")
    assert (len(store), len(store.captions.row), store.plan.shards > 1) == (70, 150, True)
    assert torch.equal(store.take([0, 40, 69]).tokens, patches[[0, 40 % 3, 69 % 3]].half())
    assert torch.equal(store.globals([41]), of_images[41 % 3].half())
    assert len(store.concepts().name) > 200


def test_a_step_by_kinds_of_operations(bench, capsys):
    assert bench("throughput").main([*TINY, "--profile", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert sum(kind["share"] for kind in result["kinds"].values()) == pytest.approx(1)
    assert result["kinds"]["matrix products"]["ms"] > 0 and result["kinds"]["optimiser"]["ms"] > 0


def test_scaling_in_one_process(bench, monkeypatch):
    scaling = bench("scaling")
    monkeypatch.setattr(scaling, "BATCHES", (4, 8))
    monkeypatch.setattr(scaling, "GRIDS", (2, 4))
    args = argparse.Namespace(size="tiny", batch=8, steps=1, device="cpu")
    rows = list(scaling.sizes(args))
    assert [row["of"] for row in rows] == ["batch", "batch", "patches", "patches", "width"]
    assert all(row["ms"] > 0 for row in rows)
    row = scaling.growth(1000)
    assert row["images"] == 1000 and row["batch_ms"] > 0 and row["bytes_of_captions"] > 50_000


@pytest.mark.slow
def test_scaling_over_processes(bench, capsys):
    command = ["--size", "tiny", "--batch", "8", "--steps", "1", "--images", "1000", "--json"]
    assert bench("scaling").main(command) == 0
    result = json.loads(capsys.readouterr().out)
    one, two = result["processes"]
    assert (one["processes"], two["processes"]) == (1, 2)
    for row in one, two:
        assert row["ms"] > 0 and row["pairs_s"] == pytest.approx(8 / row["ms"] * 1e3)
    assert result["headlines"][0] == ["two processes beside one, the same batch", f"{one['ms'] / two['ms']:.2f}x"]
    assert len(result["headlines"]) == 3


@pytest.mark.slow
def test_a_whole_training_in_small():
    command = [ROOT / "benchmarks" / "throughput.py", "--full", "--size", "tiny", "--device", "cpu"]
    command += ["--images", "64", "--batch", "16", "--json"]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    for name in ("cold", "warm"):
        times = dict(result[name])
        assert times.pop("wall_s") == pytest.approx(sum(times.values())) and min(times.values()) >= 0
    assert (result["settings"]["steps"], result["settings"]["batch"]) == (3, 16)
    for name in ("threads", "load", "command"):
        assert name in result["machine"]


@pytest.mark.slow
def test_a_training_that_fails_is_no_result(bench, capsys):
    """More pairs a step than there are captions; what the training says stays on stderr."""
    command = ["--full", "--size", "tiny", "--device", "cpu", "--images", "2", "--json"]
    assert bench("throughput").main(command) == 1
    out, err = capsys.readouterr()
    assert out == "" and "the training ended with 1" in err


@pytest.mark.parametrize(
    "wrong, words",
    [(["--steps", "0"], "--steps must be positive"), (["--size", "giant"], "invalid choice")],
    ids=["no steps", "unknown size"],
)
def test_wrong_usage_is_named(bench, capsys, wrong, words):
    with pytest.raises(SystemExit) as end:
        bench("throughput").main(wrong)
    assert end.value.code == 2 and words in capsys.readouterr().err


def test_help_imports_nothing_heavy():
    """What makes --help instant, tested without a clock; and each says what it does."""
    code = """
import runpy, sys
for name in ("throughput", "scaling", "ops", "store", "concepts", "board", "recipes", "words"):
    sys.argv[:] = [name, "--help"]
    try:
        runpy.run_path(f"{sys.path[0]}/{name}.py", run_name="__main__")
    except SystemExit as end:
        assert end.code == 0
heavy = [m for m in ("torch", "timm", "spacy", "numpy", "zarr", "open_clip", "triton", "faiss") if m in sys.modules]
sys.exit(" ".join(heavy) or 0)
"""
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT / 'benchmarks')!r})\n{code}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in ("throughput", "scaling", "ops", "store", "concepts", "board"):
        assert f"python benchmarks/{name}.py  " in done.stdout


def test_the_operations_agree_before_they_have_a_speed(bench, monkeypatch, capsys):
    cases = bench("cases")
    monkeypatch.setitem(cases.CASES, "used_units", (cases.used, (40, 12, 16, 24), None))
    command = ["--ops", "used_units", "--device", "cpu", "--trials", "1", "--json"]
    assert bench("ops").main(command) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["wrong"] is None and row["ratio"] == row["naive_ms"] / row["ms"] and row["naive_peak_mb"] > 0
    made, off = cases.used(40, 12, 16, 24), lambda tokens, index, projection: 1.001 * tokens[index] @ projection
    monkeypatch.setitem(cases.CASES, "used_units", (lambda: made._replace(naive=off), (), None))
    assert bench("ops").main(command) == 1
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert "differ by" in row["wrong"] and "ms" not in row


def test_words_at_a_small_size(bench, capsys):
    assert bench("concepts").main(["--only", "table", "--captions", "1000", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    (row,) = result["rows"]
    assert row["mentions"] > row["captions"] == 1000 and row["CPU seconds"] >= 0 and "spacy" in result["machine"]
    names, texts = bench("concepts").made_up(1000, 0)
    assert len(names) == 5000 and len(set(texts)) == 1000 and 7 < np.mean([len(t.split()) for t in texts]) < 12


def test_the_words_of_the_captions_beside_the_whole_table(bench, monkeypatch, capsys):
    command = ["--images", "70", "--steps", "2", "--device", "cpu", "--json"]
    assert bench("words").main(command) == 0
    result = json.loads(capsys.readouterr().out)
    assert 50 < result["words"] < 200 and result["own_ms"] > 0
    assert f"trains {result['words']} of 49,408 words" in result["headlines"][0][0]
    keep = SimZSSTask.keep_to_own_words

    def mixed_up(task):
        tables = keep(task)
        (table,) = tables.values()
        table.weight.data = table.weight.data.roll(1, -1)
        return tables

    monkeypatch.setattr(SimZSSTask, "keep_to_own_words", mixed_up)
    assert bench("words").main(command) == 1
    out, err = capsys.readouterr()
    assert out == "" and "no times: the loss is" in err


@pytest.mark.slow
def test_the_store_at_a_small_size(bench, monkeypatch, capsys):
    store = bench("store")
    monkeypatch.setattr(store, "WAITED", (("tiny", 16, 1.0),))
    code = store.main(["--images", "128", "--trials", "1", "--json"])
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert code == (0 if all(row.get("met", True) for row in rows) else 1)
    assert len(rows) == 15 and all(row["value"] > 0 for row in rows[:-1]) and 0 <= rows[-1]["value"] <= 1


@pytest.mark.slow
def test_recipes_at_a_small_size(bench, monkeypatch, tmp_path, capsys):
    recipes = bench("recipes")
    monkeypatch.setitem(recipes.TRIED, 40, (recipes.DEMO | {"batch": 20, "steps": 1},))
    assert recipes.main(["40", "--out", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["sizes"]["40"]
    auto, other = found["runs"]
    assert (auto["recipe"], auto["batch"], auto["steps"]) == ("auto", 40, 128)
    assert (other["recipe"], other["batch"], other["steps"]) == ("set", 20, 1)
    assert auto["score"] == found["auto"] > found["best of the others"] == other["score"]
    assert found["ratio"] == pytest.approx(auto["score"] / other["score"], rel=0.01)
