"""The captions of a store: their texts and token ids, and the names of the images they belong to.

captions/captions.parquet        row int64, text string, ids list<int32>: B captions, several may have one row
captions/images.parquet          id string: the source's name of the image in each of the n rows
                                 removed bool: whether the source has lost it since; only where it has lost some
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from fastzss.base.errors import UserError
from fastzss.store.additions import joint_identity, part_folders
from fastzss.store.columns import content, flat_column, lists_column, numbers, parquet
from fastzss.store.layers import IMAGES, read_feature_plan, read_layer, write_layer


@dataclass(frozen=True)
class Captions:
    """B captions of the n images of a store."""

    row: Tensor  # [B] int64 store row of the image
    texts: list  # [B] str
    ids: Tensor  # [T] int32 token ids, the captions end to end
    offset: Tensor  # [B + 1] int64: caption b is ids[offset[b] : offset[b + 1]]
    images: list  # [n] str, the source's name of each image
    identity: str = ""
    removed: tuple = ()  # rows whose images the source has lost since

    def first(self, images):
        """Those of the first rows."""
        keep = self.row < images
        counts = self.offset.diff()
        offset = torch.cat([self.offset[:1], counts[keep].cumsum(0)])
        texts = [text for text, kept in zip(self.texts, keep.tolist(), strict=True) if kept]
        ids = self.ids[keep.repeat_interleave(counts)]
        removed = tuple(row for row in self.removed if row < images)
        return Captions(self.row[keep], texts, ids, offset, self.images[:images], self.identity, removed)

    def ids_of_each(self):
        """The token ids of one caption after the other, as lists."""
        ids = self.ids.numpy()
        return (ids[begin:end].tolist() for begin, end in pairwise(self.offset.tolist()))


def write_captions(store, rows, texts, ids, images, feature_identity, removed=()):
    """Write the captions layer, in place of an earlier one; returns its identity.

    Args:
        store: folder of the store.
        rows: [B] store row of each caption's image.
        texts: B strings.
        ids: B lists of token ids.
        images: n strings, the source's name of the image in each store row.
        feature_identity: of the features that the rows are of.
        removed: rows whose images the source has lost since.
    """
    rows, texts, images = numbers(rows, np.int64), list(texts), [str(image) for image in images]
    if not len(rows) == len(texts) == len(ids):
        raise ValueError(f"write_captions: {len(rows)} rows, {len(texts)} texts and {len(ids)} lists of ids")
    if len(rows) and not (0 <= rows.min() and rows.max() < len(images)):
        raise ValueError(f"write_captions: rows {rows.min()} to {rows.max()} of {len(images)} images")
    flat = numbers([token for one in ids for token in one], np.int32)
    offset = np.concatenate([[0], np.cumsum([len(one) for one in ids], dtype=np.int64)]).astype(np.int64)
    plan = {
        "features": feature_identity,
        "captions": len(rows),
        "tokens": len(flat),
        "images": len(images),
        "content": content(rows, texts, flat, offset, images),
    }
    folder = Path(store) / "captions"
    table = {"row": pa.array(rows), "text": pa.array(texts, pa.string()), "ids": lists_column(flat, offset)}
    images = {"id": pa.array(images, pa.string())}
    if len(removed):
        gone = np.zeros(plan["images"], bool)
        gone[list(removed)] = True
        images["removed"] = pa.array(gone)
        plan["removed"] = int(gone.sum())
    files = {"captions.parquet": parquet(table), IMAGES: parquet(images)}
    return write_layer(folder, "captions", plan, files)


def read_captions(store):
    folder = Path(store) / "captions"
    if not (folder / "plan.json").is_file():
        raise UserError(f"{store}: has no captions. Run the same extract command again: it writes what is missing.")
    record = read_layer(folder, "captions")
    of, parts = record["plan"]["features"], [read_feature_plan(part).identity for part in part_folders(store)]
    if parts and of not in (joint_identity(parts[:count]) for count in range(1, len(parts) + 1)):
        raise UserError(
            f"{folder}: was made for features {of[:12]}, and the features of the store are "
            f"{joint_identity(parts)[:12]}. Delete this folder and extract again."
        )
    table, images = pq.read_table(folder / "captions.parquet"), pq.read_table(folder / IMAGES)
    ids, offset = flat_column(table["ids"])
    row = torch.from_numpy(table["row"].to_numpy().copy())
    gone = np.flatnonzero(images["removed"].to_numpy()) if "removed" in images.column_names else []
    return Captions(
        row, table["text"].to_pylist(), ids, offset, images["id"].to_pylist(), record["identity"], tuple(map(int, gone))
    )
