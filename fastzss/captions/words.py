"""Words, their singular form, and which of them can name something, without a statistical model.

The lists are the lemma tables of spacy-lookups-data (read as files: spaCy itself is not imported) and a list of words
that are nouns to a dictionary and name nothing in a picture.
"""

import gzip
import json
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

WORD = re.compile(r"[^\W_]+")

# Nouns to a dictionary, but words about the picture, places in it, amounts and colours.
NAMELESS = frozenset(
    """photo photograph picture image view scene shot drawing painting sketch illustration close closeup look display
    today tonight yesterday morning noon afternoon evening left right top bottom middle center centre side front back
    corner edge half part end background foreground distance inside outside above below under over behind near beside
    next between across along around in on at by off up down out lot lots group couple pair bunch pile row set kind
    type sort piece bit number variety many several few some plenty one two three four five six seven eight nine ten
    dozen another other each all both any every something nothing thing red orange yellow green blue purple violet
    pink brown black white gray grey golden silver beige turquoise cyan magenta colour color colours colors colored
    coloured dark light bright pale big small large little tiny huge tall short long wide narrow round square new old
    young good nice beautiful pretty plain day time way place area spot a an the it he she is am are was were be been
    being has have had do does did can could will would may might must shall should as and or but if so no not than
    then there here this that these those with without from into onto to of for about who what which while where when
    how why we you they them their his her its our my your i us me him very just only also too even more most less
    least much such own same first second third last like well work use lie lay stand sit rest total overall while
    amid amidst seen shown show set s t""".split()
)

PRONOUNS = frozenset("i you he she it we they who that which".split())


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
    kinds = (frozenset(index[kind]) for kind in ("noun", "verb", "adj"))
    return Tables(exceptions["noun"], read("rules")["noun"], *kinds, frozenset(exceptions["verb"]))


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


def names_in(clean):
    """What a caption may name: its nouns, and pairs of neighbouring nouns, in singular form.

    A word that may be a noun is taken for something else behind a pronoun ("we see"), as a form of a verb ("drew",
    "parked"), before a noun if it may be an adjective ("cool water"), and behind a noun if it may be what that does ("a
    boat floats").
    """
    irregular, nouns, verbs, adjectives = tables().irregular, tables().nouns, tables().verbs, tables().adjectives
    found, before = [], None  # the noun right before, if there is one
    text = words(clean)
    for i, (word, first, last) in enumerate(text):
        name = singular(word)
        follows = i > 0 and not clean[text[i - 1][2] : first].strip()  # no punctuation between
        leads = i + 1 < len(text) and not clean[last : text[i + 1][1]].strip()
        if not follows:
            before = None
        if (
            name not in nouns
            or len(name) < 2
            or not NAMELESS.isdisjoint((name, word))
            or word in irregular
            or word.endswith(("ing", "ed", "ly"))
            or (follows and text[i - 1][0] in PRONOUNS)
            or (before and word != name and word.endswith("s") and name in verbs)
            or (leads and word in adjectives and singular(text[i + 1][0]) in nouns)
        ):
            before = None
            continue
        found.append(name)
        if before:
            found.append(f"{before} {name}")
        before = word
    return found
