"""Files that are whole or absent: written beside their name, synced, renamed; JSON that carries the hash of itself.

    name.json               what readers see: complete, and durable once the call that wrote it has returned
    .name.json.HOST-PID.tmp a write in progress, or what a killed one left behind

A JSON file holds an object whose key "self" is the xxh3_128 of the canonical JSON of all its other keys.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import socket
import time
from contextlib import contextmanager
from pathlib import Path

import xxhash

from fastzss.base.errors import UserError

NOT_WRITABLE = {
    errno.EACCES: "permission is denied. Give a folder that you may write to",
    errno.EPERM: "the system does not permit it. Give a folder that you may write to",
    errno.EROFS: "the file system is read-only. Give a folder on another one",
    errno.ENOSPC: "the disk is full. Free some space and run the same command again: finished work is kept",
    errno.EDQUOT: "the disk quota is used up. Free some space and run the same command again: finished work is kept",
    errno.ENOTDIR: "a part of this path is a file, not a folder. Give another folder",
    errno.EEXIST: "there is a file of that name where a folder is needed. Give another folder",
    errno.ENAMETOOLONG: "the name is too long for this file system. Give a shorter one",
}
STALE = 3600  # seconds without a change after which a temporary file of an unknown process is litter


@contextmanager
def writing(path):
    """Turns what the operating system says about an unwritable `path` into one sentence."""
    try:
        yield
    except OSError as problem:
        if problem.errno not in NOT_WRITABLE:
            raise
        raise UserError(f"cannot write {path}: {NOT_WRITABLE[problem.errno]}.") from problem


def make_folder(path):
    """Make a folder and its missing parents, durably."""
    path = Path(path)
    with writing(path):
        if path.is_dir():
            return
        if path.parent != path:
            make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync_folder(path.parent)


def sync_folder(path):
    """Make the entries of a folder durable, where the system knows how (Windows does not)."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def temporary(path):
    """The name beside `path` under which this process writes it."""
    path = Path(path)
    return path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}.tmp")


def write_file(path, data, exclusive=False):
    """Write bytes so that `path` is the whole of them or as it was; `exclusive`: FileExistsError when it is there.

    `data` may be a list of parts.
    """
    path = Path(path)
    make_folder(path.parent)
    partial = temporary(path)
    try:
        with writing(path), open(partial, "wb") as file:
            file.writelines(data if isinstance(data, list) else [data])
            file.flush()
            os.fsync(file.fileno())
        if exclusive and _link(partial, path):
            partial.unlink()
        else:
            with writing(path):
                os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    with writing(path):
        sync_folder(path.parent)


def write_files(files):
    """Write several files, {Path: bytes}: each is whole or as it was, and all are durable at the end.

    They wait for the disk together, which is most of what writing them one by one would cost.
    """
    partials = {path: temporary(path) for path in files}
    changed = set()
    try:
        for path, partial in partials.items():
            with writing(path):
                changed |= _make_parents(path)
                partial.write_bytes(files[path])
        for path, partial in partials.items():
            with writing(path), open(partial, "rb+") as file:
                os.fsync(file.fileno())
        for path, partial in partials.items():
            with writing(path):
                os.replace(partial, path)
    except BaseException:
        for partial in partials.values():
            partial.unlink(missing_ok=True)
        raise
    for folder in sorted(changed):
        with writing(folder):
            sync_folder(folder)


def _make_parents(path):
    """Make the folders above a file; returns those in which a name will be new."""
    changed, folder = {path.parent}, path.parent
    while not folder.is_dir():
        changed.add(folder.parent)
        folder = folder.parent
    path.parent.mkdir(parents=True, exist_ok=True)
    return changed


def _link(partial, path):
    """Give a file its name if nobody has it; False: this file system has no hard links, and the name is free."""
    try:
        os.link(partial, path)
        return True
    except FileExistsError:
        raise
    except OSError:
        if path.exists():
            raise FileExistsError(path) from None
        return False


def remove_file(path):
    """Remove a file durably; it need not be there."""
    path = Path(path)
    if path.exists():
        with writing(path):
            path.unlink(missing_ok=True)
            sync_folder(path.parent)


@contextmanager
def locked(folder, held, shared=False):
    """Refuses a second writer of `folder` on this machine while it lasts, with the sentence `held`; those who are
    `shared` refuse only one who is not.

    It ends with the process, however that ends.
    """
    handle = None
    try:
        import fcntl

        handle = os.open(folder, os.O_RDONLY)
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise UserError(held) from None
    except (ImportError, OSError):  # Windows, and file systems without locks; files are whole or absent there too
        pass
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def sweep(folder):
    """Remove what killed writers left below `folder`: temporary files and folders whose process is gone."""
    own = re.compile(rf"\.{re.escape(socket.gethostname())}-(\d+)\.tmp$")
    for path in sorted(Path(folder).rglob(".*.tmp")):
        try:
            process = own.search(path.name)
            if (process and not running(int(process[1]))) or time.time() - path.stat().st_mtime > STALE:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        except FileNotFoundError:  # its folder was litter too
            pass


def running(pid):
    """Whether a process of this machine is alive."""
    if pid == os.getpid():  # nothing of this process is being written when it sweeps
        return False
    if os.name == "nt":  # where signal 0 is no question but Ctrl+C
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def canonical(obj):
    """The one spelling of a JSON value that hashes are taken of."""
    return json.dumps(obj, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def identity(obj):
    """sha256 of a JSON value: two values with one identity are the same."""
    return hashlib.sha256(canonical(obj)).hexdigest()


def hash_bytes(data):
    return xxhash.xxh3_128_hexdigest(data)


def entry(data):
    """Size and hash of bytes, as manifests hold them."""
    return {"bytes": len(data), "xxh3_128": hash_bytes(data)}


def hash_file(path):
    """xxh3_128 of a file, as 32 hexadecimal digits."""
    digest = xxhash.xxh3_128()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def json_bytes(obj):
    """`obj`, a dict, as the text of a JSON file that carries the hash of itself."""
    signed = {**obj, "self": f"xxh3_128:{hash_bytes(canonical(obj))}"}
    return (json.dumps(signed, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def write_json(path, obj, exclusive=False):
    write_file(path, json_bytes(obj), exclusive)


def read_json(path):
    """The dict in a JSON file whose hash is right; without "self"."""
    cure = "Delete it and run the command that wrote it again: what is intact is kept."
    try:
        data = Path(path).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: is missing. Run the command that writes it again: what is intact is kept.") from None
    except OSError as problem:
        raise UserError(f"{path}: cannot be read: {problem.strerror}.") from problem
    try:
        obj = json.loads(data)
        found = obj.pop("self")
    except (ValueError, KeyError, AttributeError, TypeError):
        raise UserError(
            f"{path}: is damaged: its {len(data)} bytes are no JSON object with a hash of itself. {cure}"
        ) from None
    expected = f"xxh3_128:{hash_bytes(canonical(obj))}"
    if found != expected:
        raise UserError(f"{path}: is damaged: it says its hash is {found!r}, but it is {expected!r}. {cure}")
    return obj
