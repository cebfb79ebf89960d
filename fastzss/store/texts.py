"""The text layers of a store: captions, and for each concept bank where its names stand in them.

    captions/captions.parquet        row int64, text string, ids list<int32>: B captions, several may have one row
    captions/images.parquet          id string: the source's name of the image in each of the n rows
    concepts/BANK/bank.json          the bank; BANK is the beginning of its identity
    concepts/BANK/mentions.parquet   caption int32, name int32, tokens list<int32>: M mentions

A mention's tokens are positions in its own caption: 0 is the start token, and they need not be adjacent.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import xxhash
from torch import Tensor

from fastzss.errors import UserError
from fastzss.store.files import json_bytes, read_json
from fastzss.store.layers import read_layer, read_record, write_layer
from fastzss.store.plan import differences

BANK_DIGITS = 12  # of a bank's identity that name its folder


@dataclass(frozen=True)
class Captions:
    """B captions of the n images of a store."""

    row: Tensor  # [B] int64 store row of the image
    texts: list  # [B] str
    ids: Tensor  # [T] int32 token ids, the captions end to end
    offset: Tensor  # [B + 1] int64: caption b is ids[offset[b] : offset[b + 1]]
    images: list  # [n] str, the source's name of each image
    identity: str = ""


@dataclass(frozen=True)
class Concepts:
    """M mentions of the names of one bank in the captions of a store."""

    bank: dict
    caption: Tensor  # [M] int32
    name: Tensor  # [M] int32, a name of the bank
    token: Tensor  # [T] int32 positions inside the caption, the mentions end to end
    offset: Tensor  # [M + 1] int64: mention m is token[offset[m] : offset[m + 1]]
    parser: str
    identity: str = ""
    match: str = "exact"  # how noun phrases that are no name were treated


def write_captions(store, rows, texts, ids, images, feature_identity):
    """Write the captions layer; returns its identity.

    Args:
        store: folder of the store.
        rows: [B] store row of each caption's image.
        texts: B strings.
        ids: B lists of token ids.
        images: n strings, the source's name of the image in each store row.
        feature_identity: of the features that the rows are of.
    """
    rows, texts, images = _numbers(rows, np.int64), list(texts), [str(image) for image in images]
    if not len(rows) == len(texts) == len(ids):
        raise ValueError(f"write_captions: {len(rows)} rows, {len(texts)} texts and {len(ids)} lists of ids")
    if len(rows) and not (0 <= rows.min() and rows.max() < len(images)):
        raise ValueError(f"write_captions: rows {rows.min()} to {rows.max()} of {len(images)} images")
    flat = _numbers([token for one in ids for token in one], np.int32)
    offset = np.concatenate([[0], np.cumsum([len(one) for one in ids], dtype=np.int64)]).astype(np.int64)
    plan = {
        "features": feature_identity,
        "captions": len(rows),
        "tokens": len(flat),
        "images": len(images),
        "content": _content(rows, texts, flat, offset, images),
    }
    folder = Path(store) / "captions"
    _refuse_other_captions(folder, plan)
    table = {"row": pa.array(rows), "text": pa.array(texts, pa.string()), "ids": _lists(flat, offset)}
    images = {"id": pa.array(images, pa.string())}
    files = {"captions.parquet": _parquet(table), "images.parquet": _parquet(images)}
    return write_layer(folder, "captions", plan, files)


def _refuse_other_captions(folder, plan):
    try:
        found = read_record(folder / "plan.json", "captions")["plan"]
    except UserError:
        return  # none, or damaged ones
    if found != plan:
        raise UserError(
            f"{folder}: holds other captions: {'; '.join(differences(found, plan))}. "
            f"Delete this folder to write the new captions, or give another store folder."
        )


def read_captions(store):
    folder = Path(store) / "captions"
    if not (folder / "plan.json").is_file():
        raise UserError(f"{store}: has no captions. Run the same extract command again: it writes what is missing.")
    record = read_layer(folder, "captions")
    _expect_below(folder, record["plan"]["features"], Path(store) / "features", "Delete this folder and extract again.")
    table, images = pq.read_table(folder / "captions.parquet"), pq.read_table(folder / "images.parquet")
    ids, offset = _flat(table["ids"])
    row = torch.from_numpy(table["row"].to_numpy().copy())
    return Captions(row, table["text"].to_pylist(), ids, offset, images["id"].to_pylist(), record["identity"])


def write_concepts(store, bank, caption, name, token, offset, parser, captions_identity, match="exact", cut=0):
    """Write the mentions of a bank's names, in place of an earlier set of the same bank; returns the layer's identity.

    Args:
        store: folder of the store.
        bank: what JSON can hold, with "identity".
        caption: [M] caption of each mention.
        name: [M] name of each mention, an index into the bank.
        token: [T] positions inside the caption, 0 = start token; mention m owns token[offset[m] : offset[m + 1]].
        offset: [M + 1].
        parser: what found them.
        captions_identity: of the captions they stand in.
        match: how noun phrases that are no name were treated.
        cut: mentions beyond the context, left out.
    """
    caption, name, token = (_numbers(values, np.int32) for values in (caption, name, token))
    offset = _numbers(offset, np.int64)
    if not len(caption) == len(name) == len(offset) - 1:
        raise ValueError(f"write_concepts: {len(caption)} captions, {len(name)} names and {len(offset)} offsets")
    if offset[0] != 0 or offset[-1] != len(token) or (np.diff(offset) < 0).any():
        raise ValueError(f"write_concepts: offsets do not ascend from 0 to the {len(token)} tokens")
    plan = {
        "captions": captions_identity,
        "bank": bank["identity"],
        "parser": parser,
        "match": match,
        "cut": cut,
        "mentions": len(caption),
        "tokens": len(token),
        "content": _content(caption, name, token, offset),
    }
    table = {"caption": pa.array(caption), "name": pa.array(name), "tokens": _lists(token, offset)}
    files = {"bank.json": json_bytes({"bank": bank}), "mentions.parquet": _parquet(table)}
    return write_layer(Path(store) / "concepts" / _short(bank["identity"]), "concepts", plan, files)


def list_concepts(store):
    """One dict for each bank of a store: identity, origin, parser, names, mentions, folder."""
    banks = []
    for path in sorted((Path(store) / "concepts").glob("[!.]*/plan.json")):
        plan = read_record(path, "concepts")["plan"]
        bank = read_json(path.parent / "bank.json")["bank"]
        banks.append({
            "identity": plan["bank"],
            "origin": _origin(bank),
            "parser": plan["parser"],
            "match": plan.get("match", "exact"),
            "names": len(bank.get("names", ())),
            "mentions": plan["mentions"],
            "folder": str(path.parent),
        })  # fmt: skip
    return banks


def read_concepts(store, bank=None):
    """The mentions of a bank, given by its identity or the beginning of it; None: the only one there is."""
    banks = list_concepts(store)
    found = [b for b in banks if bank is None or _digits(b["identity"]).startswith(_digits(bank))]
    if len(found) != 1:
        there = "; ".join(f"{_short(b['identity'])} from {b['origin']} ({b['names']} names)" for b in banks)
        if not banks:
            raise UserError(f"{store}: has no concepts. Run `fastzss-cache concepts {store} --bank FILE`.")
        what = "several concept banks" if bank is None or found else f"no concept bank {bank!r}"
        raise UserError(f"{store}: has {what}; there are: {there}. Name one of them by its identity.")
    folder = Path(found[0]["folder"])
    record = read_layer(folder, "concepts")
    plan = record["plan"]
    cure = f"Run `fastzss-cache concepts {store} --bank FILE` again."
    _expect_below(folder, plan["captions"], Path(store) / "captions", cure)
    table = pq.read_table(folder / "mentions.parquet")
    caption, name = (torch.from_numpy(table[key].to_numpy().copy()) for key in ("caption", "name"))
    token, offset = _flat(table["tokens"])
    bank = read_json(folder / "bank.json")["bank"]
    match = plan.get("match", "exact")
    return Concepts(bank, caption, name, token, offset, plan["parser"], record["identity"], match)


def _expect_below(folder, expected, below, cure):
    """The layer that this one was made for is the one that is there."""
    if (below / "plan.json").is_file():
        found = read_record(below / "plan.json", below.name)["identity"]
        if found != expected:
            raise UserError(
                f"{folder}: was made for {below.name} {expected[:12]}, "
                f"and the {below.name} of the store are {found[:12]}. {cure}"
            )


def _digits(bank_identity):
    return bank_identity.rpartition(":")[2]


def _short(bank_identity):
    return _digits(bank_identity)[:BANK_DIGITS]


def _origin(bank):
    """Where the names of a bank come from, in a few words."""
    origin = bank.get("origin", "an unknown origin")
    if isinstance(origin, str):
        return origin
    kinds = sorted({str(one) for one in (origin.values() if isinstance(origin, dict) else origin)})
    return ", ".join(kinds[:5]) + (", ..." if len(kinds) > 5 else "")


def _numbers(values, dtype):
    values = values.cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    numbers = values.astype(dtype)
    if values.ndim != 1 or not np.array_equal(numbers, values):
        raise ValueError(f"expected one axis of {np.dtype(dtype).name}, got {values.dtype} of shape {values.shape}")
    return np.ascontiguousarray(numbers)


def _content(*columns):
    """xxh3_128 of columns of numbers or strings: the same on every machine and with every version of parquet."""
    digest = xxhash.xxh3_128()
    for column in columns:
        digest.update(len(column).to_bytes(8, "little"))
        if isinstance(column, np.ndarray):
            digest.update(column)
        else:
            for text in column:
                data = text.encode()
                digest.update(len(data).to_bytes(8, "little"))
                digest.update(data)
    return digest.hexdigest()


def _lists(flat, offset):
    return pa.ListArray.from_arrays(pa.array(offset.astype(np.int32)), pa.array(flat))


def _flat(column):
    """A column of lists -> the values end to end, and where each list begins."""
    column = column.combine_chunks()
    lengths = column.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
    offset = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    return torch.from_numpy(column.flatten().to_numpy(zero_copy_only=False).copy()), torch.from_numpy(offset)


def _parquet(columns):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink, compression="zstd")
    return sink.getvalue().to_pybytes()
