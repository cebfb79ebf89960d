"""What an earlier version wrote stays readable: a store and a run of commit 03c95f6, made by hand and kept."""

import tarfile
from pathlib import Path

import numpy as np
import pytest

import fastzss
from fastzss import world
from fastzss.base.runs import Run
from fastzss.masks.inference import PLAIN
from fastzss.store.reading.reader import PatchStore
from fastzss.store.upkeep.verify import verify

ARCHIVE = Path(__file__).parent / "fixtures" / "first_house.tar.xz"


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    folder = tmp_path_factory.mktemp("first")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder / "first"


def test_its_store_opens_and_is_whole(first):
    assert verify(first / "store", 3) == []
    store = PatchStore(first / "store")
    assert (len(store), store.plan.patches, store.plan.channels) == (16, 256, 128)
    assert len(store.captions.texts) > 16 and len(store.concepts().name) > 0
    assert np.allclose(store.take([3]).take(slice(None)).norm(dim=-1), 1, atol=0.02)


def test_its_run_sees_what_it_saw(first):
    assert Run.open(first / "run").state["step"] == 12
    image = world.scene("test", 0, 0).image
    found = fastzss.load(first / "run", "cpu").segment(image, ["tree", "house", "grass", "sky"], PLAIN)
    assert np.mean(found.mask == np.load(first / "expected.npz")["mask"]) > 0.999
