"""One command for a machine with a GPU: are the kernels right there, the same on every run, and how fast?

    python tools/gpu_check.py                           all parts, within 8 minutes
    python tools/gpu_check.py --only parity repeat      some of them
    python tools/gpu_check.py --interpret --out DIR     all parts at toy sizes on a CPU, in Triton's interpreter

Parts, in this order; when the time is up the rest is left out, and the result says so:

    parity    every operation and storage against float64: the output may be twice, a gradient three times as far off as
              plain PyTorch in that dtype (int8 is judged as float16, in which it is computed)
    repeat    20 runs give the same bits
    memory    compute-sanitizer on small sizes, where there is one
    compare   losses beside their naive and open_clip forms, the one-kernel local loss beside the two-kernel one
    sweep     launch options of the pooling and the contrastive loss, caches cold; what of it belongs in configs.TUNED
    step      attention beside PyTorch's; 20 steps beside float64 on the CPU, --graph beside eager; then the recipe
    ops       the table of benchmarks/ops.py

First all kernels are compiled, on all processors.  Writes gpu-<name>-<date>.json with hardware and versions, by default
to benchmarks/results.  Ends with 1 if something was found wrong; speeds are measured even then, and `wrong` tells it.
"""

import argparse
import contextlib
import importlib
import importlib.metadata
import itertools
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple
from unittest import mock

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "tools"))
from gpu_cases import checks, script  # noqa: E402

PARTS = ("parity", "repeat", "memory", "compare", "sweep", "step", "ops")


class Run(NamedTuple):
    """Where and how large."""

    device: str
    toy: bool
    deadline: float

    def left(self):
        return self.deadline - time.monotonic()

    def trials(self):
        return 1 if self.toy else 20


def outputs(check, run, dtype, backend=None):
    """[output, gradients], of our kernels unless another backend is named."""
    import torch

    from fastzss import kernels

    backend = backend or ("interpret" if run.device == "cpu" else "triton")

    def wide(value):
        if isinstance(value, torch.dtype):  # of what is asked for
            return dtype
        return value.to(dtype) if torch.is_tensor(value) and value.is_floating_point() else value

    leaves = {name: wide(leaf).detach().clone().requires_grad_() for name, leaf in check.leaves.items()}
    inputs = {name: wide(value) for name, value in check.inputs.items()}
    with mock.patch.dict(os.environ, FASTZSS_BACKEND=backend, **check.environment):
        found = (check.call or getattr(kernels, check.op))(**inputs, **leaves)
    if not leaves:
        return [found] if torch.is_tensor(found) else list(found)
    found = found if isinstance(found, tuple) else (found,)
    upstream = [slopes(output) if output.dim() else torch.ones_like(output) for output in found]
    return [*(output.detach() for output in found), *torch.autograd.grad(found, list(leaves.values()), upstream)]


def slopes(output):
    """An upstream gradient that is no multiple of the output."""
    import torch

    steps = torch.linspace(-1, 2, output.numel(), device=output.device, dtype=torch.float64)
    return steps.view(output.shape).to(output.dtype)


def parity(run):
    import torch

    gap = script("cases").gap
    for check in checks(run):
        row = {"op": check.op, "what": check.label}
        rounded = check
        if check.cast:  # the rounding of the inputs is nobody's error
            cast = lambda t, to=check.dtype: t.to(to) if torch.is_tensor(t) and t.is_floating_point() else t  # noqa: E731
            rounded = check._replace(
                inputs={k: cast(v) for k, v in check.inputs.items()},
                leaves={k: cast(v) for k, v in check.leaves.items()},
            )
        ours = outputs(rounded, run, check.dtype if check.cast else torch.float32)
        plain = outputs(rounded, run, check.dtype, "reference")
        if check.op == "quantise":  # bit for bit
            yield row | {"right": all(map(torch.equal, ours, plain))}
            continue
        exact = outputs(rounded, run, torch.float64, "reference")
        row["errors"], row["right"], names = {}, True, list(check.leaves)
        outs = len(ours) - len(names)
        for which, (o, p, e) in enumerate(zip(ours, plain, exact, strict=True)):
            # a single number may lie anywhere within its own rounding
            floor = max(1e-6, torch.finfo(check.dtype).eps / 2 if e.dim() == 0 else 0)
            error, allowed = gap(o, e), max((2 if which < outs else 3) * gap(p, e), floor)
            row["errors"][f"output {which}".removesuffix(" 0") if which < outs else names[which - outs]] = [
                error,
                allowed,
            ]
            row["right"] &= error <= allowed
        yield row


def repeat(run):
    import torch

    for check in checks(run):
        if run.toy and check.dtype == torch.float16 and check.cast:
            continue  # interpreted like float32
        dtype = check.dtype if check.cast else torch.float32
        first = outputs(check, run, dtype)
        again = (outputs(check, run, dtype) for _ in range(1 if run.toy else 19))
        yield {"op": check.op, "what": check.label, "right": all(all(map(torch.equal, first, o)) for o in again)}


