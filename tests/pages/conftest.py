"""A server of the trained run, and somebody who asks it."""

import pytest
from helpers.serving import Server

import fastzss


@pytest.fixture(scope="module")
def server(trained, tmp_path_factory):
    server = Server(trained, tmp_path_factory.mktemp("served") / "here", "--waiting", "64", "--memory", "40")
    yield server
    server.stop()


@pytest.fixture
def client(server):
    with server.client() as client:
        yield client


@pytest.fixture(scope="module")
def model(trained):
    return fastzss.load(trained)
