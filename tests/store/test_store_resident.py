"""All patches in memory, of one process or shared by the ranks of a machine."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers import stores as small
from helpers.processes import in_processes

from fastzss.base.errors import UserError
from fastzss.store.plan import FeaturePlan
from fastzss.store.reading.reader import PatchStore


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return PatchStore(small.write_store(tmp_path_factory.mktemp("resident") / "s"))


def test_all_places_hold_the_same(store):
    right = store.load()
    shared = store.load("shm")
    assert all(torch.equal(one, two) for one, two in zip(right, shared, strict=True))
    assert torch.equal(shared.take(torch.arange(22)), right.take(torch.arange(22)))
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match='load."pinned".: memory is page-locked for a GPU, and there is none here'):
            store.load("pinned")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_holds_the_same(store):
    right = store.load()
    for patches in (store.load("cuda"), store.load("pinned"), store.take(range(22), device="cuda")):
        assert all(torch.equal(one, two.cpu()) for one, two in zip(right, patches, strict=True))
    assert store.load("pinned").tokens.is_pinned()


def share(rank, path):
    import torch.distributed as dist

    try:
        shared = PatchStore(path).load("shm")
    except UserError as problem:
        return str(problem)
    dist.barrier()
    if rank == 1:
        shared.tokens[5] = 99  # nobody should; it shows whose memory it is
    dist.barrier()
    return bool((shared.tokens[5] == 99).all()), int(shared.tokens.sum()), str(shared.scale.dtype)


needs_memory_files = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="needs Linux")


@needs_memory_files
def test_ranks_of_a_machine_share_one_copy(store):
    before = set(os.listdir("/dev/shm"))
    found = in_processes(3, share, store.path)
    assert all(seen for seen, *_ in found), "what one rank writes, all see"
    assert len({total for _, total, _ in found}) == 1
    assert not {name for name in set(os.listdir("/dev/shm")) - before if "fastzss" in name}


@needs_memory_files
def test_when_the_first_rank_cannot_read_all_ranks_say_so(store, tmp_path):
    path = small.write_store(tmp_path / "s")
    shard = path / "features/tokens/c/3/0/0"
    data = bytearray(shard.read_bytes())
    data[0] ^= 1
    shard.write_bytes(data)
    found = in_processes(2, share, path)
    assert all("tokens/c/3/0/0: image row 12" in sentence for sentence in found)


def share_without_leave(rank, path):
    real = os.open

    def refusing(name, *arguments):
        if str(name).startswith("/proc/"):
            raise PermissionError(13, "Permission denied")
        return real(name, *arguments)

    os.open = refusing
    return share(rank, path)


@needs_memory_files
def test_when_one_rank_may_not_share_no_rank_waits_for_ever(store):
    found = in_processes(3, share_without_leave, store.path)
    assert all("cannot be shared (Permission denied). Stream the store instead." in sentence for sentence in found)


@needs_memory_files
def test_shared_memory_of_a_killed_process_is_gone(tmp_path):
    plan = FeaturePlan(images=64, patches=64, channels=4096, grid=(8, 8), globals=())
    path = small.write_store(tmp_path / "s", plan, texts=False)  # 17 MB
    code = f"""
from fastzss.store.reading.reader import PatchStore
patches = PatchStore({str(path)!r}).load("shm")
print(1, flush=True)
input()
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE)
    assert process.stdout.readline() == b"1\n"
    assert "memfd:fastzss" in Path(f"/proc/{process.pid}/maps").read_text()
    names = set(os.listdir("/dev/shm"))
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(0.1)
    assert set(os.listdir("/dev/shm")) <= names and not any("fastzss" in name for name in names)
