"""The machine at hand: its processors, its free memory, how both are said, and what a result says of it."""

import os
import platform
from pathlib import Path

import psutil
import torch

USABLE = 0.8  # share of the free memory that may be planned with


def cores():
    """Processors for this process, which shares them with the other ranks of its machine."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, own // ranks_here())


def ranks_here():
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def free_bytes(device):
    """Memory that this process may still take on a device; processes of one machine share what it has, equally."""
    device = torch.device(device)
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    free = min(psutil.virtual_memory().available, container_rest())
    return free // ranks_here()


def total_bytes(device):
    """Memory of a device, whoever uses it now; processes of one machine share what it has, equally."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    try:
        most = int(Path("/sys/fs/cgroup/memory.max").read_text())
    except (OSError, ValueError):  # no such file, or "max"
        most = 2**63
    return min(psutil.virtual_memory().total, most) // ranks_here()


def container_rest(root=Path("/sys/fs/cgroup")):
    """What is left of the memory that a container may use; endless where there is no such limit."""
    try:
        most = int((root / "memory.max").read_text())
        used = int((root / "memory.current").read_text())
        parts = dict(line.split() for line in (root / "memory.stat").read_text().splitlines())
        return max(0, most - used + int(parts["file"]))  # the system gives up its copies of files when asked
    except (OSError, ValueError, KeyError):  # no such file, or "max"
        return 2**63


def readable_bytes(size):
    """A size for people to read: 23.5 GB."""
    units = ["bytes", "kB", "MB", "GB", "TB"]
    while size >= 999.5 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.3g} {units[0]}"


def machine_record(device):
    """What a result says of where and with what it was made."""
    device = torch.device(device)
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "cores": os.cpu_count(),
        "platform": platform.platform(terse=True),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def processor():
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
