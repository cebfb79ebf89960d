"""The Triton kernels, run by Triton's interpreter, in a process of their own: one that interprets cannot compile."""

import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "interpreted"


def version(package):
    return tuple(int(part) for part in importlib.metadata.version(package).split(".")[:2])


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
def test_interpreted_kernels():
    if version("triton") < (3, 7) and version("numpy") >= (2, 4):
        pytest.skip("the interpreter of triton 3.6 fails with numpy >= 2.4")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    environment.pop("FASTZSS_BACKEND", None)
    command = [sys.executable, "-m", "pytest", "-n0", "-p", "no:cacheprovider", "--durations=5", "-ra", str(FOLDER)]
    done = subprocess.run(command, env=environment, cwd=FOLDER.parent.parent, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout[-20000:]}\n{done.stderr[-4000:]}"
    assert re.search(r"[1-9]\d* passed", done.stdout), done.stdout
