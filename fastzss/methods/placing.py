"""Where frozen patches lie in training: there is room for them, or they are read as they are needed.

    device   all of them in the memory of the device; a batch only names rows
    host     all of them in the memory of the machine; those of a batch go to the device with it
    stream   on disk; those of the next batches are read while the device computes

In the memory of a machine there is one copy for all its ranks.
"""

import os

import numpy as np
import torch

from fastzss.base.errors import UserError
from fastzss.base.machine import USABLE, free_bytes, ranks_here, readable_bytes
from fastzss.base.ranks import all_least
from fastzss.kernels import Patches


def bytes_in_memory(plan):
    """Of the patches of all images of a store."""
    wanted = [plan.arrays[name] for name in ("tokens", "scale") if name in plan.arrays]
    return sum(dtype.itemsize * int(np.prod(shape)) for shape, dtype, _ in wanted)


def put_where(wanted, needed, device, reserve=0):
    """("device", "host" or "stream", why): where `needed` bytes of patches go.

    Args:
        wanted: one of the three, or "auto".
        reserve: bytes of the device's memory that training needs besides.
    """
    devices = {"device": device, "host": torch.device("cpu")}
    of = {where: sharers(there) for where, there in devices.items()}
    free = [of[where] * free_bytes(there) for where, there in devices.items()]
    free = dict(zip(devices, all_least(free, device), strict=True))  # so that all ranks choose the same
    room = {"device": USABLE * (free["device"] - of["device"] * reserve), "host": USABLE * free["host"]}
    named = {"device": f"on {device}", "host": "in the memory of the machine"}
    if device.type == "cpu":
        named["device"] = named["host"]
    if wanted == "auto":
        order = ("device", "stream") if device.type == "cpu" else ("device", "host", "stream")
        wanted = next(where for where in order if where == "stream" or needed <= room[where])
    elif wanted != "stream" and needed > free[wanted]:
        raise UserError(
            f"--loader {wanted}: the patches take {readable_bytes(needed)}, and {readable_bytes(free[wanted])} are "
            f"free {named[wanted]}; leave --loader out, or say --loader stream"
        )
    size = f"{readable_bytes(needed)} of patches"
    beside = f", beside {readable_bytes(reserve)} for training" if reserve else ""
    if wanted == "stream":
        full = " and ".join(dict.fromkeys(f"{readable_bytes(free[where])} {named[where]}" for where in named))
        return wanted, f"{size} are read from the store as they are needed; free: {full}{beside}"
    copy = f", one copy for its {of[wanted]} processes" if of[wanted] > 1 else ""
    return wanted, f"{size} lie {named[wanted]}{copy}; free: {readable_bytes(free[wanted])}{beside}"


def sharers(device):
    """How many processes look at one copy of the patches: all of a machine in its memory, where the system can."""
    return ranks_here() if device.type == "cpu" and hasattr(os, "memfd_create") else 1


def patches_of(patches, rows, device):
    """The Patches of some rows, on a device."""
    own = Patches(patches.tokens[rows], None if patches.scale is None else patches.scale[rows], *patches[2:])
    if device.type == "cuda":  # from page-locked memory it travels while the device computes
        own = own._replace(tokens=own.tokens.pin_memory())
    return Patches(*(None if t is None else t.to(device, non_blocking=True) for t in own))
