"""Parsers: what the one that needs no parse finds, and how one is chosen."""

import pytest
import spacy

from fastzss.base.errors import UserError
from fastzss.captions import parsers, words
from fastzss.captions.parsers import Mention, choose_parser
from fastzss.captions.tokens import Tokenizer

OURS = Tokenizer()
BANK = choose_parser("bank")


@pytest.mark.parametrize(
    "caption, terms, expected",
    [
        ("two tennis rackets", ["tennis racket"], ["tennis rackets"]),
        ("two buses and a bus", ["bus"], ["buses", "bus"]),
        ("a pair of skis", ["skis"], ["skis"]),
        ("a pair of skis", ["ski"], ["skis"]),
        ("a pair of skis", ["ski", "skis"], ["1 skis"]),  # as written goes before its singular
        ("a stop sign", ["stop", "sign", "stop sign"], ["2 stop sign"]),
        ("a hot dog house", ["hot dog", "dog house", "house"], ["1 dog house"]),  # "hot" and "dog" only say which house
        ("a hot dog on a dog", ["hot dog", "dog"], ["0 hot dog", "1 dog"]),
        ("a red fire hydrant cover", ["fire", "red fire hydrant", "fire hydrant cover"], ["2 fire hydrant cover"]),
        ("the dog's bone", ["dog", "bone"], ["0 dog", "1 bone"]),
        ("the dogs' bone", ["dog"], ["dogs"]),
        ("a t-shirt, a t shirt, two t-shirts", ["t-shirt"], ["t-shirt", "t shirt", "t-shirts"]),
        ("a fire_hydrant", ["fire hydrant"], ["fire_hydrant"]),
        ("a man's shoe", ["man's shoe"], ["man's shoe"]),
        ("an U.S. flag", ["u.s. flag"], ["u.s. flag"]),
        ("a salt & pepper shaker", ["salt & pepper shaker"], ["salt & pepper shaker"]),
        ("a car, park bench", ["car park", "car"], ["1 car"]),
        ("a table. lamp on it", ["table lamp"], []),
        ("a table (lamp off)", ["table lamp"], []),
        ("a dog - house", ["dog house"], []),
        ("a table; lamp", ["table lamp", "lamp"], ["1 lamp"]),
        ("hotdog doghouse dogged", ["dog", "hot dog"], []),
        ("a café", ["café"], ["café"]),
        ("dog dog dog", ["dog"], ["dog", "dog", "dog"]),
        ("nothing here", ["dog"], []),
        ("", ["dog"], []),
        # a name that only says which one the next noun is, and a name that is a verb here
        ("two tennis rackets", ["tennis"], []),
        ("a kitchen table", ["kitchen", "table"], ["1 table"]),
        ("dog, house", ["dog"], ["dog"]),
        ("a dog running", ["dog"], ["dog"]),
        ("a dog next to a house", ["dog"], ["dog"]),
        ("children play", ["play", "child"], ["1 children"]),
        ("a play for children", ["play", "child"], ["0 play", "1 children"]),
        ("people watch a man's watch", ["watch"], ["watch"]),
        ("a bus stops at a stop", ["stop"], ["stop"]),
        ("crosses", ["cross"], ["crosses"]),
        ("a dog", [], []),
    ],
)
def test_the_bank_parser_finds(caption, terms, expected):
    clean = OURS.clean(caption)
    rows = {words.spaced(term): row for row, term in enumerate(terms)}
    (found,) = BANK([clean], rows)
    at, spelled = 0, []
    for mention in found:
        ((first, last),) = mention.spans
        assert first >= at
        at = last
        spelled.append(f"{mention.name} {clean[first:last]}")
    assert spelled == [e if e[:1].isdecimal() else f"0 {e}" for e in expected]


def test_an_alias_leads_to_its_names_row():
    assert list(BANK(["an automobile"], {"car": 3, "automobile": 3})) == [[Mention(3, ((3, 13),))]]


# Choosing a parser


@pytest.mark.parametrize("spec", ["", "bank:", "spacy", "spacy:", "Bank", "nltk:x"])
def test_an_unknown_parser_is_refused_with_the_choices(spec):
    with pytest.raises(UserError, match="unknown parser.*expected auto, bank, or spacy:PIPELINE") as problem:
        choose_parser(spec)
    assert problem.value.code == 2


def test_a_pipeline_that_is_not_installed_names_the_command_that_installs_it():
    with pytest.raises(UserError, match="python -m spacy download en_no_such_pipeline.*--parser bank"):
        choose_parser("spacy:en_no_such_pipeline")


def test_a_pipeline_without_a_parser_is_refused(tmp_path):
    spacy.blank("en").to_disk(tmp_path / "blank")
    with pytest.raises(UserError, match="has no parser"):
        choose_parser(f"spacy:{tmp_path / 'blank'}")


def test_auto_is_bank_without_a_pipeline_and_else_the_best_one_installed(monkeypatch):
    monkeypatch.setattr(parsers, "_installed", lambda name: False)
    assert choose_parser("auto") == BANK and BANK.spec == "bank"
    monkeypatch.setattr(parsers, "_installed", lambda name: name.endswith(("_sm", "_md")))
    monkeypatch.setattr(parsers, "load_pipeline", lambda name: None)
    assert choose_parser("auto").spec == "spacy:en_core_web_md"


@pytest.mark.parametrize("setting", ["tokens=all", "x", ""])
def test_an_unknown_setting_of_a_parser_is_refused(setting):
    with pytest.raises(UserError, match="not understood; expected tokens=name or tokens=phrase"):
        choose_parser(f"spacy:en_core_web_sm,{setting}")
