"""Gradients summed over ranks, while the backward pass goes on.

Each rank has the gradient of its share of the loss; the batch's is their sum.  Parameters lie in buckets, the last ones
first, roughly as their gradients come.  A bucket whose gradients are all there is laid end to end, and its sum is on
its way while autograd makes the next ones; behind the pass the rest follows, and all are waited for.

Ranks must ask for their sums in one order, or wait for ever.  They do:

- Buckets follow each other in their order; one that is complete waits for those before it.
- The losses sum over ranks inside the backward pass too (base/ranks.py).  These sums lie between the loss and the
  tower's output, and autograd goes on to the tower when all gradients of its output are there.  The first bucket holds
  the tower's last norm, so it, and with it every other, comes behind them.
- Among themselves the losses' sums have the order of the graph, latest made first, which is the same on all ranks:
  where nothing is mentioned the loss is 0 times the same tensors, and a gradient of zeros goes the same way.
"""

import torch
import torch.distributed as dist

from fastzss.base.ranks import alone

BUCKET = 25 << 20  # bytes: on the link long beside a sum's latency, and short beside the pass: the base tower has 8


class Sums:
    """Of all gradients of some parameters; a process alone has no buckets, and does nothing."""

    def __init__(self, parameters):
        learned = [p for p in parameters if p.requires_grad]
        self.buckets = [] if alone() else buckets(learned[::-1], BUCKET)
        self.number = {parameter: number for number, bucket in enumerate(self.buckets) for parameter in bucket}
        for parameter in self.number:
            parameter.register_post_accumulate_grad_hook(self.arrived)
        self.begin()

    def begin(self):
        self.missing, self.under_way = [len(bucket) for bucket in self.buckets], []

    def arrived(self, parameter):
        """Called by autograd when the gradient is whole, however often the parameter was used."""
        self.missing[self.number[parameter]] -= 1
        while (at := len(self.under_way)) < len(self.buckets) and not self.missing[at]:
            self.launch(self.buckets[at])

    def launch(self, bucket):
        """Begin a bucket's sum.  From here on its gradients are views of it, not to be read before `finish`."""
        there = [p for p in bucket if p.grad is not None]
        if not there:  # what takes no part in the loss has no gradient on any rank
            return
        flat = torch.cat([p.grad.flatten() for p in there])
        for parameter, part in zip(there, flat.split([p.numel() for p in there]), strict=True):
            parameter.grad = part.view_as(parameter)
        self.under_way.append(dist.all_reduce(flat, async_op=True))

    def finish(self):
        """Behind the backward pass: sum what is left, and wait for all; on a GPU the stream waits, not the process."""
        for bucket in self.buckets[len(self.under_way) :]:
            self.launch(bucket)
        for work in self.under_way:
            work.wait()
        self.begin()


def buckets(parameters, most):
    """Neighbours together, up to so many bytes, or one that is larger."""
    found, size = [], 0
    for parameter in parameters:
        if not found or size + parameter.nbytes > most:
            found.append([])
            size = 0
        found[-1].append(parameter)
        size += parameter.nbytes
    return found
