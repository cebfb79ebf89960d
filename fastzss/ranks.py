"""The processes that share a piece of work: how they were started, and sums over all of them."""

import json
import os
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist

from fastzss.cores import ranks_here
from fastzss.errors import UserError


def join_ranks(device=None):
    """The processes that accelerate or torchrun started, as accelerate's PartialState.

    Launches that would silently train alone, several times over, are refused with the command that works.
    """
    from accelerate import PartialState  # late: an extraction on one process needs none of it

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
            f"{here} processes were started on a machine with {count(torch.cuda.device_count(), 'GPU')}; "
            f"`torchrun --nproc_per_node {torch.cuda.device_count()} {program} ...` gives each its own, "
            f"and --device cpu needs none",
            code=2,
        )
    if wanted > 1 and chosen.index is not None:
        raise UserError(
            f"--device {device} is one device, and {wanted} processes were started; say --device cuda", code=2
        )
    ranks = PartialState(cpu=chosen.type == "cpu")
    if ranks.num_processes != wanted:
        raise UserError(
            f"{count(wanted, 'process')} were started, but each would work alone on {ranks.device}; nothing was done. "
            f"`torchrun --nproc_per_node {here} {program} ... --device cpu` joins them on CPUs",
            code=2,
        )
    if wanted == 1:
        ranks.device = chosen
    return ranks


@contextmanager
def told_to_launcher():
    """torchrun and accelerate end with pages of their own when a process fails: let the last line say why it did."""
    try:
        yield
    except UserError as problem:
        if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
            Path(path).write_text(json.dumps({"message": str(problem), "timestamp": int(time.time())}))
        raise


def usable(device=None):
    """The torch device of that name, by default cuda where there is one."""
    name = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(name)
    except RuntimeError:
        raise UserError(f"--device {name}: no such device; expected cpu, cuda or cuda:NUMBER", code=2) from None
    if chosen.type == "cuda" and not (chosen.index or 0) < torch.cuda.device_count():
        there = count(torch.cuda.device_count(), "GPU")
        raise UserError(f"--device {name}: torch sees {there} here; leave --device out, or say --device cpu", code=2)
    return chosen


def count(number, noun):
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


def all_max(tensor):
    if not alone():
        tensor = tensor.clone()
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return tensor
