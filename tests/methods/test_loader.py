"""The loader: where patches find room, and that they are the same ones wherever they are."""

import re
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.processes import in_processes
from safetensors.torch import load_file

from fastzss.base.errors import UserError
from fastzss.base.machine import container_rest, free_bytes, readable_bytes
from fastzss.base.runs import Run
from fastzss.methods import placing
from fastzss.methods.placing import put_where
from fastzss.methods.simzss.loader import Loader
from fastzss.training.loop import train

GB = 10**9
WHERE = ("device", "host", "stream")


@pytest.fixture
def free(monkeypatch):
    """Set what is free on the device and on the machine."""

    def set_free(device, machine):
        monkeypatch.setattr(
            placing, "free_bytes", lambda where: machine if str(where) == "cpu" else device, raising=True
        )

    return set_free


@pytest.mark.parametrize(
    "device, machine, reserve, where, sentence",
    [
        (139, 100, 2, "device", "23.5 GB of patches lie on cuda:0; free: 139 GB, beside 2 GB for training"),
        (31, 100, 2, "host", "23.5 GB of patches lie in the memory of the machine; free: 100 GB"),
        (20, 25, 0, "stream", "are read from the store .*; free: 20 GB on cuda:0 and 25 GB in the memory"),
    ],
)
def test_patches_go_where_there_is_room(free, device, machine, reserve, where, sentence):
    free(device * GB, machine * GB)
    found, why = put_where("auto", int(23.5 * GB), torch.device("cuda:0"), reserve * GB)
    assert found == where
    assert re.search(sentence, why)


def test_on_a_cpu_they_are_resident_or_streamed(free):
    cpu = torch.device("cpu")
    free(0, 100 * GB)
    assert put_where("auto", 79 * GB, cpu) == (
        "device",
        "79 GB of patches lie in the memory of the machine; free: 100 GB",
    )
    where, sentence = put_where("auto", 81 * GB, cpu)
    assert where == "stream" and sentence.count("100 GB") == 1


def test_one_copy_for_the_processes_of_a_machine_needs_its_memory_once(free, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    free(0, 50 * GB)  # for each of the two
    found, why = put_where("auto", 79 * GB, torch.device("cuda:0"))
    assert found == "host" and "the memory of the machine, one copy for its 2 processes; free: 100 GB" in why
    assert put_where("auto", 79 * GB, torch.device("cpu"), reserve=1 * GB)[0] == "stream", "two reserves are to be left"
    assert put_where("auto", 78 * GB, torch.device("cpu"), reserve=1 * GB)[0] == "device"
    monkeypatch.delattr("os.memfd_create")
    assert put_where("auto", 79 * GB, torch.device("cuda:0"))[0] == "stream", "each needs its own copy"


def places(rank):
    placing.free_bytes = lambda device: (100, 10)[rank] * GB
    return [put_where("auto", needed * GB, torch.device("cpu"))[0] for needed in (16, 50)]


def test_all_processes_choose_the_same_place():
    """Else one would wait for ever for the others to load."""
    assert in_processes(2, places) == [["device", "stream"]] * 2


@pytest.mark.parametrize("where", WHERE)
def test_what_is_asked_for_is_done_where_it_can_be(free, where):
    free(50 * GB, 50 * GB)
    assert put_where(where, 49 * GB, torch.device("cuda:0"))[0] == where
    if where == "stream":
        assert put_where(where, 51 * GB, torch.device("cuda:0"))[0] == where
    else:
        with pytest.raises(UserError, match=f"--loader {where}: the patches take 51 GB, and 50 GB are free .*stream"):
            put_where(where, 51 * GB, torch.device("cuda:0"))


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("rank, world", [(0, 1), (1, 3)])
def test_every_mention_finds_the_patches_of_its_image(store, where, rank, world):
    loader = Loader(store, 24, rank=rank, world=world)
    loader.load(where)
    all_patches = loader.store.load()
    met = 0
    for batch, patches in loader.steps(2, 9):  # over the end of an epoch
        rows = batch.row[batch.first + batch.caption]
        assert torch.equal(patches.take(batch.image), all_patches.take(rows))
        assert where == "device" or len(patches.tokens) == len(rows.unique())
        met += len(rows)
    assert met > 100


def test_the_same_steps_come_wherever_the_patches_lie(store):
    loaders = [Loader(store, 24, captions="all", seed=3) for _ in WHERE]
    for loader, where in zip(loaders, WHERE, strict=True):
        loader.load(where)
    for batches in zip(*(loader.steps(0, 7) for loader in loaders), strict=True):
        for batch, _ in batches[1:]:
            for name in ("ids", "segment", "row", "token", "name", "weight", "present"):
                assert torch.equal(getattr(batch, name), getattr(batches[0][0], name)), name


def test_a_batch_without_a_mention_has_no_patches_to_read(store):
    loader = Loader(store, 24)
    loader.texts = replace(
        loader.texts,
        mention_offset=np.zeros_like(loader.texts.mention_offset),
    )
    for where in WHERE:
        loader.load(where)
        batch, patches = next(loader.steps(0, 1))
        assert len(batch.image) == 0 and patches.tokens.shape[1:] == loader.store.plan.arrays["tokens"][0][1:]


def test_a_stream_that_is_left_leaves_no_thread(store):
    loader = Loader(store, 24)
    loader.load("stream")
    before = threading.active_count()
    steps = loader.steps(0, 100)
    next(steps)
    assert threading.active_count() == before + 1
    steps.close()
    assert threading.active_count() == before


def test_training_is_the_same_bit_for_bit_wherever_the_patches_lie(config):
    torch.set_num_threads(2)  # which may not add up in the order they come
    runs = {where: replace(config, out=config.out / where, loader=where, steps=7, precision="auto") for where in WHERE}
    for run in runs.values():
        train(run)
    kept = {where: load_file(Run.open(run.out).latest / "model.safetensors") for where, run in runs.items()}
    for where in ("host", "stream"):
        assert all(torch.equal(value, kept["device"][name]) for name, value in kept[where].items())
        assert Run(runs[where].out).metrics() == Run(runs["device"].out).metrics()


def test_without_the_local_loss_no_patches_are_loaded(config, monkeypatch):
    monkeypatch.setattr(Loader, "load", lambda *_: pytest.fail("nobody looks at patches"))
    assert train(replace(config, local_weight=0.0, steps=1))["step"] == 1


def test_processes_of_one_machine_share_its_memory(monkeypatch):
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 12 * GB}))
    monkeypatch.setattr("fastzss.base.machine.container_rest", lambda: 2**63)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert free_bytes("cpu") == 3 * GB


def test_a_container_may_use_what_its_limit_leaves(tmp_path):
    assert container_rest(tmp_path) == 2**63, "no limit is known"
    (tmp_path / "memory.current").write_text("7000\n")
    (tmp_path / "memory.stat").write_text("anon 4000\nfile 3000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert container_rest(tmp_path) == 2**63, "unlimited"
    (tmp_path / "memory.max").write_text("10000\n")
    assert container_rest(tmp_path) == 6000, "copies of files are given up when asked"


@pytest.mark.parametrize(
    "size, words",
    [(0, "0 bytes"), (999, "999 bytes"), (23_540_000_000, "23.5 GB"), (999_700, "1 MB"), (2.5e12, "2.5 TB")],
)
def test_sizes_are_said_with_three_figures(size, words):
    assert readable_bytes(size) == words
