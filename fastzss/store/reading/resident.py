"""All patches of a store in memory: on a GPU, page-locked, or one copy that the ranks of a machine share.

cuda     shards are read into page-locked memory and copied while the next ones are read
pinned   page-locked memory of this process, for copies to a GPU that nobody waits for; refused without CUDA
shm      Linux: the first rank of a machine fills a file that has no name (memfd), the others map the same pages once
         it is full.  Without a name nothing can stay behind: the last process that ends, however it ends, frees it.
"""

import mmap
import os
import queue
import socket

import torch
import torch.distributed as dist

from fastzss.base.errors import UserError
from fastzss.kernels import Patches
from fastzss.store.forms.rows import READERS, in_threads


def load_pinned(store):
    """Page-locked room for all patches."""
    if not torch.cuda.is_available():
        raise UserError('load("pinned"): memory is page-locked for a GPU, and there is none here; expected load("cpu")')
    return store.buffer(store.plan.images, pinned=True)


def read_to_device(store, name, out):
    """Read an array of all rows into a tensor on a device; one thread copies while others read."""
    cuda, plan, free = out.device.type == "cuda", store.plan, queue.SimpleQueue()
    for _ in range(READERS):
        free.put(torch.empty(plan.shard_images, *out.shape[1:], dtype=out.dtype, pin_memory=cuda))

    def read(shard):
        rows, buffer = plan.rows(shard), free.get()
        try:
            store._shard(name, shard).read_into(buffer[: len(rows)].numpy())
            out[rows.start : rows.stop].copy_(buffer[: len(rows)], non_blocking=cuda)
            if cuda:
                torch.cuda.current_stream(out.device).synchronize()  # only this thread waits
        finally:
            free.put(buffer)

    in_threads(read, range(plan.shards), out.nbytes)


def load_shared(store):
    """Patches of all rows in memory that all ranks of this machine share; without ranks, of this process."""
    if not hasattr(os, "memfd_create"):
        raise UserError('load("shm"): this system has no memory files; expected Linux, or load("cpu")')
    empty = store.buffer(0)
    shapes = [(store.plan.images, *t.shape[1:]) for t in empty[:2] if t is not None]
    sizes = [torch.Size(shape).numel() * t.element_size() for shape, t in zip(shapes, empty, strict=False)]
    ranks = dist.get_world_size() if dist.is_initialized() else 1
    rank = dist.get_rank() if ranks > 1 else 0

    machines = gathered(_machine(), ranks)
    first = machines.index(machines[rank])
    own = problem = None
    if rank == first:
        own = os.memfd_create("fastzss")
        try:
            os.posix_fallocate(own, 0, max(1, sum(sizes)))  # no room is an error here, not a crash when it is used
            shared = _mapped(own, empty, shapes, sizes)
            store.fill(shared)
        except (UserError, OSError) as found:
            problem = found if isinstance(found, UserError) else UserError(
                f"{store.path}: {sum(sizes)} bytes of shared memory cannot be had ({found.strerror}). "
                f"Stream the store instead, or use a machine with more memory."
            )  # fmt: skip
    try:
        pid, file = agreed((os.getpid(), own), problem, ranks)[first]
        if rank != first:
            try:
                own = os.open(f"/proc/{pid}/fd/{file}", os.O_RDWR)
                shared = _mapped(own, empty, shapes, sizes)
            except OSError as found:
                problem = UserError(
                    f"{store.path}: the memory of another process cannot be shared ({found.strerror}). "
                    f"Stream the store instead."
                )
        agreed(None, problem, ranks)  # the first rank's file stays open until all have it
    finally:
        if own is not None:
            os.close(own)  # the mapping stays
    return shared


def _mapped(file, empty, shapes, sizes):
    """Patches that lie in a file."""
    view, tensors, begin = mmap.mmap(file, max(1, sum(sizes))), [], 0
    for tensor, shape, size in zip(empty, shapes, sizes, strict=False):
        flat = torch.frombuffer(view, dtype=torch.uint8, count=size, offset=begin)
        tensors.append(flat.view(tensor.dtype).view(shape))
        begin += size
    return Patches(*tensors, *empty[2:]) if len(tensors) == 2 else Patches(*tensors)


def _machine():
    """What tells this machine, and what its processes see of each other, from another one."""
    namespace = os.readlink("/proc/self/ns/pid") if os.path.islink("/proc/self/ns/pid") else ""
    return socket.gethostname(), namespace


def agreed(value, problem, ranks):
    """The values of all ranks, in their order; where one of them has a problem, all end with it."""
    told = gathered((value, problem and str(problem)), ranks)
    for _, sentence in told:
        if sentence:
            raise problem or UserError(sentence)
    return [value for value, _ in told]


def gathered(value, ranks):
    """The values of all ranks, in their order."""
    if ranks == 1:
        return [value]
    values = [None] * ranks
    dist.all_gather_object(values, value)
    return values
