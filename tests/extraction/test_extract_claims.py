"""Jobs that share a folder: each shard is made by whoever claims it, and what the dead had claimed is taken over."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.stores import tree

from fastzss import cli
from fastzss.base.errors import UserError
from fastzss.base.files import locked
from fastzss.extraction import claims as claiming
from fastzss.extraction.claims import Claims, list_claims, sweep_claims
from fastzss.extraction.flow import extract
from fastzss.extraction.settings import ExtractConfig
from fastzss.extraction.status import status

BIN = Path(sys.executable).parent


@pytest.fixture(params=["links", "files"])
def claimed_by(request, monkeypatch):
    """Both ways to claim, the second as on a file system without links."""
    if request.param == "files":

        def no_links(target, path):
            raise OSError(errno.EOPNOTSUPP, "Operation not supported", path)

        monkeypatch.setattr(os, "symlink", no_links)
    return request.param


def leave_claim(store, name, host, process, age=0.0):
    path = claiming.claims_folder(store) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    owner = json.dumps({"host": host, "process": process, "since": time.time() - age})
    try:
        os.symlink(owner, path)
    except OSError:
        path.write_text(owner)
    os.utime(path, (time.time() - age, time.time() - age), follow_symlinks=False)
    return path


def test_a_claim_is_had_by_one_and_given_back(tmp_path, claimed_by):
    claims = Claims(tmp_path)
    assert claims.take("000003") and not claims.take("000003")
    assert list_claims(tmp_path)["000003"]["process"] == os.getpid()
    assert (claiming.claims_folder(tmp_path) / "000003").is_symlink() == (claimed_by == "links")
    claims.release("000003")
    assert claims.take("000003")
    claims.close()
    assert not claiming.claims_folder(tmp_path).exists()


def test_a_claim_of_the_dead_is_anybodys_and_one_of_the_living_is_not(tmp_path, claimed_by):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    here = claiming.socket.gethostname()
    leave_claim(tmp_path, "000001", here, gone.pid)
    leave_claim(tmp_path, "000002", "another", 1, claiming.STALE + 1)
    leave_claim(tmp_path, "000003", "another", 1, claiming.STALE - 60)
    leave_claim(tmp_path, "000004", here, os.getppid(), 60)
    leave_claim(tmp_path, "000005", here, os.getpid())  # of an earlier life with the same number
    claims = Claims(tmp_path)
    assert [claims.take(f"{k:06d}") for k in range(1, 6)] == [True, True, False, False, True]
    assert claims.are_free(["000003", "000009"]) and not claims.are_free(["000003", "000004", "000001"])
    claims.close()
    sweep_claims(tmp_path)
    assert list(list_claims(tmp_path)) == ["000003", "000004"]


def test_what_was_being_taken_over_when_its_taker_died_is_swept_too(tmp_path, claimed_by):
    claim = leave_claim(tmp_path, "000001", "another", 1, claiming.STALE + 1)
    claim.rename(claim.with_name(".000001.abc.tmp"))
    assert not list_claims(tmp_path)
    sweep_claims(tmp_path)
    assert not claiming.claims_folder(tmp_path).exists()


def test_a_claim_is_made_with_its_owner_or_not_at_all(tmp_path):
    """What a process killed while it claims leaves behind must not look as if its owner lived."""
    ready = tmp_path / "ready"
    code = (
        "import itertools, sys; from fastzss.extraction.claims import Claims; from pathlib import Path\n"
        "claims = Claims(sys.argv[1]); Path(sys.argv[2]).touch()\n"
        "for k in itertools.count(): claims.take(k); claims.release(k)"
    )
    for _ in range(8):
        process = subprocess.Popen([sys.executable, "-c", code, tmp_path / "s", ready])
        while not ready.exists():
            time.sleep(0.01)
        time.sleep(0.05)
        process.kill()
        process.wait()
        ready.unlink()
        assert all(claim["process"] == process.pid and claim["stale"] for claim in list_claims(tmp_path / "s").values())
        sweep_claims(tmp_path / "s")
        assert not claiming.claims_folder(tmp_path / "s").exists()


def test_a_claim_is_touched_while_its_owner_lives(tmp_path, monkeypatch, claimed_by):
    monkeypatch.setattr(claiming, "STALE", 0.5)
    claims = Claims(tmp_path)
    claims.take("000000")
    time.sleep(1.2)
    assert not claiming.read_claim(claiming.claims_folder(tmp_path) / "000000")["stale"]
    claims.close()


def test_a_job_that_claims_takes_over_what_the_dead_left_and_waits_for_the_living(tmp_path, monkeypatch):
    monkeypatch.setattr(claiming, "STALE", 2.0)
    same = dict(source="world:train,n=40", parser="bank", device="cpu")
    extract(ExtractConfig(store=tmp_path / "one", **same))
    store = tmp_path / "s"
    leave_claim(store, "000001", "another", 1)  # alive for two seconds more
    leave_claim(store, "000002", "another", 1, 99)
    began = time.time()
    extract(ExtractConfig(store=store, claim=True, **same))
    assert time.time() - began > 1.5
    assert tree(store) == tree(tmp_path / "one")


def test_those_who_claim_and_those_who_do_not_do_not_mix(tmp_path, store):
    with locked(store / "features", "held", shared=True):
        with pytest.raises(UserError, match="another process is writing this store"):
            extract(ExtractConfig(source="world:train,n=80", store=store, parser="bank"))
        extract(ExtractConfig(source="world:train,n=80", store=store, parser="bank", claim=True))
    with pytest.raises(ValueError, match="it does not go with --part"):
        ExtractConfig(source="world:train", store=tmp_path, claim=True, part="1/2")


def test_two_jobs_one_killed_in_the_middle_end_at_the_bytes_of_one(tmp_path, capsys):
    n = 300
    command = [BIN / "fastzss-cache", "extract", f"world:train,n={n}"]
    flags = ["--parser", "bank", "--device", "cpu"]
    jobs = [
        subprocess.Popen([*command, tmp_path / "s", *flags, "--claim"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    commits = tmp_path / "s/features/commit"
    deadline = time.time() + 120
    while not list(commits.glob("[0-9]*.json")) and time.time() < deadline:
        time.sleep(0.02)
    seen = status(tmp_path / "s")
    assert not seen["finished"] and {claim["alive"] for claim in seen["at_work"]} <= {True}
    jobs[0].send_signal(signal.SIGKILL)
    jobs[0].wait()
    assert cli.cache_main(["status", str(tmp_path / "s")]) == 0
    out, err = jobs[1].communicate(timeout=300)
    assert jobs[1].returncode == 0, err.decode()
    extract(ExtractConfig(source=f"world:train,n={n}", store=tmp_path / "one", parser="bank", device="cpu"))
    assert tree(tmp_path / "s") == tree(tmp_path / "one")
    done = status(tmp_path / "s")
    assert done["finished"] and done["at_work"] == [] and done["images"] == f"{n} of {n}"
