"""Arrays on disk: standard zarr v3 shards that are also files of fixed stride.

A shard holds up to S rows of an array.  Its inner chunk is one row (one image), uncompressed, followed by its crc32c;
the index of the chunks and its crc32c come last:

    row 0 | crc | row 1 | crc | ... | (offset, bytes) of each of S rows, uint64, 2^64 - 1 where there is none | crc

So row i begins at byte i * (row bytes + 4), and reading it needs neither the index nor a zarr library.  Every shard is
written, also one of zeros: for zarr an absent file means zeros, for us it means damage.

    tokens/zarr.json  tokens/c/SHARD/0/0  scale/c/SHARD/0  valid/c/SHARD
"""

import json
from dataclasses import dataclass
from pathlib import Path

import google_crc32c
import numpy as np

from fastzss.errors import UserError
from fastzss.store.files import hash_bytes, write_file

LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}
CRC = {"name": "crc32c"}
ABSENT = 2**64 - 1
CURE = "Delete it and run the same extract command again: it writes only what is missing."


def shard_name(array, shard, dimensions):
    """Path of a shard below the folder of the layer, as zarr spells it."""
    return "/".join([array, "c", str(shard)] + ["0"] * (dimensions - 1))


def crcs(rows):
    """uint8 [n, 4]: the crc32c of every row of a uint8 [n, bytes] array."""
    values = [google_crc32c.value(row.tobytes()) for row in rows]  # it takes bytes and nothing else
    return np.array(values, "<u4").view(np.uint8).reshape(-1, 4)


def encode_shard(array, capacity):
    """The bytes of a shard of `capacity` rows that holds the rows of `array`."""
    rows = _bytes_of(array)
    count, width = rows.shape
    if not 1 <= count <= capacity:
        raise ValueError(f"encode_shard: {count} rows in a shard for {capacity}")
    stride = width + 4
    data = np.empty(count * stride + capacity * 16 + 4, np.uint8)
    body = data[: count * stride].reshape(count, stride)
    body[:, :width] = rows
    body[:, width:] = crcs(rows)
    index = np.full((capacity, 2), ABSENT, "<u8")
    index[:count, 0] = np.arange(count, dtype=np.uint64) * np.uint64(stride)
    index[:count, 1] = stride
    data[count * stride : -4] = index.reshape(-1).view(np.uint8)
    data[-4:] = crcs(data[None, count * stride : -4])[0]
    return data


def write_shard(path, array, capacity):
    """Write a shard; returns its size and hash as a commit record holds them."""
    data = encode_shard(array, capacity)
    write_file(path, data)
    return {"bytes": data.nbytes, "xxh3_128": hash_bytes(data)}


def write_chunk(path, array):
    """Write an array that is one chunk and no shard; returns its size and hash."""
    rows = _bytes_of(array[None])
    data = np.concatenate([rows, crcs(rows)], axis=1).tobytes()
    write_file(path, data)
    return {"bytes": len(data), "xxh3_128": hash_bytes(data)}


def read_chunk(path, shape, dtype):
    """What `write_chunk` wrote, its checksum checked."""
    out = np.empty((1, *shape), dtype)
    ShardFile(Path(path), 0, 1, tuple(shape), np.dtype(dtype), 0).read_into(out)
    return out[0]


def write_metadata(folder, shape, dtype, chunk, shard=None):
    """Write the zarr.json of an array; `shard` None: chunks of their own instead of shards."""
    dtype, codecs = np.dtype(dtype), [LITTLE, CRC]
    if shard is not None:
        inner = {"chunk_shape": list(chunk), "codecs": codecs, "index_codecs": codecs, "index_location": "end"}
        codecs = [{"name": "sharding_indexed", "configuration": inner}]
    _write_zarr(folder, {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(shard or chunk)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0.0 if dtype.kind == "f" else 0,
        "codecs": codecs,
        "attributes": {},
    })  # fmt: skip


def write_group(folder):
    _write_zarr(folder, {"zarr_format": 3, "node_type": "group", "attributes": {}})


def _write_zarr(folder, metadata):
    path, data = Path(folder) / "zarr.json", (json.dumps(metadata, indent=1) + "\n").encode()
    if not path.is_file() or path.read_bytes() != data:
        write_file(path, data)


def _bytes_of(array):
    array = np.ascontiguousarray(array)
    return array.reshape(len(array), -1).view(np.uint8)


@dataclass(frozen=True)
class ShardFile:
    """One shard of one array, for reading."""

    path: Path
    first: int  # store row of its first row
    rows: int
    shape: tuple  # of one row
    dtype: np.dtype
    capacity: int

    @property
    def width(self):
        """Bytes of a row without its checksum."""
        return self.dtype.itemsize * int(np.prod(self.shape))

    def read_rows(self, rows, out, at, check=True):
        """Read row rows[i] of this shard into out[at[i]]; `out` is contiguous, [*, *shape] of the shard's dtype."""
        target = self._target(out)
        with self._open() as file:
            for row, place in zip(rows, at, strict=True):
                file.seek(int(row) * (self.width + 4))
                size = file.readinto(target[place])
                crc = file.read(4)
                if size != self.width or len(crc) != 4:
                    raise UserError(f"{self.path}: ends before image row {self.first + int(row)}. {CURE}")
                if check:
                    self._check(int(row), target[place], crc)

    def read_into(self, out, check=True, staging=None):
        """Read all rows into `out`, [rows, *shape]; `staging`: a uint8 array to use again, large enough for all."""
        target, size = self._target(out), self.rows * (self.width + 4)
        body = np.empty(size, np.uint8) if staging is None else staging[:size]
        with self._open() as file:
            found = 0
            while found < size and (step := file.readinto(body[found:])):
                found += step
        if found != size:
            raise UserError(f"{self.path}: holds {found} bytes of rows, expected {size}. {CURE}")
        body = body.reshape(self.rows, self.width + 4)
        target[: self.rows] = body[:, : self.width]
        if check:
            for row in range(self.rows):
                self._check(row, body[row, : self.width], body[row, self.width :].tobytes())

    def _check(self, row, data, crc):
        found, expected = google_crc32c.value(data.tobytes()), int.from_bytes(crc, "little")
        if found != expected:
            raise UserError(
                f"{self.path}: image row {self.first + row} (row {row} of the shard) is damaged: "
                f"its crc32c is {found:08x}, expected {expected:08x}. {CURE}"
            )

    def _target(self, out):
        if out.dtype != self.dtype or out.shape[1:] != self.shape or not out.flags.c_contiguous:
            raise ValueError(
                f"cannot read {self.dtype} rows of shape {self.shape} into {out.dtype} {out.shape}; "
                f"expected a contiguous array of that dtype and row shape"
            )
        return out.reshape(len(out), -1).view(np.uint8)

    def _open(self):
        try:
            return open(self.path, "rb", buffering=0)
        except OSError as problem:
            raise UserError(f"{self.path}: cannot be read: {problem.strerror}. {CURE}") from problem
