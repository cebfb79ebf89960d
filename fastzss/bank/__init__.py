"""The concept bank: the names captions may mention, and how else they are written.

    names      one a row, singular where captions gave it, lower case
    aliases    other ways to write a name
    origin     where each name comes from: "captions", or a file, or several of them
    counts     captions that mention the name, where known
    vectors    [K, D] unit vectors of the names, and by what they were made: letters, or the text tower of a run

The identity is a hash of names and aliases alone.

    build.py      captions, lists of words and class names -> a bank
    sets.py       evaluation sets whose class names are known
    embedding.py  names -> vectors, by a run's text tower or by letters.py
    disk.py       a bank with its vectors and its index, on disk
    coverage.py   coverage, overlap with evaluation sets, near-duplicates
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from fastzss.base.files import identity
from fastzss.captions.words import spaced


@dataclass(frozen=True)
class Bank:
    names: tuple
    aliases: tuple  # per name, a tuple of other writings
    origin: tuple
    counts: tuple | None = None
    vectors: np.ndarray | None = None
    by: dict | None = None  # what made the vectors

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
        aliases = {spaced(alias): row for row, group in enumerate(self.aliases) for alias in group}
        return aliases | {spaced(name): row for row, name in enumerate(self.names)}

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