def memory(run):
    """Reads and writes out of bounds, and races in shared memory, of the parity part at toy sizes."""
    found = shutil.which("compute-sanitizer")
    if run.device == "cpu" or not found:
        yield {"tool": "compute-sanitizer", "left_out": "no GPU" if run.device == "cpu" else "not installed"}
        return
    for tool in ("memcheck", "racecheck"):
        command = [found, "--tool", tool, "--error-exitcode", "9", sys.executable, __file__, "--child"]
        limit = min(60, run.left())
        try:
            done = subprocess.run(
                command,
                env=os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
                capture_output=True,
                text=True,
                timeout=limit,
            )
        except subprocess.TimeoutExpired:
            yield {"tool": tool, "left_out": f"not done after {limit:.0f} s"}
            continue
        told = re.findall(r"ERROR SUMMARY: (.*)|RACECHECK SUMMARY: (.*)", done.stdout + done.stderr)
        if told:
            yield {"tool": tool, "says": "".join(told[-1]), "right": done.returncode != 9}
        else:  # it could not watch the process at all
            yield {"tool": tool, "left_out": (done.stdout + done.stderr)[-300:]}


def compile_part(which):
    """In a process of its own, one of several: launch once what the parts will, so that the cache on disk has it."""
    mine, workers, sweeps = which
    import torch

    run = Run("cuda", False, 0)
    for check in itertools.islice(checks(run), mine, None, workers):
        with contextlib.suppress(Exception):  # the parts themselves will tell
            outputs(check, run, check.dtype if check.cast else torch.float32)
    for op, sizes, launch in itertools.islice(script("gpu_speed").points(run), mine, None, workers) if sweeps else ():
        with contextlib.suppress(Exception):  # the sizes that are compiled in, with few images
            script("gpu_speed").swept(run, op, (sizes[0], 64, *sizes[2:]), launch, trials=False)


def compile_all(sweeps):
    """Hundreds of kernels of some seconds each: on all processors."""
    workers = min(12, os.cpu_count())
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(compile_part, [(mine, workers, sweeps) for mine in range(workers)]))


def compare(run):
    yield from script("gpu_speed").compare(run)


def sweep(run):
    yield from script("gpu_speed").sweep(run)


def step(run):
    yield from script("gpu_step").step(run)


def ops(run):
    if run.toy:
        yield {"left_out": "sizes for a GPU"}
        return
    for label in script("cases").CASES:
        if run.left() < 10:
            yield {"op": label, "left_out": "out of time"}
        else:
            yield script("cases").measure(label, "cuda", 10)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="some parts")
    parser.add_argument("--interpret", action="store_true", help="toy sizes on a CPU")
    parser.add_argument("--minutes", type=float, default=7.5, help="of all parts (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the result")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)  # toy sizes on the GPU, prints nothing
    args = parser.parse_args(argv)
    if args.interpret:
        os.environ["TRITON_INTERPRET"] = "1"  # before triton is imported, here and below
    elif os.environ.get("TRITON_INTERPRET"):
        parser.error("TRITON_INTERPRET is set; unset it, or give --interpret")
    import torch

    if not args.interpret and not torch.cuda.is_available():
        parser.error("no GPU that torch can use; give --interpret to try the command itself")
    start = time.monotonic()
    run = Run("cpu" if args.interpret else "cuda", args.interpret or args.child, start + 60 * args.minutes)
    if args.child:
        for check in checks(run):
            outputs(check, run, check.dtype if check.cast else torch.float32)
        torch.cuda.synchronize()
        return 0
    machine = script("measuring").machine(run.device) | {"triton": importlib.metadata.version("triton")}
    if run.device == "cuda":
        machine |= {"cuda": torch.version.cuda, "capability": list(torch.cuda.get_device_capability())}
    result = {"machine": machine, "interpreted": args.interpret}
    if run.device == "cuda" and {"parity", "repeat", "sweep"} & set(args.only):
        compile_all("sweep" in args.only)
        print(f"compiled after {time.monotonic() - start:.0f} s", flush=True)
    wrong = 0
    for part in args.only:
        begin, rows = time.monotonic(), []
        for row in globals()[part](run):
            rows.append(row)
            bad = row.get("right") is False or bool(row.get("wrong"))
            wrong += bad
            print(part, "WRONG" if bad else "", json.dumps(row), flush=True)
            if run.left() < 5:
                rows.append({"left_out": "out of time"})
                break
        result[part] = rows
        print(f"{part}: {time.monotonic() - begin:.0f} s", flush=True)
    result["wrong"], result["seconds"] = wrong, round(time.monotonic() - start)
    name = re.sub(r"[^A-Za-z0-9]+", "-", machine["device"]).strip("-").lower()
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f"{'interpreted' if args.interpret else 'gpu'}-{name}-{machine['date']}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{path}: {wrong} wrong, {result['seconds']} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
