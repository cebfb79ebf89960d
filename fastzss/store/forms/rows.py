"""Rows of one array in one file, each read from its own place: the one primitive of reading.

Whatever the file is to others (a zarr shard, a tar), a row is `width` bytes at a known offset, and its crc32c is known:
it lies behind the row, or comes from the file's index.  So a row costs one read, into memory made beforehand.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import google_crc32c
import numpy as np

from fastzss.base.errors import UserError
from fastzss.base.machine import cores

CURE = "`fastzss-cache verify STORE --repair` drops what is broken, and the same extract command writes it again."
WIDE = 2**16  # bytes from one row to the next from which each is worth a read of its own
CACHED = 2**20  # bytes of narrower rows that are read, checked and put into their places at a time
READERS = 4  # threads, at most: the memory has no more to give
SHARED = 2**23  # bytes from which it is worth starting them


crc32c = google_crc32c.value  # of bytes, or of a contiguous uint8 array


def _read_at(file, buffers, offset):
    """os.preadv where the system has none: one thread at a time."""
    os.lseek(file, offset, os.SEEK_SET)
    found = 0
    for buffer in buffers:
        data = os.read(file, len(buffer))
        memoryview(buffer)[: len(data)] = data
        found += len(data)
    return found


# Fill buffers one after the other from a place in a file; returns how many bytes there were.
read_at = getattr(os, "preadv", _read_at)


def in_threads(read, parts, size):
    """Call read(part) for each part of what is to be read; by several threads where so many bytes are worth it."""
    threads = min(READERS, cores(), len(parts))
    if threads < 2 or size < SHARED:
        for part in parts:
            read(part)
        return
    pool = ThreadPoolExecutor(threads)
    try:
        for _ in pool.map(read, parts):  # raises what a thread has met
            pass
    finally:
        pool.shutdown(cancel_futures=True)


class Rows:
    """The rows of one array in one shard."""

    def __init__(self, path, first, shape, dtype, offsets, crcs=None):
        """
        Args:
            path: of the file.
            first: store row of its first row.
            shape, dtype: of one row.
            offsets: int64 [rows], where each row begins.
            crcs: uint32 [rows]; None: each row is followed by the four bytes of its own.
        """
        self.path, self.first, self.shape, self.dtype = path, first, tuple(shape), np.dtype(dtype)
        self.offsets, self.crcs = offsets, crcs
        self.width = self.dtype.itemsize * int(np.prod(self.shape))
        self._file = None

    def __len__(self):
        return len(self.offsets)

    def __del__(self):
        if self._file is not None:
            os.close(self._file)

    @property
    def file(self):
        if self._file is None:
            try:
                self._file = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            except OSError as problem:
                raise UserError(f"{self.path}: cannot be read: {problem.strerror}. {CURE}") from problem
        return self._file

    def at(self, offset, size):
        """Some bytes of the file."""
        data = bytearray(size)
        read_at(self.file, [data], offset)
        return bytes(data)

    def read_rows(self, rows, out, at, check=True):
        """Read row rows[i] of the file into out[at[i]]; `out` is contiguous, [*, *shape] of the rows' dtype."""
        target, file, width, inline = self._target(out), self.file, self.width, self.crcs is None
        promised = bytearray(4)  # what lies behind a row
        buffers, expected = ([promised], width + 4) if inline else ([], width)
        crcs = [0] * len(rows) if inline else self.crcs[rows].tolist()
        for row, place, offset, crc in zip(rows.tolist(), at.tolist(), self.offsets[rows].tolist(), crcs, strict=True):
            into = target[place]
            if read_at(file, [into, *buffers], offset) != expected:
                raise UserError(f"{self.path}: ends before image row {self.first + row}. {CURE}")
            if check and crc32c(into) != (int.from_bytes(promised, "little") if inline else crc):
                raise self._damage(row, into, int.from_bytes(promised, "little") if inline else crc)

    def read_into(self, out, check=True):
        """Read all rows into `out`, [rows, *shape]."""
        target, count, inline = self._target(out), len(self), self.crcs is None
        stride = int(self.offsets[1] - self.offsets[0]) if count > 1 else self.width + 4
        if stride >= WIDE:
            rows = np.arange(count)
            return self.read_rows(rows, out, rows, check)
        body = np.empty((max(1, CACHED // stride), stride), np.uint8)
        for begin in range(0, count, len(body)):
            rows = range(begin, min(begin + len(body), count))
            part = body[: len(rows)]
            found = read_at(self.file, [part.reshape(-1)], int(self.offsets[begin]))
            if found < (len(rows) - 1) * stride + self.width + 4 * inline:
                raise UserError(f"{self.path}: ends before image row {self.first + rows[-1]}. {CURE}")
            if check:
                crcs = part[:, self.width :].copy().view("<u4")[:, 0] if inline else self.crcs[begin : rows.stop]
                for row, data, crc in zip(rows, part[:, : self.width], crcs.tolist(), strict=True):
                    if crc32c(data) != crc:
                        raise self._damage(row, data, crc)
            target[begin : rows.stop] = part[:, : self.width]

    def damaged(self):
        """(row, sentence) for every row that is not what its checksum says."""
        one = np.empty((1, *self.shape), self.dtype)
        for row in range(len(self)):
            try:
                self.read_rows(np.array([row]), one, np.zeros(1, np.int64))
            except UserError as problem:
                yield row, str(problem).removesuffix(f" {CURE}").removeprefix(f"{self.path}: ")

    def _damage(self, row, data, promised):
        return UserError(
            f"{self.path}: image row {self.first + row} (row {row} of the shard) is damaged: "
            f"its crc32c is {crc32c(data):08x}, expected {promised:08x}. {CURE}"
        )

    def _target(self, out):
        if out.dtype != self.dtype or out.shape[1:] != self.shape or not out.flags.c_contiguous:
            raise ValueError(
                f"cannot read {self.dtype} rows of shape {self.shape} into {out.dtype} {out.shape}; "
                f"expected a contiguous array of that dtype and row shape"
            )
        return out.reshape(len(out), -1).view(np.uint8)
