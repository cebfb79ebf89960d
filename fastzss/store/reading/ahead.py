"""Reading ahead: while one batch is used, a thread reads the next ones into buffers that are used again and again.

    rows of batch 0 | rows of batch 1 | ...   ->   thread: take into a free buffer   ->   (rows, Patches), in order

A buffer comes back to the thread when the next batch is asked for.  For a GPU the thread reads into page-locked memory
and copies from there on a stream of its own, so that neither reading nor copying is waited for.
"""

import contextlib
import queue

import torch

from fastzss.base.background import Worker
from fastzss.kernels import Patches

DEPTH = 2  # batches ready or being read, beside the one in use


class Slot:
    """Memory for one batch of patches: on the CPU, and on the device where it is another one."""

    def __init__(self, store, device):
        self.store, self.device = store, device
        self.host = self.there = None
        self.used = None  # CUDA event: what was computed from the batch before

    def read(self, rows, stream):
        """The Patches of some rows, in this memory."""
        if self.host is None or len(self.host.tokens) < len(rows):
            self.host = self.store.buffer(len(rows), pinned=stream is not None)
            self.there = self.store.buffer(len(rows), self.device) if self.device.type != "cpu" else None
        host = self.store.take(rows, out=_first(self.host, len(rows)))
        if self.there is None:
            return host
        there = _first(self.there, len(rows))
        with contextlib.nullcontext() if stream is None else torch.cuda.stream(stream):
            if self.used is not None:
                stream.wait_event(self.used)
            there.tokens.copy_(host.tokens, non_blocking=True)
            if host.scale is not None:
                there.scale.copy_(host.scale, non_blocking=True)
        if stream is not None:
            stream.synchronize()  # only the thread waits
        return there


def _first(patches, count):
    """The first images of a buffer."""
    scale = None if patches.scale is None else patches.scale[:count]
    return Patches(patches.tokens[:count], scale, patches.mean, patches.std)


def read_ahead(store, batches, device=None):
    """Yields (rows, Patches) for each array of rows, in order; see `PatchStore.read_ahead`."""
    device = torch.device(device or "cpu")
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None
    free, ready = queue.SimpleQueue(), queue.SimpleQueue()
    for _ in range(DEPTH + 1):
        free.put(Slot(store, device))

    def work():
        try:
            for rows in batches:
                slot = free.get()
                if slot is None:
                    return
                ready.put((rows, slot.read(rows, stream), slot))
            ready.put(None)
        except BaseException as problem:  # also one of `batches`: whoever waits for the batch must hear of it
            ready.put(problem)

    worker = Worker("read-ahead", work)
    try:
        while (found := ready.get()) is not None:
            if isinstance(found, BaseException):
                raise found
            rows, patches, slot = found
            yield rows, patches
            if stream is not None:
                slot.used = torch.cuda.current_stream(device).record_event()
            free.put(slot)
    finally:
        worker.finish(lambda: free.put(None))
