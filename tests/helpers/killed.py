"""A program: extractions by 1 to 3 processes that are killed -9 again and again, then finished; are the bytes the same?

    python killed.py FOLDER KILLS SEED           of a new store
    python killed.py FOLDER KILLS SEED grow      of a store that grows by half

The processes are forked after the imports, join as those of torchrun do, and run the whole `extract`, with a backbone
that costs nothing.  Killed are all at once, or one, as when a machine runs out of memory, and then the others.
"""

import json
import os
import random
import shutil
import signal
import socket
import sys
import time
import traceback
from pathlib import Path

import accelerate  # noqa: F401  before the forks, as all that is heavy
import torch
from pictures import draw, look_with_toys

from fastzss.captions.tokens import Tokenizer
from fastzss.extraction.flow import extract
from fastzss.extraction.settings import ExtractConfig

torch.set_num_threads(1)  # a forked child has no thread pool
os.fsync = lambda handle: None  # changes nothing that a killed process leaves behind
look_with_toys()
Tokenizer()("imports what it needs")
folder, kills, choice = Path(sys.argv[1]), int(sys.argv[2]), random.Random(int(sys.argv[3]))
grows, pictures = "grow" in sys.argv, folder / "pictures"


def config(store, form):
    return ExtractConfig(source=f"folder:{pictures}", store=store, parser="bank", batch=3, device="cpu", format=form)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start(count, store, form):
    port, pids = free_port(), []
    for rank in range(count):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 2) if "-v" not in sys.argv else None
                if count > 1:
                    own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
                    os.environ.update({key: str(value) for key, value in own.items()})
                    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
                extract(config(store, form))
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        pids.append(pid)
    return pids


def run(count, store, form):
    began = time.time()
    codes = [os.waitpid(pid, 0)[1] for pid in start(count, store, form)]
    assert not any(codes), (count, codes)
    return time.time() - began


def kill(count, store, form, after):
    """Whether one died of the kill."""
    pids = start(count, store, form)
    time.sleep(after)
    if choice.random() < 0.5:
        os.kill(choice.choice(pids), signal.SIGKILL)
        time.sleep(choice.uniform(0, 0.05))
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    return sum(os.WIFSIGNALED(os.waitpid(pid, 0)[1]) for pid in pids) > 0


def tree(store):
    return {
        str(p.relative_to(store)): p.read_bytes() if p.is_file() else b"" for p in store.rglob("*") if not p.is_dir()
    }


def begun(store, form):
    """A store as it is before the kills."""
    if grows:
        shutil.copytree(folder / f"before-{form}", store)
    return store


draw(pictures, range(70))
(pictures / "33.png").write_bytes(b"")
if grows:
    for form in ("zarr", "webdataset"):
        run(1, folder / f"before-{form}", form)
    draw(pictures, range(70, 99), "a cat in a green tree number {}")
    (pictures / "80.png").write_bytes(b"")

whole, took = {}, {}
for form in ("zarr", "webdataset"):
    took[form] = {count: run(count, begun(folder / f"{form}-{count}", form), form) for count in (1, 2, 3)}
    whole[form] = tree(folder / f"{form}-1")
    for count in (2, 3):
        assert tree(folder / f"{form}-{count}") == whole[form], f"{count} processes wrote something else"
done = stores = 0
while done < kills:
    form = choice.choice(["zarr", "webdataset"])
    store = begun(folder / f"killed-{stores}", form)
    for _ in range(5):
        count = choice.choice([1, 2, 3])
        done += kill(count, store, form, choice.uniform(0, took[form][count]))
    run(choice.choice([1, 2, 3]), store, form)
    found = tree(store)
    different = [name for name in found.keys() | whole[form].keys() if found.get(name) != whole[form].get(name)]
    assert not different, different
    shutil.rmtree(store)
    stores += 1
print(json.dumps({"kills": done, "stores": stores, "files": len(whole["zarr"])}))
