"""kill -9 while 1 to 3 processes extract: the same command, with any number of processes, ends at the same bytes.

The processes are forked after the imports, join as those of torchrun do, and run the whole `extract`, with a backbone
that costs nothing.  Killed are all at once, or one, as when a machine runs out of memory, and then the others.
"""

import json
import os
import subprocess
import sys

import pytest

KILLS = '''
import json, os, random, shutil, signal, socket, sys, time, traceback
from pathlib import Path
import numpy as np, torch
import torch.nn.functional as F
from PIL import Image
from fastzss import extract as flow
from fastzss.captions import Tokenizer
import accelerate  # before the forks, as all that is heavy
from fastzss.settings import ExtractConfig

torch.set_num_threads(1)  # a forked child has no thread pool
os.fsync = lambda handle: None  # changes nothing that a killed process leaves behind
folder, kills, draw = Path(sys.argv[1]), int(sys.argv[2]), random.Random(int(sys.argv[3]))
pictures = folder / "pictures"
pictures.mkdir()
for i in range(70):
    Image.fromarray(np.random.default_rng(i).integers(0, 256, (9, 8, 3), np.uint8)).save(pictures / f"{i:02d}.png")
    (pictures / f"{i:02d}.txt").write_text(f"a dog on a red car number {i}")
(pictures / "33.png").write_bytes(b"")

class Backbone:
    """Looks at eight by eight pixels, in patches of two by two."""
    size, channels, grid, prefix, globals, origin = 8, 12, (4, 4), 0, ("patch-mean",), "random"
    record = {"model": "toy", "weights": "0", "licence": "none", "size": 8}
    device = torch.device("cpu")
    def pixels(self, image):
        return torch.from_numpy(np.array(image.resize((8, 8)))).permute(2, 0, 1).contiguous()
    def __call__(self, pixels):
        x = F.pixel_unshuffle(pixels.float(), 2).flatten(2).transpose(1, 2) + 1
        return F.normalize(x, dim=-1), x.mean(1, keepdim=True)

flow_module = sys.modules["fastzss.extract"]
flow_module.load_vision = lambda *_: Backbone()
Tokenizer()("imports what it needs")

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
                    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(count),
                                      LOCAL_WORLD_SIZE=str(count), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
                flow_module.extract(config(store, form))
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
    """How many died of the kill."""
    pids = start(count, store, form)
    time.sleep(after)
    if draw.random() < 0.5:
        os.kill(draw.choice(pids), signal.SIGKILL)
        time.sleep(draw.uniform(0, 0.05))
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    return sum(os.WIFSIGNALED(os.waitpid(pid, 0)[1]) for pid in pids) > 0

def tree(store):
    return {str(p.relative_to(store)): p.read_bytes() for p in store.rglob("*") if p.is_file()}

whole, took = {}, {}
for form in ("zarr", "webdataset"):
    took[form] = {count: run(count, folder / f"{form}-{count}", form) for count in (1, 2, 3)}
    whole[form] = tree(folder / f"{form}-1")
    for count in (2, 3):
        assert tree(folder / f"{form}-{count}") == whole[form], f"{count} processes wrote something else"
done = stores = 0
while done < kills:
    store, form = folder / f"killed-{stores}", draw.choice(["zarr", "webdataset"])
    for _ in range(5):
        count = draw.choice([1, 2, 3])
        done += kill(count, store, form, draw.uniform(0, took[form][count]))
    run(draw.choice([1, 2, 3]), store, form)
    found = tree(store)
    different = [name for name in found.keys() | whole[form].keys() if found.get(name) != whole[form].get(name)]
    assert not different, different
    shutil.rmtree(store)
    stores += 1
print(json.dumps({"kills": done, "stores": stores, "files": len(whole["zarr"])}))
'''


def killed(folder, kills, seed, patience):
    done = subprocess.run(
        [sys.executable, "-c", KILLS, folder, str(kills), str(seed)], capture_output=True, text=True, timeout=patience
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@needs_fork
def test_killed_extractions_end_at_the_same_bytes(tmp_path):
    assert killed(tmp_path, 5, 0, 300)["kills"] >= 5


@needs_fork
@pytest.mark.slow
def test_sixty_killed_extractions_end_at_the_same_bytes(tmp_path):
    assert killed(tmp_path, 60, 1, 1800)["kills"] >= 60
