"""The archive form: the zarr form with each row compressed by zstd, which carries a checksum of its own.

    row 0 | row 1 | ... | (offset, bytes) of each of S rows, uint64, 2^64 - 1 where there is none | crc

For keeping and for sending: rows are of any length, so reading one means looking it up and unpacking it.
"""

import numpy as np

from fastzss.base.errors import UserError
from fastzss.store.forms.rows import CURE, Rows, crc32c, read_at
from fastzss.store.forms.zarr import LITTLE, Zarr, index, marked, read_index, shard_name

LEVEL = 9


def zstd():
    from numcodecs.zstd import Zstd  # late: only archives need it

    return Zstd(level=LEVEL, checksum=True)


class Archive(Zarr):
    codec = "zstd"
    inner = [LITTLE, {"name": "zstd", "configuration": {"level": LEVEL, "checksum": True}}]

    def buffers(self, plan):
        return ArchiveBuffers(plan)

    def open(self, folder, plan, shard, name, files):
        shape, dtype, (_, *row) = plan.arrays[name]
        path, rows = shard_name(name, shard, len(shape)), plan.rows(shard)
        offsets, sizes = places(folder / path, files[path]["mark"], len(rows), plan)
        return PackedRows(folder / path, rows.start, row, dtype, offsets, sizes)

    def index_damages(self, folder, plan, shard, files):
        for file in self.files(plan, shard):
            try:
                places(folder / file, files[file]["mark"], len(plan.rows(shard)), plan)
            except UserError:
                yield file, "its index is damaged, or it is a shard of another store."


def places(path, mark, rows, plan):
    """Where each row begins, and its packed size.  The index and the checksums of some rows, which zstd puts at their
    ends, must be those that were promised."""
    try:
        data = read_index(path, plan.shard_images)
    except OSError as problem:
        raise UserError(f"{path}: cannot be read: {problem.strerror}. {CURE}") from problem
    problem = UserError(f"{path}: its index is damaged, or it is a shard of another store. {CURE}")
    if crc32c(data[:-4]) != int.from_bytes(data[-4:], "little"):
        raise problem
    offsets, sizes = np.frombuffer(data[:-4], "<i8").reshape(-1, 2).T
    ends = np.where(sizes < 0, 0, offsets + sizes)  # -1 where there is no row
    with open(path, "rb") as file:
        for row in marked(rows):
            file.seek(max(0, int(ends[row]) - 4))
            data += file.read(4)
    if crc32c(data) != mark:
        raise problem
    return offsets[:rows], sizes[:rows]


class PackedRows(Rows):
    def __init__(self, path, first, shape, dtype, offsets, sizes):
        super().__init__(path, first, shape, dtype, offsets)
        self.sizes, self._zstd = sizes, zstd()

    def read_rows(self, rows, out, at, check=True):
        """As of Rows; what is packed is always checked."""
        target = self._target(out)
        for row, place in zip(rows.tolist(), at.tolist(), strict=True):
            packed = np.empty(int(self.sizes[row]), np.uint8)
            read_at(self.file, [packed], int(self.offsets[row]))
            try:
                unpacked = np.frombuffer(self._zstd.decode(packed.tobytes()), np.uint8)
                target[place] = unpacked
            except (RuntimeError, ValueError) as problem:
                raise UserError(
                    f"{self.path}: image row {self.first + row} (row {row} of the shard) is damaged: {problem}. {CURE}"
                ) from None

    def read_into(self, out, check=True):
        everything = np.arange(len(self))
        self.read_rows(everything, out, everything)


class ArchiveBuffers:
    """Memory for one shard; see ZarrBuffers."""

    def __init__(self, plan):
        self.plan, self._zstd = plan, zstd()
        widths = {name: dtype.itemsize * int(np.prod(chunk)) for name, (_, dtype, chunk) in plan.arrays.items()}
        self.views = {name: np.empty((plan.shard_images, width), np.uint8) for name, width in widths.items()}

    def contents(self, shard):
        count, files = len(self.plan.rows(shard)), {}
        for name, path in zip(self.views, Archive().files(self.plan, shard), strict=True):
            packed = [self._zstd.encode(row) for row in self.views[name][:count]]
            sizes = np.array([len(row) for row in packed])
            tail = index(np.cumsum(sizes) - sizes, sizes, self.plan.shard_images).tobytes()
            mark = crc32c(tail + b"".join(packed[row][-4:] for row in marked(count)))
            files[path] = b"".join([*packed, tail]), mark
        return files
