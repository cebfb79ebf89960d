"""Rows of one array in one file, each read from its own place: the one primitive of reading.

Whatever the file is to others (a zarr shard, a tar), a row is `width` bytes at a known offset, and its crc32c is known:
it lies behind the row, or comes from the file's index.  So a row costs one read, into memory made beforehand.
"""

import os

import google_crc32c
import numpy as np

from fastzss.errors import UserError

CURE = "`fastzss-cache verify STORE --repair` drops what is broken, and the same extract command writes it again."
NARROW = 8192  # bytes from row to row below which a file is read as a whole, not row by row


def crc32c(row):
    """The checksum of bytes or of a contiguous uint8 array."""
    return google_crc32c.value(row)


def read_at(file, buffers, offset):
    """Fill buffers one after the other from a place in a file; returns how many bytes there were."""
    if hasattr(os, "preadv"):
        return os.preadv(file, buffers, offset)
    os.lseek(file, offset, os.SEEK_SET)  # systems without it: one thread at a time
    found = 0
    for buffer in buffers:
        data = os.read(file, len(buffer))
        buffer[: len(data)] = np.frombuffer(data, np.uint8) if isinstance(buffer, np.ndarray) else data
        found += len(data)
    return found


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
        target, file, width, crcs = self._target(out), self.file, self.width, self.crcs
        behind = bytearray(4)
        expected = width + (4 if crcs is None else 0)
        for row, place, offset in zip(rows.tolist(), at.tolist(), self.offsets[rows].tolist(), strict=True):
            into = target[place]
            if read_at(file, [into, behind] if crcs is None else [into], offset) != expected:
                raise UserError(f"{self.path}: ends before image row {self.first + row}. {CURE}")
            if check:
                promised = int.from_bytes(behind, "little") if crcs is None else int(crcs[row])
                if crc32c(into) != promised:
                    raise UserError(f"{self.path}: {self._damage(row, crc32c(into), promised)} {CURE}")

    def read_into(self, out, check=True):
        """Read all rows into `out`, [rows, *shape]."""
        stride = int(self.offsets[1]) if len(self) > 1 else self.width + 4
        everything = np.arange(len(self))
        if self.crcs is not None or stride >= NARROW:
            return self.read_rows(everything, out, everything, check)
        body = np.empty(len(self) * stride, np.uint8)
        if (found := read_at(self.file, [body], 0)) != len(body):
            raise UserError(f"{self.path}: holds {found} bytes of rows, expected {len(body)}. {CURE}")
        body = body.reshape(len(self), stride)
        self._target(out)[: len(self)] = body[:, : self.width]
        if check:
            for row in everything.tolist():
                promised = int.from_bytes(body[row, self.width :], "little")
                if (found := crc32c(body[row, : self.width])) != promised:
                    raise UserError(f"{self.path}: {self._damage(row, found, promised)} {CURE}")

    def damaged(self):
        """(row, sentence) for every row that is not what its checksum says."""
        one = np.empty((1, *self.shape), self.dtype)
        for row in range(len(self)):
            try:
                self.read_rows(np.array([row]), one, np.zeros(1, np.int64))
            except UserError as problem:
                yield row, str(problem).removesuffix(f" {CURE}").removeprefix(f"{self.path}: ")

    def _damage(self, row, found, promised):
        return (
            f"image row {self.first + row} (row {row} of the shard) is damaged: "
            f"its crc32c is {found:08x}, expected {promised:08x}."
        )

    def _target(self, out):
        if out.dtype != self.dtype or out.shape[1:] != self.shape or not out.flags.c_contiguous:
            raise ValueError(
                f"cannot read {self.dtype} rows of shape {self.shape} into {out.dtype} {out.shape}; "
                f"expected a contiguous array of that dtype and row shape"
            )
        return out.reshape(len(out), -1).view(np.uint8)
