"""Tables of images and captions: their columns, which of them are meant, and one row an image.

    parquet, arrow     a column of paths, of bytes, or of {bytes, path} as the datasets library writes them
    csv, tsv, jsonl    a column of paths

Bytes stay on disk: those of a parquet file are copied once into the cache, uncompressed, since rows are read in any
order.
"""

import io
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from fastzss.base.cache import cache_folder, stamp
from fastzss.base.errors import UserError, nearest
from fastzss.sources.images import Files

IMAGES = ("image", "img", "file_name", "filename", "file", "path", "filepath", "file_path", "image_path", "image_file",
          "image_name", "jpg", "png", "bytes", "image_bytes")  # fmt: skip
CAPTIONS = ("caption", "captions", "text", "txt", "sentence", "sentences", "raw", "alt_text", "description", "comment",
            "sentences_raw", "title", "prompt")  # fmt: skip
COPIED = 64  # rows of a parquet file that are in memory while it is copied
SUFFIXES = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson")


class Sheet:
    """Columns by name, and what they hold: "text", "texts", "bytes", "file" ({bytes, path}) or something else."""

    def __init__(self, where, kinds, column):
        self.where, self.kinds, self._column = where, kinds, column

    def column(self, name):
        """Values by row: a list, or an arrow column whose values are asked for by `.as_py()`."""
        return self._column(name)

    def named(self, name, what):
        if name not in self.kinds:
            there = ", ".join(self.kinds) or "none"
            raise UserError(f"{self.where}: has no column {name!r}{nearest(name, self.kinds)}; there are: {there}", 2)
        return name

    def image_column(self, given=None):
        if given:
            return self.named(given, "image")
        bytes_ = [name for name, kind in self.kinds.items() if kind in ("bytes", "file")]
        paths = [name for name in self.kinds if name.lower() in IMAGES and self.kinds[name] == "text"]
        return self._only(bytes_ or paths, "image", "paths or bytes of images")

    def caption_columns(self, given=(), but=None):
        if given:
            for name in given:
                if self.kinds[self.named(name, "caption")] not in ("text", "texts"):
                    raise UserError(f"{self.where}: the column {name!r} holds no text; it cannot be captions", 2)
            return list(given)
        texts = [name for name, kind in self.kinds.items() if kind in ("text", "texts") and name != but]
        known = [name for name in texts if name.lower() in CAPTIONS]
        return [self._only(known or texts, "caption", "captions")] if texts else []

    def _only(self, names, key, what):
        if len(names) != 1:
            there = f"{', '.join(names or self.kinds)}"
            which = "several columns could be" if names else "no column looks like"
            raise UserError(f"{self.where}: {which} {what} ({there}); name it: ,{key}=COLUMN", 2)
        return names[0]


def read_sheet(path):
    """The Sheet of a table file."""
    path = Path(path)
    if not path.is_file():
        found = "it is a folder" if path.is_dir() else "there is no such file"
        raise UserError(f"{path}: {found}; expected a table: {', '.join(SUFFIXES)}", 2)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(f"{path}: is no table that is known here; expected {', '.join(SUFFIXES)}", 2)
    try:
        if suffix == ".parquet":
            return arrow_sheet(path, pq.read_schema(path), lambda names: parquet_columns(path, names))
        if suffix in (".csv", ".tsv"):
            return _csv_sheet(path, "\t" if suffix == ".tsv" else ",")
        return _jsonl_sheet(path)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as problem:
        raise UserError(f"{path}: cannot be read as {suffix[1:]} ({problem})".split("\n")[0]) from None


def arrow_sheet(where, schema, columns):
    """`columns(names)`: an arrow table of some columns, read when it is asked for."""

    def column(name):
        return columns([name])[name]

    return Sheet(where, {field.name: _kind(field.type) for field in schema}, column)


def _kind(type_):
    if pa.types.is_string(type_) or pa.types.is_large_string(type_):
        return "text"
    if pa.types.is_binary(type_) or pa.types.is_large_binary(type_):
        return "bytes"
    if pa.types.is_list(type_) or pa.types.is_large_list(type_):
        return "texts" if _kind(type_.value_type) == "text" else "lists"
    if pa.types.is_struct(type_) and type_.get_field_index("bytes") >= 0:
        return "file"
    return str(type_)


def parquet_columns(path, names):
    """Some columns of a parquet file: in memory, or where they are bytes, of a copy in the cache that is mapped."""
    schema = pq.read_schema(path)
    if not any(_kind(schema.field(name).type) in ("bytes", "file") for name in names):
        return pq.read_table(path, columns=names)
    copy = cache_folder("tables") / f"{stamp(path)}-{'-'.join(names)}.arrow"
    if not copy.exists():
        partial = copy.with_name(f".{copy.name}.{os.getpid()}.tmp")
        try:
            kept = pa.schema([schema.field(name) for name in names])
            with pq.ParquetFile(path) as file, pa.ipc.new_file(partial, kept) as out:
                for batch in file.iter_batches(COPIED, columns=names):
                    out.write_batch(batch)
            os.replace(partial, copy)
        finally:
            partial.unlink(missing_ok=True)
    return pa.ipc.open_file(pa.memory_map(str(copy))).read_all()


