"""The concept bank: what is a name, what is another writing of it, and what its identity depends on."""

import json
from dataclasses import replace

import numpy as np
import pytest

from fastzss import world
from fastzss.bank import Bank
from fastzss.bank.build import bank_from_captions, bank_from_file, bank_of_set, build_bank
from fastzss.bank.coverage import bank_info, merged, near_pairs, overlap
from fastzss.bank.disk import load_bank, load_index, save_bank, with_vectors
from fastzss.bank.letters import letters
from fastzss.bank.sets import set_names
from fastzss.base.errors import UserError
from fastzss.base.neighbours import Index
from fastzss.base.records import read_folder, write_folder
from fastzss.evaluation.datasets.opened import PUBLIC
from fastzss.evaluation.protocols import protocol_of

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


# Building


def lines(path, *texts):
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


def test_a_bank_of_several_sources_keeps_all_writings_and_origins(tmp_path):
    texts = lines(tmp_path / "texts.txt", *["A dog on a sofa."] * 3, *["a cat near a dog"] * 2, "a cow")
    names = lines(tmp_path / "names.txt", "sofa, couch", "skis", "zebra")
    stop = lines(tmp_path / "stop.txt", "Zebra", "cat")
    bank = build_bank([f"captions:{texts}", f"words:{names}"], least=2, stop=stop)
    assert bank.names == ("dog", "sofa", "skis")
    assert bank.aliases == ((), ("couch",), ("ski",)), "of a plural the singular is an alias"
    assert bank.origin == ("captions", "captions, names.txt", "names.txt")
    assert bank.counts == (5, 3, 0)
    assert build_bank([names]).names == ("sofa", "skis", "zebra"), "a file alone is a list of words"


@pytest.mark.parametrize(
    "source, sentence",
    [
        ("caption:x", 'did you mean "captions"'),
        ("captions:", "expected captions:STORE, captions:FILE, words:FILE or classes:SET"),
        ("classes:voc21", 'unknown evaluation set "voc21" .did you mean "voc20"'),
        ("words:nothing", "nothing: cannot be read as text"),
        ("captions:nothing", "nothing: cannot be read as text"),
        (".", "it is a folder, so write captions:STORE"),
    ],
)
def test_a_source_that_is_none_is_refused(source, sentence):
    with pytest.raises(UserError, match=sentence):
        build_bank([source])


def test_a_bank_of_nothing_is_refused(tmp_path):
    with pytest.raises(UserError, match="would hold no name"):
        build_bank([lines(tmp_path / "names.txt", "dog")], stop=lines(tmp_path / "stop.txt", "dog"))
    with pytest.raises(UserError, match="holds no caption"):
        build_bank([f"captions:{lines(tmp_path / 'empty.txt', '', ' ')}"])


SIZES = {"voc20": 20, "context59": 59, "coco_object": 80, "coco_stuff": 171, "cityscapes": 19, "ade20k": 150}


def test_the_class_names_of_the_evaluation_sets():
    assert set(set_names()) == {*SIZES, "world"}
    for name, size in SIZES.items():
        bank = bank_of_set(name)
        assert len(bank) == size and set(bank.origin) == {name}
    assert bank_of_set("world").names == world.NAMES
    assert {"dining table", "airplane"} <= set(bank_of_set("voc20").terms)
    assert bank_of_set("coco_stuff").names[:80] == bank_of_set("coco_object").names


def test_every_class_list_is_of_a_set_that_can_be_scored():
    used = {public.classes for public in PUBLIC.values()}
    assert used == set(SIZES)


@pytest.mark.parametrize("name", ["wrld", "tlc", "talk2dno"])
def test_a_protocol_that_is_nearly_written_is_suggested(name):
    meant = {"wrld": "world", "tlc": "tcl", "talk2dno": "talk2dino"}[name]
    with pytest.raises(UserError, match=f'unknown protocol "{name}" .did you mean "{meant}".*expected tcl, sclip'):
        protocol_of(name)


def test_the_overlap_counts_classes_by_any_of_their_writings():
    bank = Bank(names=("airplane", "dining table", "puppy"), aliases=((), (), ("dog",)), origin=("x",) * 3)
    assert overlap(bank, bank_of_set("voc20")) == "3 of 20"
    assert bank_info(bank)["overlap"]["coco_object"] == "3 of 80"


