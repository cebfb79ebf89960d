"""Captions and concepts: what comes back, which bank is meant, and what does not belong to the layer below."""

import pytest
import torch
from helpers.stores import small_plan

from fastzss.base.errors import UserError
from fastzss.store.captions import read_captions, write_captions
from fastzss.store.features import FeatureWriter
from fastzss.store.mentions import list_concepts, read_concepts, write_concepts
from fastzss.store.upkeep.info import store_info

CAPTIONS = (["a red ball", "zwei Bälle", ""], [[1, 5, 6, 2], [1, 7, 2], [1, 2]])
BANK = {"identity": "c0ffee" + 58 * "0", "names": ["ball", "dog"], "aliases": [[], []], "origin": ["captions"] * 2}


def with_texts(store, bank=BANK, parser="bank"):
    below = FeatureWriter(store, small_plan()).plan.identity
    captions = write_captions(store, torch.tensor([69, 0, 0]), *CAPTIONS, [f"{i:03d}.jpg" for i in range(70)], below)
    return captions, write_concepts(store, bank, [0, 1, 1], [0, 1, 0], [2, 1, 3, 1], [0, 1, 3, 4], parser, captions)


def test_captions_and_concepts_come_back(tmp_path):
    identities = with_texts(tmp_path)
    captions, concepts = read_captions(tmp_path), read_concepts(tmp_path)
    assert captions.texts == CAPTIONS[0] and captions.row.tolist() == [69, 0, 0]
    assert captions.ids.tolist() == sum(CAPTIONS[1], []) and captions.offset.tolist() == [0, 4, 7, 9]
    assert captions.images[69] == "069.jpg"
    assert (concepts.bank, concepts.parser) == (BANK, "bank")
    assert (concepts.caption.tolist(), concepts.name.tolist()) == ([0, 1, 1], [0, 1, 0])
    assert (concepts.token.tolist(), concepts.offset.tolist()) == ([2, 1, 3, 1], [0, 1, 3, 4])
    assert [t.dtype for t in (captions.row, captions.ids, captions.offset)] == [torch.int64, torch.int32, torch.int64]
    assert {t.dtype for t in (concepts.caption, concepts.name, concepts.token)} == {torch.int32}
    assert concepts.offset.dtype == torch.int64
    assert (captions.identity, concepts.identity) == identities
    assert with_texts(tmp_path) == identities  # once more: the same layers, replaced
    assert sorted(p.name for p in tmp_path.iterdir()) == ["captions", "concepts", "features"]


def test_empty_text_layers(tmp_path):
    identity = write_captions(tmp_path, [], [], [], ["a"], "f")
    write_concepts(tmp_path, BANK, [], [], [], [0], "bank", identity)
    assert read_captions(tmp_path).offset.tolist() == [0] == read_concepts(tmp_path).offset.tolist()


def test_one_of_several_banks_is_named(tmp_path):
    captions, _ = with_texts(tmp_path)
    other = {"identity": "beef" + 60 * "0", "names": ["cat"], "origin": "coco.txt"}
    write_concepts(tmp_path, other, [], [], [], [0], "spacy:en", captions)
    assert [b["origin"] for b in list_concepts(tmp_path)] == ["coco.txt", "captions"]
    with pytest.raises(
        UserError, match=r"several concept banks.*beef00000000 from coco.txt.*c0ffee000000 from captions"
    ):
        read_concepts(tmp_path)
    assert read_concepts(tmp_path, "beef").bank == other
    with pytest.raises(UserError, match="no concept bank 'dead'"):
        read_concepts(tmp_path, "dead")
    info = store_info(tmp_path)
    assert (info["captions"], len(info["banks"]), info["finished"]) == (3, 2, False)


def test_a_bank_parsed_anew_replaces_its_mentions(tmp_path):
    _, first = with_texts(tmp_path)
    _, second = with_texts(tmp_path, parser="spacy:en")
    assert first != second
    assert read_concepts(tmp_path).parser == "spacy:en" and len(list_concepts(tmp_path)) == 1


def test_other_captions_take_the_place_of_the_old_and_orphans_are_noticed(tmp_path):
    with_texts(tmp_path)
    below = small_plan().identity
    write_captions(tmp_path, [0], ["x"], [[1, 2]], ["a"] * 70, below)
    with pytest.raises(UserError, match="was made for captions .*fastzss-cache concepts"):
        read_concepts(tmp_path)
    (tmp_path / "captions").rename(tmp_path / "older")
    write_captions(tmp_path, [0], ["x"], [[1, 2]], ["a"] * 70, "0123")
    with pytest.raises(UserError, match="was made for features 0123"):
        read_captions(tmp_path)


@pytest.mark.parametrize(
    "wrong", [dict(offset=[0, 1]), dict(offset=[0, 3, 1, 4]), dict(name=[0, 1]), dict(token=[1.5] * 4)], ids=str
)
def test_mentions_that_do_not_fit_are_refused(tmp_path, wrong):
    right = dict(caption=[0, 1, 1], name=[0, 1, 0], token=[2, 1, 3, 1], offset=[0, 1, 3, 4])
    with pytest.raises(ValueError):
        write_concepts(tmp_path, BANK, **{**right, **wrong}, parser="bank", captions_identity="c")
