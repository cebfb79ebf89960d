"""What an extraction would write and how long it would take, without running the model.

Time = images * (decoding + forward pass).  Decoding is measured on a few images; the forward pass is counted in
multiplications, and what the device makes of such in a second is measured with one product of the model's own sizes.
On a GPU the two go on at the same time, so the longer one counts.
"""

import shutil
import time
from pathlib import Path

import torch

from fastzss.sources.images import ImageUnreadable

TRIED = 6  # images that are decoded to see how long it takes
MEASURED_SECONDS = 0.3  # that the device is kept busy with products, to see how fast it is


def forecast(parts, path, vision, batch, views=None):
    """Of the last part: of a store that grows, what is new.

    `views`: the ViewPlan, where there will be views; their time is not in the estimate."""
    plan, source = parts[-1].plan, parts[-1].source
    there = next(p for p in [Path(path).absolute(), *Path(path).absolute().parents] if p.exists())
    decode, forward = seconds_to_decode(source, vision), seconds_of_forward_pass(vision, batch)
    an_image = max(decode, forward) if vision.device.type == "cuda" else decode + forward
    return {
        "identity": plan.identity,
        "images": plan.images,
        **({"images_there": sum(part.plan.images for part in parts[:-1])} if len(parts) > 1 else {}),
        "shards": plan.shards,
        "bytes": plan.images * plan.bytes_per_image,
        "free": shutil.disk_usage(there).free,
        "seconds": plan.images * an_image,
        "model": plan.vision["model"],
        "dtype": plan.dtype,
        **({"views": views.patches, "bytes_of_views": views.images * views.bytes_per_image} if views else {}),
    }


def seconds_to_decode(source, vision):
    """Of one image, from the source to pixels of the right size; of the middle one of a few."""
    times = []
    for index in range(0, len(source.ids), -(-len(source.ids) // TRIED)):
        began = time.perf_counter()
        try:
            vision.pixels(source.image(index))
        except ImageUnreadable:
            continue
        times.append(time.perf_counter() - began)
    return sorted(times)[len(times) // 2] if times else 0.0


def seconds_of_forward_pass(vision, batch):
    """Of one image in the backbone, an estimate."""
    model, tokens = vision.model, vision.grid[0] * vision.grid[1] + vision.prefix
    width = vision.channels
    batch = batch or 32
    weights = sum(p.numel() for p in model.blocks.parameters() if p.ndim > 1)
    attention = 2 * tokens * tokens * width * len(model.blocks)
    patches = model.patch_embed.proj.weight.numel() * vision.grid[0] * vision.grid[1]
    products = weights * tokens + attention + patches

    rows = torch.randn(batch * tokens, width, device=vision.device)
    matrix = torch.randn(width, 4 * width, device=vision.device)
    done, began = 0, None
    while began is None or time.perf_counter() - began < MEASURED_SECONDS:
        _ = torch.nn.functional.gelu(rows @ matrix)  # a gelu: not all of a block is products
        if vision.device.type == "cuda":
            torch.cuda.synchronize(vision.device)
        if began is None:  # the first one only warms up
            began = time.perf_counter()
        else:
            done += 1
    return products * (time.perf_counter() - began) / (done * rows.numel() * 4 * width)
