"""A store grows with its source: what is new is looked at, what is gone is marked, nothing written is rewritten."""

import logging
import os
import sys

import pytest
import torch
from helpers.pictures import draw, look_with_toys
from helpers.stores import tree

from fastzss.base.errors import UserError
from fastzss.extraction import features as looking
from fastzss.extraction.flow import extract
from fastzss.extraction.settings import ExtractConfig
from fastzss.store.mentions import list_concepts
from fastzss.store.reading.joined import open_store
from fastzss.store.upkeep.info import store_info
from fastzss.store.upkeep.repair import repair
from fastzss.store.upkeep.transfer import convert, merge
from fastzss.store.upkeep.verify import verify


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # nothing here cuts the power
    monkeypatch.setattr("fastzss.extraction.forecast.seconds_of_forward_pass", lambda *_: 0.001)  # a toy has no blocks
    undo, toy = look_with_toys()
    yield toy
    undo()


def config(folder, store, **changes):
    return ExtractConfig(
        **{"source": f"folder:{folder}", "store": store, "parser": "bank", "batch": 3, "device": "cpu", **changes}
    )


def by_name(store):
    """Everything a store knows of each image."""
    store = open_store(store)
    patches, vectors = store.load("cpu"), store.globals(name="patch-mean")
    captions, valid = store.captions, store.valid()
    texts = {}
    for row, text in zip(captions.row.tolist(), captions.texts, strict=True):
        texts.setdefault(row, []).append(text)
    return {
        name: (
            patches.tokens[row],
            patches.scale[row],
            vectors[row],
            valid[row],
            texts.get(row),
        )
        for row, name in enumerate(captions.images)
    }


def same(one, other):
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in zip(one, other, strict=True))


def test_a_grown_store_has_what_a_fresh_one_has_and_looks_at_the_new_images_only(tmp_path, toy):
    photos, store = draw(tmp_path / "photos", range(40)), tmp_path / "s"
    extract(config(photos, store))
    before, rows = tree(store), open_store(store).captions.images
    draw(photos, range(40, 52), "a cat in a green tree number {}")
    toy.seen = 0
    info = extract(config(photos, store))
    assert toy.seen == 12
    assert (info["images"], info["captions"], info["additions"], info["finished"]) == (52, 52, 1, True)
    after = tree(store)
    assert {name: after[name] for name in before if name.startswith("features/")} == {
        name: data for name, data in before.items() if name.startswith("features/")
    }
    assert open_store(store).captions.images[:40] == rows, "rows stay where they were"

    extract(config(photos, tmp_path / "fresh", stats_from=store))  # the statistics are those of the first images
    grown, fresh = by_name(store), by_name(tmp_path / "fresh")
    assert grown.keys() == fresh.keys() and all(same(grown[name], fresh[name]) for name in fresh)
    found = {name.split(".")[0] for name in open_store(store).captions.images}
    assert found == {f"{i:02d}" for i in range(52)}
    toy.seen = 0
    assert extract(config(photos, store)) == info and toy.seen == 0 and tree(store) == after


def test_rows_of_a_grown_store_are_read_in_any_order(tmp_path, toy):
    photos, store = draw(tmp_path / "photos", range(20)), tmp_path / "s"
    for more in (range(20, 27), range(27, 30)):
        extract(config(photos, store))
        draw(photos, more)
    extract(config(photos, store))
    grown = open_store(store)
    assert len(grown) == 30 and len(grown.parts) == 3
    whole, rows = grown.load("cpu"), torch.tensor([29, 0, 21, 21, 5, 27, 19, 20])
    some = grown.take(rows)
    assert torch.equal(some.tokens, whole.tokens[rows]) and torch.equal(some.scale, whole.scale[rows])
    batches = [rows[:3].numpy(), rows[3:].numpy()]
    ahead = [patches.tokens.clone() for _, patches in grown.read_ahead(batches)]
    assert torch.equal(torch.cat(ahead), some.tokens)


def test_images_that_are_gone_are_marked_and_come_back(tmp_path, toy, caplog):
    photos, store = draw(tmp_path / "photos", range(20)), tmp_path / "s"
    extract(config(photos, store))
    whole = tree(store)
    (photos / "07.png").rename(tmp_path / "07.png")
    with caplog.at_level(logging.INFO, "fastzss"):
        info = extract(config(photos, store))
    assert "1 images gone from the source" in caplog.text
    assert (info["images"], info["removed"], info["captions"], info["additions"]) == (20, 1, 19, 0)
    captions = open_store(store).captions
    assert [captions.images[row] for row in captions.removed] == ["07.png"]
    assert captions.removed[0] not in captions.row.tolist()
    (tmp_path / "07.png").rename(photos / "07.png")
    extract(config(photos, store))
    again = tree(store)
    assert {n: d for n, d in again.items() if n.startswith(("features", "captions"))} == {
        n: d for n, d in whole.items() if n.startswith(("features", "captions"))
    }


