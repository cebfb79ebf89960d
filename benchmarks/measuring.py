"""What the benchmarks share.  What is heavy is imported late, here and there, so that `--help` is instant."""

import argparse
import datetime
import functools
import importlib.metadata
import itertools
import json
import os
import shlex
import statistics
import sys
import time
from pathlib import Path

from fastzss.base.console import guarded

ROOT = Path(__file__).resolve().parent.parent
GRID, CHANNELS = (16, 16), {"tiny": 128, "small": 384, "base": 768, "large": 1024}  # of the vision of each size


def command(work):
    """The main function of a benchmark: a user's mistake becomes one sentence and an exit code."""
    name = Path(work.__code__.co_filename).stem
    return functools.wraps(work)(lambda argv=None: guarded(name, lambda: work(argv), "interrupted"))


def options(doc, device=True, threads=None):
    """A parser with what every benchmark can be told; `threads` of PyTorch, None: one for each core."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if device:
        parser.add_argument("--device", choices=["cpu", "cuda"], help="by default cuda where there is one")
    parser.add_argument("--threads", type=int, default=threads, help=f"of the CPU (default: {threads or 'all cores'})")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def begin(parser, argv):
    """The arguments, with `machine` for the result; PyTorch is told its threads."""
    args = parser.parse_args(argv)
    for name, value in vars(args).items():
        if type(value) is int and value < 1:
            parser.error(f"--{name} must be positive, got {value}")
    import torch

    from fastzss.base.machine import cores

    found, asked = torch.cuda.is_available(), getattr(args, "device", "cpu")
    if asked == "cuda" and not found:
        parser.error("--device cuda: PyTorch sees no GPU here; leave --device out, or say --device cpu")
    args.device = asked or ("cuda" if found else "cpu")
    torch.set_num_threads(args.threads or cores())
    args.machine = machine(args.device)
    return args


def machine(device):
    """Where, with what, when and by which command something is measured; `load` is that of before."""
    import torch

    from fastzss.base.machine import machine_record

    facts = machine_record(device) | {"threads": torch.get_num_threads()}
    facts["load"] = round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None
    facts["backend"] = os.environ.get("FASTZSS_BACKEND", "auto")
    if device == "cuda":
        facts["triton"] = importlib.metadata.version("triton")
    script = Path(sys.argv[0]).resolve()
    script = script.relative_to(ROOT) if script.is_relative_to(ROOT) else script.name
    typed = shlex.join(["python", str(script), *sys.argv[1:]])
    return facts | {"date": datetime.date.today().isoformat(), "command": typed}


def collected(rows, line, args):
    """A list of the rows; each is shown as soon as it is there, unless JSON is wanted."""
    kept = []
    for row in rows:
        kept.append(row)
        if not args.json:
            print(line(row), flush=True)
    return kept


def tell(result, args, show=lambda result: None):
    """Print a result: one JSON object, or as `show` does it, with settings and machine in the last line."""
    if args.json:
        print(json.dumps(result, indent=1))
        return
    show(result)
    print("; ".join(f"{name} {value}" for name, value in {**result.get("settings", {}), **result["machine"]}.items()))


def seconds(call, clock=time.perf_counter):
    begin = clock()
    call()
    return clock() - begin


def in_turn(works, rounds, before=lambda: None, warm_up=True):
    """[what a work gave in each round] of every work.

    They take turns, every other round backwards, so that a busy machine slows all of them.
    """
    found = [[] for _ in works]
    for turn in range(0 if warm_up else 1, rounds + 1):
        before()
        for number in range(len(works))[:: 1 if turn % 2 else -1]:
            given = works[number]()
            if turn:
                found[number].append(given)
    return found


def cuda_milliseconds(call, trials):
    """Median time on the device, with nothing of use in its L2 cache."""
    import torch

    for _ in range(2):
        call()
    cold = torch.empty(256 << 20, dtype=torch.int8, device="cuda")  # larger than any L2 cache
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(trials)]
    for first, last in events:
        cold.zero_()
        first.record()
        call()
        last.record()
    torch.cuda.synchronize()
    return statistics.median(first.elapsed_time(last) for first, last in events)


def peak_megabytes(call, device):
    """The most memory held beyond what was held before."""
    import torch

    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler talks on stderr
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as record:
        call()
    events = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = itertools.accumulate(e.nbytes() for e in sorted(events, key=lambda e: e.start_ns()))
    return max(held, default=0) / 1e6
