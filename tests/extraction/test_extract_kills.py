"""kill -9 while 1 to 3 processes extract: the same command, with any number of processes, ends at the same bytes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[1] / "helpers" / "killed.py"

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def killed(folder, kills, seed, patience, *how):
    command = [sys.executable, PROGRAM, folder, str(kills), str(seed), *how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=patience)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["kills"]


def test_killed_extractions_end_at_the_same_bytes(tmp_path):
    assert killed(tmp_path, 5, 0, 300) >= 5


@pytest.mark.slow
def test_sixty_killed_extractions_end_at_the_same_bytes(tmp_path):
    assert killed(tmp_path, 60, 1, 1800) >= 60


@pytest.mark.slow
def test_a_store_whose_growth_is_killed_ends_at_the_same_bytes(tmp_path):
    assert killed(tmp_path, 5, 2, 300, "grow") >= 5


@pytest.mark.slow
def test_thirty_killed_growths_end_at_the_same_bytes(tmp_path):
    assert killed(tmp_path, 30, 3, 1800, "grow") >= 30
