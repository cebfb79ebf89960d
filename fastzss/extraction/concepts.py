"""Finding the names of a bank in a store's captions, and keeping the mentions beside them.

Noun phrases that are no name of the bank are dropped (`exact`), or taken for the nearest name where that is near enough
(`embedding`): by the bank's own vectors, by those of a run, or by letters.
"""

import logging
from pathlib import Path

import numpy as np

from fastzss.bank import Bank
from fastzss.bank.build import bank_from_captions
from fastzss.bank.disk import comparable
from fastzss.base.errors import UserError
from fastzss.base.files import read_json
from fastzss.base.neighbours import Index
from fastzss.captions.mentions import clean_texts, find_mentions, useful_processes
from fastzss.captions.parsers import choose_parser
from fastzss.extraction.settings import MATCHES
from fastzss.store.captions import read_captions
from fastzss.store.mentions import write_concepts

log = logging.getLogger("fastzss")

NEAR = {"letters": 0.75, "run": 0.8}  # similarity from which a phrase is taken for a name, by what made the vectors


def is_of_captions(record):
    """Whether a bank, as list_concepts says it, was made of the captions that are there."""
    return record["origin"] == "captions" and not record["outdated"]


def renew_concepts(path, record, anew):
    """Find the names of a bank again, after a store's captions have changed.

    Args:
        path: the store.
        record: of the bank, as list_concepts gives it.
        anew: one made of captions is made again; the old one stays for the runs that have learned from it.
    """
    if record["match"] != "exact":
        log.warning(
            "%s: the captions have changed since this bank's names were found by nearness; "
            "`fastzss-cache concepts` finds them again",
            record["folder"],
        )
        return
    try:
        parser = choose_parser(record["parser"])
    except UserError as problem:
        log.warning("%s: its names are not found again: %s", record["folder"], problem)
        return
    bank = Bank.from_json(read_json(Path(record["folder"]) / "bank.json")["bank"])
    outdated = record["outdated"]
    if anew and record["origin"] == "captions":
        outdated = bank.identity != bank_from_captions(clean_texts(read_captions(path).texts)).identity
    add_concepts(path, bank, parser, outdated=outdated)


def add_concepts(path, bank, parser, match="exact", run=None, threshold=None, processes=None, outdated=False):
    """Find the names of a bank in a store's captions; returns what there is to say about it.

    Args:
        path: the store.
        bank: a Bank; None makes one of the captions' nouns.
        parser: what choose_parser gave.
        match: one of MATCHES.
        run: folder of the run whose text tower compares phrases with names; by default what made the bank's vectors.
        threshold: similarity from which a phrase is taken for a name.
        processes: of a spaCy parser; by default as many as the machine has for many captions, else one.
        outdated: the bank was made of captions that have changed since.
    """
    if match not in MATCHES:
        raise UserError(f'unknown match "{match}"; expected {" or ".join(MATCHES)}', code=2)
    captions = read_captions(path)
    processes = processes or useful_processes(len(captions.texts))
    clean = clean_texts(captions.texts)
    bank = bank or bank_from_captions(clean)
    found = find_mentions(clean, bank.terms, parser, match == "embedding", processes, captions.ids_of_each())
    exact = found.known
    result = {"bank": bank.identity, "names": len(bank), "parser": parser.spec, "match": match}
    mentions = exact
    if match == "embedding":
        mapping = map_phrases(bank, found.phrases, run, threshold)
        mentions = found.mapped(mapping.rows)
        result |= {
            "match": f"embedding by {mapping.by}, {mapping.threshold:g} and above",
            "phrases_mapped": f"{(mapping.rows >= 0).sum()} of {len(found.phrases)}",
            "coverage_exact": exact.coverage,
        }
    result |= {"mentions": len(mentions.name), "coverage": mentions.coverage, "cut": mentions.cut}
    log.info(
        "bank of %d names, parser %s: %.1f %% of the captions mention one",
        len(bank),
        parser.spec,
        100 * mentions.coverage,
    )
    if mentions.cut:
        log.warning("%d mentions lie beyond the context of %s and are left out", mentions.cut, path)
    if not len(mentions.name):
        log.warning("no caption mentions a name of the bank: only the global loss can be trained")
    write_concepts(
        path,
        bank.to_json(),
        mentions.caption,
        mentions.name,
        mentions.token,
        mentions.offset,
        parser.spec,
        captions.identity,
        match=result["match"],
        cut=mentions.cut,
        outdated=outdated,
    )
    return result


class Mapping:
    """rows [P]: the name each of P phrases is taken for, or -1; by: what made the vectors; threshold."""

    def __init__(self, rows, by, threshold):
        self.rows, self.by, self.threshold = rows, by, threshold


def map_phrases(bank, phrases, run=None, threshold=None):
    """The nearest name of each noun phrase, where it is near enough."""
    bank, own = comparable(bank, run)
    threshold = NEAR[own.by["by"]] if threshold is None else threshold
    if not phrases or not len(bank):
        return Mapping(np.full(len(phrases), -1), own.by["by"], threshold)
    score, row = Index(bank.vectors).search(own.vectors(list(phrases)), 1)
    return Mapping(np.where(score[:, 0] >= threshold, row[:, 0], -1), own.by["by"], threshold)
