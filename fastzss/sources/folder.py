"""folder:DIR: image files, with captions beside them, one a line, in a .txt of the same name; or in the metadata of an
imagefolder: metadata.csv, .jsonl or .parquet in any folder, whose `file_name` lies below that folder."""

import logging
from collections import Counter, defaultdict
from pathlib import Path

from fastzss.base.errors import UserError
from fastzss.sources.images import SUFFIXES, Files, files_below
from fastzss.sources.sheets import Rows, read_sheet

log = logging.getLogger("fastzss")

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
BESIDE = frozenset((".txt", *(Path(name).suffix for name in METADATA)))  # endings of what tells of images


class Folder(Files):
    form = "folder:DIR[,caption=COLUMN]"
    settings = ("caption",)

    def __init__(self, spec, rest, own=None):
        self.spec, self.root = spec, Path(rest)
        if not self.root.is_dir():
            found = "it is a file" if self.root.exists() else "there is nothing"
            raise UserError(f"{self.spec}: no folder at {self.root} ({found}); expected a folder of images")
        try:
            below = files_below(self.root, SUFFIXES | BESIDE)
        except OSError as problem:
            raise UserError(f"{self.spec}: cannot be listed ({problem})") from None
        files = [path for path in below if path.suffix.lower() in SUFFIXES]
        if not files:
            endings = ", ".join(sorted(SUFFIXES))
            raise UserError(f"{self.spec}: no images in {self.root} or below; expected files ending in {endings}")
        self.ids = [p.relative_to(self.root).as_posix() for p in files]
        odd = next((name for name in self.ids if any("\ud800" <= letter <= "\udfff" for letter in name)), None)
        if odd is not None:
            raise UserError(f"{self.spec}: the name of the file {odd!r} is not UTF-8; rename it")
        self._told = self._metadata(below, (own or {}).get("caption", ()))
        self._notice_strays(files, {path.with_suffix("") for path in below if path.suffix.lower() == ".txt"})

    def _metadata(self, below, columns):
        """{id: captions} of all metadata files."""
        told, lost = defaultdict(list), []
        there = set(self.ids)
        for path in below:
            if path.name in METADATA:
                sheet = read_sheet(path)
                image = sheet.named("file_name", "image")
                rows = Rows(self.spec, path.parent, sheet, image, sheet.caption_columns(columns, image))
                folder = path.parent.relative_to(self.root)
                for index, name in enumerate(rows.ids):
                    name = (folder / name).as_posix()
                    told[name] += rows.captions(index)
                    lost += [name] if name not in there else []
        if lost:
            log.warning("%s: %d images of its metadata do not lie there and are left out, such as %s",
                        self.spec, len(lost), lost[0])  # fmt: skip
        return told

    def _notice_strays(self, files, texts):
        """Say what lies there and does not fit; nothing of it is a reason to stop."""
        stems = Counter(p.with_suffix("") for p in files)
        strays = {
            "captions without an image beside them, which are left out": sorted(texts - stems.keys()),
            "captions that several images of one name share": sorted(p for p in texts if stems[p] > 1),
        }
        for what, found in strays.items():
            if found:
                log.warning("%s: %d %s, such as %s", self.spec, len(found), what, found[0].relative_to(self.root))

    def file(self, index):
        path = self.root / self.ids[index]
        return path, path

    def captions(self, index):
        beside = (self.root / self.ids[index]).with_suffix(".txt")
        try:
            lines = beside.read_text(encoding="utf-8-sig").splitlines() if beside.exists() else []
        except (OSError, UnicodeDecodeError) as problem:
            raise UserError(f"{beside}: cannot be read as text ({problem}); expected captions, one a line") from None
        return [line.strip() for line in lines if line.strip()] + self._told.get(self.ids[index], [])
