"""The same images through every layout, and COCO's from its annotations to masks."""

import json

import numpy as np
import pytest
from helpers.layouts import LAYOUTS, NAMES, samples, strange, write_coco
from helpers.stores import tree

from fastzss import cli
from fastzss.extraction.flow import extract
from fastzss.extraction.settings import ExtractConfig
from fastzss.store.reading.reader import PatchStore

FLAT = tuple(sorted(f"{k:02d}-{name.replace('/', '-')}" for k in range(4) for name in NAMES))


def arrays(store):
    """All files of the features that hold numbers."""
    found = tree(store / "features")
    return {name: data for name, data in found.items() if not name.startswith(("plan", "commit", "manifest", "images"))}


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    path = tmp_path_factory.mktemp("first") / "s"
    spec = LAYOUTS["folder"](path.parent / "in", samples(FLAT))
    extract(ExtractConfig(source=spec, store=path, model="tiny", parser="bank", device="cpu"))
    return arrays(path), sorted(PatchStore(path).captions.texts)


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "folder"])
def test_the_same_images_in_every_layout_give_the_same_bytes(tmp_path, first, layout):
    spec = LAYOUTS[layout](tmp_path / "in", samples(FLAT))
    extract(ExtractConfig(source=spec, store=tmp_path / "s", model="tiny", parser="bank", device="cpu"))
    found = arrays(tmp_path / "s")
    assert len(found) >= 10 and {n: d for n, d in found.items() if d != first[0].get(n)} == {} and found == first[0]
    assert sorted(PatchStore(tmp_path / "s").captions.texts) == first[1]


def test_coco_from_its_annotations_to_masks(tmp_path, capsys):
    """Every command a user would type, on a fixture in COCO's layout with all that COCO has among its thousands."""

    def call(*argv, door=cli.cache_main):
        code = door([str(a) for a in argv])
        out, err = capsys.readouterr()
        assert code == 0, err
        return (json.loads(out.strip().split("\n")[-1]) if "--json" in argv else out), err

    plain = [(f"{k:012d}.jpg", data, [*texts, *(f"photo {i} of {texts[0]}" for i in range(5))][:5])
             for k, (_, data, texts) in enumerate(samples(FLAT), 100)]  # fmt: skip
    spec = write_coco(tmp_path / "coco", [*strange(), *plain, ("000000000999.jpg", b"", ["a lost dog"] * 5)])
    (tmp_path / "coco/train2017/000000000999.jpg").unlink()
    store, run = tmp_path / "s", tmp_path / "run"
    _, err = call("extract", spec, store, "--model", "tiny", "--parser", "bank", "--json")
    assert "1 images are named there and lie not in" in err and "such as 000000000999.jpg" in err
    assert "5 captions go with them" in err
    assert "1 of 25 images cannot be read" in err
    bad = (tmp_path / "s.unreadable.log").read_text().splitlines()
    assert len(bad) == 1 and bad[0].startswith("train2017/000000000036.jpg\t") and "not a readable image" in bad[0]
    info, _ = call("info", store, "--json")
    assert (info["images"], info["valid"], info["captions"], info["licence"]) == (25, 24, 125, "Apache-2.0")
    rows = PatchStore(store)
    assert not rows.valid()[rows.captions.images.index("train2017/000000000036.jpg")] and int(rows.valid().sum()) == 24
    assert np.bincount(rows.captions.row).tolist() == [5] * 25
    assert call("verify", store, "--level", 3, "--json")[0]["damages"] == []
    names = tmp_path / "names.txt"
    names.write_text("dog\nred car\nhouse\ntree\nbird\nwater\n")
    assert call("concepts", store, "--bank", names, "--parser", "bank", "--json")[0]["mentions"] > 50
    banks = call("info", store, "--json")[0]["banks"]
    bank = next(b["identity"] for b in banks if b["names"] == 6)
    call("train", "--store", store, "--out", run, "--text", "tiny", "--batch", 8, "--steps", 6, "--local-weight", 1.0,
         "--bank", bank, "--device", "cpu", "--memory", "none", door=cli.main)  # fmt: skip
    call("segment", run, tmp_path / "coco/train2017/000000000034.jpg", "--classes", "dog, tree", "--out",
         tmp_path / "masks", "--device", "cpu", door=cli.main)  # fmt: skip
    assert len(list((tmp_path / "masks").iterdir())) >= 1
