"""`fastzss serve` as a command: what it refuses before it answers anything."""

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.serving import Server

from fastzss import cli

FASTZSS = Path(sys.executable).parent / "fastzss"


def refused(*argv):
    done = subprocess.run([FASTZSS, "serve", *map(str, argv)], capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stderr


def test_a_port_that_is_taken(trained):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        code, said = refused(trained, "--port", port)
    assert code == 1 and f"port {port} is taken by process" in said and "kill " in said and "--port" in said


@pytest.mark.parametrize(
    "argv, said",
    [
        (["nowhere", "--port", "0"], "nowhere: no such run"),
        ([], "missing: RUN"),
        (["nowhere", "--port", "99999"], "--port is 99999"),
        (["nowhere", "--host", "not.a.host"], "is no address of this machine"),
        (["nowhere", "--token", "short"], "eight or more"),
        (["nowhere", "--prt", "8000"], 'did you mean "--port"'),
        (["nowhere", "--port", "0", "--parallel", "0"], "must be positive"),
    ],
)
def test_wrong_usage_is_one_sentence(argv, said):
    code, found = refused(*argv)
    assert code in (1, 2) and said in found


def test_the_extra_is_named_where_it_is_missing(trained, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "starlette", None)
    assert cli.main(["serve", str(trained), "--port", "0"]) == 2
    assert 'pip install "fastzss[serve]"' in capsys.readouterr().err


def test_ctrl_c_ends_it(trained, tmp_path):
    server = Server(trained, tmp_path / "here")
    assert server.stop(signal.SIGINT) == 130
    assert [line.strip() for line in server.complaints] == ["fastzss: stopped"]
