"""Every harm to every kind of file of a store, in every form: survived, or reported by name; never silently wrong.

A case is one file and one harm.  Then: verify names the file and its shard; whatever is read is right or refused; and
after repair the same writing gives the same store, byte for byte, rewriting no other shard.
"""

import os
import shutil

import pytest
import torch
from helpers import stores as small

from fastzss.base.errors import UserError
from fastzss.store.reading.reader import PatchStore
from fastzss.store.upkeep.repair import repair
from fastzss.store.upkeep.transfer import convert
from fastzss.store.upkeep.verify import damages_of_origin, verify

SHARDS = {
    "zarr": ["tokens/c/2/0/0", "scale/c/2/0", "global/c/2/0/0", "valid/c/2"],
    "zstd": ["tokens/c/2/0/0", "global/c/2/0/0", "valid/c/2"],
    "webdataset": ["shards/000002.tar", "shards/000002.index.npy"],
}
RECORDS = ["plan.json", "manifest.json", "commit/stats.json", "commit/000002.json", "stats/mean/c/0", "stats/std/c/0"]
TEXTS = ["captions/plan.json", "captions/manifest.json", "captions/captions.parquet", "captions/images.parquet"]
TEXTS += [f"concepts/{'ab' * 6}/{name}" for name in ("plan.json", "manifest.json", "bank.json", "mentions.parquet")]


def flip(share):
    def harm(data, _):
        at = min(int(share * len(data)), len(data) - 1)
        return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]

    return harm


HARMS = {
    "flip-begin": flip(0),
    "flip-early": flip(0.2),
    "flip-middle": flip(0.5),
    "flip-late": flip(0.9),
    "flip-end": flip(1),
    "empty": lambda data, _: b"",
    "half": lambda data, _: data[: len(data) // 2],
    "one-less": lambda data, _: data[:-1],
    "one-more": lambda data, _: data + b"\0",
    "gone": lambda data, _: None,
}
SWAPS = {
    "other-store": lambda data, other: other,
    "zeros": lambda data, _: bytes(len(data)),
}
CASES = [
    *((form, f"features/{file}", harm) for form, files in SHARDS.items() for file in files for harm in HARMS | SWAPS),
    *(("zarr", f"features/{file}", harm) for file in [*RECORDS, "zarr.json", "tokens/zarr.json"] for harm in HARMS),
    *(("webdataset", f"features/{file}", harm) for file in RECORDS[1:4] for harm in ("flip-middle", "half", "gone")),
    *(("zarr", file, harm) for file in [*TEXTS, "origin.json"] for harm in HARMS),
    ("webdataset", "features/shards/000002.tar", "last-member"),
    ("webdataset", "features/shards/000002.tar", "last-sample"),
]


def cut(members):
    """A tar without its last members, its end as it should be."""

    def harm(data, _):
        end = data.rindex(b".npy\0")
        for _ in range(members - 1):
            end = data.rindex(b".npy\0", 0, end)
        begin = end // 512 * 512
        return data[:begin] + bytes(len(data) - begin)

    return harm


HARMS_OF_ALL = HARMS | SWAPS | {"last-member": cut(1), "last-sample": cut(4)}


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """{form: a finished store}, and under (form, "other") one of other features."""
    folder = tmp_path_factory.mktemp("harm")
    stores = {form: small.write_store(folder / form, form=form) for form in SHARDS}
    return stores | {(f, "other"): small.write_store(folder / f"other-{f}", form=f, seed=1) for f in SHARDS}


@pytest.fixture
def no_sync(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # nothing here cuts the power


@pytest.mark.parametrize("form, file, harm", CASES, ids=lambda x: x.removeprefix("features/"))
def test_harm_is_survived_or_reported_by_name(originals, no_sync, tmp_path, form, file, harm):
    original, store = originals[form], tmp_path / "s"
    shutil.copytree(original, store)
    other = (originals[form, "other"] / file).read_bytes()
    data = HARMS_OF_ALL[harm]((store / file).read_bytes(), other)
    (store / file).unlink()
    if data is not None:
        (store / file).write_bytes(data)
    if data == (original / file).read_bytes():
        assert harm == "other-store" and "valid" in file  # which images could be read is the same in both
        return

    read_right_or_refused(store, original)
    hidden = "captions/" in file or "concepts/" in file or file.endswith(("manifest.json", "origin.json"))
    damages = verify(store, 3)
    if file in ("features/manifest.json", "origin.json") and harm == "gone":
        assert damages == []  # without the first it is not finished, the second need not be; nothing else is wrong
    elif file.endswith(("manifest.json", "origin.json")) and harm == "one-less":
        assert damages == []  # the end of its last line: what it says is what it said
        return
    else:
        assert file in {d.file for d in damages}, [str(d) for d in damages]
        if "000002" in file or "/c/2" in file:
            assert {d.shard for d in damages} == {2}
        assert not hidden or len(damages) == 1
    if harm in ("flip-begin", "flip-early") and "tokens/c/2" in file and form == "zarr":
        assert damages[0].row in range(8, 12) and damages[0].image == f"{damages[0].row:03d}.jpg"

    repair(store, damages)
    before = {path: path.stat().st_mtime_ns for path in shards_of(store)}
    small.write_store(store, form=form)
    assert small.tree(store) == small.tree(original)
    rewritten = {path for path in before if path.stat().st_mtime_ns != before[path]}
    assert not {path for path in rewritten if "000002" not in str(path) and "/c/2" not in str(path)}
    assert verify(store, 3) == []


def test_a_flip_of_any_bit_of_the_origin_is_reported_and_mended(originals, no_sync, tmp_path):
    store = shutil.copytree(originals["zarr"], tmp_path / "s")
    whole = (store / "origin.json").read_bytes()
    for at in range(len(whole)):
        for bit in range(8):
            (store / "origin.json").write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
            assert [d.file for d in damages_of_origin(store)] == ["origin.json"], (at, bit)
    (damage,) = verify(store, 0)
    assert repair(store, [damage]) == {"shards": [], "files": ["origin.json"], "layers": []}
    assert verify(store, 3) == [] and PatchStore(store).plan == small.PLAN, "the store stays finished"
    with pytest.raises(UserError, match="origin.json: is damaged"):
        (store / "origin.json").write_bytes(whole.replace(b"shipped", b"random!"))
        convert(store, tmp_path / "converted", "webdataset")


def shards_of(store):
    return [p for p in (store / "features").rglob("*") if p.is_file() and ("/c/" in str(p) or "/shards/" in str(p))
            and "/stats/" not in str(p)]  # fmt: skip


def read_right_or_refused(store, original):
    """Everything that can be read, each thing for itself."""
    right = PatchStore(original)
    rows = torch.arange(len(right)).flip(0)
    try:
        opened = PatchStore(store)
    except UserError as problem:
        assert str(store) in str(problem)
        return
    for read in (
        lambda s: s.load().tokens,
        lambda s: s.load().scale,
        lambda s: s.load().mean,
        lambda s: s.take(rows).take(torch.arange(22)),
        lambda s: s.take([8, 20]).tokens,
        lambda s: s.globals(),
        lambda s: s.globals(rows),
        lambda s: s.valid(),
        lambda s: torch.tensor([ord(c) for c in "".join(s.captions.texts + s.captions.images)]),
        lambda s: s.concepts().token,
    ):
        try:
            found = read(opened)
        except UserError as problem:
            assert str(store) in str(problem)
            continue
        assert torch.equal(found, read(right)), "silently wrong"
