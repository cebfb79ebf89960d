"""Stores on S3, on a server of this machine: made, killed, gone on with, verified, copied, trained from."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.processes import free_port
from helpers.stores import tree

from fastzss import cli
from fastzss.base.errors import UserError
from fastzss.extraction.flow import extract
from fastzss.extraction.settings import ExtractConfig
from fastzss.store.reading.reader import PatchStore
from fastzss.store.remote import address, copy_folder, is_far
from fastzss.store.upkeep.verify import verify

BIN = Path(sys.executable).parent
pytest.importorskip("moto")


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    """The environment of a client of a server that is up."""
    import boto3

    port = free_port()
    log = tmp_path_factory.mktemp("moto") / "log"
    server = subprocess.Popen([BIN / "moto_server", "-H", "127.0.0.1", "-p", str(port)], stderr=open(log, "wb"))
    settings = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip
    before = {key: os.environ.get(key) for key in settings}
    os.environ.update(settings)
    client = boto3.client("s3")
    for _ in range(120):
        try:
            client.create_bucket(Bucket="bucket")
            break
        except Exception:
            time.sleep(0.5)
    else:
        raise RuntimeError(log.read_text())
    yield client
    server.kill()
    server.wait()
    for key, value in before.items():
        os.environ.pop(key) if value is None else os.environ.update({key: value})


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache nobody has used, as on another machine."""

    def fresh(name):
        monkeypatch.setenv("FASTZSS_CACHE", str(tmp_path / name))
        return tmp_path / name

    fresh("cache")
    return fresh


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """The files of the same store on disk."""
    path = tmp_path_factory.mktemp("here") / "s"
    extract(config(path))
    return tree(path)


def config(store, n=40, **changes):
    return ExtractConfig(**{"source": f"world:train,n={n}", "store": Path(store), "parser": "bank", **changes})


def test_places_far_away_survive_pathlib():
    assert address(Path("s3://bucket/a b/store/")) == "s3://bucket/a b/store"
    assert is_far(Path("hf://datasets/me/x")) and is_far("gs://b/x")
    assert not any(map(is_far, ("store", "/abs/store", "C:/store", "./s3/x")))


def test_a_store_on_s3_is_the_store_on_disk(s3, cache, here, tmp_path):
    info = extract(config("s3://bucket/whole"))
    assert info["path"] == "s3://bucket/whole" and info["finished"]
    cache("another machine")
    assert cli.cache_main(["copy", "s3://bucket/whole", str(tmp_path / "copy")]) == 0
    assert tree(tmp_path / "copy") == here
    far = PatchStore("s3://bucket/whole")
    assert far.path == copy_folder("s3://bucket/whole") and verify(far.path, 3) == []
    run = tmp_path / "run"
    argv = [
        "train",
        "--store",
        "s3://bucket/whole",
        "--out",
        str(run),
        "--text",
        "tiny",
        "--batch",
        "16",
        "--steps",
        "3",
    ]
    assert cli.main([*argv, "--device", "cpu", "--memory", "none", "--local-weight", "1"]) == 0
    assert (run / "metrics.jsonl").exists()
    cache("third")
    assert cli.cache_main(["verify", "s3://bucket/whole", "--level", "3"]) == 0
    assert cli.cache_main(["status", "s3://bucket/whole"]) == 0


KILLED = """
import os, sys
from pathlib import Path
from fastzss.extraction import features, flow
from fastzss.extraction.settings import ExtractConfig
from fastzss.store.remote import Mirror
put, left = Mirror._put, [int(sys.argv[2])]
def dying(self, near, name):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), 9)
    put(self, near, name)
Mirror._put = dying
sys.modules["fastzss.extraction.flow"].extract(
    ExtractConfig(source="world:train,n=40", store=Path(sys.argv[1]), parser="bank"))
"""


slow = pytest.mark.slow


