"""The store: what a frozen vision transformer said about every image, and where the captions name things in it.

    STORE/
      features/                        the images
        plan.json                      model, layer, source, sizes, dtype: everything that defines the bytes (plan.py)
        zarr.json                      the folder is a zarr v3 group
        tokens/  zarr.json  c/SHARD/0/0    int8 [n, N, D] or float16: unit patch vectors
        scale/   zarr.json  c/SHARD/0      float16 [n, N], int8 only: v = mean + std * scale * q
        global/  zarr.json  c/SHARD/0/0    float16 [n, G, D]: cls, patch-mean
        valid/   zarr.json  c/SHARD        uint8 [n]
        stats/   mean, std                 float32 [D], int8 only
        commit/  stats.json  SSSSSS.json   what is there: size and hash of the files of a shard
        manifest.json                  written last: form, size and hash of every file
                                       (as webdataset: shards/SSSSSS.tar and .index.npy instead of the arrays)
      captions/                        plan.json captions.parquet images.parquet manifest.json (texts.py)
      concepts/BANK/                   plan.json bank.json mentions.parquet manifest.json (texts.py)

    plan.py      what a features layer holds, and the arithmetic of its shards
    files.py     files that are whole or absent, hashes, JSON
    layers.py    plans and manifests of all layers
    rows.py      rows of one array in one file: the one primitive of reading
    zarrs.py     the zarr form: bytes that zarr reads and that lie at fixed strides
    archive.py   the same, compressed by zstd
    tars.py      the webdataset form: ordinary samples, and an index that finds them
    commits.py   what is there: records of statistics and shards
    features.py  FeatureWriter
    texts.py     captions and concepts
    reader.py    PatchStore; ahead.py, stream.py, memory.py are parts of it
    info.py      what a store says of itself
    verify.py    what is wrong with it
    transfer.py  convert and merge

A layer refers to the one below it by identity; a store is never changed in place, only continued.
"""

from fastzss.store.features import FeatureWriter
from fastzss.store.files import identity
from fastzss.store.info import store_info
from fastzss.store.plan import FeaturePlan, differences
from fastzss.store.reader import PatchStore
from fastzss.store.texts import (
    Captions,
    Concepts,
    list_concepts,
    read_captions,
    read_concepts,
    write_captions,
    write_concepts,
)
from fastzss.store.transfer import convert, merge
from fastzss.store.verify import repair, verify

__all__ = [
    "Captions",
    "Concepts",
    "FeaturePlan",
    "FeatureWriter",
    "PatchStore",
    "convert",
    "differences",
    "identity",
    "list_concepts",
    "merge",
    "read_captions",
    "read_concepts",
    "repair",
    "store_info",
    "verify",
    "write_captions",
    "write_concepts",
]
