"""kill -9 while a store is written: the same writing continues to the same bytes."""

import os
import subprocess
import sys

import pytest

from fastzss.store.upkeep.verify import verify

KILLS = '''
import os, random, shutil, signal, sys, time
from pathlib import Path
import torch
from fastzss.store.plan import FeaturePlan
from fastzss.store.features import FeatureWriter

torch.set_num_threads(1)  # a forked child has no thread pool
mode, folder = sys.argv[1], Path(sys.argv[2])
plan = FeaturePlan(images=300 if mode == "moments" else 5, patches=4, channels=8, grid=(2, 2))

def extract(store):
    writer = FeatureWriter(store, plan)
    if writer.stats is None:
        writer.set_stats(torch.zeros(8), torch.ones(8))
    for shard in writer.todo():
        random = torch.Generator().manual_seed(shard)
        rows = len(plan.rows(shard))
        writer.write(shard, torch.randn(rows, 4, 8, generator=random), torch.randn(rows, 1, 8, generator=random))
    writer.finish()

def child(store, kill_after=None, kill_at=None):
    """Extract in a child process that is killed after some seconds, or before its own n-th change of a folder."""
    pid = os.fork()
    if pid == 0:
        if mode == "steps":
            steps = [0]
            def counted(step):
                def call(*args):
                    steps[0] += 1
                    if steps[0] == kill_at:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return step(*args)
                return call
            os.fsync = lambda handle: None  # changes nothing that a killed process leaves behind
            os.replace, os.link, os.unlink, os.mkdir = map(counted, (os.replace, os.link, os.unlink, os.mkdir))
        extract(store)
        os._exit(0)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(pid, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])

def tree(store):
    return {str(p.relative_to(store)): p.read_bytes() for p in store.rglob("*") if p.is_file()}

start = time.time()
assert not child(folder / "whole")
whole, duration = tree(folder / "whole"), time.time() - start
kills = 0
if mode == "moments":
    draw = random.Random(0)
    for store in (folder / f"killed-{i}" for i in range(3)):
        for _ in range(4):
            kills += child(store, kill_after=draw.uniform(0, duration / 3))
        assert not child(store)
        assert tree(store) == whole, sorted(tree(store).items() ^ whole.items())[:2]
else:
    while True:
        store = folder / f"killed-{kills}"
        if not child(store, kill_at=kills + 1):
            break
        kills += 1
        assert not child(store)
        assert tree(store) == whole, sorted(tree(store).items() ^ whole.items())[:2]
        shutil.rmtree(store)
print(kills)
'''


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("mode, least", [("moments", 4), ("steps", 40)])
def test_a_killed_extraction_continues_to_the_same_bytes(tmp_path, mode, least):
    """kill -9 at random moments, several times a store; and before every single change of a folder."""
    run = subprocess.run(
        [sys.executable, "-c", KILLS, mode, str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) >= least  # the kills that came before the end
    assert verify(tmp_path / "whole") == []
