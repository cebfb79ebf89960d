"""No test may reach beyond this machine, child processes too; and memory nobody has written is poison.

`no_network/sitecustomize.py` closes the sockets of every Python process that finds it on PYTHONPATH.
"""

import os
import runpy
from dataclasses import replace
from pathlib import Path

import pytest

GUARD = Path(__file__).parent / "no_network"

os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(GUARD), os.environ.get("PYTHONPATH")]))
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two tests at a time beat two threads for tiny matrices
runpy.run_path(str(GUARD / "sitecustomize.py"))


@pytest.fixture
def poison():
    """torch.empty gives NaN (integers: their maximum), so that an output nobody wrote cannot pass by luck."""
    import torch

    before = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(before[0])
    torch.utils.deterministic.fill_uninitialized_memory = before[1]


@pytest.fixture(scope="session")
def trained(store, tmp_path_factory):
    """A run that has learned a little from the store.  Tests only read it."""
    from fastzss.settings import TrainConfig
    from fastzss.training import train

    out = tmp_path_factory.mktemp("trained") / "run"
    settings = dict(text="tiny", batch=32, steps=60, lr=2e-3, local_weight=1.0, global_feature="patch-mean")
    train(TrainConfig(store=store, out=out, device="cpu", **settings))
    return out


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """A small finished store of the built-in world, seen by the shipped backbone.  Tests only read it."""
    from fastzss.extract import extract
    from fastzss.settings import ExtractConfig

    path = tmp_path_factory.mktemp("world") / "store"
    extract(ExtractConfig(source="world:train,n=80", store=path, parser="bank"))
    return path


@pytest.fixture(scope="session")
def settings(store, tmp_path_factory):
    """Settings of a small training on that store, in float64; `config` has a folder of its own."""
    from fastzss.settings import TrainConfig

    return TrainConfig(
        store=store, out=tmp_path_factory.mktemp("nothing") / "run", text="tiny", batch=24, steps=20, lr=1e-3,
        local_weight=1.0, global_feature="patch-mean", log_every=1, checkpoint_every=8, precision="float64",
        device="cpu",
    )  # fmt: skip


@pytest.fixture
def config(settings, tmp_path):
    return replace(settings, out=tmp_path / "run")
