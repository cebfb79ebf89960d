"""Found by Python at start-up: closes this process's way to all but this machine's own addresses."""

import socket


def _own():
    """The address other machines know this one by; nothing is sent to find out."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("198.51.100.1", 9))  # of no machine
            return probe.getsockname()[0]
    except OSError:
        return "127.0.0.1"


LOCAL = {"localhost", "127.0.0.1", "::1", "", "0.0.0.0", _own()}


def _is_local(address):
    return not isinstance(address, tuple) or address[0] in LOCAL


def _guarded(connect):
    def local_only(self, address, *rest):
        if not _is_local(address):
            raise PermissionError(f"no network in tests: {address}")
        return connect(self, address, *rest)

    return local_only


def _lookup(getaddrinfo):
    names = LOCAL | {socket.gethostname(), None}

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
