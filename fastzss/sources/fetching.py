"""Files far away, fetched whole into the cache: http(s)://, s3:// and whatever fsspec knows, and `pipe:COMMAND`.

What does not fit is fetched again when it is asked for: half of the free disk is used, and what was used longest ago
goes first.
"""

import os
import shutil
import subprocess
import threading
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from fastzss.base.cache import cache_folder, short_name
from fastzss.base.errors import UserError
from fastzss.base.remedies import reason, remedy

BLOCK = 1 << 22
KEPT = 4  # files that stay, however little room there is
PATIENCE = 60  # seconds without a byte


def is_far(place):
    return place.startswith("pipe:") or "://" in place


class Fetched:
    """Local copies of files far away."""

    def __init__(self, places):
        folder = cache_folder("fetched")
        self.paths = {place: folder / f"{short_name(place)}-{_readable(place)}" for place in places}
        self._room = shutil.disk_usage(folder).free // 2
        self._used = {}  # places, the last used last
        self._lock, self._locks = threading.Lock(), {place: threading.Lock() for place in places}

    def path(self, place):
        """The local copy of one, fetched where it is not there."""
        with self._lock:
            self._used[place] = self._used.pop(place, None)
        with self._locks[place]:
            if not self.paths[place].exists():
                fetch(place, self.paths[place])
                with self._lock:
                    self._make_room()
        return self.paths[place]

    def _make_room(self):
        sizes = {place: path.stat().st_size for place, path in self.paths.items() if path.exists()}
        old = [place for place in sizes if place not in self._used] + [place for place in self._used if place in sizes]
        for place in old[:-KEPT]:
            if sum(sizes.values()) <= self._room:
                return
            self.paths[place].unlink(missing_ok=True)
            del sizes[place]


def fetch(place, path):
    """Copy a file from far away to `path`, whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with opened(place) as source, open(partial, "wb") as out:
            shutil.copyfileobj(source, out, BLOCK)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def opened(place):
    """What can be read of a place; what goes wrong is one sentence that names it."""
    try:
        if place.startswith("pipe:"):
            with _piped(place) as stream:
                yield stream
        elif place.startswith(("http://", "https://")):
            with urllib.request.urlopen(place, timeout=PATIENCE) as stream:
                yield _Whole(stream, place)
        else:
            import fsspec

            with fsspec.open(place, "rb") as stream:
                yield stream
    except UserError:
        raise
    except Exception as problem:  # every protocol has its own
        raise UserError(f"{place}: cannot be fetched ({reason(problem)}). {remedy(place, problem)}") from None


@contextmanager
def _piped(place):
    command = place.removeprefix("pipe:")
    with subprocess.Popen(command, shell=True, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        yield process.stdout
        process.stdout.close()
        if code := process.wait():
            raise UserError(f"{place}: the command ended with {code}; run it in a shell to see why")


class _Whole:
    """A response of a server, which must be as long as it said: urllib takes an early end for the end."""

    def __init__(self, stream, place):
        self._stream, self._place = stream, place
        length = stream.headers.get("Content-Length")
        self._left = int(length) if length else None

    def read(self, size=-1):
        data = self._stream.read(size)
        if self._left is not None:
            self._left -= len(data)
            if not data and self._left:
                raise UserError(f"{self._place}: ended {self._left} bytes too early; run the same command again")
        return data


def _readable(place):
    """The end of a place as a file name."""
    name = place.rpartition("/")[2] or "file"
    return "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in name)[-60:]


def expanded(pattern):
    """The places that a pattern names: {00..11} and {a,b}; for files here * too."""
    import glob

    from braceexpand import UnbalancedBracesError, braceexpand

    try:
        places = list(braceexpand(pattern))
    except UnbalancedBracesError:
        raise UserError(f"{pattern}: its braces do not match; expected as in shard-{{00000..00011}}.tar", 2) from None
    found = []
    for place in places:
        if is_far(place):
            found.append(place)
        elif Path(place).is_dir():
            found += sorted(str(path) for path in Path(place).glob("*.tar"))
        elif any(letter in place for letter in "*?") and not Path(place).exists():
            found += sorted(glob.glob(place))
        else:
            found.append(place)
    return found
