"""The command for a machine with a GPU runs from end to end without one: its first GPU minute is not its first."""

import importlib
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tools" / "gpu_check.py"
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")


def version(package):
    return tuple(int(part) for part in importlib.metadata.version(package).split(".")[:2])


def run(*arguments, **more):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **more}
    if not more:
        environment.pop("TRITON_INTERPRET", None)
    environment.pop("FASTZSS_BACKEND", None)
    return subprocess.run([sys.executable, SCRIPT, *arguments], env=environment, capture_output=True, text=True)


@pytest.mark.slow
@needs_triton
def test_all_parts_in_the_interpreter(tmp_path):
    if version("triton") < (3, 7) and version("numpy") >= (2, 4):
        pytest.skip("the interpreter of triton 3.6 fails with numpy >= 2.4")
    done = run("--interpret", "--out", tmp_path)
    assert done.returncode == 0, f"{done.stdout[-5000:]}\n{done.stderr[-4000:]}"
    (path,) = tmp_path.glob("interpreted-*.json")
    result = json.loads(path.read_text())
    assert result["wrong"] == 0 and {"torch", "triton", "device", "date"} <= set(result["machine"])
    ops = {"clip_loss", "concept_loss", "class_vectors", "used_units", "quantise", "concept_pool", "local_loss"}
    ops |= {"smooth_patches", "refine_scores", "embed_norm", "transformer_blocks"}
    ops |= {"group_pool", "segment_match", "unit_rows"}
    for part in ("parity", "repeat"):
        assert {row["op"] for row in result[part]} == ops and all(row["right"] for row in result[part])
    assert {row["what"] for row in result["compare"]} == {"matrix product", "clip_loss", "local_loss"}
    tried = [row for row in result["sweep"] if "op" in row]
    assert len(tried) == 4 and all("forward_ms" in row for row in tried)
    entries = {row["key"][0] for row in result["sweep"] if row.get("what", "").startswith("entry")}
    assert entries == {"pool_forward", "pool_backward", "clip_forward", "clip_backward"}
    assert "left_out" in result["memory"][0] and "left_out" in result["ops"][0]


@needs_triton
def test_wrong_numbers_are_found(tmp_path, monkeypatch):
    """A kernel that is off by a thousandth does not pass."""
    spec = importlib.util.spec_from_file_location("gpu_check", SCRIPT)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    here = tool.Run("cpu", True, float("inf"))
    monkeypatch.setattr(
        tool, "checks", lambda run, checks=tool.checks: (c for c in checks(run) if c.op == "used_units")
    )
    outputs = tool.outputs

    def ours_is_off(check, run, dtype, backend=None):
        found = outputs(check, run, dtype, backend or "chunked")
        return [found[0] * (1 if backend else 1.001), *found[1:]]

    monkeypatch.setattr(tool, "outputs", ours_is_off)
    rows = list(tool.parity(here))
    assert [row["right"] for row in rows if row["what"] == "float32"] == [False]


def test_without_a_gpu_it_says_what_to_do():
    done = run("--only", "parity", CUDA_VISIBLE_DEVICES="", TRITON_INTERPRET="")
    assert done.returncode == 2 and "--interpret" in done.stderr
    assert "Traceback" not in done.stderr


@needs_triton
def test_the_best_launch_options_of_each_pass(monkeypatch):
    for folder in ("tools", "benchmarks"):
        monkeypatch.syspath_prepend(str(ROOT / folder))
    size = ("int8", 4096, 300, 768)
    rows = [
        {"what": "copy"},
        {"op": "concept_pool", "sizes": size, "options": {}, "forward_ms": 3.0, "backward_ms": 4.0},
        {"op": "concept_pool", "sizes": size, "options": {"BN": 32}, "forward_ms": 2.0, "backward_ms": 5.0},
        {"op": "concept_pool", "sizes": size, "options": {"BN": 64}, "left_out": "too much shared memory"},
        {"op": "clip_loss", "sizes": ("bfloat16", 64, 24), "options": {}, "forward_ms": 1.0, "backward_ms": 1.0},
    ]
    assert list(importlib.import_module("gpu_speed").entries(rows, 90)) == [
        (("pool_forward", 90, 768, 512, "int8"), {"BN": 32}, 3.0, 2.0),
        (("pool_backward", 90, 768, 512, "int8"), None, 4.0, 4.0),
        (("clip_forward", 90, 24, 64, "bfloat16"), None, 1.0, 1.0),
        (("clip_backward", 90, 24, 64, "bfloat16"), None, 1.0, 1.0),
    ]
