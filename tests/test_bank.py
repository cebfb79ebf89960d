"""The concept bank: what is a name, what is another writing of it, and what its identity depends on."""

import json
from dataclasses import replace

import numpy as np
import pytest

from fastzss.bank import Bank
from fastzss.bank.build import bank_from_captions, bank_from_file
from fastzss.errors import UserError

BANK = Bank(names=("car", "t-shirt"), aliases=(("automobile",), ()), origin=("a.txt", "a.txt"), counts=(5, 7))


def from_lines(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "names.txt"
    path.write_bytes(text.encode(encoding))
    return bank_from_file(path)


def test_names_of_captions_are_counted_once_a_caption_and_kept_from_the_minimum_on():
    texts = ["a dog and two dogs", "a dog", "dogs and a cat", "a cat", "a house boat"]
    bank = bank_from_captions(texts, least=2)
    assert bank.names == ("cat", "dog")
    assert bank.counts == (2, 3)
    assert bank.origin == ("captions", "captions") and bank.aliases == ((), ())
    assert bank_from_captions(texts, least=1).names == ("boat", "cat", "dog", "house", "house boat")


@pytest.mark.parametrize("captions, least", [(6, 3), (60_000, 3), (80_000, 4)])
def test_the_minimum_is_three_or_one_in_twenty_thousand(captions, least):
    texts = ["a cat"] * (least - 1) + ["a dog"] * least
    texts += [""] * (captions - len(texts))
    assert bank_from_captions(texts).names == ("dog",)


def test_captions_that_name_nothing_give_an_empty_bank():
    bank = bank_from_captions(["in the middle", ""])
    assert len(bank) == 0 and bank.terms == {}


def test_a_file_holds_a_name_a_line_and_aliases_behind_commas(tmp_path):
    bank = from_lines(tmp_path, "Car, Automobile ,auto\n\n   \n  fire \t hydrant  \r\nt-shirt,,\n, tree\n")
    assert bank.names == ("car", "fire hydrant", "t-shirt", "tree")
    assert bank.aliases == (("automobile", "auto"), (), (), ())
    assert bank.origin == ("names.txt",) * 4
    assert bank.counts is None and bank.vectors is None


def test_a_name_that_stands_twice_in_a_file_keeps_all_its_aliases(tmp_path):
    bank = from_lines(tmp_path, "bed, cot\ndog\nbed\nBed, bunk, cot, bed\n")
    assert bank.names == ("bed", "dog")
    assert bank.aliases == (("cot", "bunk"), ())


def test_a_byte_order_mark_and_decomposed_letters_are_no_part_of_a_name(tmp_path):
    assert from_lines(tmp_path, "dog\ncafe\u0301\n", "utf-8-sig").names == ("dog", "café")


def test_a_line_without_a_word_is_no_name(tmp_path):
    bank = from_lines(tmp_path, "---\ndog, ?!\n***\n")
    assert bank.names == ("dog",) and bank.aliases == ((),)
    assert "" not in bank.terms


@pytest.mark.parametrize("text", ["", "\n\n  \n", " , ,\n", "---\n"], ids=["empty", "blank", "commas", "marks"])
def test_a_file_without_a_name_is_refused(tmp_path, text):
    with pytest.raises(UserError, match="holds no name; expected a concept name a line"):
        from_lines(tmp_path, text)


def test_a_missing_file_a_folder_and_a_binary_file_are_refused_by_name(tmp_path):
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    for path in (tmp_path / "nothing", tmp_path, tmp_path / "binary"):
        with pytest.raises(UserError, match="cannot be read as text") as problem:
            bank_from_file(path)
        assert str(path) in str(problem.value)


def test_the_identity_depends_on_names_and_aliases_only():
    same = replace(BANK, origin=("b", "c"), counts=None, vectors=np.ones((2, 3), np.float32))
    assert same.identity == BANK.identity
    others = [
        replace(BANK, names=("car", "shirt")),
        replace(BANK, aliases=(("automobile", "auto"), ())),
        replace(BANK, aliases=((), ("automobile",))),
        replace(BANK, names=BANK.names[::-1]),
    ]
    assert len({BANK.identity, *(other.identity for other in others)}) == 5


@pytest.mark.parametrize("bank", [BANK, replace(BANK, counts=None)], ids=["counts", "no counts"])
def test_a_bank_goes_through_json_and_back(bank):
    back = Bank.from_json(json.loads(json.dumps(bank.to_json())))
    assert back == bank and back.identity == bank.to_json()["identity"]


def test_every_writing_leads_to_its_row_and_a_name_goes_before_anothers_alias():
    bank = Bank(
        names=("ship", "boat", "t-shirt"), aliases=(("boat", "steam-ship"), ("dinghy",), ("tee",)), origin=("x",) * 3
    )
    assert bank.terms == {"ship": 0, "steam ship": 0, "boat": 1, "dinghy": 1, "t shirt": 2, "tee": 2}


@pytest.mark.parametrize(
    "wrong",
    [{"aliases": ((),)}, {"origin": ("a", "b", "c")}, {"counts": (1,)}, {"vectors": np.zeros((3, 4))}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_part_of_another_length_is_refused_by_name(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} for 2 names"):
        replace(BANK, **wrong)


def test_a_name_given_twice_is_refused_by_name():
    with pytest.raises(ValueError, match="given twice: dog"):
        Bank(names=("dog", "cat", "dog"), aliases=((),) * 3, origin=("x",) * 3)
