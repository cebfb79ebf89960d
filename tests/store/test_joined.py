"""Several stores read as one."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.stores import PLAN, features, small_plan, write_store

from fastzss.bank.joined import concepts_of
from fastzss.base.errors import UserError
from fastzss.methods.simzss.loader import stretches
from fastzss.store.captions import read_captions, write_captions
from fastzss.store.mentions import write_concepts
from fastzss.store.reading.joined import open_store, shares_of


def with_texts(path, plan, texts, names, seed):
    """A store; each caption mentions the name of its number."""
    write_store(path, plan, seed=seed, texts=False)
    write_captions(path, range(len(texts)), texts, [[1, 7, 2]] * len(texts), ["x"] * plan.images, plan.identity)
    bank = {"identity": (str(seed) * 64)[:64], "names": names, "aliases": [[]] * len(names), "counts": None}
    own = bank | {"origin": ["captions"] * len(names)}
    rows = [names.index(text) for text in texts]
    at = range(len(texts))
    write_concepts(path, own, at, rows, [1] * len(texts), range(len(texts) + 1), "bank", read_captions(path).identity)
    return path


@pytest.mark.parametrize("dtype", ["int8", "float16"])
def test_rows_of_several_stores_are_those_of_each_though_their_statistics_differ(tmp_path, dtype):
    from dataclasses import replace

    plans = [replace(PLAN, dtype=dtype, images=images, order_seed=images) for images in (22, 30)]
    paths = [write_store(tmp_path / str(i), plan, seed=i, texts=False) for i, plan in enumerate(plans)]
    both = open_store(paths)
    assert len(both) == 52 and both.identity == [open_store(path).identity for path in paths]
    whole = both.load("cpu")
    right = torch.cat([features(plan, seed)[0] for seed, plan in enumerate(plans)])
    valid = torch.cat([features(plan, seed)[2] for seed, plan in enumerate(plans)]) != 0
    assert torch.equal(both.valid(), valid)
    values = whole.take(torch.arange(52))
    assert F.cosine_similarity(values[valid], right[valid], dim=-1).min() > (0.9995 if dtype == "int8" else 0.999999)
    first = open_store(paths[0]).load("cpu")
    assert torch.equal(whole.tokens[:22], first.tokens), "those of the first are as they lie on disk"
    rows = np.array([51, 0, 22, 21, 40, 40, 3, 25])
    some = both.take(rows)
    assert torch.equal(some.tokens, whole.tokens[rows])
    assert dtype == "float16" or torch.equal(some.scale, whole.scale[rows])
    assert dtype == "float16" or not whole.tokens[25].any() and not whole.scale[25].any(), (
        "unreadable images stay zeros"
    )
    globals_ = [open_store(path).globals(name="cls") for path in paths]
    assert torch.equal(both.globals(name="cls"), torch.cat(globals_))


def test_two_banks_become_one_and_mentions_keep_their_names(tmp_path):
    one = with_texts(tmp_path / "a", PLAN, ["dog", "red car", "dog", "cat"], ["dog", "red car", "cat"], 1)
    two = with_texts(tmp_path / "b", small_plan(patches=4, channels=8, grid=(2, 2), globals=("cls",),
                     vision={"model": "tiny"}), ["cat", "owl"], ["cat", "owl"], 2)  # fmt: skip
    both = open_store([one, f"{two}@2"])
    found = concepts_of(both)
    names = found.bank["names"]
    assert names == ["dog", "red car", "cat", "owl"] and found.caption.tolist() == [0, 1, 2, 3, 4, 5]
    assert [names[name] for name in found.name.tolist()] == ["dog", "red car", "dog", "cat", "cat", "owl"]
    assert found.offset.tolist() == list(range(7)) and found.banks == ("1" * 64, "2" * 64)
    assert both.captions.row.tolist() == [0, 1, 2, 3, 22, 23]
    assert concepts_of(both, "111,222").bank == found.bank
    with pytest.raises(UserError, match="names 3 banks for 2 stores"):
        concepts_of(both, "1,2,3")
    with pytest.raises(UserError, match="no concept bank '9'"):
        concepts_of(both, "9,222")


def test_stores_of_another_kind_are_refused(tmp_path):
    one = write_store(tmp_path / "a", PLAN, texts=False)
    other = write_store(tmp_path / "b", small_plan(), texts=False)
    with pytest.raises(UserError, match=r"b: cannot be read together with .*a: patches is 6, and 4 there"):
        open_store([one, other])
    with pytest.raises(UserError, match="there is no such folder"):
        open_store([one, tmp_path / "none"])


def test_a_weight_is_what_follows_the_last_at(tmp_path):
    odd = tmp_path / "a@2"
    odd.mkdir()
    assert [tuple(share) for share in shares_of([odd, "b@0.5", "c@d"])] == [
        (odd, 1),
        *map(tuple, shares_of(["b@0.5", "c@d"])),
    ]
    assert [share.weight for share in shares_of(["b@0.5", "c@d"])] == [0.5, 1]
    with pytest.raises(UserError, match="the weight of a store is 0; expected a number above 0"):
        shares_of("b@0")


def test_how_many_samples_of_each_store_an_epoch_takes():
    rows = np.array([0, 1, 3, 10, 11, 12, 13])
    assert stretches(rows, [(10, 1.0), (10, 0.5)]) == [(0, 3, 3), (3, 7, 2)]
    assert stretches(rows, [(5, 1.0), (5, 1.0), (10, 2.5)]) == [(0, 3, 3), (3, 7, 10)]
