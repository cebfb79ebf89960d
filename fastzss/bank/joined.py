"""Mentions of several stores under one bank, which has the names of all of theirs.

A name that two banks have is one name.  A store's mentions are those found in it with its own bank: what only another
one names is found there by `fastzss-cache concepts STORE --bank` with a bank of both.
"""

from dataclasses import replace

import numpy as np
import torch

from fastzss.bank import Bank
from fastzss.bank.build import united
from fastzss.base.errors import UserError
from fastzss.store.mentions import Concepts
from fastzss.store.reading.joined import StoreGroup


def concepts_of(store, banks=None):
    """The Concepts of a store or of several.

    `banks`: the identity of the bank, or its beginning; of several stores one each, with commas.
    """
    if not isinstance(store, StoreGroup):
        return store.concepts(banks)
    wanted = banks.split(",") if banks else [None] * len(store.parts)
    if len(wanted) == 1:
        wanted *= len(store.parts)
    if len(wanted) != len(store.parts):
        raise UserError(f"--bank {banks}: names {len(wanted)} banks for {len(store.parts)} stores; expected one each")
    each = [own.concepts(bank) for own, bank in zip(store.parts, wanted, strict=True)]
    bank = united([Bank.from_json(concepts.bank) for concepts in each])
    row = {name: number for number, name in enumerate(bank.names)}
    captions = np.cumsum([0, *(len(own.captions.texts) for own in store.parts)])
    renamed = [
        replace(
            concepts,
            caption=concepts.caption + int(first),
            name=torch.tensor([row[name] for name in concepts.bank["names"]], dtype=torch.int32)[concepts.name.long()],
        )
        for concepts, first in zip(each, captions, strict=False)
    ]
    lengths = torch.cat([concepts.offset.diff() for concepts in renamed])
    return Concepts(
        bank.to_json(),
        *(torch.cat([getattr(concepts, part) for concepts in renamed]) for part in ("caption", "name", "token")),
        torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]),
        ", ".join(sorted({concepts.parser for concepts in each})),
        banks=tuple(concepts.bank["identity"] for concepts in each),
    )
