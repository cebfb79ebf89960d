"""Folders of banks and memories: whole or as they were, whatever happens to them."""

import subprocess
import sys
import time

import numpy as np
import pytest

from fastzss.base.errors import UserError
from fastzss.base.records import read_folder, write_folder

RECORD, FILES = {"what": 1}, {"vectors.npy": np.arange(6.0).reshape(2, 3), "index.faiss": b"cells"}


@pytest.fixture
def folder(tmp_path):
    write_folder(tmp_path / "f", "bank", RECORD, FILES)
    return tmp_path / "f"


def read(folder):
    return read_folder(folder, "bank", "make a bank")


def test_what_is_written_is_read(folder):
    record, files = read(folder)
    assert record["what"] == 1 and set(files) == set(FILES)
    assert np.array_equal(files["vectors.npy"], FILES["vectors.npy"]) and files["index.faiss"] == b"cells"


def test_new_files_take_the_place_of_old_ones(folder):
    write_folder(folder, "bank", {"what": 2}, {"vectors.npy": np.zeros(4), "index.faiss": None})
    record, files = read(folder)
    assert record["what"] == 2 and set(files) == {"vectors.npy"} and files["vectors.npy"].shape == (4,)
    assert len(list(folder.iterdir())) == 2, "nothing is left of the old ones"


@pytest.mark.parametrize("name", ["vectors", "index", "bank"])
def test_a_truncated_damaged_or_missing_file_is_named(folder, name):
    (path,) = folder.glob(f"{name}*")
    data = path.read_bytes()
    changed = data[:-1] + bytes([data[-1] ^ 1]) if name != "bank" else data.replace(b'"what": 1', b'"what": 2')
    for wrong in (data[:-3], data[: len(data) // 2], changed, b""):
        path.write_bytes(wrong)
        with pytest.raises(UserError, match=path.name):
            read(folder)
    path.unlink()
    with pytest.raises(UserError, match=path.name):
        read(folder)


def test_a_folder_of_another_kind_or_a_newer_version_is_refused(folder, tmp_path):
    with pytest.raises(UserError, match="is no memory .it has no memory.json.; expected a folder that `x` wrote"):
        read_folder(folder, "memory", "x")
    with pytest.raises(UserError, match="there is no such folder"):
        read_folder(tmp_path / "nothing", "memory", "x")
    from fastzss.base.files import read_json, write_json

    record = read_json(folder / "bank.json")
    for wrong in ({"version": 2}, {"format": "fastzss-store"}):
        write_json(folder / "bank.json", record | wrong)
        with pytest.raises(UserError, match="expected 'fastzss-bank' up to version 1"):
            read(folder)


def test_a_writer_killed_at_any_moment_leaves_the_old_or_the_new(tmp_path):
    """A process writes version after version; it is killed three times."""
    code = """
import itertools, sys
import numpy as np
from fastzss.base.records import write_folder
for n in itertools.count(int(sys.argv[2])):
    write_folder(sys.argv[1], "bank", {"n": n}, {"vectors.npy": np.full(2000, n), "index.faiss": b"%d" % n})
    print(n, flush=True)
"""
    done = 0
    for turn in range(3):
        command = [sys.executable, "-c", code, tmp_path / "f", str(done + 1)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        process.stdout.readline()
        time.sleep(0.013 * turn)
        process.kill()
        told = [int(line) for line in process.communicate()[0].split()]
        record, files = read(tmp_path / "f")
        done = record["n"]
        assert (files["vectors.npy"] == done).all() and files["index.faiss"] == b"%d" % done
        assert done >= max(told, default=0)
    write_folder(tmp_path / "f", "bank", RECORD, FILES)
    assert len(list((tmp_path / "f").iterdir())) == 3, "what the killed ones left is gone"


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path / "photo.png").write_text("mine")
    with pytest.raises(UserError, match="holds other things .photo.png.; give a new folder"):
        write_folder(tmp_path, "bank", RECORD, FILES)
    assert [p.name for p in tmp_path.iterdir()] == ["photo.png"]
