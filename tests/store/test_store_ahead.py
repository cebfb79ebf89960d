"""Reading ahead: the same numbers as take, in order, in memory used again; errors arrive, and no thread stays."""

import threading
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fastzss.base.errors import UserError
from fastzss.store.features import FeatureWriter
from fastzss.store.plan import FeaturePlan
from fastzss.store.reading.reader import PatchStore


@pytest.fixture(scope="module", params=["int8", "float16"])
def small(request, tmp_path_factory):
    plan = FeaturePlan(images=40, patches=4, channels=8, grid=(2, 2), globals=(), dtype=request.param)
    writer = FeatureWriter(tmp_path_factory.mktemp("ahead") / "s", plan)
    patches = F.normalize(torch.randn(40, 4, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    if plan.dtype == "int8":
        writer.set_stats(patches.mean((0, 1)), patches.std((0, 1)))
    for shard in writer.todo():
        writer.write(shard, patches[list(plan.rows(shard))])
    writer.finish()
    return PatchStore(writer.store)


def threads():
    return [t for t in threading.enumerate() if t.name == "read-ahead"]


BATCHES = [[3, 39, 3], [0], list(range(40)), [], [7, 1], [5, 5, 5, 5]]


def test_batches_come_in_order_with_the_numbers_of_take(small):
    seen = []
    for rows, patches in small.read_ahead(np.array(b, np.int64) for b in BATCHES):
        seen.append(rows.tolist())
        expected = small.take(rows)
        assert torch.equal(patches.tokens, expected.tokens)
        assert (patches.scale is None) == (expected.scale is None)
        assert patches.scale is None or torch.equal(patches.scale, expected.scale)
        assert torch.equal(patches.take(torch.arange(len(rows))), expected.take(torch.arange(len(rows))))
    assert seen == BATCHES
    assert not threads()


def test_memory_is_used_again(small):
    places = [patches.tokens.data_ptr() for _, patches in small.read_ahead([[i, i + 1] for i in range(20)])]
    assert len(set(places)) == 3


def test_what_was_yielded_stays_until_the_next_is_asked_for(small):
    for rows, patches in small.read_ahead([[i] for i in range(12)]):
        time.sleep(0.01)  # the thread would have time to spoil it
        assert torch.equal(patches.tokens, small.take(rows).tokens)


def test_the_thread_reads_ahead_and_not_without_end(small):
    asked = []

    def batches():
        for i in range(40):
            asked.append(i)
            yield [i]

    reading = small.read_ahead(batches())
    next(reading)
    end = time.time() + 10
    while len(asked) < 4 and time.time() < end:
        time.sleep(0.001)
    time.sleep(0.05)
    assert asked == [0, 1, 2, 3]  # one in use, two read, one asked for and waiting
    reading.close()
    assert not threads()


def test_an_error_of_the_thread_is_raised_where_the_batch_was_expected(small, tmp_path):
    reading = small.read_ahead([[0], [40]])
    assert next(reading)[0] == [0]
    with pytest.raises(IndexError, match="rows 40"):
        next(reading)

    def broken():
        yield [1]
        raise UserError("no more batches")

    reading = small.read_ahead(broken())
    next(reading)
    with pytest.raises(UserError, match="no more batches"):
        next(reading)
    assert not threads()


def test_leaving_the_loop_ends_the_thread(small):
    for _ in small.read_ahead([i] for i in range(40)):
        assert threads()
        break
    assert not threads()
    with pytest.raises(ZeroDivisionError):
        for _ in small.read_ahead([i] for i in range(40)):
            _ = 1 / 0
    assert not threads()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_batches_are_whole_while_kernels_still_use_the_one_before(small):
    for rows, patches in small.read_ahead([list(range(i, i + 20)) for i in range(20)] * 5, device="cuda"):
        torch.cuda._sleep(1_000_000)
        found = patches.tokens.clone()
        assert torch.equal(found.cpu(), small.take(rows).tokens)
