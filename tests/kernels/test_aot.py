"""The kernels compile without a GPU, for three generations of them, within the budget of each: no spills, no stack,
shared memory and registers below a ceiling, and the instructions there that make it fast.

In a process of its own: one that has interpreted kernels cannot compile.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(path.stem for path in (ROOT / "kernels").glob("fused_*.py") if "@triton.jit" in path.read_text())
# name, architecture: what a training step on a store of int8 launches, and one kernel of each kind elsewhere
SOME = [
    ("^pool_forward-units-i8-N256-D768$", 90),
    ("^pool_backward-units-i8-N256-D768$", 90),
    ("^pool_forward-fp16-N256-D768$", 80),
    ("^clip_forward-same-bf16-D768$", 90),
    ("^clip_backward-same-bf16-D768$", 100),
    ("^concept_forward-argmax-bf16-D768$", 80),
    ("^concept_backward-fp16-D768$", 90),
    ("^sum_rows-class-fp32-D768$", 90),
    ("^clip_pairs-folded$", 90),
    ("^attention_forward-bf16-L64-C64$", 80),
    ("^attention_backward-bf16-L64-C64$", 90),
    ("^attention_backward-bf16-L128-C64$", 90),
    ("^norm_backward-bf16-W512$", 90),
    ("^embed_norm-bf16-L64-W512$", 90),
    ("^unit_backward-bf16-D1000$", 100),
    ("^smooth-fp32-D768-V150$", 90),
    ("^smooth-fp16-D384-V384$", 80),
    ("^closeness-L6$", 90),
    ("^average-K171$", 80),
    ("^group_forward-bf16-G32-C768$", 90),
    ("^group_backward-bf16-G32-C768$", 80),
    ("^match_nearest-bf16-D768$", 90),
]

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")


def compiled(tmp_path, *arguments):
    """Records of tools/compile_kernels.py; the cache of compiled kernels is a fresh one."""
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, ROOT / "tools" / "compile_kernels.py", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode in (0, 1) and "Traceback" not in done.stderr, done.stderr[-4000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def within_budget(records):
    over = [f"{r['name']} on sm_{r['arch']}: {', '.join(r['over'])}" for r in records if r["over"]]
    assert not over, "\n".join(over)


@pytest.mark.parametrize("arch", [80, 90, 100])
def test_some_kernels(tmp_path, arch):
    names = [name for name, its_arch in SOME if its_arch == arch]
    records = compiled(tmp_path, "--arch", str(arch), "--only", ",".join(names))
    assert len(records) == len(names)
    within_budget(records)


@pytest.mark.slow
@pytest.mark.parametrize("arch", [80, 90, 100])
@pytest.mark.parametrize("file", FILES)
def test_every_kernel(tmp_path, file, arch):
    records = compiled(tmp_path, "--arch", str(arch), "--file", file)
    assert records
    within_budget(records)


def compiling():
    """tools/compile_kernels.py as a module."""
    spec = importlib.util.spec_from_file_location("compile_kernels", ROOT / "tools" / "compile_kernels.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


def test_a_kernel_over_its_budget_is_told():
    from fastzss.kernels.configs import Budget

    tool = compiling()
    needs = {"registers": 200, "stack": 8, "shared": 5000, "instructions": {"HMMA": 4, "LDL": 2}}
    budget, ceiling = Budget(255, 4096, ("HMMA", "UTMALDG")), {"registers": 128, "shared": 9000}
    assert tool.over(budget, needs, ceiling) == [
        "LDL 2 times: it spills",
        "8 bytes of stack",
        "200 registers, at most 128",
        "5000 bytes of shared memory, at most 4096",
        "no UTMALDG",
    ]
    fine = {"registers": 100, "stack": 0, "shared": 4000, "instructions": {"HMMA": 4, "UTMALDG": 1}}
    assert tool.over(budget, fine, ceiling) == []
    assert "not in budgets.json" in tool.over(budget, fine, None)[0]


def test_ceilings_are_of_one_version():
    from fastzss.kernels.configs import Budget

    tool, budget = compiling(), Budget(255, 4096)
    table = {"3.8": {"kernel sm_90": {"registers": 128, "shared": 1024}}}
    needs = {"registers": 200, "stack": 0, "shared": 4000, "instructions": {}}

    def over(version, key):
        return tool.over(budget, needs, tool.ceiling(table, version, key, budget))

    assert over("3.8", "kernel sm_90") == ["200 registers, at most 128", "4000 bytes of shared memory, at most 1024"]
    assert "not in budgets.json" in over("3.8", "kernel sm_80")[0]
    assert over("3.6", "kernel sm_90") == []
    assert json.loads(tool.a_line_a_kernel(table)) == table
