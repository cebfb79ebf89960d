"""The cache folder: what was fetched, copied or indexed once and can be made again at any time.

FASTZSS_CACHE, which `--cache DIR` of a command sets, else ~/.cache/fastzss, else a folder for temporary files.
"""

import hashlib
import os
import tempfile
from pathlib import Path

from fastzss.base.files import writing


def cache_folder(part):
    """A folder for one kind of things, made where it can be."""
    named = os.environ.get("FASTZSS_CACHE")
    if named:
        folder = Path(named) / part
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        return folder
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fastzss" / part
    for folder in (home, Path(tempfile.gettempdir()) / "fastzss" / part):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:  # a home that is read-only, or none
            continue
        if os.access(folder, os.W_OK):
            break
    return folder


def short_name(*facts):
    """A file name that stands for texts and numbers."""
    return hashlib.sha256("\n".join(map(str, facts)).encode()).hexdigest()[:20]


def stamp(path):
    """A name that stands for a file as it is now."""
    found = Path(path).stat()
    return short_name(Path(path).resolve(), found.st_size, found.st_mtime_ns)
