"""The scripts that are run by path; make_world is tested in test_world.py."""

import subprocess
import sys
from pathlib import Path

import pytest

from fastzss.vision import load_vision

TOOLS = Path(__file__).parent.parent / "tools"


@pytest.mark.slow
def test_the_backbone_tool_trains_stops_and_goes_on(tmp_path):
    out = tmp_path / "small.safetensors"
    command = [sys.executable, TOOLS / "make_tiny_backbone.py", "--out", out, "--batch", "4", "--threads", "1"]
    hashes = []
    for steps in ("2", "4"):
        done = subprocess.run([*command, "--steps", steps, "--resume"] if hashes else [*command, "--steps", steps],
                              capture_output=True, text=True)  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "linear probe" in done.stdout
        hashes.append(load_vision("tiny", out).record["weights"])
    assert hashes[0] != hashes[1] != load_vision("tiny").record["weights"]
    assert "steps | 4" in out.with_suffix(".md").read_text()
