"""hf:DIR[,split=NAME][,image=COLUMN][,caption=COLUMN]...: a folder of the datasets library, read without it.

DIR/state.json, data-*.arrow              save_to_disk of one split
DIR/dataset_dict.json, DIR/train/...      save_to_disk of several
DIR/[data/]train-00000-of-00002*.parquet  a repository of the hub
"""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fastzss.base.errors import UserError, nearest
from fastzss.sources.sheets import Rows, arrow_sheet, parquet_columns
from fastzss.sources.table import one


class Hf(Rows):
    form = "hf:DIR[,split=NAME][,image=COLUMN][,caption=COLUMN]"
    settings = ("split", "image", "caption")

    def __init__(self, spec, rest, own=None):
        own, root = own or {}, Path(rest)
        if not root.is_dir():
            found = "it is a file" if root.exists() else "there is nothing"
            raise UserError(f"{spec}: no folder at {root} ({found}); expected one that save_to_disk wrote, or parquet")
        splits = _splits(root)
        if not splits:
            raise UserError(f"{spec}: neither dataset_dict.json nor state.json nor parquet files in {root}")
        split = one(spec, own, "split") or ("train" if "train" in splits else next(iter(splits)))
        if split not in splits:
            raise UserError(f'{spec}: no split "{split}"{nearest(split, splits)}; there are {", ".join(splits)}', 2)
        files = splits[split]
        try:
            sheet = _sheet(root, files)
        except (pa.ArrowException, OSError) as problem:
            raise UserError(f"{spec}: {files[0]} cannot be read ({str(problem).split(chr(10))[0]})") from None
        image = sheet.image_column(one(spec, own, "image"))
        super().__init__(spec, root, sheet, image, sheet.caption_columns(own.get("caption", ()), image))


def _splits(root):
    """{split: its files, in order}."""
    if (root / "dataset_dict.json").is_file():
        names = json.loads((root / "dataset_dict.json").read_text())["splits"]
        return {name: _arrow_files(root / name) for name in names}
    if (root / "state.json").is_file():
        return {"train": _arrow_files(root)}
    splits = {}
    for path in sorted([*root.glob("*.parquet"), *root.glob("data/*.parquet")]):
        splits.setdefault(path.name.partition("-")[0].removesuffix(".parquet"), []).append(path)
    return splits


def _arrow_files(folder):
    files = json.loads((folder / "state.json").read_text())["_data_files"]
    return [folder / file["filename"] for file in files]


def _sheet(root, files):
    if files[0].suffix == ".parquet":
        return arrow_sheet(
            root,
            pq.read_schema(files[0]),
            lambda names: pa.concat_tables([parquet_columns(path, names) for path in files]),
        )
    tables = [pa.ipc.open_stream(pa.memory_map(str(path))).read_all() for path in files]
    whole = pa.concat_tables(tables)
    return arrow_sheet(root, whole.schema, whole.select)
