"""Mentions: names of a bank in captions, by words or by parses, land on the right tokens."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import regex
import spacy

from fastzss.captions import words
from fastzss.captions.mentions import find_mentions
from fastzss.captions.parsers import Mention, SpacyParser, choose_parser
from fastzss.captions.tokens import Tokenizer

OURS = Tokenizer()


class By:
    """A parser out of a function of texts and terms."""

    spec = "test"

    def __init__(self, parse):
        self.parse = parse

    def __call__(self, texts, terms, unknown=False, processes=1):
        return self.parse(texts, terms)


BANK = choose_parser("bank")


def mentions(texts, terms, parser=BANK):
    """Per caption, (row of the name, its token positions)."""
    found = find_mentions([OURS.clean(text) for text in texts], terms, parser)
    assert len(found.caption) == len(found.name) == len(found.offset) - 1
    assert found.offset[0] == 0 and found.offset[-1] == len(found.token)
    per_caption = [[] for _ in texts]
    for c, n, a, b in zip(found.caption, found.name, found.offset, found.offset[1:], strict=False):
        per_caption[c].append((int(n), found.token[a:b].tolist()))
    return per_caption


def test_a_mention_beyond_the_context_is_left_out_and_so_is_one_cut_in_two():
    texts = ["very " * n + "stop sign" for n in (73, 74, 75)]
    assert mentions(texts, {"stop sign": 0}) == [[(0, [74, 75])], [], []]
    assert mentions(["dog " * 80], {"dog": 4}) == [[(4, [i]) for i in range(1, 76)]]

    def apart(texts, terms):  # "stop" within the context, "sign" beyond it
        return [[Mention(0, ((0, 4), (len(text) - 4, len(text))))] for text in texts]

    assert mentions(["stop " + "very " * n + "sign" for n in (73, 74)], {}, By(apart)) == [[(0, [1, 75])], []]


# The parses of the reference's own mapping, given by hand


class Parsed:
    """What spaCy's pipe would give for captions parsed by hand."""

    def __init__(self, *chunks):
        self.chunks = chunks

    def pipe(self, texts):
        for text, chunks in zip(texts, self.chunks, strict=True):
            at, spans = 0, []
            for chunk in chunks:
                spelled = r"\s*".join(map(regex.escape, chunk["words"]))
                match = regex.compile(rf"(?<!\w){spelled}(?!\w)").search(text, at)
                words_at, here = {}, match.start()
                for word in chunk["words"]:
                    here = text.index(word, here)
                    words_at[word], here = here, here + len(word)
                at = match.end()
                children = [
                    SimpleNamespace(
                        text=w, idx=words_at[w], dep_="compound" if w in chunk["compound_children"] else "det"
                    )
                    for w in chunk["words"]
                    if w != chunk["root"]
                ]
                root = SimpleNamespace(
                    text=chunk["root"], idx=words_at[chunk["root"]], lemma_=chunk["root_lemma"], children=iter(children)
                )
                spans.append(SimpleNamespace(root=root, start_char=match.start(), end_char=match.end()))
            yield SimpleNamespace(noun_chunks=spans)


GOLDEN = json.loads((Path(__file__).parents[1] / "goldens" / "simzss_extract_mocked.json").read_text(encoding="utf-8"))
LOST = {  # captions after whose first failure the reference finds nothing more -> what is there
    "a café with 10 umbrellas and a dog": [("café", [2]), ("umbrella", [6]), ("dog", [9])],
    "a dog near a cafe with an U.S. flag and a cat": [
        ("dog", [2]),
        ("cafe", [5]),
        ("u.s. flag", [8, 9, 10, 11, 12]),
        ("cat", [15]),
    ],
}


def chunk(phrase, root, lemma=None, compounds=()):
    return {"words": phrase.split(), "root": root, "root_lemma": lemma or root, "compound_children": list(compounds)}


def by_hand(caption, chunks, names, phrase=False):
    terms = {words.spaced(name): row for row, name in enumerate(names)}
    return [
        (names[row], spots)
        for row, spots in mentions([caption], terms, SpacyParser("given", Parsed(chunks), phrase))[0]
    ]


