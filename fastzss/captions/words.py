"""Words and their singular form, by the lemma tables of spacy-lookups-data (read as files: spaCy is not imported)."""

import gzip
import json
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

WORD = re.compile(r"[^\W_]+")


class Tables(NamedTuple):
    plurals: dict  # irregular plural -> singulars
    rules: list  # (ending of a plural, ending of its singular)
    nouns: frozenset
    verbs: frozenset
    adjectives: frozenset
    irregular: frozenset  # irregular forms of verbs: drew, found


@cache
def tables():
    folder = Path(find_spec("spacy_lookups_data").origin).parent / "data"

    def read(name):
        with gzip.open(folder / f"en_lemma_{name}.json.gz", "rt", encoding="utf-8") as file:
            return json.load(file)

    index, exceptions = read("index"), read("exc")
    rules = [["sses", "ss"], *read("rules")["noun"]]  # a "crosse" is a noun too, and crosses are none of them
    kinds = (frozenset(index[kind]) for kind in ("noun", "verb", "adj"))
    return Tables(exceptions["noun"], rules, *kinds, frozenset(exceptions["verb"]))


@cache
def singular(word):
    """'boats' -> 'boat', 'knives' -> 'knife'; a word that is no known plural stays as it is."""
    plurals, rules, nouns = tables()[:3]
    if word in plurals:
        return plurals[word][0]
    if word in nouns and not (word.endswith("s") and word[:-1] in nouns and not word.endswith("ss")):
        return word
    for ending, instead in rules:
        if word.endswith(ending) and word[: len(word) - len(ending)] + instead in nouns:
            return word[: len(word) - len(ending)] + instead
    return word


def words(clean):
    """(word, first, last + 1 character) of a cleaned text."""
    return [(match.group(), match.start(), match.end()) for match in WORD.finditer(clean)]


def spaced(name):
    """'t-shirt' -> 't shirt': the words of a name with a space between, however it is written."""
    return " ".join(WORD.findall(name))
