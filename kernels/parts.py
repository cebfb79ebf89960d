"""How the forms for CPUs cut their work: parts that stay in the cache, in a dtype that loses nothing."""

import torch

PART = 1 << 20  # numbers in a part: 4 MiB of float32, or 5 images of 256 patches and 768 channels


def rows_of_a_part(columns):
    """How many rows of so many numbers make a part; at least one."""
    return max(1, PART // max(1, columns))


def parts(rows, columns):
    """Slices of `rows` rows, of at most PART numbers each."""
    step = rows_of_a_part(columns)
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


def working(tensor):
    """The dtype to compute in: float64 stays, all else is float32."""
    return torch.promote_types(tensor.dtype, torch.float32)
