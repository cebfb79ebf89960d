"""Mentions of a bank in a store: other banks, noun phrases taken for the nearest name, what is told of it."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from fastzss.bank.build import bank_from_file
from fastzss.bank.disk import embedder_of, load_bank, save_bank, with_vectors
from fastzss.base.errors import UserError
from fastzss.base.runs import Run
from fastzss.captions.parsers import choose_parser
from fastzss.captions.tokens import Tokenizer
from fastzss.extraction.concepts import add_concepts, map_phrases
from fastzss.store.captions import write_captions
from fastzss.store.mentions import list_concepts, read_concepts

TEXTS = ["a dog on a kitchen table", "two bikes and a zebra", "nothing", "a man's dog " + "very " * 80 + "a dog"]


@pytest.fixture
def captions(tmp_path):
    """A store of captions alone, and a bank of three names."""
    tokenizer = Tokenizer()
    ids = [tokenizer(tokenizer.clean(text)).ids for text in TEXTS]
    write_captions(tmp_path / "store", range(len(TEXTS)), TEXTS, ids, map(str, range(len(TEXTS))), "none")
    (tmp_path / "names.txt").write_text("dog\ntable\nmountain bike\n")
    return tmp_path / "store", bank_from_file(tmp_path / "names.txt")


def spoken(path):
    """[(caption, name, its tokens), ...] as the store has them."""
    found = read_concepts(path)
    spans = zip(found.offset, found.offset[1:], strict=False)
    return [
        (int(c), found.bank["names"][n], found.token[a:b].tolist())
        for c, n, (a, b) in zip(found.caption, found.name, spans, strict=True)
    ]


def test_exact_match_takes_names_only(captions):
    path, bank = captions
    said = add_concepts(path, bank, choose_parser("bank"))
    assert spoken(path) == [(0, "dog", [2]), (0, "table", [6]), (3, "dog", [4])]
    assert (said["mentions"], said["coverage"], said["cut"], said["match"]) == (3, 0.5, 1, "exact")
    assert list_concepts(path)[0]["match"] == "exact"


def test_the_captions_of_a_store_are_not_tokenised_again(captions, monkeypatch):
    monkeypatch.setattr(Tokenizer, "encode", lambda *_: pytest.fail("their tokens are known"))
    add_concepts(*captions, choose_parser("bank"))
    assert spoken(captions[0]) == [(0, "dog", [2]), (0, "table", [6]), (3, "dog", [4])]


def test_embedding_takes_phrases_for_the_nearest_name(captions):
    path, bank = captions
    said = add_concepts(path, bank, choose_parser("bank"), "embedding", threshold=0.5)
    assert spoken(path) == [(0, "dog", [2]), (0, "table", [6]), (1, "mountain bike", [2]), (3, "dog", [4])]
    assert said["coverage_exact"] == 0.5 and said["coverage"] == 0.75
    assert said["match"] == "embedding by letters, 0.5 and above" and said["phrases_mapped"] == "1 of 3"
    assert len(list_concepts(path)) == 1, "the mentions of a bank take the place of its earlier ones"
    assert read_concepts(path).match == said["match"]
    assert add_concepts(path, bank, choose_parser("bank"), "embedding", threshold=1.1)["coverage"] == 0.5


def test_an_unknown_match_is_refused(captions):
    with pytest.raises(UserError, match='unknown match "fuzzy"; expected exact or embedding'):
        add_concepts(*captions, choose_parser("bank"), "fuzzy")


def test_a_run_compares_phrases_where_one_is_given(captions, trained):
    _, bank = captions
    by_run = map_phrases(bank, ("dog", "kitchen table"), run=trained, threshold=0.99)
    assert by_run.by == "run" and by_run.rows[0] == 0, "a name is nearest to itself"
    assert map_phrases(with_vectors(bank), ("dog",), run=trained).by == "run", "also when the bank has letters"
    assert map_phrases(bank, ("dog",)).by == "letters"
    assert map_phrases(bank, ()).rows.tolist() == []


def test_vectors_of_a_run_belong_to_one_checkpoint(captions, trained, tmp_path):
    _, bank = captions
    save_bank(tmp_path / "bank", with_vectors(bank, trained))
    there = load_bank(tmp_path / "bank")
    assert there.by["checkpoint"] and there.vectors.shape == (3, Run(trained).config["text"]["out"])
    assert np.allclose(embedder_of(there).vectors(list(bank.names)), there.vectors, atol=1e-6)

    moved = tmp_path / "moved"
    shutil.copytree(trained, moved)
    assert np.allclose(embedder_of(there, moved).vectors(["dog"])[0], there.vectors[0], atol=1e-6)
    weights = Run(moved).latest / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(UserError, match="vectors are of another run or checkpoint.*--run"):
        embedder_of(there, moved, tmp_path / "bank")
    with pytest.raises(UserError, match="no such run"):
        embedder_of(replace(there, by=there.by | {"run": str(tmp_path / "gone")}))
