"""Mentions of many captions: spans of the parser + places of the tokens -> token positions, chunk by chunk.

What a parser finds is mapped to tokens by characters alone.  A mention that is not wholly within the context is left
out and counted.
"""

from dataclasses import dataclass
from functools import cache
from itertools import islice

import numpy as np
from tqdm import tqdm

from fastzss.base.machine import cores
from fastzss.captions.parsers import UNKNOWN
from fastzss.captions.tokens import Tokenizer, tokens_of

CHUNK = 4096  # captions
MANY = 100_000  # captions from which a second process of spaCy is worth its start


@dataclass(frozen=True)
class Mentions:
    """M mentions, in the order of their captions."""

    caption: np.ndarray  # [M] int32
    name: np.ndarray  # [M] int32, row in the bank; -1 - i: phrases[i]
    token: np.ndarray  # [T] int32 positions in the caption, 0 = its start token
    offset: np.ndarray  # [M + 1] int64: mention m is token[offset[m] : offset[m + 1]]
    phrases: tuple  # noun phrases that are no term, where they were asked for
    cut: int  # mentions beyond the context, left out
    captions: int

    @property
    def known(self):
        """Those of names of the bank."""
        return self.only(self.name >= 0)

    @property
    def coverage(self):
        """Share of the captions with at least one mention."""
        return len(np.unique(self.caption)) / max(1, self.captions)

    def only(self, keep, name=None):
        """The mentions where `keep`, without unknown phrases; `name`: what they are mentions of instead."""
        lengths = np.diff(self.offset)
        name = self.name if name is None else name
        offset = np.concatenate([[0], np.cumsum(lengths[keep])]).astype(np.int64)
        token = self.token[np.repeat(keep, lengths)]
        return Mentions(self.caption[keep], name[keep], token, offset, (), self.cut, self.captions)

    def mapped(self, rows):
        """The same with unknown phrase i taken for a mention of rows[i], or left out where that is negative."""
        name = self.name.copy()
        unknown = name < 0
        name[unknown] = np.asarray(rows, np.int32)[-1 - name[unknown]]
        return self.only(name >= 0, name)


def find_mentions(texts, terms, parser, unknown=False, processes=1, ids=None):
    """Mentions of cleaned captions.

    Args:
        texts: a list of them.
        terms: {term: row in the bank}.
        parser: what choose_parser gave.
        unknown: also the noun phrases that are no term, under negative names.
        processes: among which a spaCy parser shares the work; the others need none.
        ids: the token ids of each caption, one after the other, where it is tokenised already.
    """
    found = parser(texts, terms, unknown, processes)
    ids = (tokenizer().encode(text)[0] for text in texts) if ids is None else iter(ids)
    bar = tqdm(range(0, len(texts), CHUNK), unit="chunk", desc="mentions", disable=None)
    chunks = (texts[start : start + CHUNK] for start in bar)
    return join(
        (in_tokens(chunk, *(islice(each, len(chunk)) for each in (ids, found))) for chunk in chunks), len(texts)
    )


def clean_texts(texts):
    """Texts as the tokenizer and the parsers read them."""
    clean = tokenizer().clean
    return [clean(text) for text in tqdm(texts, unit="captions", desc="clean", disable=None)]


def useful_processes(count):
    """How many processes of a spaCy pipeline are worth starting for so many captions on this machine."""
    return cores() if count >= MANY else 1


@cache
def tokenizer():
    return Tokenizer()


def in_tokens(texts, ids, mentions):
    """What a parser found in a chunk -> (caption, name, token, offset, phrases, cut), flat."""
    caption, name, token, ends, phrases, cut = [], [], [], [], {}, 0
    located = tokenizer().located
    for row, (text, own, found) in enumerate(zip(texts, ids, mentions, strict=True)):
        if not found:
            continue
        tokens = located(own, text)
        for mention in found:
            if any(last > tokens.end for _, last in mention.spans):
                cut += 1
                continue
            spots = sorted({i for a, b in mention.spans for i in tokens_of(tokens.spans, a, b)})
            if spots:
                known = mention.name != UNKNOWN
                caption.append(row)
                name.append(mention.name if known else -1 - phrases.setdefault(mention.phrase, len(phrases)))
                token.extend(spots)
                ends.append(len(token))
    flat = (np.asarray(values, np.int32) for values in (caption, name, token, ends))
    return *flat, list(phrases), cut


def join(parts, captions):
    """The Mentions of all chunks."""
    columns, phrases, cut, first, tokens = [[np.empty(0, np.int32)] for _ in range(4)], {}, 0, 0, 0
    for caption, name, token, ends, own, beyond in parts:
        rows = np.asarray([-1 - phrases.setdefault(phrase, len(phrases)) for phrase in own], np.int32)
        unknown = name < 0
        name[unknown] = rows[-1 - name[unknown]]
        for column, values in zip(columns, (caption + first, name, token, ends.astype(np.int64) + tokens), strict=True):
            column.append(values)
        cut, first, tokens = cut + beyond, first + CHUNK, tokens + len(token)
    caption, name, token, ends = (np.concatenate(column) for column in columns)
    offset = np.concatenate([[0], ends]).astype(np.int64)
    return Mentions(caption.astype(np.int32), name, token, offset, tuple(phrases), cut, captions)
