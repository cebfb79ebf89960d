"""The concept bank: the names captions may mention, and how else they are written.

    names      one a row, singular, lower case
    aliases    other ways to write a name
    origin     where each name comes from: "captions", or a file
    counts     captions that mention the name, where known
    vectors    [K, D] unit vectors of the names by a text tower, or none

The identity is a hash of names and aliases alone.
"""

import unicodedata
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastzss.captions import words
from fastzss.errors import UserError
from fastzss.store import identity


@dataclass(frozen=True)
class Bank:
    names: tuple
    aliases: tuple  # per name, a tuple of other writings
    origin: tuple
    counts: tuple | None = None
    vectors: np.ndarray | None = None

    def __post_init__(self):
        for what in ("aliases", "origin", "counts", "vectors"):
            values = getattr(self, what)
            if values is not None and len(values) != len(self.names):
                raise ValueError(f"Bank: {len(values)} {what} for {len(self.names)} names; expected one for each name")
        if len(set(self.names)) != len(self.names):
            twice = [name for name, count in Counter(self.names).items() if count > 1]
            raise ValueError(f"Bank: names given twice: {', '.join(twice)}")

    def __len__(self):
        return len(self.names)

    @property
    def identity(self):
        return identity({"names": list(self.names), "aliases": [list(a) for a in self.aliases]})

    @property
    def terms(self):
        """Every way to write a name, as words with a space between -> its row; a name goes before another's alias."""
        aliases = {words.spaced(alias): row for row, group in enumerate(self.aliases) for alias in group}
        return aliases | {words.spaced(name): row for row, name in enumerate(self.names)}

    def to_json(self):
        return {
            "identity": self.identity,
            "names": list(self.names),
            "aliases": [list(a) for a in self.aliases],
            "origin": list(self.origin),
            "counts": None if self.counts is None else list(self.counts),
        }

    @classmethod
    def from_json(cls, record):
        return cls(
            names=tuple(record["names"]),
            aliases=tuple(tuple(a) for a in record["aliases"]),
            origin=tuple(record["origin"]),
            counts=None if record["counts"] is None else tuple(record["counts"]),
        )


def bank_from_captions(texts, least=None):
    """The nouns of cleaned captions that stand in at least `least` of them (default: 3, or 1 in 20,000)."""
    least = least or max(3, len(texts) // 20000)
    counts = Counter(name for text in texts for name in set(words.names_in(text)))
    names = sorted(name for name, count in counts.items() if count >= least)
    return Bank(
        names=tuple(names),
        aliases=((),) * len(names),
        origin=("captions",) * len(names),
        counts=tuple(counts[name] for name in names),
    )


def bank_from_file(path):
    """One name a line; after commas, other ways to write it.  A name that stands there again adds its writings."""
    path = Path(path)
    try:
        lines = unicodedata.normalize("NFC", path.read_text(encoding="utf-8-sig")).splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise UserError(f"{path}: cannot be read as text ({problem}); expected a concept name a line") from None
    groups = {}
    for line in lines:
        writings = [" ".join(writing.lower().split()) for writing in line.split(",")]
        writings = [writing for writing in writings if words.spaced(writing)]
        if writings:
            groups.setdefault(writings[0], {}).update(dict.fromkeys(w for w in writings if w != writings[0]))
    if not groups:
        raise UserError(f"{path}: holds no name; expected a concept name a line, other writings behind commas")
    return Bank(
        names=tuple(groups), aliases=tuple(tuple(g) for g in groups.values()), origin=(path.name,) * len(groups)
    )
