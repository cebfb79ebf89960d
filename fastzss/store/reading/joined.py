"""The parts of a store that has grown, or several stores, read as one: rows of each follow those of the one before.

    open_store("stores/photos")                            one store, with all that was added to it
    open_store(["stores/photos", "stores/drawings@2"])     several; of the second, everything comes twice an epoch

All hold patches of one backbone.  Where another store quantised them with statistics of its own, they are quantised
anew with those of the first as they are read.
"""

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from fastzss.base.errors import UserError
from fastzss.kernels import quantise
from fastzss.store.additions import joint_identity, part_folders, parts_in_use
from fastzss.store.captions import Captions, read_captions
from fastzss.store.mentions import read_concepts
from fastzss.store.reading.reader import PatchStore

KIND = ("patches", "channels", "grid", "globals", "dtype", "vision")  # what the plans of all must agree on
AT_ONCE = 64  # images quantised anew at a time


class Share(NamedTuple):
    """One of several stores, and how often an epoch sees what it holds."""

    path: Path
    weight: float


def shares_of(where):
    """What the user named, one store or several, each PATH or PATH@WEIGHT, as a list of Shares."""
    where = [where] if isinstance(where, str | Path) else where
    return [_share(each) for each in where]


def _share(text):
    path, at, weight = str(text).rpartition("@")
    if not at or Path(text).exists():
        return Share(Path(text), 1.0)
    try:
        value = float(weight)
    except ValueError:
        return Share(Path(text), 1.0)
    if not 0 < value <= 1000:
        raise UserError(f"{text}: the weight of a store is {weight}; expected a number above 0, as {path}@2", code=2)
    return Share(Path(path), value)


def open_store(where, identity=None):
    """A finished store with all that was added to it, or several as one.

    `identity`: of the features a run has learned from, as its record has them: what was added since is left out.
    """
    shares = shares_of(where)
    if len(shares) == 1:
        return _with_additions(shares[0].path, identity)
    wanted = identity if isinstance(identity, list) and len(identity) == len(shares) else [None] * len(shares)
    return StoreGroup(
        [_with_additions(share.path, own) for share, own in zip(shares, wanted, strict=True)],
        [share.weight for share in shares],
    )


def _with_additions(path, identity):
    if len(part_folders(path)) < 2:
        return PatchStore(path)
    return GrownStore(path, [PatchStore(folder) for folder in parts_in_use(path, identity)])


class JoinedStore(PatchStore):
    """What both kinds have in common: the rows of several PatchStores, one after the other."""

    def __init__(self, path, parts):
        first = parts[0]
        for part in parts[1:]:
            _refuse_other_kind(first, part)
        self.path, self.form, self.parts = path, first.form, parts
        self.plan = replace(first.plan, images=sum(len(part) for part in parts))
        self.starts = np.cumsum([0, *(len(part) for part in parts)])
        self._stats = first.stats

    @property
    def bytes(self):
        return sum(part.bytes for part in self.parts)

    def _read_rows(self, name, rows, out, check, places=None):
        places = np.arange(len(rows)) if places is None else places
        of = np.searchsorted(self.starts, rows, side="right") - 1
        for number in np.unique(of):
            part, mine = self.parts[number], np.flatnonzero(of == number)
            own = rows[mine] - self.starts[number]
            if self._differs(part, name):
                for some in np.array_split(np.arange(len(own)), -(-len(own) // AT_ONCE)):
                    out[places[mine[some]]] = self._anew(part, name, part.take(own[some], check=check)).numpy()
            else:
                part._read_rows(name, own, out, check, places[mine])

    def _read_all(self, name, out):
        for part, start in zip(self.parts, self.starts, strict=False):
            own = out[start : start + len(part)]
            if self._differs(part, name):
                for begin in range(0, len(part), AT_ONCE):
                    some = np.arange(begin, min(begin + AT_ONCE, len(part)))
                    own[begin : begin + len(some)] = self._anew(part, name, part.take(some)).to(own.device)
            else:
                part._read_all(name, own)

    def _differs(self, part, name):
        """Whether an array of a part means something else than that of the first."""
        if self._stats is None or name not in ("tokens", "scale"):
            return False
        return not all(torch.equal(a, b) for a, b in zip(self._stats[:2], part.stats[:2], strict=True))

    def _anew(self, part, name, patches):
        """Tokens or scales of some images of a part, by the statistics of the first."""
        blank = patches.scale == 0  # images that could not be read
        codes, scale = quantise(patches.take(torch.arange(len(patches.tokens))), *self._stats[:2])
        return codes.masked_fill(blank.unsqueeze(-1), 0) if name == "tokens" else scale.masked_fill(blank, 0)


class GrownStore(JoinedStore):
    """A store and its additions."""

    def __init__(self, path, parts):
        super().__init__(Path(path), parts)
        self.identity = joint_identity([part.identity for part in parts])

    @cached_property
    def captions(self):
        return read_captions(self.path).first(len(self))

    def concepts(self, bank=None):
        return read_concepts(self.path, bank).of_first(len(self.captions.texts))


class StoreGroup(JoinedStore):
    """Several stores of one backbone."""

    def __init__(self, stores, weights):
        super().__init__(" + ".join(str(store.path) for store in stores), stores)
        self.identity = [store.identity for store in stores]
        self.weights = weights

    @property
    def shares(self):
        return [(len(store), weight) for store, weight in zip(self.parts, self.weights, strict=True)]

    @cached_property
    def captions(self):
        each = [store.captions for store in self.parts]
        lengths = torch.cat([captions.offset.diff() for captions in each])
        return Captions(
            torch.cat([captions.row + int(start) for captions, start in zip(each, self.starts, strict=False)]),
            [text for captions in each for text in captions.texts],
            torch.cat([captions.ids for captions in each]),
            torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]),
            [name for captions in each for name in captions.images],
        )

    def concepts(self, bank=None):
        raise TypeError("several stores have a bank each: fastzss.bank.joined makes them one")


def _refuse_other_kind(first, part):
    for key in KIND:
        was, now = getattr(first.plan, key), getattr(part.plan, key)
        if was != now:
            if key == "vision":
                key = next(k for k in {**was, **now} if was.get(k) != now.get(k))
                was, now = was.get(key), now.get(key)
            raise UserError(
                f"{part.path}: cannot be read together with {first.path}: {key} is {now!r}, and {was!r} there. "
                f"Extract one of them anew with the settings of the other"
            )