@pytest.mark.parametrize("case", GOLDEN, ids=[case["caption"][:40] for case in GOLDEN])
def test_hand_given_parses_land_on_the_tokens_of_the_reference_or_on_better_ones(case):
    expected = LOST.get(case["caption"], list(zip(case["concepts"], case["concept_token_index"], strict=True)))
    names = sorted({name for name, _ in expected} | {"dog"})
    assert by_hand(case["caption"], case["chunks"], names) == expected
    tokens = OURS(OURS.clean(case["caption"]))
    assert tokens.ids == case["token_ids"]


@pytest.mark.parametrize("case", GOLDEN, ids=[case["caption"][:40] for case in GOLDEN])
def test_whole_phrases_land_on_the_tokens_of_the_reference(case):
    """tokens=phrase; where the reference loses a caption's phrases, only the beginning is compared."""
    names = [words.spaced(name) for name in dict.fromkeys(case["concepts"])]
    found = by_hand(case["caption"], case["chunks"], names, phrase=True)
    assert [spots for _, spots in found] == case["np_token_index"]


def test_a_mention_behind_a_verb_of_the_same_spelling_is_not_taken_for_it():
    chunks = [chunk("people", "people"), chunk("a walk", "walk")]
    assert by_hand("people walk a walk", chunks, ["people", "walk"]) == [("people", [1]), ("walk", [4])]


def test_a_word_that_is_part_of_a_token_takes_the_whole_token():
    split = SimpleNamespace(root=SimpleNamespace(text="can", idx=2, lemma_="can", children=[]))
    nlp = SimpleNamespace(pipe=lambda texts: [SimpleNamespace(noun_chunks=[split])])
    assert mentions(["a cannot and a dog"], {"can": 0}, SpacyParser("given", nlp)) == [[(0, [2])]]


def test_chunks_after_cannot_are_found():
    chunks = [chunk("a dog", "dog"), chunk("a can", "can"), chunk("two frisbees", "frisbees", "frisbee")]
    found = by_hand("a dog cannot reach a can or two frisbees", chunks, ["can", "dog", "frisbee"])
    assert found == [("dog", [2]), ("can", [6]), ("frisbee", [9, 10])]


def test_the_last_compound_names_the_concept_and_other_words_do_not():
    sink = chunk("large stainless steel kitchen sink", "sink", compounds=["steel", "kitchen"])
    assert by_hand("large stainless steel kitchen sink", [sink], ["sink", "steel sink", "kitchen sink"]) == [
        ("kitchen sink", [4, 5])
    ]
    assert by_hand("large stainless steel kitchen sink", [sink], ["sink", "steel sink"]) == []


def test_mentions_keep_the_order_of_captions_and_words():
    found = mentions(["a cat and a dog", "sky", "dogs"], {"dog": 0, "cat": 1})
    assert found == [[(1, [2]), (0, [5])], [], [(0, [1])]]


# A real pipeline

PARSES = {  # word, part of speech, dependency, head, lemma
    "two kitchen metal sinks near tennis rackets": [
        ("two", "NUM", "nummod", 3, "two"),
        ("kitchen", "NOUN", "compound", 3, "kitchen"),
        ("metal", "ADJ", "amod", 3, "metal"),
        ("sinks", "NOUN", "ROOT", 3, "sink"),
        ("near", "ADP", "prep", 3, "near"),
        ("tennis", "NOUN", "compound", 6, "tennis"),
        ("rackets", "NOUN", "pobj", 4, "racket"),
    ],
    "a t-shirt": [
        ("a", "DET", "det", 3, "a"),
        ("t", "NOUN", "compound", 3, "t"),
        ("-", "PUNCT", "punct", 3, "-"),
        ("shirt", "NOUN", "ROOT", 3, ""),  # no lemma: the word itself
    ],
    "dogs run": [("dogs", "NOUN", "nsubj", 1, "dog"), ("run", "VERB", "ROOT", 1, "run")],
}


@spacy.Language.component("fastzss_parse_given_by_hand")
def parse_given_by_hand(doc):
    parse = PARSES[doc.text]
    assert [token.text for token in doc] == [word for word, *_ in parse]
    for token, (_, pos, dep, head, lemma) in zip(doc, parse, strict=True):
        token.pos_, token.dep_, token.lemma_, token.head = pos, dep, lemma, doc[head]
    return doc


