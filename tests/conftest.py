"""No test may reach beyond this machine, child processes too; and memory nobody has written is poison.

`helpers/no_network/sitecustomize.py` closes the sockets of every Python process that finds it on PYTHONPATH.
"""

import importlib
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.no_network import sitecustomize  # noqa: F401  closes the sockets of this process

GUARD = Path(__file__).parent / "helpers" / "no_network"

os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(GUARD), os.environ.get("PYTHONPATH")]))
os.environ["OMP_NUM_THREADS"] = "1"  # two tests at a time beat two threads for tiny matrices


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """What is fetched and copied goes where pytest tidies up."""
    os.environ["FASTZSS_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def one_thread():
    """What a test may have changed: another number of threads gives other bits, and a forked child has none but one."""
    yield
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


@pytest.fixture
def bench(monkeypatch):
    """A benchmark's module by name."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    return importlib.import_module


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
    from fastzss.training.loop import train
    from fastzss.training.settings import TrainConfig

    out = tmp_path_factory.mktemp("trained") / "run"
    settings = dict(text="tiny", batch=32, steps=60, lr=2e-3, local_weight=1.0, global_feature="patch-mean")
    train(TrainConfig(store=store, out=out, device="cpu", **settings))
    return out


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """A small finished store of the built-in world, seen by the shipped backbone.  Tests only read it."""
    from fastzss.extraction.flow import extract
    from fastzss.extraction.settings import ExtractConfig

    path = tmp_path_factory.mktemp("world") / "store"
    extract(ExtractConfig(source="world:train,n=80", store=path, parser="bank"))
    return path


@pytest.fixture(scope="session")
def settings(store, tmp_path_factory):
    """Settings of a small training on that store, in float64; `config` has a folder of its own."""
    from fastzss.training.settings import TrainConfig

    return TrainConfig(
        store=store, out=tmp_path_factory.mktemp("nothing") / "run", text="tiny", batch=24, steps=20, lr=1e-3,
        warmup=0.1, captions="one", local_weight=1.0, global_feature="patch-mean", log_every=1, checkpoint_every=8,
        precision="float64", device="cpu", memory="none",
    )  # fmt: skip


@pytest.fixture
def config(settings, tmp_path):
    return replace(settings, out=tmp_path / "run")
