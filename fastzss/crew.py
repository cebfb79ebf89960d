"""The processes that accelerate or torchrun started, sharing one extraction: one leads, each takes its part."""

import os
from contextlib import contextmanager
from datetime import timedelta

import torch.distributed as dist

from fastzss.errors import UserError
from fastzss.ranks import join_ranks, usable

PATIENCE = timedelta(hours=12)  # those who are done wait for the others; a process that dies is noticed at once


class Crew:
    """This process is number `rank` of `count`; alone it is 0 of 1."""

    def __init__(self, device=None):
        self.rank, self.count, self._group = 0, 1, None
        launched = "WORLD_SIZE" in os.environ or "ACCELERATE_MIXED_PRECISION" in os.environ
        if not launched:
            self.device = usable(device)
            return
        world = join_ranks(device)
        self.rank, self.count, self.device = world.process_index, world.num_processes, world.device
        if self.count > 1:
            self._group = dist.new_group(backend="gloo", timeout=PATIENCE)

    @property
    def first(self):
        return self.rank == 0

    def share(self, work):
        """This process's part of a list: every `count`-th."""
        return work[self.rank :: self.count]

    def wait(self):
        """Until all are here."""
        if self.count > 1:
            dist.barrier(self._group)

    def gather(self, value):
        """The values of all, in their order."""
        if self.count == 1:
            return [value]
        values = [None] * self.count
        dist.all_gather_object(values, value, self._group)
        return values

    def led(self, work):
        """What `work` returns in the first process, told to all; where it fails, all end, and the first says why."""
        told, problem = [(None, 0)], None
        if self.first:
            try:
                told = [(work(), 0)]
            except BaseException as found:
                told, problem = [(None, getattr(found, "code", None) or 1)], found
        if self.count > 1:
            dist.broadcast_object_list(told, 0, self._group)
        if problem is not None:
            raise problem
        value, code = told[0]
        if code:
            raise SystemExit(code)
        return value

    @contextmanager
    def one_voice(self):
        """What all find wrong in the same way is said by the first."""
        try:
            yield
        except UserError as problem:
            if self.first:
                raise
            raise SystemExit(problem.code) from None