def _csv_sheet(path, delimiter):
    parse = pacsv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    with pacsv.open_csv(path, parse_options=parse) as file:
        names = file.schema.names
    as_text = pacsv.ConvertOptions(column_types={name: pa.string() for name in names}, strings_can_be_null=False)
    table = pacsv.read_csv(path, parse_options=parse, convert_options=as_text)
    return Sheet(path, {name: "text" for name in names}, lambda name: table[name].to_pylist())


def _jsonl_sheet(path):
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1):
        if line.strip():
            try:
                rows.append(json.loads(line))
                rows[-1].keys()
            except (ValueError, AttributeError):
                raise UserError(f"{path}, line {number}: is no JSON object; expected one a line") from None
    kinds = {}
    for row in rows:
        for name, value in row.items():
            if value is not None:
                texts = isinstance(value, list) and all(isinstance(one, str) for one in value)
                kinds.setdefault(name, "text" if isinstance(value, str) else "texts" if texts else type(value).__name__)
    return Sheet(path, kinds, lambda name: [row.get(name) for row in rows])


class Rows(Files):
    """The images of a sheet, each once, in the order of their first rows, with the captions of all their rows."""

    def __init__(self, spec, root, sheet, image, captions):
        self.spec, self._root, self._where = spec, Path(root), sheet.where
        self._column, kind = sheet.column(image), sheet.kinds[image]
        if kind not in ("text", "bytes", "file"):
            raise UserError(f"{sheet.where}: the column {image!r} holds {kind}; expected paths or bytes of images", 2)
        if not len(self._column):
            raise UserError(f"{sheet.where}: has no rows")
        self._kind, texts = kind, [_lists(sheet.column(name)) for name in captions]
        keys = [None] * len(self._column)
        if kind == "text":
            keys = self._column.to_pylist() if isinstance(self._column, pa.ChunkedArray) else self._column
        elif kind == "file":
            keys = _paths(self._column)
        first, self._rows, self._captions, self.ids = {}, [], [], []
        for row, key in enumerate(keys):
            if kind == "text" and not key:
                raise UserError(f"{sheet.where}: row {row + 1} has no path in the column {image!r}")
            at = first.setdefault(key if key else row, len(self._rows))
            if at == len(self._rows):
                self._rows.append(row)
                self._captions.append([])
                self.ids.append(key.replace("\\", "/") if key else f"row {row:08d}")
            mine = self._captions[at]
            mine += [text for column in texts for text in column[row] if text not in mine]

    def file(self, index):
        value = self._column[self._rows[index]]
        value = value.as_py() if isinstance(value, pa.Scalar) else value
        if isinstance(value, dict):
            value = value["bytes"] if value["bytes"] is not None else value.get("path")
        name = f"{self._where}, {self.ids[index]}"
        if isinstance(value, bytes):
            return io.BytesIO(value), name
        if value is None:
            return io.BytesIO(), f"{name}: is empty"
        if value.partition("://")[0] in ("http", "https"):
            raise UserError(
                f"{name}: is an address, and images are not fetched one by one. Fetch them with img2dataset, "
                f"and read what it wrote with wds:"
            )
        path = self._root / value
        return path, path

    def captions(self, index):
        return self._captions[index]


def _paths(column):
    """Of a column of {bytes, path}: the paths where all rows have one and none is an image of another row."""
    type_ = column.type
    if type_.get_field_index("path") < 0:
        return [None] * len(column)
    paths, sizes = [], []
    for chunk in column.chunks:
        paths += chunk.field(type_.get_field_index("path")).to_pylist()
        sizes += pa.compute.binary_length(chunk.field(type_.get_field_index("bytes"))).to_pylist()
    # the same name in two folders is two images; the same name and size is one that has several rows
    sizes_of = {}
    for path, size in zip(paths, sizes, strict=True):
        sizes_of.setdefault(path, set()).add(size)
    whole = None not in sizes_of and all(len(found) == 1 for found in sizes_of.values())
    return paths if whole else [None] * len(column)


def _lists(column):
    """A column of texts or lists of them as lists of what is not blank."""
    values = column.to_pylist() if isinstance(column, pa.ChunkedArray) else column
    return [
        [text.strip() for text in ([v] if isinstance(v, str) else v or ()) if text and text.strip()] for v in values
    ]
