"""Finding the names of a bank in a store's captions, and keeping the mentions beside them.

Noun phrases that are no name of the bank are dropped (`exact`), or taken for the nearest name where that is near enough
(`embedding`): by the bank's own vectors, by those of a run, or by letters.
"""

import logging
from dataclasses import replace

import numpy as np

from fastzss.bank.build import bank_from_captions
from fastzss.bank.folder import embedder_of, with_vectors
from fastzss.captions import clean_texts, find_mentions, useful_processes
from fastzss.errors import UserError
from fastzss.index import Index
from fastzss.store import read_captions, write_concepts

log = logging.getLogger("fastzss")

MATCHES = ("exact", "embedding")
NEAR = {"letters": 0.75, "run": 0.8}  # similarity from which a phrase is taken for a name, by what made the vectors


def add_concepts(path, bank, parser, match="exact", run=None, threshold=None, processes=None):
    """Find the names of a bank in a store's captions; returns what there is to say about it.

    Args:
        path: the store.
        bank: a Bank; None makes one of the captions' nouns.
        parser: what choose_parser gave.
        match: one of MATCHES.
        run: folder of the run whose text tower compares phrases with names; by default what made the bank's vectors.
        threshold: similarity from which a phrase is taken for a name.
        processes: of a spaCy parser; by default as many as the machine has for many captions, else one.
    """
    if match not in MATCHES:
        raise UserError(f'unknown match "{match}"; expected {" or ".join(MATCHES)}', code=2)
    captions = read_captions(path)
    processes = processes or useful_processes(len(captions.texts))
    clean = clean_texts(captions.texts)
    bank = bank or bank_from_captions(clean)
    found = find_mentions(clean, bank.terms, parser, match == "embedding", processes)
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
    )
    return result


class Mapping:
    """rows [P]: the name each of P phrases is taken for, or -1; by: what made the vectors; threshold."""

    def __init__(self, rows, by, threshold):
        self.rows, self.by, self.threshold = rows, by, threshold


def map_phrases(bank, phrases, run=None, threshold=None):
    """The nearest name of each noun phrase, where it is near enough."""
    if bank.vectors is None or run is not None and bank.by["by"] == "letters":
        bank = with_vectors(replace(bank, vectors=None, by=None), run)
    own = embedder_of(bank, run)
    threshold = NEAR[own.by["by"]] if threshold is None else threshold
    if not phrases or not len(bank):
        return Mapping(np.full(len(phrases), -1), own.by["by"], threshold)
    score, row = Index(bank.vectors).search(own.vectors(list(phrases)), 1)
    return Mapping(np.where(score[:, 0] >= threshold, row[:, 0], -1), own.by["by"], threshold)
