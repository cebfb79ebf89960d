"""Where captions mention names: by their words, or by a spaCy parse.

A parser turns cleaned texts into mentions of names; `terms` maps each way to write a name (the name itself and its
aliases: singular, lower case, the words with a space between) to the name's row in the bank.

    bank            longest match of the terms among the caption's words, plurals included, never across a comma or the
                    end of a sentence; needs no download
    spacy:PIPELINE  the paper's way: of each noun chunk the lemma of its root, with the last compound before it
    auto            spaCy's English pipeline when one is installed, else bank
"""

import re
from itertools import pairwise
from typing import NamedTuple

from fastzss.captions import words
from fastzss.captions.tokens import tokens_of
from fastzss.errors import UserError

PIPELINES = ("en_core_web_trf", "en_core_web_lg", "en_core_web_md", "en_core_web_sm")

# What may stand between two words of one name: "fire hydrant", "t-shirt", "salt & pepper", "u.s. flag"
BETWEEN = re.compile(r"\s+|\s?&\s?|[-'’./_+]|(?<=\b\w)\. ")


class Mention(NamedTuple):
    name: int  # row in the bank
    spans: tuple  # (first, last + 1) characters in the cleaned text; several when the words stand apart


def choose_parser(spec):
    """'auto' | 'bank' | 'spacy:NAME' -> (name to record, parse(texts, terms) -> list of lists of Mention)."""
    if spec == "auto":
        installed = next((p for p in PIPELINES if _installed(p)), None)
        spec = f"spacy:{installed}" if installed else "bank"
    if spec == "bank":
        return spec, parse_by_words
    kind, _, pipeline = spec.partition(":")
    if kind != "spacy" or not pipeline:
        raise UserError(f'unknown parser "{spec}"; expected auto, bank, or spacy:PIPELINE', code=2)
    nlp = load_pipeline(pipeline)
    return spec, lambda texts, terms: parse_by_spacy(texts, terms, nlp)


def parse_by_words(texts, terms):
    longest = max((len(term.split()) for term in terms), default=0)
    return [_match(clean, terms, longest) for clean in texts]


def _match(clean, terms, longest):
    found, at = [], 0
    tokens = words.words(clean)
    text = [word for word, _, _ in tokens]
    together = [BETWEEN.fullmatch(clean, a, b) for (_, _, a), (_, b, _) in pairwise(tokens)]
    while at < len(tokens):
        for size in range(min(longest, len(tokens) - at), 0, -1):
            if not all(together[at : at + size - 1]):
                continue
            head = text[at : at + size - 1]
            last = text[at + size - 1]
            # as written first, so that names which are plurals ("skis") are found
            name = next(
                (terms[t] for t in (" ".join([*head, w]) for w in (last, words.singular(last))) if t in terms), None
            )
            if name is not None:
                found.append(Mention(name, ((tokens[at][1], tokens[at + size - 1][2]),)))
                at += size
                break
        else:
            at += 1
    return found


def parse_by_spacy(texts, terms, nlp):
    return [list(_chunks(doc, terms)) for doc in nlp.pipe(texts)]


def _chunks(doc, terms):
    """Mentions of a parsed caption: lemma of each noun chunk's root, after its last compound if it has one."""
    for chunk in doc.noun_chunks:
        root = chunk.root
        compound = next((child for child in reversed(list(root.children)) if child.dep_ == "compound"), None)
        parts = [compound, root] if compound is not None else [root]
        name = words.spaced(" ".join([*(part.text for part in parts[:-1]), root.lemma_ or root.text]))
        if name in terms:
            yield Mention(terms[name], tuple((part.idx, part.idx + len(part.text)) for part in parts))


def load_pipeline(name):
    import spacy

    try:
        nlp = spacy.load(name, exclude=["ner"])
    except OSError:
        raise UserError(
            f'spaCy pipeline "{name}" is not installed; `python -m spacy download {name}` installs it, '
            f"and `--parser bank` needs none"
        ) from None
    if not nlp.has_pipe("parser"):
        raise UserError(
            f'spaCy pipeline "{name}" has no parser ({", ".join(nlp.pipe_names) or "it is blank"}); noun chunks need '
            f"one, as en_core_web_sm has"
        )
    return nlp


def find_mentions(texts, tokens, terms, parse):
    """Mentions of many captions as flat lists (caption, name, token, offset); positions count the start token as 0.

    Args:
        texts: cleaned captions.
        tokens: Tokens of each; a mention that is not wholly within their context is left out.
        terms: {term: row in the bank}.
        parse: what choose_parser gave.
    """
    caption, name, token, offset = [], [], [], [0]
    for row, mentions in enumerate(parse(texts, terms)):
        end = tokens[row].spans[-2][1] if tokens[row].cut else len(texts[row])  # of the characters that are read
        for mention in mentions:
            if any(last > end for _, last in mention.spans):
                continue
            spots = sorted({i for a, b in mention.spans for i in tokens_of(tokens[row].spans, a, b)})
            if spots:
                caption.append(row)
                name.append(mention.name)
                token.extend(spots)
                offset.append(len(token))
    return caption, name, token, offset


def _installed(package):
    from importlib.util import find_spec

    return find_spec(package) is not None
