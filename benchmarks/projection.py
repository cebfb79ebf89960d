"""What a card's rates make of a ledger: the least time of a step, of one GPU and of several that share it.

    floor   of a kind of work the longer of its two times, FLOPs over --matmul and bytes over --copy; of a step the sum
    link    what is summed over N ranks: 2 (N - 1) / N of its bytes, as a ring sends them, over --link

Each rank reads its share of the captions, against all images.  Sums over ranks are those that the step's own code asks
for; each is known with the work done by then.  They follow each other on the link.  Those of the losses are waited for;
those of the gradients go on beside the backward pass, and what is left of them at its end does not hide.  Latencies,
uneven shares, and what a sum takes away from the work beside it, are not seen: a projection, not a measurement.
"""

import contextlib
from typing import NamedTuple
from unittest import mock

import torch

from fastzss.base import ranks
from fastzss.base.errors import UserError
from fastzss.training import sums
from fastzss.training.settings import RECIPES

STEPS = RECIPES["simzss-coco"]["steps"]
H200 = {"copy": 4300.0, "matmul": 790.0}  # GB/s and TFLOP/s that were measured on one
NVLINK = 450.0  # GB/s in one direction: half of what NVIDIA states for an H100 and H200 in both; not measured


class Sum(NamedTuple):
    shape: list
    size: int  # bytes
    waited: bool  # for its end, before anything else
    done: tuple  # (FLOPs, bytes) by kind that were counted before it


class Traffic:
    """The sums over ranks of one step, in place of torch.distributed: asked for, and never made."""

    def __init__(self, counts):
        self.counts, self.sums, self.end = counts, [], None

    def all_reduce(self, tensor, op=None, async_op=False):
        self.sums.append(Sum(list(tensor.shape), tensor.nbytes, not async_op, self.done()))
        return self if async_op else None

    def wait(self):
        self.end = self.end or self.done()  # of the backward pass

    def done(self):
        return self.counts.flops.copy(), self.counts.bytes.copy()


@contextlib.contextmanager
def among_ranks(traffic):
    """The step believes that it shares a batch, and its sums over ranks become traffic."""
    with contextlib.ExitStack() as stack:
        for module in (ranks, sums):
            stack.enter_context(mock.patch.object(module, "alone", lambda: False))
        stack.enter_context(mock.patch.object(torch.distributed, "all_reduce", traffic.all_reduce))
        yield


def rates_of(args):
    """{copy: GB/s, matmul: TFLOP/s}: as given, as measured on the GPU here, or of an H200."""
    rates = dict(H200)
    if args.device == "cuda":
        import steps
        from measuring import cuda_milliseconds

        source = torch.empty(1 << 30, dtype=torch.int8, device="cuda")
        target = torch.empty_like(source)
        rates["copy"] = 2 * source.numel() / cuda_milliseconds(lambda: target.copy_(source), 20) / 1e6
        rates["matmul"] = steps.matmul_rate(torch.device("cuda")) / 1e12
    return rates | {name: value for name in H200 if (value := getattr(args, name)) is not None}


def floors(done, rates):
    """{kind: seconds} of what is done, (FLOPs, bytes) by kind."""
    flops, size = done
    kinds = {**flops, **size}
    return {kind: max(flops[kind] / rates["matmul"] / 1e12, size[kind] / rates["copy"] / 1e9) for kind in kinds}


def numbers_of_ranks(most, batch):
    """1, 2, 4, ... and `most`."""
    if batch % most:
        raise UserError(f"--ranks {most}: {batch} pairs do not divide among them")
    powers = (1 << power for power in range(most.bit_length()))
    return sorted({most, *(number for number in powers if batch % number == 0)})


def shared(counts, number, rates, link):
    """One of so many ranks, in numbers."""

    def floor(done):
        return sum(floors(done, rates).values())

    traffic = counts.traffic
    on_the_link = [2 * (number - 1) / number * each.size / link / 1e9 for each in traffic.sums]
    waited, free = 0.0, 0.0  # free: when the link is
    for each, seconds in zip(traffic.sums, on_the_link, strict=True):
        now = floor(each.done) + waited
        free = max(free, now) + seconds
        if each.waited:
            waited += free - now
    waited += max(0.0, free - floor(traffic.end or traffic.done()) - waited)
    computing = floor((counts.flops, counts.bytes))
    return {
        "ranks": number,
        "rows": list(counts.batch.ids.shape),
        "flops": counts.flops.total(),
        "bytes": counts.bytes.total(),
        "launches": counts.launches.total(),
        "sums": [{"shape": s.shape, "bytes": s.size, "waited": s.waited} for s in traffic.sums],
        "seconds_computing": computing,
        "seconds_link": sum(on_the_link),
        "seconds_hidden": sum(on_the_link) - waited,
        "seconds_step": computing + waited,
        "seconds_recipe": (computing + waited) * STEPS,
    }


def show_shared(rows, link):
    heads = ["ranks", "TFLOP", "GB", "launches", "sums", "of losses MB", "gradients MB", "computing ms", "link ms"]
    heads += ["hidden ms", "step ms", "recipe s", "speed"]
    print("  ".join(heads))
    for row in rows:
        losses, gradients = (sum(s["bytes"] for s in row["sums"] if s["waited"] == waited) for waited in (True, False))
        ms = [1e3 * row[f"seconds_{part}"] for part in ("computing", "link", "hidden", "step")]
        cells = [f"{row['ranks']}", f"{row['flops'] / 1e12:.2f}", f"{row['bytes'] / 1e9:.1f}", f"{row['launches']}"]
        cells += [f"{len(row['sums'])}", f"{losses / 1e6:.2f}", f"{gradients / 1e6:.1f}", *(f"{t:.2f}" for t in ms)]
        cells += [f"{row['seconds_recipe']:.1f}", f"{rows[0]['seconds_step'] / row['seconds_step']:.2f}x"]
        print("  ".join(cell.rjust(len(head)) for cell, head in zip(cells, heads, strict=True)))
    stated = ", as NVIDIA states it, not measured" if link == NVLINK else ""
    print(f"a projection, not a measurement: sums over ranks at {link:.0f} GB/s in one direction{stated}")
