"""Columns of numbers, strings and lists: their check, their hash, and the parquet files they lie in."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import xxhash
from torch import Tensor


def numbers(values, dtype):
    values = values.cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    wanted = values.astype(dtype)
    if values.ndim != 1 or not np.array_equal(wanted, values):
        raise ValueError(f"expected one axis of {np.dtype(dtype).name}, got {values.dtype} of shape {values.shape}")
    return np.ascontiguousarray(wanted)


def content(*columns):
    """xxh3_128 of columns of numbers or strings: the same on every machine and with every version of parquet."""
    digest = xxhash.xxh3_128()
    for column in columns:
        digest.update(len(column).to_bytes(8, "little"))
        if isinstance(column, np.ndarray):
            digest.update(column)
        else:
            for text in column:
                data = text.encode()
                digest.update(len(data).to_bytes(8, "little"))
                digest.update(data)
    return digest.hexdigest()


def lists_column(flat, offset):
    return pa.ListArray.from_arrays(pa.array(offset.astype(np.int32)), pa.array(flat))


def flat_column(column):
    """A column of lists -> the values end to end, and where each list begins."""
    column = column.combine_chunks()
    lengths = column.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
    offset = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    return torch.from_numpy(column.flatten().to_numpy(zero_copy_only=False).copy()), torch.from_numpy(offset)


def parquet(columns):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink, compression="zstd")
    return sink.getvalue().to_pybytes()
