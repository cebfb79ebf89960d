"""A bank on disk: names and vectors in one folder, with the index where making it takes time.

BANK/bank.json             names, aliases, origin, counts, identity; what made the vectors
BANK/vectors-HASH.npy      float32 [K, D]
BANK/index-HASH.faiss      of banks of more than index.EXACT names, where FAISS is installed
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from fastzss.bank import Bank
from fastzss.bank.build import bank_from_file
from fastzss.bank.coverage import merged
from fastzss.bank.embedding import embedder, same_vectors
from fastzss.base.errors import UserError
from fastzss.base.neighbours import Index
from fastzss.base.records import is_folder_of, read_folder, write_folder

MAKER = "fastzss bank build"


def save_bank(folder, bank):
    """Write a bank with vectors; False when it is there already.  Another bank there is not overwritten."""
    if is_folder_of(folder, "bank"):
        there = load_bank(folder)
        if there.identity != bank.identity:
            raise UserError(
                f"{folder}: holds another bank ({len(there)} names, {there.identity[:12]}; this one has {len(bank)}, "
                f"{bank.identity[:12]}). Delete it, or give another folder"
            )
        if there.counts == bank.counts and there.by == bank.by and np.array_equal(there.vectors, bank.vectors):
            return False
    files = {"vectors.npy": bank.vectors, "index.faiss": Index(bank.vectors).bytes()}
    write_folder(folder, "bank", {"bank": bank.to_json(), "by": bank.by}, files)
    return True


def load_bank(path):
    """A bank from its folder, or from a file of names."""
    path = Path(path)
    if not path.is_dir():
        return bank_from_file(path)
    return _load(path)[0]


def load_index(path):
    """(bank, Index) of a bank's folder."""
    bank, files = _load(Path(path))
    try:
        return bank, Index(bank.vectors, files.get("index.faiss"))
    except UserError as problem:
        raise UserError(f"{path}: {problem}") from None


def _load(folder):
    record, files = read_folder(folder, "bank", MAKER)
    bank = Bank.from_json(record["bank"])
    if bank.identity != record["bank"]["identity"]:
        raise UserError(f"{folder}: its names are not those of its identity; `{MAKER}` again")
    vectors = files["vectors.npy"]
    if vectors.ndim != 2 or len(vectors) != len(bank):
        raise UserError(f"{folder}: vectors of shape {vectors.shape} for {len(bank)} names; `{MAKER}` again")
    return replace(bank, vectors=vectors, by=record["by"]), files


def embedder_of(bank, run=None, path="the bank"):
    """What makes vectors of the bank's space; `run` where its run has moved."""
    if bank.by is None or bank.by["by"] == "letters":
        return embedder()
    own = embedder(run or bank.by["run"])
    if not same_vectors(own.by, bank.by):
        raise UserError(
            f"{path}: its vectors are of another run or checkpoint than {own.by['run']} "
            f"({bank.by['checkpoint'][:8]}, not {own.by['checkpoint'][:8]}); "
            f"make them anew: `{MAKER} BANK SOURCE... --run {own.by['run']}`"
        )
    return own


def comparable(bank, run=None, path="the bank"):
    """(the bank with vectors, what makes vectors of their space); a run takes the place of letters."""
    if bank.by is None or run is not None and bank.by["by"] == "letters":
        own = embedder(run)
        return replace(bank, vectors=own.vectors(list(bank.names)), by=own.by), own
    return bank, embedder_of(bank, run, path)


def merged_bank(path, lines, out):
    """Write the bank of `path` with the names of each line of a file made one, as another bank; returns it."""
    bank = load_bank(path)
    own = embedder_of(bank, path=path)
    new = merged(bank, lines)
    new = replace(new, vectors=own.vectors(list(new.names)), by=own.by)
    save_bank(out, new)
    return new


def with_vectors(bank, run=None):
    """The bank with vectors of a run's text tower; without one, by letters."""
    return comparable(replace(bank, vectors=None, by=None), run)[0]
