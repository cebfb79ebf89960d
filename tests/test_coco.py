"""tools/coco.sh: the whole recipe, on a world and a set of three images."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.benchmarks import plant

from fastzss import world

ROOT = Path(__file__).parent.parent
SMALL = {
    "SOURCE": "world:train,n=40",
    "TRAIN": "--text tiny --batch 16 --steps 4 --lr 1e-3 --global-feature patch-mean --device cpu",
    "EVALUATE": "--device cpu --limit 2",
}


def coco(*argv, **variables):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [ROOT / "tools" / "coco.sh", *map(str, argv)],
        env={**os.environ, "PATH": path, **variables},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def benchmarks(tmp_path):
    masks = {f"2007_{index:06d}": (world.scene("test", index).mask % 21).astype(np.uint8) for index in range(3)}
    plant(tmp_path / "benchmarks", "voc20", masks)
    return tmp_path / "benchmarks"


@pytest.mark.parametrize(
    "argv, sentence",
    [
        ([], "0 of 3 places given; usage: tools/coco.sh COCO BENCHMARKS OUT"),
        (["a", "b"], "2 of 3 places given"),
        (["a", "b", "c", "--quick"], "unknown flag --quick"),
        (["/no/coco", "b", "c"], "no folder at /no/coco"),
    ],
)
def test_wrong_usage_is_one_sentence_and_code_2(argv, sentence):
    done = coco(*argv)
    assert done.returncode == 2 and sentence in done.stderr and not done.stdout


@pytest.mark.slow
def test_the_recipe_goes_from_images_to_a_report_and_again_does_nothing_anew(benchmarks, tmp_path):
    out = tmp_path / "out"
    done = coco("none", benchmarks, out, "--dry-run", **SMALL)
    assert done.returncode == 0, done.stderr
    assert not out.exists() and "bytes" in done.stdout and "windows" in done.stdout and "seconds" in done.stdout
    done = coco("none", benchmarks, out, **SMALL)
    assert done.returncode == 0, done.stderr
    sets = json.loads((out / "report" / "report.json").read_text())["sets"]
    assert list(sets) == ["voc20", "voc21"] and "miou_smooth+pamr" in sets["voc20"]
    steps = ("store/features", "features", "run/checkpoints")
    before = {path: path.stat().st_mtime_ns for step in steps for path in (out / step).rglob("*")}
    assert coco("none", benchmarks, out, **SMALL).returncode == 0
    assert before == {p: p.stat().st_mtime_ns for p in before}
    assert json.loads((out / "report" / "report.json").read_text())["sets"] == sets
