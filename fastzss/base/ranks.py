"""The processes that share a piece of work: how they were started, what each of them does, and sums over all.

`rank` is the number of a process, `count` how many there are; alone it is 0 of 1.  The first one leads: it writes what
there is one of, and speaks for all.
"""

import json
import os
import sys
import time
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from fastzss.base.errors import UserError
from fastzss.base.machine import ranks_here

LONGEST_WAIT = timedelta(hours=12)  # those who are done wait for the others; a process that dies is noticed at once


class Ranks:
    """This process among those that accelerate or torchrun started with it.

    Launches that would silently work alone, several times over, are refused with the command that works.
    """

    def __init__(self, device=None):
        self.rank, self.count, self._group = 0, 1, None
        if "WORLD_SIZE" not in os.environ and "ACCELERATE_MIXED_PRECISION" not in os.environ:
            self.device = usable(device)
            return
        state = joined(device)
        self.rank, self.count, self.device = state.process_index, state.num_processes, state.device
        if self.count > 1:
            self._group = dist.new_group(backend="gloo", timeout=LONGEST_WAIT)

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


def joined(device=None):
    """The processes that accelerate or torchrun started, as accelerate's PartialState."""
    from accelerate import PartialState  # late: one process alone needs none of it

    program = sys.argv[0] or "fastzss/train.py"
    wanted = int(os.environ.get("WORLD_SIZE", 1))
    here = ranks_here()
    works = (
        f"`torchrun --nproc_per_node N {program} ...`, or `accelerate launch --multi_gpu --num_processes N {program}"
    )
    if "WORLD_SIZE" not in os.environ and "MASTER_ADDR" in os.environ and "ACCELERATE_MIXED_PRECISION" in os.environ:
        raise UserError(
            f"this `accelerate launch` was asked for several processes, but starts one only, as it does on CPUs; "
            f"{works} ...`, starts N, without a GPU too",
            code=2,
        )
    chosen = usable(device)
    if chosen.type == "cuda" and here > torch.cuda.device_count():
        raise UserError(
            f"{here} processes were started on a machine with {counted(torch.cuda.device_count(), 'GPU')}; "
            f"`torchrun --nproc_per_node {torch.cuda.device_count()} {program} ...` gives each its own, "
            f"and --device cpu needs none",
            code=2,
        )
    if wanted > 1 and chosen.index is not None:
        raise UserError(
            f"--device {device} is one device, and {wanted} processes were started; say --device cuda", code=2
        )
    state = PartialState(cpu=chosen.type == "cpu")
    if state.num_processes != wanted:
        raise UserError(
            f"{counted(wanted, 'process')} were started, but each works alone on {state.device}; nothing was done. "
            f"`torchrun --nproc_per_node {here} {program} ... --device cpu` joins them on CPUs",
            code=2,
        )
    if wanted == 1:
        state.device = chosen
    return state


@contextmanager
def told_to_launcher():
    """torchrun and accelerate end with pages of their own when a process fails: let the last line say why it did."""
    launcher = os.getppid()
    try:
        yield
    except UserError as problem:
        if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
            Path(path).write_text(json.dumps({"message": str(problem), "timestamp": int(time.time())}))
        elif problem.code == 130 and "ACCELERATE_MIXED_PRECISION" in os.environ:
            end = time.monotonic() + 1  # a Ctrl-C has reached it too, and it has pages to write about that
            while os.getppid() == launcher and time.monotonic() < end:
                time.sleep(0.01)
        raise


def usable(device=None):
    """The torch device of that name, by default cuda where there is one."""
    name = ("cuda" if torch.cuda.is_available() else "cpu") if device is None else device
    try:
        chosen = torch.device(name)
    except RuntimeError:
        raise UserError(f"--device {name}: no such device; expected cpu, cuda or cuda:NUMBER", code=2) from None
    if chosen.type == "cuda" and not (chosen.index or 0) < torch.cuda.device_count():
        there = counted(torch.cuda.device_count(), "GPU")
        raise UserError(f"--device {name}: torch sees {there} here; leave --device out, or say --device cpu", code=2)
    if chosen.type not in ("cpu", "cuda"):
        try:
            torch.zeros(1, device=chosen).item()
        except Exception as problem:  # whatever a device that is not there says of itself
            first = str(problem).partition("\n")[0].partition(". ")[0]
            raise UserError(f"--device {name}: cannot be used here ({first}); say --device cpu", code=2) from None
    return chosen


def counted(number, noun):
    """ "1 GPU", "2 GPUs", "3 processes"."""
    return f"{number} {noun}" + ("" if number == 1 else "es" if noun.endswith("s") else "s")


def alone():
    """Whether this is the only process."""
    return not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1)


class _AllSum(torch.autograd.Function):
    """Sum over ranks.  The loss is the sum of the ranks' shares, so the gradient is a sum over ranks as well."""

    @staticmethod
    def forward(ctx, tensor):
        total = tensor.detach().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient):
        return _AllSum.forward(None, gradient)


def all_sum(tensor):
    return tensor if alone() else _AllSum.apply(tensor.contiguous())


def all_least(numbers, device):
    """The least that any rank has of each of some numbers."""
    if alone():
        return numbers
    return (-all_max(-torch.tensor(numbers, dtype=torch.float64, device=device))).tolist()


def all_max(tensor):
    if not alone():
        tensor = tensor.clone()
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return tensor
