"""The thread that writes shards while the backbone computes: what goes wrong in it, and leaving it."""

import errno
import os
import signal
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fastzss.base.errors import UserError
from fastzss.extraction.features import Background
from fastzss.store.features import FeatureWriter
from fastzss.store.plan import FeaturePlan


@pytest.fixture(autouse=True)
def no_sync(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # nothing here cuts the power


def small_writer(path):
    plan = FeaturePlan(images=9, patches=4, channels=8, grid=(2, 2), globals=("cls",))
    writer = FeatureWriter(path, plan)
    writer.set_stats(torch.zeros(8), torch.ones(8))
    return writer


BATCH = torch.ones(4, 4, 8) / 8**0.5, torch.ones(4, 1, 8), torch.ones(4, dtype=torch.uint8)


def test_the_background_writes_and_says_how_long_it_was_waited_for(tmp_path, monkeypatch):
    writer = small_writer(tmp_path / "s")
    with Background(writer, 4) as background:
        for shard in (0, 1):
            background.put(shard, 0, *BATCH)
    assert writer.todo() == [2] and background.waited < 10
    monkeypatch.setattr(type(writer), "begin", lambda *_: time.sleep(0.3))
    with pytest.raises(AttributeError), Background(writer, 4) as background:
        background.put(2, 0, *BATCH)
    assert background.waited >= 0.25


def test_what_goes_wrong_in_the_background_is_raised_where_features_are_given(tmp_path, monkeypatch):
    writer = small_writer(tmp_path / "s")

    def full(handle):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="the disk is full"), Background(writer, 4) as background:
        for _ in range(1000):
            background.put(0, 0, *BATCH)
            time.sleep(0.001)
        raise AssertionError("nobody said anything")
    assert writer.todo() == [0, 1, 2] and not list((tmp_path / "s").rglob("*.tmp"))


def test_who_leaves_early_leaves_no_thread_and_no_half_shard(tmp_path):
    writer = small_writer(tmp_path / "s")
    with pytest.raises(KeyboardInterrupt), Background(writer, 4) as background:
        background.put(0, 0, *BATCH)
        background.put(1, 0, *(t[:2] for t in BATCH))
        raise KeyboardInterrupt
    assert not background._worker.is_alive()
    assert set(writer.todo()) >= {1, 2} and not list((tmp_path / "s").rglob("*.tmp"))


def test_leaving_waits_for_the_writer_however_often_it_is_interrupted():
    """Thread.join would take the writer for ended after the second Ctrl-C, and the program would end beneath it."""

    class Slow:
        plan, written = SimpleNamespace(patches=1, channels=1), 0

        def begin(self, shard):
            return self

        def put(self, *features):
            time.sleep(0.6)
            self.filled = np.array([True])

        def commit(self):
            self.written += 1

    def interrupt(*_):
        raise KeyboardInterrupt

    slow, before = Slow(), signal.signal(signal.SIGALRM, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt), Background(slow, 1) as background:
            background.put(0, 0)
            signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
            time.sleep(5)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert slow.written == 1
