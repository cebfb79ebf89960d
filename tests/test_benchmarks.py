"""The benchmarks run from end to end at toy sizes, compare what they say they compare, and refuse what is wrong."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parent.parent
TINY = ["--size", "tiny", "--batch", "12", "--steps", "1", "--device", "cpu", "--threads", "1"]


@pytest.fixture
def benchmark(monkeypatch):
    """A benchmark's module by name."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    before = torch.get_num_threads()
    yield importlib.import_module
    torch.set_num_threads(before)


def test_the_table_comes_with_everything_that_makes_it_one(benchmark, capsys):
    assert benchmark("throughput").main([*TINY, "--dtype", "float16", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    rows = result["rows"]
    assert len(rows) == 7
    for row in rows:
        assert row["ms"] > 0 and row["flops"] > 0 and row["peak_mb"] > 0 and 0 < row["share"] < 1
        for name, value in row["losses"].items():
            assert value == pytest.approx(rows[0]["losses"][name], rel=1e-4)
    for row in rows[0], rows[2]:  # measured once: the others' are medians of several steps
        assert sum(row["parts"].values()) == pytest.approx(row["ms"], rel=0.02)
    assert rows[0]["parts"]["vision"] > 0 and all(row["parts"]["vision"] < 1 for row in rows[1:])
    assert result["speedup"] == pytest.approx(rows[0]["ms"] / rows[-1]["ms"], rel=1e-6)
    assert result["over_careful"] == pytest.approx(rows[1]["ms"] / rows[-1]["ms"], rel=1e-6)
    assert "nothing of it was run" in result["projection"]["of"]
    assert result["projection"]["training_hours"] == pytest.approx(280 * 16384 / rows[-1]["pairs_s"] / 3600)
    assert "+ CUDA graph of the whole step" in result["not_measured"]
    assert {"device", "cores", "torch", "date", "command"} <= set(result["machine"])
    flops = [row["flops"] for row in rows]
    assert flops[0] > flops[2] > flops[3]  # vision is looked at once; packed captions have fewer tokens


def test_no_table_where_the_losses_differ(benchmark, monkeypatch, capsys):
    forms = benchmark("forms")
    right = forms.losses

    def off(tokens, batch, patches, images, *rest, **named):  # the patches of another image
        return right(tokens, batch, patches.roll(1, 0), images, *rest, **named)

    monkeypatch.setattr(forms, "losses", off)
    assert benchmark("throughput").main([*TINY, "--dtype", "float16"]) == 1
    out, err = capsys.readouterr()
    assert out == "" and "local loss" in err and "0.0001" in err


def test_the_plain_step_has_our_gradients(benchmark, tmp_path):
    """Not only our losses: every weight of the tower learns the same from both forms."""
    steps = benchmark("steps")
    torch.manual_seed(0)
    setting = steps.Setting(tmp_path, "tiny", 16, dtype="float16", images=16, captions=40)
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


def test_made_up_captions_have_the_shape_of_coco(benchmark):
    fake = benchmark("fake")
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


def test_made_up_stores_repeat_their_features(benchmark, tmp_path):
    fake = benchmark("fake")
    patches, globals = features = fake.random_features(3, 4, 8)
    store = fake.write_store(tmp_path, 70, 150, (2, 2), features, dtype="float16")
    assert (len(store), len(store.captions.row), store.plan.shards > 1) == (70, 150, True)
    assert torch.equal(store.take([0, 40, 69]).tokens, patches[[0, 40 % 3, 69 % 3]].half())
    assert torch.equal(store.globals([41]), globals[41 % 3].half())
    assert len(store.concepts().name) > 200


def test_fake_data_has_as_many_captions_as_asked(benchmark, monkeypatch, capsys):
    monkeypatch.setattr(benchmark("fake"), "CAPTIONS", 500)
    assert benchmark("throughput").main([*TINY, "--fake-data", "--images", "90", "--json"]) == 0
    settings = json.loads(capsys.readouterr().out)["settings"]
    assert (settings["images"], settings["captions"]) == (90, 500)


def test_a_step_by_kinds_of_operations(benchmark, capsys):
    assert benchmark("throughput").main([*TINY, "--profile", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert sum(kind["share"] for kind in result["kinds"].values()) == pytest.approx(1)
    assert result["kinds"]["matrix products"]["ms"] > 0 and result["kinds"]["optimiser"]["ms"] > 0


def test_scaling_in_one_process(benchmark, monkeypatch):
    scaling = benchmark("scaling")
    monkeypatch.setattr(scaling, "BATCHES", (4, 8))
    monkeypatch.setattr(scaling, "GRIDS", (2, 4))
    args = scaling.arguments(["--size", "tiny", "--batch", "8", "--steps", "1", "--images", "1000"])
    rows = list(scaling.sizes(args))
    assert [row["of"] for row in rows] == ["batch", "batch", "patches", "patches", "width"]
    assert all(row["ms"] > 0 for row in rows)
    (row,) = scaling.growth(args)
    assert row["images"] == 1000 and row["batch_ms"] > 0 and row["bytes_of_captions"] > 50_000
    found = scaling.model(args, {"bytes_of_gradients": 8_000_000, "bytes_of_losses": 800})
    one, eight, many = found["rows"]
    rate = found["assumed"]["flop_s"] * found["assumed"]["share"]
    assert one["step_ms"] == pytest.approx(1e3 * found["flop_per_pair"] * 16384 / rate)
    talk = 2 * 7 / 8 * (8e6 + 100 * 16384) / found["assumed"]["bytes_s_inside"]
    assert eight["step_ms"] == pytest.approx(one["step_ms"] / 8 + 1e3 * talk)
    assert "not a measurement" in found["what"]


@pytest.mark.slow
def test_scaling_over_processes(benchmark, capsys):
    command = ["--size", "tiny", "--batch", "8", "--steps", "1", "--images", "1000", "--json"]
    assert benchmark("scaling").main(command) == 0
    result = json.loads(capsys.readouterr().out)
    one, two = result["processes"]
    assert (one["processes"], two["processes"]) == (1, 2)
    assert one["bytes_of_gradients"] == 0 and two["bytes_of_gradients"] == 4 * 6_747_265
    assert 0 < two["bytes_of_losses"] < two["bytes_of_gradients"]
    assert result["headlines"]


@pytest.mark.slow
def test_the_whole_recipe_in_small(tmp_path):
    command = [ROOT / "benchmarks" / "throughput.py", "--full", "--size", "tiny", "--images", "64", "--json"]
    done = subprocess.run([sys.executable, *command, "--dir", tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    for name in ("cold", "warm"):
        times = dict(result[name])
        assert times.pop("wall_s") == pytest.approx(sum(times.values())) and min(times.values()) >= 0
        assert (tmp_path / name / "config.yaml").exists()
    settings = result["settings"]
    assert settings["share_of_the_recipe"] == settings["steps"] * settings["batch"] / (280 * 16384)
    assert "was not run" in result["projection"]["of"]
    again = subprocess.run([sys.executable, *command, "--dir", tmp_path], capture_output=True, text=True)
    assert again.returncode == 1 and "give another folder" in again.stderr and "Traceback" not in again.stderr


@pytest.mark.parametrize(
    "wrong, words",
    [(["--steps", "0"], "--steps must be positive"), (["--size", "giant"], "invalid choice")],
    ids=["no steps", "unknown size"],
)
def test_wrong_usage_is_named(benchmark, capsys, wrong, words):
    with pytest.raises(SystemExit) as end:
        benchmark("throughput").main(wrong)
    assert end.value.code == 2 and words in capsys.readouterr().err


def test_the_best_launch_options_of_each_pass(benchmark):
    pytest.importorskip("triton")
    size = ("int8", 4096, 300, 768)
    rows = [
        {"what": "copy"},
        {"op": "concept_pool", "sizes": size, "options": {}, "forward_ms": 3.0, "backward_ms": 4.0},
        {"op": "concept_pool", "sizes": size, "options": {"BN": 32}, "forward_ms": 2.0, "backward_ms": 5.0},
        {"op": "concept_pool", "sizes": size, "options": {"BN": 64}, "left_out": "too much shared memory"},
        {"op": "clip_loss", "sizes": ("bfloat16", 64, 24), "options": {}, "forward_ms": 1.0, "backward_ms": 1.0},
    ]
    assert list(benchmark("gpu_speed").entries(rows, 90)) == [
        (("pool_forward", 90, 768, 512, "int8"), {"BN": 32}, 3.0, 2.0),
        (("pool_backward", 90, 768, 512, "int8"), None, 4.0, 4.0),
        (("clip_forward", 90, 24, 64, "bfloat16"), None, 1.0, 1.0),
        (("clip_backward", 90, 24, 64, "bfloat16"), None, 1.0, 1.0),
    ]
