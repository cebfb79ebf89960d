"""Tars of webdataset and img2dataset: here, behind a server, through a command; and what is wrong with them."""

import http.server
import io
import os
import tarfile

import numpy as np
import pytest
from helpers.layouts import add_member, samples, write_folder, write_tars
from helpers.servers import web_server
from PIL import Image

from fastzss.base.errors import UserError
from fastzss.sources import fetching, open_source, source_record, tars

FOUND = samples()


def refused(spec):
    with pytest.raises(UserError) as problem:
        open_source(spec)
    return str(problem.value)


@pytest.fixture
def folder(tmp_path):
    write_tars(tmp_path / "of a user", FOUND, each=2)
    return tmp_path / "of a user"


def same(source):
    for index, (_, data, captions) in enumerate(FOUND):
        assert np.array_equal(np.asarray(source.image(index)), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
        assert source.captions(index) == captions
    return True


def test_patterns_of_braces_stars_and_folders(folder):
    for pattern in ("{00000..00002}.tar", "*.tar", "0000{0,1,2}.tar", ""):
        source = open_source(f"wds:{folder / pattern}")
        assert source.ids == [f"{k:08d}.{name.rpartition('.')[2]}" for k, (name, *_) in enumerate(FOUND)]
        assert same(source) and not source.listed
    assert "its braces do not match" in refused("wds:a-{00..11.tar")
    assert "2 of 5 tars are not there, the first is" in refused(f"wds:{folder}/{{00000..00004}}.tar")
    assert "no tar is named so" in refused(f"wds:{folder}/*.tgz")


def test_tars_are_listed_once_and_again_when_they_have_changed(folder, monkeypatch):
    spec, listed = f"wds:{folder}/*.tar", []
    real = tars._members
    monkeypatch.setattr(tars, "_members", lambda name, path: (listed.append(name), real(name, path))[1])
    open_source(spec)
    open_source(spec)
    assert len(listed) == 3
    write_tars(folder, FOUND[:2] + FOUND[4:], each=2)
    assert len(open_source(spec).ids) == 4 and len(listed) > 3


def test_members_that_are_no_samples_are_left_out_and_counted(tmp_path, caplog):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add_member(tar, "./images/x.y.JPG", FOUND[0][1])  # the name ends at the first dot
        add_member(tar, "images/0.jpg", FOUND[0][1])
        add_member(tar, "images/0.cls", b"7")
        add_member(tar, "images/0.caption", "ein Hund\n\nnoch einer\n".encode("utf-8-sig"))
        add_member(tar, "images/1.txt", b"of no image")
        add_member(tar, "images/2.png", FOUND[4][1])
        add_member(tar, "README", b"")
        add_member(tar, ".hidden", b"")
    with caplog.at_level("WARNING", "fastzss"):
        source = open_source(f"wds:{tmp_path / 'a.tar'}")
    assert source.ids == ["images/0.jpg", "images/2.png"]
    assert [source.captions(k) for k in (0, 1)] == [["ein Hund", "noch einer"], []]
    assert [r.getMessage().partition(": ")[2] for r in caplog.records] == ["1 samples have no image and are left out"]


def test_tars_that_count_from_nought_each_keep_their_images_apart(tmp_path):
    for name in "ab":
        write_tars(tmp_path / name, FOUND[:2])
    assert open_source(f"wds:{tmp_path}/{{a,b}}/00000.tar").ids == [
        "00000/00000000.jpg", "00000/00000001.jpeg", "00001/00000000.jpg", "00001/00000001.jpeg",
    ]  # fmt: skip


def test_a_tar_that_ends_anywhere_but_at_its_end_is_refused(folder):
    path = folder / "00001.tar"
    whole = path.read_bytes()
    with tarfile.open(path) as tar:
        ends = [member.offset_data + 512 * (-(-member.size // 512)) for member in tar]
    for size in (ends[0], ends[0] - 600, ends[-1], ends[-1] - 1, len(whole) // 2):
        path.write_bytes(whole[:size])
        assert f"{path}: this tar ends in the middle, at {size} bytes" in refused(f"wds:{folder}/*.tar"), size
    path.write_bytes(b"no tar" * 999)
    assert f"{path}: is no tar" in refused(f"wds:{folder}/*.tar")


def test_captions_that_are_no_text_are_refused_by_name(tmp_path):
    for name, data in {"txt": b"caf\xe9", "json": b'{"caption": '}.items():
        with tarfile.open(tmp_path / f"{name}.tar", "w") as tar:
            add_member(tar, "0.jpg", FOUND[0][1])
            add_member(tar, f"0.{name}", data)
        with pytest.raises(UserError, match=rf"{name}.tar, 0.{name}: cannot be read"):
            open_source(f"wds:{tmp_path / name}.tar").captions(0)


def test_tars_behind_a_server_are_fetched_once_each_and_read_in_their_order(folder):
    with web_server(folder) as (address, asked):
        spec = f"wds:{address}/{{00000..00002}}.tar"
        for _ in range(2):
            source = open_source(spec)
            assert same(source) and source.listed and source_record(source)["order"] == "listed"
        assert sorted(asked) == ["/00000.tar", "/00001.tar", "/00002.tar"]
        assert f"{address}/9.tar: cannot be fetched (HTTPError: HTTP Error 404" in refused(f"wds:{address}/9.tar")
    message = refused(f"wds:{address}/8.tar")
    assert "/8.tar: cannot be fetched" in message and "Check the address and the network" in message


def test_what_does_not_fit_is_fetched_again(folder, monkeypatch):
    monkeypatch.setattr(fetching, "KEPT", 1)
    with web_server(folder) as (address, asked):
        source = open_source(f"wds:{address}/{{00000..00002}}.tar")
        asked.clear()
        source._fetched._room = 1  # of disk
        for path in source._fetched.paths.values():
            path.unlink(missing_ok=True)
        assert same(source) and asked == ["/00000.tar", "/00001.tar", "/00002.tar"], "once each, in their order"
        assert sum(path.exists() for path in source._fetched.paths.values()) == 1
        assert same(source)


class Short(http.server.SimpleHTTPRequestHandler):
    def copyfile(self, source, out):
        out.write(source.read()[:-700])


def test_a_server_that_ends_too_early_leaves_nothing_behind(folder):
    with web_server(folder, Short) as (address, _):
        message = refused(f"wds:{address}/00000.tar")
    assert "00000.tar: ended 700 bytes too early" in message or "IncompleteRead" in message
    kept = fetching.Fetched([f"{address}/00000.tar"]).paths[f"{address}/00000.tar"]
    assert not kept.exists() and not list(kept.parent.glob(".*.tmp"))


def test_a_command_gives_a_tar_or_says_how_it_ended(folder):
    pattern = f"wds:pipe:cat '{folder}/{{00000..00002}}.tar'"
    assert same(open_source(pattern))
    assert "the command ended with 3" in refused("wds:pipe:exit 3")
    assert "is no tar" in refused("wds:pipe:echo no tar") or "ends in the middle" in refused("wds:pipe:echo no tar")


def test_a_tar_that_shrinks_while_it_is_read_stops_with_a_sentence(folder):
    source = open_source(f"wds:{folder}/00000.tar")
    os.truncate(folder / "00000.tar", 100)
    with pytest.raises(UserError, match="00000.tar: has become shorter while it was read"):
        source.image(0)


def test_a_store_of_listed_tars_keeps_their_order(folder, tmp_path):
    from fastzss.extraction.flow import extract
    from fastzss.extraction.settings import ExtractConfig
    from fastzss.store.reading.reader import PatchStore

    with web_server(folder) as (address, _):
        spec = f"wds:{address}/{{00000..00002}}.tar"
        extract(ExtractConfig(source=spec, store=tmp_path / "s", model="tiny", bank="none", device="cpu"))
    assert PatchStore(tmp_path / "s").captions.images == open_source(f"wds:{folder}").ids
    spec = write_folder(tmp_path / "f", FOUND)
    extract(ExtractConfig(source=spec, store=tmp_path / "t", model="tiny", bank="none", device="cpu"))
    assert PatchStore(tmp_path / "t").captions.images != open_source(spec).ids, "others are in random order"
