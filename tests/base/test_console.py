"""How a program ends where several processes worked together."""

import subprocess
import sys

CODE = """
import sys
import torch.distributed as dist
from fastzss.base.console import guarded
from fastzss.base.errors import UserError

def work():
    dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=0, world_size=1)
    if sys.argv[2] == "fails":
        raise UserError("no")

code = guarded("fastzss", work)
print(code, dist.is_initialized())
"""


def test_processes_part_when_their_work_is_done(tmp_path):
    ends = {}
    for how in ("works", "fails"):
        done = subprocess.run([sys.executable, "-c", CODE, tmp_path / how, how], capture_output=True, text=True)
        ends[how] = done.stdout.split()
    assert ends["works"] == ["0", "False"]
    assert ends["fails"] == ["1", "True"], "others may be waiting for this one, and are told by its end"
