"""Where captions mention names: by their words, or by a spaCy parse.

A parser turns cleaned texts into mentions of names; `terms` maps each way to write a name (the name itself and its
aliases: singular, lower case, the words with a space between) to the name's row in the bank.

    bank            longest match of the terms among the caption's words, plurals included, never across a comma or the
                    end of a sentence, not where the words are verbs, and not where they only say which one the next
                    noun is ("tennis" of "tennis rackets"); needs no download
    spacy:PIPELINE  the paper's way: of each noun chunk the lemma of its root, with the last compound before it;
                    spacy:PIPELINE,tokens=phrase takes the tokens of the whole chunk instead of those of the name
    auto            spaCy's English pipeline when one is installed, else bank

A noun phrase that is no term can be asked for as well (`unknown`): a mention whose name is UNKNOWN.
"""

import re
from dataclasses import dataclass
from itertools import pairwise, takewhile
from typing import NamedTuple

from fastzss.base.errors import UserError, nearest
from fastzss.captions.nouns import Sentence, may_name
from fastzss.captions.words import singular, spaced, words

PIPELINES = ("en_core_web_trf", "en_core_web_lg", "en_core_web_md", "en_core_web_sm")
UNKNOWN = -1

# What may stand between two words of one name: "fire hydrant", "t-shirt", "salt & pepper", "u.s. flag"
BETWEEN = re.compile(r"\s+|\s?&\s?|[-'’./_+]|(?<=\b\w)\. ")


class Mention(NamedTuple):
    name: int  # row in the bank, or UNKNOWN
    spans: tuple  # (first, last + 1) characters in the cleaned text; several when the words stand apart
    phrase: str = ""  # what an unknown mention says


def choose_parser(spec):
    """'auto' | 'bank' | 'spacy:NAME' -> a parser: parser(texts, terms, unknown) gives a list of Mention for each."""
    if spec == "auto":
        installed = next((p for p in PIPELINES if _installed(p)), None)
        spec = f"spacy:{installed}" if installed else "bank"
    if spec == "bank":
        return BankParser()
    kind, _, rest = spec.partition(":")
    pipeline, *settings = rest.split(",")
    if kind != "spacy" or not pipeline:
        hint = nearest(kind, ("auto", "bank", "spacy"))
        raise UserError(f'unknown parser "{spec}"{hint}; expected auto, bank, or spacy:PIPELINE', code=2)
    wrong = [setting for setting in settings if setting not in ("tokens=name", "tokens=phrase")]
    if wrong:
        raise UserError(
            f'parser "{spec}": "{wrong[0]}" is not understood; expected tokens=name or tokens=phrase', code=2
        )
    return SpacyParser(spec, load_pipeline(pipeline), phrase="tokens=phrase" in settings)


@dataclass(frozen=True)
class BankParser:
    spec: str = "bank"

    def __call__(self, texts, terms, unknown=False, processes=1):
        sizes = {}  # first word of a term -> words of the longest one
        for first, *others in (term.split() for term in terms):
            sizes[first] = max(sizes.get(first, 0), 1 + len(others))
        return (match_words(clean, terms, sizes, unknown) for clean in texts)


def match_words(clean, terms, sizes, unknown=False):
    """Mentions of terms in a text, in order; with `unknown`, of all other nouns as well."""
    found, at = [], 0
    text = words(clean)
    sentence = Sentence(clean, text)
    while at < len(text):
        size = _longest(clean, text, at, terms, sizes)
        if size:
            end, name = at + size - 1, _row(text[at : at + size], terms)
            if sentence.modifies(end) or size == 1 and sentence.does(at):
                size = 1
            else:
                found.append(Mention(name, ((text[at][1], text[end][2]),)))
        elif unknown and sentence.noun(at) and not sentence.modifies(at):
            found.append(_noun(sentence, at, found))
        at += max(1, size)
    return found


def _longest(clean, text, at, terms, sizes):
    """How many words from word `at` on are a term at most."""
    word = text[at][0]
    most = min(sizes.get(word, 0) or (singular(word) in sizes), len(text) - at)
    if most > 1:
        pairs = pairwise(text[at : at + most])
        most = 1 + sum(1 for _ in takewhile(lambda pair: BETWEEN.fullmatch(clean, pair[0][2], pair[1][1]), pairs))
    return next((size for size in range(most, 0, -1) if _row(text[at : at + size], terms) is not None), 0)


def _row(text, terms):
    """The row of a name: as written first, so that names which are plurals ("skis") are found, then in singular."""
    *head, last = (word for word, _, _ in text)
    for one in (last, singular(last)):
        name = terms.get(" ".join([*head, one]) if head else one)
        if name is not None:
            return name
    return None


def _noun(sentence, at, found):
    """The unknown mention whose head is word `at`, with the noun before it if that is nobody else's."""
    _, first, last = sentence.text[at]
    phrase = sentence.noun(at)
    free = found[-1].spans[-1][1] if found else 0
    if sentence.joined(at) and sentence.text[at - 1][1] >= free and sentence.noun(at - 1):
        phrase, first = f"{sentence.word(at - 1)} {phrase}", sentence.text[at - 1][1]
    return Mention(UNKNOWN, ((first, last),), phrase)


class SpacyParser:
    def __init__(self, spec, nlp, phrase=False):
        self.spec, self.nlp, self.phrase = spec, nlp, phrase

    def __call__(self, texts, terms, unknown=False, processes=1):
        several = {"n_process": processes} if processes > 1 and not _on_gpu() else {}
        for doc in self.nlp.pipe(texts, **several):
            yield list(self._chunks(doc, terms, unknown))

    def _chunks(self, doc, terms, unknown):
        """Mentions of a parsed caption: the lemma of each noun chunk's root, after its last compound if it has one."""
        for chunk in doc.noun_chunks:
            root = chunk.root
            compound = next((child for child in reversed(list(root.children)) if child.dep_ == "compound"), None)
            parts = [compound, root] if compound is not None else [root]
            lemma = root.lemma_ or root.text
            head = [word for part in parts[:-1] for word in spaced(part.text).split()]
            writings = [spaced(" ".join([*head, last])) for last in (root.text, lemma, singular(root.text))]
            name = next((terms[writing] for writing in writings if writing in terms), UNKNOWN)
            if name == UNKNOWN and not (unknown and may_name(spaced(lemma))):
                continue
            if self.phrase:
                spans = ((chunk.start_char, chunk.end_char),)
            else:
                spans = tuple((part.idx, part.idx + len(part.text)) for part in parts)
            yield Mention(name, spans, writings[1] if name == UNKNOWN else "")


def load_pipeline(name):
    import spacy

    spacy.prefer_gpu()
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


def _on_gpu():
    from thinc.api import get_current_ops

    return get_current_ops().name == "cupy"


def _installed(package):
    from importlib.util import find_spec

    return find_spec(package) is not None
