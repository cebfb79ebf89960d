"""Found by Python at start-up: closes this process's way to all but the loopback address."""

import socket


def _is_local(address):
    return not isinstance(address, tuple) or address[0] in ("localhost", "127.0.0.1", "::1", "", "0.0.0.0")


def _guarded(connect):
    def local_only(self, address, *rest):
        if not _is_local(address):
            raise PermissionError(f"no network in tests: {address}")
        return connect(self, address, *rest)

    return local_only


def _lookup(getaddrinfo):
    names = {"localhost", "127.0.0.1", "::1", socket.gethostname(), "", None}

    def local_only(host, *rest, **named):
        if host not in names and host not in {n.encode() for n in names if n}:
            raise socket.gaierror(f"no network in tests: {host}")
        return getaddrinfo(host, *rest, **named)

    return local_only


if not hasattr(socket, "_closed_by_tests"):
    socket._closed_by_tests = True
    socket.socket.connect = _guarded(socket.socket.connect)
    socket.socket.connect_ex = _guarded(socket.socket.connect_ex)
    socket.getaddrinfo = _lookup(socket.getaddrinfo)
