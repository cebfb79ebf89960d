"""A Ray cluster of this machine: two workers, one of them killed; the store is what one process writes."""

import json
import os
import subprocess
import sys

import pytest
from helpers.stores import tree

from fastzss.extraction.flow import extract
from fastzss.extraction.settings import ExtractConfig

pytest.importorskip("ray")

RUN = """
import os, signal, sys, threading, time
from pathlib import Path
import ray
ray.init(num_cpus=2, include_dashboard=False, object_store_memory=80_000_000, _node_ip_address="127.0.0.1",
         logging_level="ERROR", log_to_driver=False)
from fastzss.extraction import flow
from fastzss.extraction.settings import ExtractConfig
store, n, kill = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "kill"
flow_module = sys.modules["fastzss.extraction.flow"]
write = flow_module.write_with_ray
told = {}
def killing(maker, config, todo, plan):
    def started(workers):
        told["workers"] = len(workers)
        def work():
            pid = ray.get(workers[1].process.remote())
            while not list((store / "features/commit").glob("[0-9]*.json")):
                time.sleep(0.05)
            os.kill(pid, signal.SIGKILL)
            told["killed"] = pid
        if kill:
            threading.Thread(target=work).start()
    write(maker, config, todo, plan, started)
flow_module.write_with_ray = killing
flow_module.extract(ExtractConfig(
    source=f"world:train,n={n}", store=store, parser="bank", engine="ray", workers=2, batch=8, device="cpu"))
import json
print(json.dumps(told))
"""


@pytest.mark.slow
def test_a_ray_run_of_two_workers_with_one_killed_writes_what_one_process_writes(tmp_path):
    extract(ExtractConfig(source="world:train,n=90", store=tmp_path / "here", parser="bank", batch=8, device="cpu"))
    environment = os.environ | {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(
        [sys.executable, "-c", RUN, tmp_path / "s", "90", "kill"], capture_output=True, text=True, env=environment,
        timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.strip().splitlines()[-1])
    assert told["workers"] == 2 and told["killed"] > 0
    assert "a worker was lost" in done.stderr
    assert tree(tmp_path / "s") == tree(tmp_path / "here")


def test_an_engine_shares_the_work_itself(tmp_path):
    with pytest.raises(ValueError, match="--engine ray shares the work itself; leave --claim and --part out"):
        ExtractConfig(source="world:train", store=tmp_path, engine="ray", part="1/2")
