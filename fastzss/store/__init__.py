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
      captions/                        plan.json captions.parquet images.parquet manifest.json (captions.py)
      concepts/BANK/                   plan.json bank.json mentions.parquet manifest.json (mentions.py)

    plan.py      what a features layer holds, and the arithmetic of its shards
    layers.py    plans and manifests of all layers
    forms/       how shards lie on disk: zarr, tars, archive; rows.py, the one primitive of reading
    commits.py   what is there: records of statistics and shards
    features.py  FeatureWriter
    captions.py, mentions.py   the text layers
    reading/     reader.py has PatchStore; reading ahead, and all patches in memory
    upkeep/      info, verify, transfer (convert and merge), origin

A layer refers to the one below it by identity; a store is never changed in place, only continued.
"""
