"""The plan of the features of a store: everything that defines their bytes, known before the first image is read.

n images in a pseudo-random order, each with N patches of D channels on an h x w grid and G global vectors:

    tokens  int8 [n, N, D] or float16    unit patch vectors, quantised or not
    scale   float16 [n, N]               int8 only: v = mean + std * scale * q
    global  float16 [n, G, D]            named: "cls", "patch-mean"
    valid   uint8 [n]                    0: the image could not be read, and its row is zeros

Row r of the store is image `order()[r]` of the source.  `shard_images` rows lie in one file of each array.
"""

import json
from dataclasses import asdict, dataclass, field

import numpy as np

from fastzss.base.files import canonical, identity

SHARD_BYTES = 128 * 2**20
DTYPES = {"int8": np.dtype("i1"), "float16": np.dtype("<f2")}


@dataclass(frozen=True, kw_only=True)
class FeaturePlan:
    """What a features layer holds; two plans with the same `identity` describe the same bytes."""

    images: int  # n
    patches: int  # N
    channels: int  # D
    grid: tuple  # (h, w), h * w = N
    globals: tuple = ("cls",)  # names of the G global vectors of an image
    dtype: str = "int8"  # or "float16"
    vision: dict = field(default_factory=dict)  # model name, weights sha256, layer, norm, size, preprocessing
    source: dict = field(default_factory=dict)  # where the images come from: spec, hash of their list, its order
    order_seed: int = 0  # fixes which image lies in which row

    def __post_init__(self):
        for name in ("grid", "globals"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("vision", "source"):  # as they will come back from disk
            object.__setattr__(self, name, json.loads(canonical(getattr(self, name))))
        for name in ("images", "patches", "channels"):
            if getattr(self, name) < 1:
                raise ValueError(f"FeaturePlan: {name} is {getattr(self, name)}; expected at least 1")
        if len(self.grid) != 2 or self.grid[0] * self.grid[1] != self.patches:
            raise ValueError(f"FeaturePlan: a grid of {self.grid} does not have {self.patches} patches")
        if self.dtype not in DTYPES:
            raise ValueError(f"FeaturePlan: dtype is {self.dtype!r}; expected one of {', '.join(DTYPES)}")
        if len(set(self.globals)) != len(self.globals):
            raise ValueError(f"FeaturePlan: global names {self.globals} repeat")

    @property
    def identity(self):
        return identity(self.to_json())

    @property
    def bytes_per_image(self):
        """Bytes of one row of all arrays, without checksums."""
        return sum(dtype.itemsize * int(np.prod(chunk)) for _, dtype, chunk in self.arrays.values())

    @property
    def shard_images(self):
        """Rows of a shard: the power of two nearest to 128 MiB; at most 4096; 16 shards or more from 64 images on."""
        most = min(4096, max(4, (self.images - 1) // 15))
        rows = 1
        # nearest on the logarithmic scale: 2 * rows <= sqrt(2) * SHARD_BYTES / bytes_per_image, in whole numbers
        while 2 * rows <= most and (2 * rows * self.bytes_per_image) ** 2 <= 2 * SHARD_BYTES**2:
            rows *= 2
        return rows

    @property
    def shards(self):
        return -(-self.images // self.shard_images)

    def rows(self, shard):
        """The store rows that lie in a shard."""
        if not 0 <= shard < self.shards:
            raise IndexError(f"shard {shard} of a plan with {self.shards} shards")
        start = shard * self.shard_images
        return range(start, min(start + self.shard_images, self.images))

    @property
    def arrays(self):
        """name -> (shape, numpy dtype, chunk shape); a chunk is one image."""
        n, N, D, G = self.images, self.patches, self.channels, len(self.globals)
        arrays = {"tokens": ((n, N, D), DTYPES[self.dtype], (1, N, D))}
        if self.dtype == "int8":
            arrays["scale"] = ((n, N), np.dtype("<f2"), (1, N))
        if G:
            arrays["global"] = ((n, G, D), np.dtype("<f2"), (1, G, D))
        arrays["valid"] = ((n,), np.dtype("u1"), (1,))
        return arrays

    def order(self):
        """int64 [n]: the source index of every store row, a permutation fixed by the seed and the number of images; the
        order of the list where the source can be read in no other."""
        if self.source.get("order") == "listed":
            return np.arange(self.images)
        return permutation(self.images, self.order_seed)

    def to_json(self):
        return {**asdict(self), "grid": list(self.grid), "globals": list(self.globals)}

    @classmethod
    def from_json(cls, obj):
        """The plan that `to_json` wrote; TypeError or ValueError where it is none."""
        return cls(**obj)


def permutation(n, *key):
    """int64 [n]: a pseudo-random order of 0 .. n - 1, the same everywhere and for ever for the same integers `key`."""
    return np.argsort(hashes(n, *key)).astype(np.int64)  # no two indices have the same hash: splitmix64 is a bijection


def hashes(n, *key):
    """uint64 [n]: pseudo-random, all different, fixed by the integers `key`."""
    state = np.zeros(1, np.uint64)
    for part in key:
        state = splitmix64(state ^ np.array([part % 2**64], np.uint64))
    return splitmix64(state + np.arange(n, dtype=np.uint64))


def splitmix64(x):
    """The finaliser of splitmix64, on an array of uint64."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def differences(found, wanted):
    """One sentence for each key in which two plans differ: what was found and what is wanted now."""
    found, wanted = (p if isinstance(p, dict) else p.to_json() for p in (found, wanted))
    found, wanted = _leaves(found), _leaves(wanted)
    return [
        f"{key} is {_short(found.get(key))}, now {_short(wanted.get(key))}"
        for key in sorted(found.keys() | wanted.keys())
        if canonical(found.get(key)) != canonical(wanted.get(key))
    ]


def _leaves(obj, prefix=""):
    leaves = {}
    for key, value in obj.items():
        leaves |= _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return leaves


def _short(value):
    text = json.dumps(value) if value is not None else "absent"
    return text if len(text) <= 80 else f"{text[:77]}..."
