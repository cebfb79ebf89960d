"""Who makes which shard, among processes that share a folder: a link a claim, touched by its owner while that lives.

    STORE/.claims/000042     host and process of the one who makes shard 42: whoever makes this file first
    STORE/.claims/stats      the statistics, STORE/.claims/finish what comes after the last shard

A link points at its owner's name instead of a file: it is made with that name or not at all, whenever its maker is
killed.  Where a file system has no links, a file says the same.

A claim is stale, and anybody's, when its process of this machine is gone, or when it was not touched for a while.
Should two take over one claim at the same moment, both make the same bytes.
"""

import errno
import json
import os
import socket
import threading
import time
import uuid
from contextlib import contextmanager
from pathlib import Path

from fastzss.base.files import make_folder, running

STALE = float(os.environ.get("FASTZSS_CLAIM_SECONDS", 300))  # without a touch, from another machine
POLL = 0.5  # seconds
NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)  # how file systems say that they have none


class Claims:
    """The claims of one process on a store."""

    def __init__(self, store):
        self.folder = claims_folder(store)
        self._held, self._lock, self._end = set(), threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._touch, name="claims", daemon=True)
        self._thread.start()

    def take(self, name):
        """Whether this process has the claim now."""
        path = self.folder / str(name)
        while True:
            make_folder(self.folder)
            try:
                _write_claim(path)
                with self._lock:
                    self._held.add(path.name)
                return True
            except FileNotFoundError:  # the last one has just tidied up
                continue
            except FileExistsError:
                if path.name in self._held or not self._is_stale(path):
                    return False
                moved = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
                try:
                    os.rename(path, moved)
                except FileNotFoundError:  # another one was faster
                    continue
                moved.unlink(missing_ok=True)

    def are_free(self, names):
        """Whether one of these claims could be had."""
        paths = [self.folder / name for name in names]
        return any(not os.path.lexists(path) or path.name not in self._held and self._is_stale(path) for path in paths)

    def release(self, name):
        with self._lock:
            if str(name) in self._held:
                self._held.remove(str(name))
                (self.folder / str(name)).unlink(missing_ok=True)

    @contextmanager
    def turn(self, name):
        """Waits until nobody else has the claim, and has it."""
        while not self.take(name):
            time.sleep(POLL)
        try:
            yield
        finally:
            self.release(name)

    def close(self):
        self._end.set()
        for name in list(self._held):
            self.release(name)
        sweep_claims(self.folder.parent)

    def _is_stale(self, path):
        claim = read_claim(path)
        return claim is not None and claim["stale"] or (claim or {}).get("process") == os.getpid()  # of an earlier life

    def _touch(self):
        while not self._end.wait(STALE / 5):
            with self._lock:
                for name in self._held:
                    try:
                        os.utime(self.folder / name, follow_symlinks=False)
                    except OSError:  # taken from us: whoever has it makes the same bytes
                        pass


def claims_folder(store):
    return Path(store) / ".claims"


def _write_claim(path):
    owner = json.dumps({"host": socket.gethostname(), "process": os.getpid(), "since": time.time()})
    try:
        os.symlink(owner, path)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        with open(path, "x") as file:
            file.write(owner)


def read_claim(path):
    """{host, process, since, idle, stale} of a claim; None where it is gone."""
    try:
        idle = max(0.0, time.time() - path.lstat().st_mtime)
        claim = json.loads((os.readlink(path) if path.is_symlink() else path.read_text()) or "{}")
    except (OSError, ValueError):
        return None
    here = claim.get("host") == socket.gethostname()
    gone = here and claim.get("process", os.getpid()) != os.getpid() and not running(claim["process"])
    return {"host": None, "process": None, "since": None} | claim | {"idle": idle, "stale": gone or idle > STALE}


def list_claims(store):
    """{name: claim} of all that are held or were left behind."""
    return {name: claim for name, claim in _read_all(claims_folder(store)) if name[0] != "."}


def _read_all(folder):
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:  # nobody claims anything, or the last one has just tidied up
        names = []
    return [(name, claim) for name in names if (claim := read_claim(folder / name)) is not None]


def sweep_claims(store):
    """Remove what the dead left, those too that were being taken over."""
    folder = claims_folder(store)
    for name, claim in _read_all(folder):
        if claim["stale"]:
            (folder / name).unlink(missing_ok=True)
    try:
        folder.rmdir()
    except OSError:  # not empty, or not there
        pass