def test_a_real_spacy_pipeline_finds_compounds_that_stand_apart_from_their_root(tmp_path):
    nlp = spacy.blank("en")
    nlp.add_pipe("fastzss_parse_given_by_hand", name="parser")
    nlp.to_disk(tmp_path / "pipeline")
    parser = choose_parser(f"spacy:{tmp_path / 'pipeline'}")
    assert parser.spec == f"spacy:{tmp_path / 'pipeline'}"
    terms = {"kitchen sink": 0, "tennis racket": 1, "sink": 2, "dog": 3, "t shirt": 4, "run": 5}
    assert mentions(list(PARSES), terms, parser) == [[(0, [2, 4]), (1, [6, 7, 8])], [(4, [2, 4])], [(3, [1])]]


def test_the_parsers_processes_do_not_change_what_is_found(tmp_path):
    nlp = spacy.blank("en")
    nlp.add_pipe("fastzss_parse_given_by_hand", name="parser")
    parser, terms = SpacyParser("given", nlp), {"kitchen sink": 0, "dog": 1}
    texts = list(PARSES) * 3
    assert list(parser(texts, terms, processes=2)) == list(parser(texts, terms))


def test_a_parse_finds_names_that_are_plurals():
    chunks = [chunk("skis", "skis", "ski"), chunk("two stairs", "stairs", "stair"), chunk("the dogs", "dogs", "dog")]
    found = by_hand("skis on two stairs near the dogs", chunks, ["skis", "stairs", "dog"])
    assert found == [("skis", [1]), ("stairs", [4]), ("dog", [7])]


# Noun phrases that are no name


def phrases(text, terms, parser=BANK):
    clean = OURS.clean(text)
    found = find_mentions([clean], {term: row for row, term in enumerate(terms)}, parser, unknown=True)
    spoken = [int(n) if n >= 0 else found.phrases[-1 - n] for n in found.name]
    return spoken, [found.token[a:b].tolist() for a, b in zip(found.offset, found.offset[1:], strict=False)]


def test_other_nouns_are_found_when_they_are_asked_for():
    assert phrases("a dog on a kitchen table with two umbrellas", ["dog"]) == (
        [0, "kitchen table", "umbrella"],
        [[2], [5, 6], [9]],
    )
    assert phrases("a dog house and a big cat", ["dog"])[0] == ["dog house", "cat"]
    assert phrases("we see a photo of nothing", ["dog"])[0] == []


def test_other_noun_chunks_are_found_when_they_are_asked_for():
    given = [chunk("a hot dog", "dog"), chunk("it", "it"), chunk("dining tables", "tables", "table", ["dining"])]
    parser = SpacyParser("given", Parsed(given))
    assert phrases("a hot dog and it near dining tables", ["dog"], parser)[0] == [0, "dining table"]


def test_unknown_phrases_are_mapped_to_names_or_left_out():
    texts = ["a dog and a cat", "a cat and a cow", "nothing"]
    found = find_mentions(texts, {"dog": 0}, BANK, unknown=True)
    assert found.phrases == ("cat", "cow")
    assert found.known.name.tolist() == [0] and found.known.coverage == pytest.approx(1 / 3)
    mapped = found.mapped(np.array([5, -1]))
    assert mapped.name.tolist() == [0, 5, 5] and mapped.caption.tolist() == [0, 0, 1]
    assert [mapped.token[a:b].tolist() for a, b in zip(mapped.offset, mapped.offset[1:], strict=False)] == [
        [2],
        [5],
        [2],
    ]
    assert mapped.coverage == pytest.approx(2 / 3)


def test_many_captions_are_what_they_are_one_by_one(monkeypatch):
    texts = ["a dog and a cat", "two houses", "", "a cow near a house", "a cat"] * 3
    terms = {"dog": 0, "house": 1}
    whole = find_mentions(texts, terms, BANK, unknown=True)
    monkeypatch.setattr("fastzss.captions.mentions.CHUNK", 4)
    parts = find_mentions(texts, terms, BANK, unknown=True)
    for field in ("caption", "name", "token", "offset"):
        assert np.array_equal(getattr(whole, field), getattr(parts, field)), field
    assert whole.phrases == parts.phrases == ("cat", "cow")


def test_what_lies_beyond_the_context_is_counted():
    found = find_mentions(["dog " * 80, "a dog"], {"dog": 0}, BANK)
    assert (len(found.name), found.cut, found.coverage) == (76, 5, 1.0)
