"""How much memory is free, and how numbers of bytes are said."""

from pathlib import Path

import psutil
import torch

from fastzss.cores import ranks_here


def free_bytes(device):
    """Memory that this process may still take on a device; processes of one machine share what it has, equally."""
    device = torch.device(device)
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    free = min(psutil.virtual_memory().available, container_rest())
    return free // ranks_here()


def container_rest(root=Path("/sys/fs/cgroup")):
    """What is left of the memory that a container may use; endless where there is no such limit."""
    try:
        most = int((root / "memory.max").read_text())
        used = int((root / "memory.current").read_text())
        parts = dict(line.split() for line in (root / "memory.stat").read_text().splitlines())
        return max(0, most - used + int(parts["file"]))  # the system gives up its copies of files when asked
    except (OSError, ValueError, KeyError):  # no such file, or "max"
        return 2**63


def said(size):
    """Bytes as one says them: 23.5 GB."""
    units = ["bytes", "kB", "MB", "GB", "TB"]
    while size >= 999.5 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.3g} {units[0]}"
