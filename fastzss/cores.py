"""How many processors there are for this process."""

import os


def cores():
    """Processors for this process, which shares them with the other ranks of its machine."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, own // ranks_here())


def ranks_here():
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))