@pytest.mark.parametrize("puts", [3, pytest.param(12, marks=slow), 20, pytest.param(45, marks=slow)])
def test_a_killed_extraction_to_s3_goes_on_here_or_elsewhere(s3, cache, here, tmp_path, puts):
    """Killed at a put: before the statistics, in the middle of a shard, between its files and its record."""
    place = f"s3://bucket/killed-{puts}"
    done = subprocess.run([sys.executable, "-c", KILLED, place, str(puts)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    if puts % 2:
        cache("another machine")
    extract(config(place))
    cache("a third")
    copy = tmp_path / "copy"
    assert cli.cache_main(["copy", place, str(copy)]) == 0
    assert tree(copy) == here


def test_a_copy_goes_on_where_it_was_stopped_and_compares_hashes(s3, cache, store, tmp_path, monkeypatch, capsys):
    from fastzss.store import remote

    assert remote.copy_store(store, "s3://bucket/copy") > 0
    written, write = [], remote.Far.write
    monkeypatch.setattr(remote.Far, "write", lambda self, name, data: (written.append(name), write(self, name, data)))
    assert remote.copy_store(store, "s3://bucket/copy") == 0 and not written
    s3.delete_object(Bucket="bucket", Key="copy/features/tokens/c/2/0/0")
    remote.copy_store(store, "s3://bucket/copy")
    assert written == ["features/tokens/c/2/0/0"]
    body = bytearray(s3.get_object(Bucket="bucket", Key="copy/features/tokens/c/3/0/0")["Body"].read())
    body[7] ^= 1
    s3.put_object(Bucket="bucket", Key="copy/features/tokens/c/3/0/0", Body=bytes(body))
    with pytest.raises(UserError, match="features/tokens/c/3/0/0: is damaged: its hash is not the one"):
        PatchStore("s3://bucket/copy")
    s3.delete_object(Bucket="bucket", Key="copy/features/tokens/c/3/0/0")
    remote.copy_store(store, "s3://bucket/copy")
    assert PatchStore("s3://bucket/copy").identity == PatchStore(store).identity
    extract(config("s3://bucket/other", n=9))
    with pytest.raises(UserError, match="s3://bucket/other: holds another store than"):
        remote.copy_store(store, "s3://bucket/other")
    s3.put_object(Bucket="bucket", Key="papers/thesis.tex", Body=b"years of work")
    with pytest.raises(UserError, match="papers: is no store, and holds other files, as thesis.tex"):
        remote.copy_store(store, "s3://bucket/papers")


def test_what_cannot_be_reached_or_used_is_one_sentence(s3, cache, tmp_path, monkeypatch):
    def refused(place):
        with pytest.raises(UserError) as problem:
            PatchStore(place)
        return str(problem.value)

    assert "s3://bucket/nothing: is no store: it has no features/plan.json" in refused("s3://bucket/nothing")
    with pytest.raises(UserError, match="s3://nobucket/x: cannot be used .*Nothing is there: check the name"):
        extract(config("s3://nobucket/x", n=9))
    with pytest.raises(UserError, match="--claim needs a folder that all jobs share, and s3://bucket/x is none"):
        extract(config("s3://bucket/x", n=9, claim=True))
    assert "cannot be used" in refused("gs9://bucket/x") and "gs9" in refused("gs9://bucket/x")


def test_a_service_that_is_not_there_or_knows_us_not_is_one_sentence(s3, cache):
    code = "import sys; from fastzss.cli import cache_main; sys.exit(cache_main(['info', 's3://bucket/whole']))"

    def said(**changes):
        environment = {key: value for key, value in (os.environ | changes).items() if value is not None}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=100
        )
        assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
        return done.stderr.strip().splitlines()[-1]

    gone = said(AWS_ENDPOINT_URL=f"http://127.0.0.1:{free_port()}")
    assert "s3://bucket/whole: cannot be used" in gone and "Check the address and the network" in gone
    nobody = said(AWS_ACCESS_KEY_ID=None, AWS_SECRET_ACCESS_KEY=None, HOME="/nonexistent")
    assert "Check the credentials (for s3: AWS_ACCESS_KEY_ID" in nobody
