"""The concepts of a store: for each concept bank, where its names stand in the captions.

    concepts/BANK/bank.json          the bank; BANK is the beginning of its identity
    concepts/BANK/mentions.parquet   caption int32, name int32, tokens list<int32>: M mentions

A mention's tokens are positions in its own caption: 0 is the start token, and they need not be adjacent.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from fastzss.base.errors import UserError
from fastzss.base.files import json_bytes, read_json
from fastzss.store.columns import content, flat_column, lists_column, numbers, parquet
from fastzss.store.layers import expect_below, read_layer, read_record, write_layer

BANK_DIGITS = 12  # of a bank's identity that name its folder


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
    banks: tuple = ()  # of several stores read as one: the identity of the bank of each

    def of_first(self, captions):
        """The mentions in the first captions."""
        keep = self.caption < captions
        counts = self.offset.diff()
        offset = torch.cat([self.offset[:1], counts[keep].cumsum(0)])
        token = self.token[keep.repeat_interleave(counts)]
        return replace(self, caption=self.caption[keep], name=self.name[keep], token=token, offset=offset)


def write_concepts(
    store, bank, caption, name, token, offset, parser, captions_identity, match="exact", cut=0, outdated=False
):
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
        outdated: the bank was made of captions that have changed since: nobody gets it who does not name it.
    """
    caption, name, token = (numbers(values, np.int32) for values in (caption, name, token))
    offset = numbers(offset, np.int64)
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
        "content": content(caption, name, token, offset),
    } | ({"outdated": True} if outdated else {})
    table = {"caption": pa.array(caption), "name": pa.array(name), "tokens": lists_column(token, offset)}
    files = {"bank.json": json_bytes({"bank": bank}), "mentions.parquet": parquet(table)}
    return write_layer(Path(store) / "concepts" / _short(bank["identity"]), "concepts", plan, files)


def list_concepts(store):
    """One dict for each bank of a store: identity, origin, parser, names, mentions, captions, folder."""
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
            "captions": plan["captions"],
            "outdated": plan.get("outdated", False),
            "folder": str(path.parent),
        })  # fmt: skip
    return banks


def read_concepts(store, bank=None):
    """The mentions of a bank, given by its identity or the beginning of it; None: the only one there is.

    A bank that was made of the store's captions before they changed is not one of them, unless it is named.
    """
    banks = list_concepts(store)
    if bank is None:
        found = [b for b in banks if not b["outdated"]]
    else:
        found = [b for b in banks if _digits(b["identity"]).startswith(_digits(bank))]
    if len(found) != 1:
        there = "; ".join(f"{_short(b['identity'])} from {b['origin']} ({b['names']} names)" for b in banks)
        if not banks:
            raise UserError(f"{store}: has no concepts. Run `fastzss-cache concepts {store} --bank FILE`.")
        what = "several concept banks" if bank is None or found else f"no concept bank {bank!r}"
        own = _short((found or banks)[0]["identity"])
        raise UserError(f"{store}: has {what}; there are: {there}. Name one of them by its identity: --bank {own}")
    folder = Path(found[0]["folder"])
    record = read_layer(folder, "concepts")
    plan = record["plan"]
    cure = f"Run `fastzss-cache concepts {store} --bank FILE` again."
    expect_below(folder, plan["captions"], Path(store) / "captions", cure)
    table = pq.read_table(folder / "mentions.parquet")
    caption, name = (torch.from_numpy(table[key].to_numpy().copy()) for key in ("caption", "name"))
    token, offset = flat_column(table["tokens"])
    bank = read_json(folder / "bank.json")["bank"]
    match = plan.get("match", "exact")
    return Concepts(bank, caption, name, token, offset, plan["parser"], record["identity"], match)


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
