"""The whole way, small: the quick demo, interrupted twice, finished, and what it leaves behind."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import fastzss
from fastzss import world

FASTZSS = Path(sys.executable).parent / "fastzss"


def interrupted_when(command, there):
    """Ctrl-C as soon as `there()`."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    end = time.time() + 120
    while not there() and process.poll() is None and time.time() < end:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130, stderr
    assert "the same command goes on from" in stderr.splitlines()[-1]
    assert "Traceback" not in stderr
    return stderr


def lines(path):
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.mark.slow
def test_from_images_to_a_report(tmp_path):
    out = tmp_path / "a demo"
    command = [FASTZSS, "demo", "--quick", "--out", out]
    interrupted_when(command, lambda: len(list((out / "store" / "features" / "commit").glob("0*"))) >= 2)
    interrupted_when(command, lambda: lines(out / "runs" / "global-only-0" / "metrics.jsonl") >= 2)
    interrupted_when(command, lambda: (out / "checkpoints" / "step-000060").exists())

    done = subprocess.run([*command, "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert Path(json.loads(done.stdout)["report"]) == out / "report.html"
    report = json.loads((out / "report.json").read_text())
    assert list(dict.fromkeys(row["split"] for row in report["rows"])) == ["test", "combinations", "drawings", "large"]
    for row in report["rows"]:
        assert len(row["seeds"]) == 1 and row["seeds"][0]["all"] == row["all"]
        assert ("unseen" in row) == (row["split"] == "combinations")
    rows = {row["row"]: row for row in report["rows"] if row["split"] == "test"}
    learned = [name + how for how in (", plain", "") for name in ("global only", "global + local")]
    assert set(rows) == {"random text", *learned, "class means", "ceiling"}
    assert rows["global + local"]["all"] > rows["global + local, plain"]["all"], "what the steps of masks are for"
    assert rows["random text"]["all"] < 15
    assert rows["global + local"]["all"] > 2 * rows["random text"]["all"]
    assert rows["class means"]["all"] < rows["ceiling"]["all"] < 100
    assert [m["step"] for m in report["curves"]["global + local"]] == list(range(10, 61, 10))
    assert (out / "report.html").read_text().count("data:image/png") >= 18, "six scenes of three pictures"

    scene = world.scene("test", 5)
    result = fastzss.load(out, device="cpu").segment(scene.image, world.NAMES)
    assert (result.mask == scene.mask).mean() > 0.3
    assert np.unique(result.mask).max() < len(world.NAMES)