def test_captions_that_changed_are_found_again_and_no_image_is_looked_at(tmp_path, toy, caplog):
    photos, store = draw(tmp_path / "photos", range(20), caption=None), tmp_path / "s"
    info = extract(config(photos, store))
    assert (info["captions"], info["banks"], info["finished"]) == (0, [], True)
    draw(photos, range(20))
    toy.seen = 0
    with caplog.at_level(logging.INFO, "fastzss"):
        info = extract(config(photos, store))
    assert "20 images with other captions than before" in caplog.text and toy.seen == 0
    first = info["banks"][0]
    assert info["captions"] == 20 and first["names"] > 0
    for i in range(5):
        (photos / f"{i:02d}.txt").write_text("a white horse near a windmill\na horse")
    caplog.clear()
    with caplog.at_level(logging.INFO, "fastzss"):
        info = extract(config(photos, store))
    assert "5 images with other captions than before" in caplog.text and toy.seen == 0
    assert info["captions"] == 25
    old, new = sorted(list_concepts(store), key=lambda bank: not bank["outdated"])
    assert (old["identity"], old["outdated"], new["outdated"]) == (first["identity"], True, False)
    found = open_store(store)
    assert {"horse", "windmill"} <= set(found.concepts().bank["names"]), "the new bank is the one nobody has to name"
    assert found.concepts(first["identity"]).bank["identity"] == first["identity"], "the old one serves who names it"


def test_a_caption_file_that_is_no_text_is_named_and_left_out(tmp_path, toy, caplog):
    photos, store = draw(tmp_path / "photos", range(12)), tmp_path / "s"
    (photos / "03.txt").write_bytes("ein Hund auf der Straße".encode("latin-1"))
    (photos / "05.txt").write_text("")
    said = [
        "03.txt: cannot be read as text",
        "1 of 12 images cannot be read",
        "1 images without captions, such as 05.png",
    ]
    extract(config(photos, store), dry_run=True)
    assert all(sentence in caplog.text for sentence in said) and not store.exists()
    caplog.clear()
    info = extract(config(photos, store))
    assert all(sentence in caplog.text for sentence in said)
    assert (info["captions"], info["finished"], info["valid"]) == (10, True, 12)


def test_a_store_whose_captions_step_did_not_finish_says_so(tmp_path, toy, monkeypatch):
    photos, store = draw(tmp_path / "photos", range(12)), tmp_path / "s"
    flow = sys.modules["fastzss.extraction.flow"]
    with monkeypatch.context() as patch:
        patch.setattr(flow, "add_captions", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            extract(config(photos, store))
    assert not store_info(store)["finished"]
    assert extract(config(photos, store))["finished"] and verify(store, 3) == []


class Stop(Exception):
    pass


def test_a_growth_that_was_stopped_goes_on_though_the_source_has_changed_meanwhile(tmp_path, toy, monkeypatch):
    photos, store = draw(tmp_path / "photos", range(30)), tmp_path / "s"
    extract(config(photos, store))
    draw(photos, range(30, 60))
    with monkeypatch.context() as patch:
        commit, left = looking.Background.put, [4]

        def put(self, *features):
            left[0] -= 1
            if left[0] < 0:
                raise Stop
            commit(self, *features)

        patch.setattr(looking.Background, "put", put)
        with pytest.raises(Stop):
            extract(config(photos, store))
    assert len(open_store(store)) == 30, "meanwhile the store is what it was"
    assert len(open_store(store).concepts().caption) > 0
    assert not store_info(store)["finished"]
    draw(photos, range(60, 65))
    (photos / "41.png").unlink()
    toy.seen = 0
    info = extract(config(photos, store))
    assert (info["images"], info["additions"], info["removed"]) == (65, 2, 1) and toy.seen < 35
    extract(config(draw(tmp_path / "all", range(65)), tmp_path / "fresh", stats_from=store))
    grown, fresh = by_name(store), by_name(tmp_path / "fresh")
    gone = grown.pop("41.png")
    fresh.pop("41.png")
    assert all(same(grown[name], fresh[name]) for name in fresh) and gone[4] is None


def test_a_grown_store_is_verified_mended_converted_and_copied(tmp_path, toy):
    photos, store = draw(tmp_path / "photos", range(20)), tmp_path / "s"
    extract(config(photos, store))
    draw(photos, range(20, 40))
    extract(config(photos, store))
    right, known = tree(store), by_name(store)
    assert verify(store, 3) == []
    path = next((store / "added/000001/features/tokens").rglob("c/1/0/0"))
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 4
    path.write_bytes(data)
    (damage, *more) = verify(store, 3)
    assert damage.file.startswith("added/000001/features/tokens/c/1") and not more
    assert damage.image in known and int(damage.image[:2]) >= 20, "rows of an addition follow those before it"
    repair(store, [damage])
    extract(config(photos, store))
    assert tree(store) == right
    convert(store, tmp_path / "w", "webdataset")
    convert(tmp_path / "w", tmp_path / "z", "zarr")
    merge([store], tmp_path / "m")
    assert tree(tmp_path / "z") == tree(tmp_path / "m") == right
    assert all(same(known[name], found) for name, found in by_name(tmp_path / "w").items())
    assert convert(store, tmp_path / "z")["additions"] == 1


def test_what_cannot_be_grown_is_refused_before_the_work(tmp_path, toy):
    photos, store = draw(tmp_path / "photos", range(12)), tmp_path / "s"
    extract(config(photos, store))
    draw(photos, range(12, 14))
    before = tree(store)
    with pytest.raises(UserError, match="leave --part out, or extract them into another store"):
        extract(config(photos, store, part="1/2"))
    with pytest.raises(UserError, match='dtype is "int8", now "float16"'):
        extract(config(photos, store, dtype="float16"))
    with pytest.raises(UserError, match="source.spec"):
        extract(config(draw(tmp_path / "other", range(50, 54)), store))
    told = extract(config(photos, store), dry_run=True)
    assert (told["images"], told["images_there"]) == (2, 12)
    with pytest.raises(UserError, match="is no store, and holds other files"):
        extract(config(photos, photos), dry_run=True)
    assert tree(store) == before
    (photos / "00.png").rename(photos / "renamed.png")
    assert extract(config(photos, store))["removed"] == 1
