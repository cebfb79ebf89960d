"""The zarr form: standard zarr v3 shards that are also files of fixed stride.

A shard holds up to S rows of an array.  Its inner chunk is one row (one image), uncompressed, followed by its crc32c;
the index of the chunks and its crc32c come last:

    row 0 | crc | row 1 | crc | ... | (offset, bytes) of each of S rows, uint64, 2^64 - 1 where there is none | crc

So row i begins at byte i * (row bytes + 4), and reading it needs neither the index nor a zarr library.  Every shard is
written, also one of zeros: for zarr an absent file means zeros, for us it means damage.

    tokens/zarr.json  tokens/c/SHARD/0/0  scale/c/SHARD/0  valid/c/SHARD
"""

import json

import numpy as np

from fastzss.base.errors import UserError
from fastzss.base.files import entry, write_file
from fastzss.store.forms.rows import CURE, Rows, crc32c

LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}
CRC = {"name": "crc32c"}
ABSENT = 2**64 - 1


class Zarr:
    """How the shards of a features layer lie on disk."""

    format, codec = "zarr", "none"
    inner = [LITTLE, CRC]  # what is done to a row

    def files(self, plan, shard):
        """Paths of the files of a shard."""
        return [shard_name(name, shard, len(shape)) for name, (shape, _, _) in plan.arrays.items()]

    def metadata(self, plan):
        """path -> bytes of the files that describe the arrays."""
        files = {"zarr.json": group_metadata()}
        for name, (shape, dtype, chunk) in plan.arrays.items():
            files[f"{name}/zarr.json"] = array_metadata(
                shape, dtype, chunk, (plan.shard_images, *chunk[1:]), self.inner
            )
        return files | stats_metadata(plan)

    def buffers(self, plan):
        return ZarrBuffers(plan)

    def open(self, folder, plan, shard, name, files):
        """The Rows of one array in one shard; `files` is what its commit record promises."""
        shape, dtype, (_, *row) = plan.arrays[name]
        path, count = shard_name(name, shard, len(shape)), len(plan.rows(shard))
        stride = dtype.itemsize * int(np.prod(row)) + 4
        rows = Rows(folder / path, plan.rows(shard).start, row, dtype, np.arange(count) * stride)
        found = b"".join(rows.at(place * stride + rows.width, 4) for place in marked(count))
        if crc32c(found) != files[path]["mark"]:
            raise UserError(f"{folder / path}: is damaged, or a shard of another store. {CURE}")
        return rows

    def index_damages(self, folder, plan, shard, files):
        """(file, sentence) where the index of a shard is damaged, or is not that of a file of fixed stride."""
        for name, file in zip(plan.arrays, self.files(plan, shard), strict=True):
            try:
                rows = self.open(folder, plan, shard, name, files)
            except UserError:
                yield file, "is damaged, or a shard of another store."
                continue
            expected = index(rows.offsets, rows.width + 4, plan.shard_images)
            if read_index(folder / file, plan.shard_images) != expected.tobytes():
                yield file, "its index is damaged."


class ZarrBuffers:
    """Memory for the files of one shard, used again for the next.

    views: {array: uint8 [S, width]}, where the bytes of the rows go.
    """

    def __init__(self, plan):
        self.plan, self.files = plan, {}
        for name, (_, dtype, chunk) in plan.arrays.items():
            self.files[name] = FileBuffer(plan.shard_images, dtype.itemsize * int(np.prod(chunk)))
        self.views = {name: file.rows for name, file in self.files.items()}

    def contents(self, shard):
        """{path: (bytes, mark)} of the shard's files; the bytes are those of this memory."""
        paths, count = Zarr().files(self.plan, shard), len(self.plan.rows(shard))
        return {path: file.contents(count) for path, file in zip(paths, self.files.values(), strict=True)}


class FileBuffer:
    """Memory for one file: room for `capacity` rows of `width` bytes, their checksums, and the index."""

    def __init__(self, capacity, width):
        self.capacity, self.stride = capacity, width + 4
        self.data = np.empty(capacity * (self.stride + 16) + 4, np.uint8)
        self.rows = self._body(capacity)[:, :width]

    def _body(self, count):
        return self.data[: count * self.stride].reshape(count, self.stride)

    def contents(self, count):
        """(bytes, mark) of the file that holds the first rows, their checksums and the index."""
        crcs = np.array([crc32c(row) for row in self.rows[:count]], "<u4")
        self._body(count)[:, -4:] = crcs.view(np.uint8).reshape(count, 4)
        tail = index(np.arange(count) * self.stride, self.stride, self.capacity)
        end = count * self.stride + len(tail)
        self.data[count * self.stride : end] = tail
        return self.data[:end], crc32c(crcs[marked(count)].tobytes())


def marked(count):
    """The rows whose checksums tell a shard from any other one, without reading all of it."""
    return [0, count // 2, count - 1]


def index(offsets, sizes, capacity):
    """uint8: the index at the end of a shard, with its checksum."""
    table = np.full((capacity, 2), ABSENT, "<u8")
    table[: len(offsets), 0], table[: len(offsets), 1] = offsets, sizes
    return with_crc(table)


def read_index(path, capacity):
    """The bytes of the index and its checksum at the end of a shard."""
    with open(path, "rb") as file:
        file.seek(-(16 * capacity + 4), 2)
        return file.read()


def with_crc(array):
    """uint8: the bytes of an array and their checksum."""
    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return np.concatenate([data, np.array([crc32c(data)], "<u4").view(np.uint8)])


def shard_name(array, shard, dimensions):
    """Path of a shard below the folder of the layer, as zarr spells it."""
    return "/".join([array, "c", str(shard)] + ["0"] * (dimensions - 1))


# The statistics are a small zarr group in all forms: arrays that are one chunk and no shard


def stats_metadata(plan):
    if plan.dtype != "int8":
        return {}
    mean_and_std = {f"stats/{name}/zarr.json": array_metadata((plan.channels,), "f4", (plan.channels,))
                    for name in ("mean", "std")}  # fmt: skip
    return {"stats/zarr.json": group_metadata()} | mean_and_std


def write_chunk(path, array):
    """Write an array that is one chunk; returns its size and hash."""
    data = with_crc(array)
    write_file(path, data)
    return entry(data)


def read_chunk(path, shape, dtype):
    """What `write_chunk` wrote, its checksum checked."""
    out = np.empty((1, *shape), dtype)
    Rows(path, 0, shape, dtype, np.zeros(1, np.int64)).read_into(out)
    return out[0]


# zarr.json


def group_metadata():
    return _json({"zarr_format": 3, "node_type": "group", "attributes": {}})


def array_metadata(shape, dtype, chunk, shard=None, inner=(LITTLE, CRC)):
    """zarr.json of an array; `shard` None: chunks of their own instead of shards."""
    dtype, codecs = np.dtype(dtype), list(inner)
    if shard is not None:
        sharding = {
            "chunk_shape": list(chunk),
            "codecs": codecs,
            "index_codecs": [LITTLE, CRC],
            "index_location": "end",
        }
        codecs = [{"name": "sharding_indexed", "configuration": sharding}]
    return _json({
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


def _json(metadata):
    return (json.dumps(metadata, indent=1) + "\n").encode()