# Vectors, and the folder


def test_letters_are_near_for_names_that_are_spelt_alike():
    table, kitchen, both, other = letters(["table", "kitchen", "kitchen table", "zebra"])
    assert np.allclose([np.linalg.norm(v) for v in (table, kitchen, both, other)], 1)
    assert table @ both > 0.75 > kitchen @ both > 0.3 > abs(other @ both)
    assert letters(["umbrela"])[0] @ letters(["umbrella"])[0] > 0.5
    assert np.array_equal(letters(["table"])[0], table)


@pytest.fixture
def saved(tmp_path):
    bank = with_vectors(build_bank(["classes:voc20"]))
    assert save_bank(tmp_path / "bank", bank) is True
    return tmp_path / "bank", bank


def test_a_bank_on_disk_is_the_bank(saved):
    path, bank = saved
    there = load_bank(path)
    assert there.identity == bank.identity and there.by == {"by": "letters"}
    assert np.array_equal(there.vectors, bank.vectors) and there.origin == bank.origin
    before = {p.name: p.stat().st_mtime_ns for p in path.iterdir()}
    assert save_bank(path, bank) is False
    assert {p.name: p.stat().st_mtime_ns for p in path.iterdir()} == before
    with pytest.raises(UserError, match="holds another bank .20 names.*this one has 19"):
        save_bank(path, with_vectors(build_bank(["classes:cityscapes"])))
    assert load_bank(path).identity == bank.identity


def test_a_large_bank_keeps_its_cells(tmp_path, monkeypatch):
    pytest.importorskip("faiss")
    monkeypatch.setattr("fastzss.base.neighbours.EXACT", 200)
    bank = with_vectors(build_bank(["classes:coco_stuff", "classes:ade20k"]))
    save_bank(tmp_path / "bank", bank)
    assert [p.suffix for p in (tmp_path / "bank").iterdir()].count(".faiss") == 1
    there, index = load_index(tmp_path / "bank")
    assert index.kind == "ivf" and (index.search(there.vectors[:20], 1)[1][:, 0] == np.arange(20)).all()


def test_vectors_of_another_number_are_refused(saved):
    path, bank = saved
    record, files = read_folder(path, "bank", "x")
    write_folder(path, "bank", {k: record[k] for k in ("bank", "by")}, {"vectors.npy": files["vectors.npy"][:-1]})
    with pytest.raises(UserError, match=r"vectors of shape \(19, 1024\) for 20 names"):
        load_bank(path)


# Near-duplicates


def test_pairs_are_reviewed_and_merged_on_request(tmp_path):
    vectors = np.array([[1, 0, 0], [0.96, 0.28, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    bank = Bank(("sofa", "couch", "dog", "cat"), (("settee",), (), (), ()), ("a", "b", "a", "a"), (5, 9, 1, 1), vectors)
    pairs = near_pairs(bank, Index(vectors), 0.9)
    assert [(keep, merge) for _, keep, merge in pairs] == [("couch", "sofa")], "the more frequent one stays"
    assert pairs[0][0] == pytest.approx(0.96) and near_pairs(bank, Index(vectors), 0.97) == []
    new = merged(bank, lines(tmp_path / "pairs", "couch, sofa  # 0.960", "", "# dog, cat"))
    assert new.names == ("couch", "dog", "cat") and new.aliases == (("sofa", "settee"), (), ())
    assert new.counts == (14, 1, 1) and new.origin == ("b, a", "a", "a") and new.terms["settee"] == 0


def test_chains_of_pairs_become_one_name(tmp_path):
    bank = Bank(tuple("abcde"), ((),) * 5, ("x",) * 5)
    new = merged(bank, lines(tmp_path / "pairs", "b, c", "a, b", "d, a"))
    assert new.names == ("d", "e") and set(new.aliases[0]) == {"a", "b", "c"}


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("dog, hound", '"hound" is no name of the bank'),
        ("dog", '"dog" stands alone'),
        ("# nothing", "nothing to merge"),
    ],
)
def test_a_list_that_merges_nothing_is_refused(tmp_path, text, sentence):
    bank = Bank(("dog", "cat"), ((), ()), ("x", "x"))
    with pytest.raises(UserError, match=sentence):
        merged(bank, lines(tmp_path / "pairs", text))
