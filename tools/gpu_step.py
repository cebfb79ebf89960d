"""The training step on a GPU, for tools/gpu_check.py: is it right as a whole, and how fast?

`run` tells device, toy (tiny sizes), trials() and left() (seconds).
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest import mock

import fake  # of benchmarks/
import torch
from gpu_speed import cost

from fastzss import kernels
from fastzss.base.runs import Run
from fastzss.training.loop import train
from fastzss.training.settings import TrainConfig

# Relative difference of every loss of the first steps from float64 on a CPU.  float32 adds in another order; bfloat16
# has 8 bits, and a loss is a mean of many; a graph does what the step does.
APART = {"float32": 1e-4, "bfloat16": 3e-2, "graph": 1e-4}
THROUGHPUT = Path(__file__).parent.parent / "benchmarks" / "throughput.py"


def step(run):
    yield from compared_attention(run)
    with tempfile.TemporaryDirectory() as folder:
        yield from compared_trainings(run, Path(folder))
    if not run.toy:
        yield recipe(run)


def compared_attention(run):
    """Our kernel beside PyTorch's masked and unmasked attention, with the product for q, k and v."""
    for R, L, heads in ((2, 64, 2),) if run.toy else ((3632, 64, 8), (1816, 128, 8)):
        W, dtype = 64 * heads, torch.float16 if run.toy else torch.bfloat16
        x, weight = (torch.randn(*sizes, device=run.device, dtype=dtype) for sizes in ((R, L, W), (3 * W, W)))
        leaves = x.requires_grad_(), (weight * W**-0.5).requires_grad_()
        bias = torch.zeros(3 * W, device=run.device, dtype=dtype, requires_grad=True)
        segment = (torch.arange(L, device=run.device) // 13).int().repeat(R, 1)
        row = {"what": "packed_attention", "R": R, "L": L, "heads": heads}
        for name, backend in (("ours", "interpret" if run.device == "cpu" else "triton"), ("masked", "reference")):
            with mock.patch.dict(os.environ, FASTZSS_BACKEND=backend):
                row[name] = cost(run, partial(attended, *leaves, bias, segment, heads))
        yield row


def attended(x, weight, bias, segment, heads):
    out = kernels.packed_attention(x, weight, bias, segment, heads)
    return torch.autograd.grad(out, [x, weight, bias], torch.ones_like(out))


def compared_trainings(run, folder):
    """Losses of the first steps, in three arithmetics and as a graph."""
    sizes = (60, 120, (2, 2), 64, 16, 3) if run.toy else (2000, 10_000, (16, 16), 768, 1024, 20)
    images, captions, grid, D, batch, steps = sizes
    features = fake.random_features(16, grid[0] * grid[1], D)
    fake.write_store(folder / "store", images, captions, grid, features)
    config = TrainConfig(
        store=folder / "store", out=folder / "float64", text="tiny", batch=batch, steps=steps, captions="all", lr=1e-4,
        device="cpu", precision="float64", memory="none", log_every=1, checkpoint_every=10**6,
    )  # fmt: skip
    exact = losses_of(config)
    here = replace(config, device=run.device, precision="float32" if run.toy else "bfloat16")
    found = {"float32": losses_of(replace(here, precision="float32", out=folder / "float32"))}
    if not run.toy:
        found["bfloat16"] = losses_of(replace(here, out=folder / "bfloat16"))
    eager = found[here.precision]
    found["graph"] = losses_of(replace(here, graph=True, out=folder / "graph"))
    for name, losses in found.items():
        judge = eager if name == "graph" else exact
        apart = max(abs(f - e) / abs(e) for f, e in zip(losses, judge, strict=True))
        yield {"what": f"{steps} steps, {name}", "apart": apart, "right": apart <= APART[name]}


def losses_of(config):
    train(config, progress=False)
    return [metrics["loss"] for metrics in Run(config.out).metrics()]


def recipe(run):
    """The whole recipe on made-up data, from a store on disk to the saved run."""
    command = [sys.executable, THROUGHPUT, "--full", "--json"]
    try:
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=max(1, run.left()))
    except subprocess.TimeoutExpired:
        return {"what": "recipe", "left_out": "out of time"}
    if done.returncode:
        return {"what": "recipe", "wrong": done.stderr[-500:]}
    found = json.loads(done.stdout)
    return {"what": "recipe", "settings": found["settings"], "cold": found["cold"], "warm": found["warm"]}
