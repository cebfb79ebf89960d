"""The scripts that are run by path; make_world is tested in test_world.py."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fastzss import world
from fastzss.backbones import load_vision

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.mark.slow
def test_the_backbone_tool_trains_stops_and_goes_on(tmp_path):
    out = tmp_path / "small.safetensors"
    command = [sys.executable, TOOLS / "make_tiny_backbone.py", "--out", out, "--batch", "4", "--pool", "20"]
    command += ["--threads", "1"]
    hashes = []
    for steps in ("2", "4"):
        done = subprocess.run([*command, "--steps", steps, "--resume"] if hashes else [*command, "--steps", steps],
                              capture_output=True, text=True)  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "linear probe" in done.stdout
        hashes.append(load_vision("tiny", out).record["weights"])
    assert hashes[0] != hashes[1] != load_vision("tiny").record["weights"]
    assert "steps | 4" in out.with_suffix(".md").read_text()


def test_regions_are_things_more_than_discs_are(monkeypatch):
    monkeypatch.syspath_prepend(TOOLS)
    from linear_probe import load
    from regions import ALIKE, FIRST, REACH, Scenes

    torch.manual_seed(0)
    count = 40
    scenes = Scenes(0, 0, count, load(TOOLS.parent / "fastzss/backbones/tiny.safetensors").eval(), "cpu")
    masks = torch.from_numpy(np.stack([world.scene("train", FIRST + k).mask for k in range(count)])).long()
    shares = F.avg_pool2d(F.one_hot(masks).permute(0, 3, 1, 2).float(), 8)
    labels = shares.argmax(1).flatten(1)  # the class of each patch
    region, disc, at_things = [], [], []
    for _ in range(10):
        centre, alike = scenes.regions(torch.arange(count))
        near = torch.cdist(centre[:, None], scenes.place[None])[:, 0] < REACH
        held = (alike.flatten(1) > ALIKE) & near
        for inside, around, classes in zip(held, near, labels, strict=True):
            most = classes[inside].mode().values
            at_things.append(float(most < len(world.THINGS)))
            if most < len(world.THINGS):
                region.append((classes[inside] == most).float().mean())
                disc.append((classes[around] == most).float().mean())
    assert np.mean(region) > 1.5 * np.mean(disc), "a region keeps to one thing"
    assert np.mean(at_things) > 1.3 * (labels < len(world.THINGS)).float().mean(), "small things count"
