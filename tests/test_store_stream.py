"""Epochs from disk that ranks share, and all patches in memory that ranks share."""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fastzss.errors import UserError
from fastzss.store import FeaturePlan, PatchStore
from fastzss.store.stream import epoch_order

small = SimpleNamespace(**runpy.run_path(Path(__file__).parent / "small_stores.py"))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return PatchStore(small.write_store(tmp_path_factory.mktemp("stream") / "s"))


def batches(stream):
    return [np.array(rows).tolist() for rows, _ in stream]


# stream


def test_an_epoch_is_a_permutation_of_the_images_that_could_be_read(store):
    seen = sum(batches(store.stream(4, seed=1)), [])
    assert len(seen) == len(set(seen)) == 20 and not {3, 17} & set(seen)
    assert batches(store.stream(4, seed=1)) == batches(store.stream(4, seed=1))
    orders = [epoch_order(store.plan, seed, epoch).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert len(set(map(tuple, orders))) == 4 and all(sorted(order) == list(range(22)) for order in orders)
    for rows, patches in store.stream(6, epoch=3):
        assert torch.equal(patches.tokens, store.take(rows).tokens)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_any_number_of_ranks_sees_the_same_global_batches(store, world):
    whole = batches(store.stream(6, seed=5, epoch=2))
    shares = [batches(store.stream(6, seed=5, epoch=2, rank=rank, world=world)) for rank in range(world)]
    for number, batch in enumerate(whole):
        for rank in range(world):
            assert shares[rank][number] == batch[rank::world]
    assert len(whole) == 3 and all(len(share) == 3 for share in shares)  # the last two images fill no batch


def test_a_stream_goes_on_under_another_number_of_ranks(store):
    whole = batches(store.stream(2, seed=5, epoch=2))
    first = store.stream(2, seed=5, epoch=2, rank=1, world=2)
    begun = [rows.tolist() for rows, _ in (next(first) for _ in range(4))]
    state = first.state
    first.close()
    assert begun == [batch[1::2] for batch in whole[:4]]
    assert state == {"seed": 5, "epoch": 2, "samples_seen": 8, "plan_id": store.identity}
    rest = store.stream(2, state=state)
    assert len(rest) == 6 and batches(rest) == whole[4:]
    assert batches(store.stream(4, state=state)) == [whole[4] + whole[5], whole[6] + whole[7], whole[8] + whole[9]]
    assert batches(store.stream(2, state=rest.state)) == []


def test_a_stream_of_another_store_or_of_no_batch_is_refused(store):
    state = store.stream(2).state
    with pytest.raises(UserError, match="the stream was of 0123"):
        store.stream(2, state={**state, "plan_id": "0123"})
    for batch, rank, world in ((3, 0, 2), (0, 0, 1), (2, 2, 2)):
        with pytest.raises(UserError, match=f"a batch of {batch} does not divide among {world} ranks"):
            store.stream(batch, rank=rank, world=world)


def test_batches_of_a_sorted_source_are_as_mixed_as_chance():
    """Classes lie in the source one after the other; chi-square per degree of freedom, 1 is what chance gives."""
    plan = FeaturePlan(images=60_000, patches=256, channels=768, grid=(16, 16))
    label = np.arange(plan.images) * 40 // plan.images  # of each image of the source
    order = label[plan.order()][epoch_order(plan, 0, 0)]
    counts = np.stack([np.bincount(batch, minlength=40) for batch in np.array_split(order, 60)])
    assert ((counts - 25) ** 2 / 25).sum() / (60 * 39) < 1.1


# memory


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


def share(path, rank, world, port, queue, damage):
    import torch.distributed as dist

    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo")
    try:
        opened = PatchStore(path)
        if damage:
            dist.barrier()
        shared = opened.load("shm")
    except UserError as problem:
        queue.put(("refused", str(problem)))
        return
    dist.barrier()
    if rank == 1:
        shared.tokens[5] = 99  # nobody should; it shows whose memory it is
    dist.barrier()
    queue.put((rank, bool((shared.tokens[5] == 99).all()), int(shared.tokens.sum()), str(shared.scale.dtype)))
    dist.barrier()


def shared_by(path, world, damage=None):
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    context = multiprocessing.get_context("fork")  # torch is imported already, and has run no thread that matters
    queue = context.Queue()
    processes = [context.Process(target=share, args=(path, r, world, port, queue, damage)) for r in range(world)]
    for process in processes:
        process.start()
    found = [queue.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
    return found


needs_memory_files = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="needs Linux")


@needs_memory_files
def test_ranks_of_a_machine_share_one_copy(store):
    before = set(os.listdir("/dev/shm"))
    found = shared_by(store.path, 3)
    assert {rank for rank, *_ in found} == {0, 1, 2}
    assert all(seen for _, seen, *_ in found), "what one rank writes, all see"
    assert len({total for *_, total, _ in found}) == 1
    assert not {name for name in set(os.listdir("/dev/shm")) - before if "fastzss" in name}


@needs_memory_files
def test_when_the_first_rank_cannot_read_all_ranks_say_so(store, tmp_path):
    path = small.write_store(tmp_path / "s")
    shard = path / "features/tokens/c/3/0/0"
    data = bytearray(shard.read_bytes())
    data[0] ^= 1
    shard.write_bytes(data)
    found = shared_by(path, 2)
    assert [kind for kind, _ in found] == ["refused", "refused"]
    assert all("tokens/c/3/0/0: image row 12" in sentence for _, sentence in found)


@needs_memory_files
def test_shared_memory_of_a_killed_process_is_gone(tmp_path):
    plan = FeaturePlan(images=64, patches=64, channels=4096, grid=(8, 8), globals=())
    path = small.write_store(tmp_path / "s", plan, texts=False)  # 17 MB
    code = f"""
from fastzss.store import PatchStore
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
