"""The webdataset form: one tar a shard, one sample an image, one .npy a member.

    shards/SSSSSS.tar         000000042.tokens.npy  000000042.scale.npy  000000042.global.npy  000000042.valid.npy  ...
    shards/SSSSSS.index.npy   uint64 [rows, arrays, 3]: offset of the numbers in the tar, their bytes, their crc32c

The webdataset library reads the tars as they are; the sample's key is the store row.  We do not walk through tars: the
index says where the numbers of each image lie, and one read fetches them.  A tar without checksums of its data would
return a flipped byte as data; the index has them, and is itself checked by the hash in the commit record.
"""

import io
import tarfile

import numpy as np

from fastzss.base.errors import UserError
from fastzss.base.files import hash_bytes
from fastzss.store.forms.rows import CURE, Rows, crc32c
from fastzss.store.forms.zarr import stats_metadata

BLOCK = tarfile.BLOCKSIZE


class Tars:
    format, codec = "webdataset", "none"

    def files(self, plan, shard):
        return [f"shards/{shard:06d}.tar", f"shards/{shard:06d}.index.npy"]

    def metadata(self, plan):
        return stats_metadata(plan)

    def buffers(self, plan):
        return TarBuffers(plan)

    def open(self, folder, plan, shard, name, files):
        """The Rows of one array in one shard; `files` is what its commit record promises."""
        (tar, index), (_, dtype, (_, *row)) = self.files(plan, shard), plan.arrays[name]
        table = read_index(folder / index, files[index])[:, list(plan.arrays).index(name)]
        offsets, crcs = table[:, 0].astype(np.int64), table[:, 2].astype(np.uint32)
        return Rows(folder / tar, plan.rows(shard).start, row, dtype, offsets, crcs)

    def index_damages(self, folder, plan, shard, files):
        """(file, sentence) where the index is damaged or the tar's headers are not where it says."""
        tar, index = self.files(plan, shard)
        try:
            table = read_index(folder / index, files[index])
        except UserError:
            yield index, "is damaged, or of another store."
            return
        layout = Layout(plan)
        with open(folder / tar, "rb") as file:
            for place, row in enumerate(plan.rows(shard)):
                for number, name in enumerate(plan.arrays):
                    head = layout.head(row, name)
                    file.seek(int(table[place, number, 0]) - len(head))
                    if file.read(len(head)) != head:
                        yield tar, f"the header of {member(row, name)} is damaged (image row {row})."
                        return
            file.seek(len(plan.rows(shard)) * layout.sample)
            if any(file.read()):
                yield tar, "holds more than its images."


class Layout:
    """Where the members of a sample lie: samples are all of one size."""

    def __init__(self, plan):
        self.plan, self.npy, self.at, self.sample = plan, {}, {}, 0
        for name, (_, dtype, (_, *row)) in plan.arrays.items():
            header = io.BytesIO()
            described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": tuple(row)}
            np.lib.format.write_array_header_1_0(header, described)
            width = dtype.itemsize * int(np.prod(row))
            self.npy[name] = header.getvalue(), width
            self.at[name] = self.sample + BLOCK + len(header.getvalue())
            self.sample += BLOCK + -(-(len(header.getvalue()) + width) // BLOCK) * BLOCK

    def head(self, row, name):
        """All bytes of a member before its numbers."""
        npy, width = self.npy[name]
        info = tarfile.TarInfo(member(row, name))
        info.size, info.mode = len(npy) + width, 0o444
        return info.tobuf(tarfile.USTAR_FORMAT) + npy


class TarBuffers:
    """Memory for one tar, used again for the next; see ZarrBuffers."""

    def __init__(self, plan):
        self.plan, self.layout, self.views = plan, Layout(plan), {}
        S, sample = plan.shard_images, self.layout.sample
        self._data = np.zeros(-(-(S * sample + 2 * BLOCK) // tarfile.RECORDSIZE) * tarfile.RECORDSIZE, np.uint8)
        samples = self._data[: S * sample].reshape(S, sample)
        for name, at in self.layout.at.items():
            self.views[name] = samples[:, at : at + self.layout.npy[name][1]]

    def contents(self, shard):
        """{path: (bytes, None)} of tar and index; the bytes are those of this memory."""
        rows, layout, arrays = self.plan.rows(shard), self.layout, self.plan.arrays
        table = np.empty((len(rows), len(arrays), 3), "<u8")
        for place, row in enumerate(rows):
            for number, name in enumerate(arrays):
                head, begin = layout.head(row, name), place * layout.sample + layout.at[name]
                self._data[begin - len(head) : begin] = np.frombuffer(head, np.uint8)
                table[place, number] = begin, layout.npy[name][1], crc32c(self.views[name][place])
        used = len(rows) * layout.sample
        end = -(-(used + 2 * BLOCK) // tarfile.RECORDSIZE) * tarfile.RECORDSIZE
        self._data[used:end] = 0
        index = io.BytesIO()
        np.save(index, table)
        paths = Tars().files(self.plan, shard)
        return dict(zip(paths, ((self._data[:end], None), (index.getvalue(), None)), strict=True))


def member(row, name):
    return f"{row:09d}.{name}.npy"


def read_index(path, promised):
    """uint64 [rows, arrays, 3]: the index of a tar, which must be the one of the commit record."""
    try:
        data = path.read_bytes()
    except OSError as problem:
        raise UserError(f"{path}: cannot be read: {problem.strerror}. {CURE}") from problem
    if hash_bytes(data) != promised["xxh3_128"]:
        raise UserError(f"{path}: is damaged, or of another store: its hash is not the one that was promised. {CURE}")
    return np.load(io.BytesIO(data))
