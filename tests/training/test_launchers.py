"""What a launcher adds to our words."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.trainings import flags

DOOR = Path(__file__).parents[2] / "fastzss" / "train.py"


@pytest.mark.slow
def test_a_quiet_accelerate_leaves_the_last_word_to_us(config, tmp_path):
    accelerate = Path(sys.executable).parent / "accelerate"
    alone = "--quiet --cpu --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no".split()
    command = [str(c) for c in [accelerate, "launch", *alone, DOOR, *flags(replace(config, steps=5000))]]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not (config.out / "checkpoints").exists():
        time.sleep(0.1)
        assert process.poll() is None, process.stderr.read()
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "the same command goes on from there" in said.splitlines()[-1], "the launcher's own words come before ours"
    wrong = subprocess.run([*command, "--bank", "9"], cwd=tmp_path, capture_output=True, text=True)
    assert wrong.returncode != 0 and "Traceback" not in wrong.stderr and "no concept bank" in wrong.stderr
