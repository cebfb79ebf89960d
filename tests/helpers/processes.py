"""Ranks for the tests: forked processes that have joined, as torchrun's have."""

import multiprocessing
import os
import socket
import sys


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def join_and_do(rank, count, port, queue, work, arguments):
    import torch.distributed as dist

    os.environ.update(RANK=str(rank), WORLD_SIZE=str(count), LOCAL_WORLD_SIZE=str(count))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    if accelerate := sys.modules.get("accelerate"):  # another test may have made it believe that it is alone
        accelerate.PartialState._reset_state()
    dist.init_process_group("gloo")
    queue.put((rank, work(rank, *arguments)))
    dist.barrier()


def in_processes(count, work, *arguments):
    """What work(rank, *arguments) returns in each of several ranks."""
    context = multiprocessing.get_context("fork")  # torch is imported already, and has run no thread that matters
    queue, port = context.Queue(), free_port()
    processes = [
        context.Process(target=join_and_do, args=(rank, count, port, queue, work, arguments)) for rank in range(count)
    ]
    for process in processes:
        process.start()
    try:
        found = dict(queue.get(timeout=60) for _ in processes)
        for process in processes:
            process.join(60)
    finally:
        for process in processes:  # one that hangs would keep pytest from ever ending
            process.kill()
    return [found[rank] for rank in range(count)]
