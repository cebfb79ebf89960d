"""The training step on a GPU, for tools/gpu_check.py: is it right as a whole, and how fast?

`run` tells device, toy (tiny sizes), trials() and left() (seconds).
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import fake  # of benchmarks/
import torch
from gpu_speed import cost

from fastzss.base.runs import Run
from fastzss.kernels import reference_tower
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
    """Our kernels, there and back, beside PyTorch's attention with a mask."""
    for R, L, heads in ((2, 64, 2),) if run.toy else ((3632, 64, 8), (1816, 128, 8)):
        W, dtype = 64 * heads, torch.float16 if run.toy else torch.bfloat16
        qkv, bias = (torch.randn(*sizes, device=run.device, dtype=dtype) for sizes in ((R, L, 3 * W), (3 * W,)))
        segment = (torch.arange(L, device=run.device) // 13).int().repeat(R, 1)
        row = {"what": "attention", "R": R, "L": L, "heads": heads}
        for name, form in (("ours", ours), ("masked", masked)):
            row[name] = cost(run, partial(form, qkv, bias, segment, heads))
        yield row


def ours(qkv, bias, segment, heads):
    from fastzss.kernels.fused_attention import attention, attention_gradient  # late: TRITON_INTERPRET is set by then

    out, sums = attention(qkv, bias, segment, heads), torch.empty(*qkv.shape[::2], device=qkv.device)
    return attention_gradient(qkv, bias, segment, heads, torch.ones_like(out), sums), sums.sum(0)


def masked(qkv, bias, segment, heads):
    leaves = qkv, bias = [t.detach().requires_grad_() for t in (qkv, bias)]
    out = reference_tower.attention(qkv + bias, reference_tower.caption_mask(segment), heads)
    return torch.autograd.grad(out, leaves, torch.ones_like(out))


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
