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
    sweep     launch options of the pooling and the contrastive loss, caches cold: the numbers for configs.TUNED
    ops       the table of benchmarks/ops.py

First all kernels are compiled, on all processors.  Writes gpu-<name>-<date>.json with hardware and versions, by default
to benchmarks/results.  Ends with 1 if something was found wrong; speeds are measured even then, and `wrong` tells it.
"""

import argparse
import contextlib
import functools
import importlib.metadata
import importlib.util
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

ROOT = Path(__file__).parent.parent
PARTS = ("parity", "repeat", "memory", "compare", "sweep", "ops")


class Check(NamedTuple):
    """One operation on one input.  Leaves get gradients; floats of `inputs` and leaves are cast to the dtype judged."""

    op: str
    label: str
    dtype: object  # plain PyTorch is judged in it
    inputs: dict
    leaves: dict
    environment: dict = {}
    cast: bool = True  # whether ours gets the leaves in that dtype as well


class Run(NamedTuple):
    """Where and how large."""

    device: str
    toy: bool
    deadline: float

    def left(self):
        return self.deadline - time.monotonic()

    def trials(self):
        return 1 if self.toy else 20


@functools.cache
def script(path):
    """A script of this repository as a module."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def speed():
    return script("benchmarks/gpu_speed.py")


def checks(run):
    """Every operation, in every dtype or storage."""
    import torch
    import torch.nn.functional as F

    device = run.device
    B, N, M, K, D, W = (4, 20, 5, 3, 24, 12) if run.toy else (96, 256, 200, 70, 768, 512)
    generator = torch.Generator().manual_seed(0)
    normal = lambda *sizes: torch.randn(*sizes, generator=generator).to(device)  # noqa: E731
    unit = lambda *sizes: F.normalize(normal(*sizes), dim=-1)  # noqa: E731
    whole = lambda high, *sizes: torch.randint(high, sizes, generator=generator).to(device)  # noqa: E731

    images = unit(B, D)
    texts = F.normalize(unit(B, D) + images, dim=-1)
    name = torch.arange(M, device=device) % K  # all are named: plain float16 makes NaN of a class without a mention
    classes, used = unit(K, D), whole(4 * B, 3 * B)
    offset = torch.arange(M + 1, device=device) * 2
    pooled = unit(M, D) + classes[name]
    candidates = {"present": torch.ones(K, dtype=torch.bool, device=device), "name": name, "weight": 1.0 + whole(3, M)}
    for dtype in (torch.float32, torch.float16, torch.bfloat16)[: 2 if run.toy else 3]:  # not bfloat16 if interpreted
        kind = str(dtype).removeprefix("torch.")
        for same in (None, whole(B // 3 + 1, B)):
            label = f"{kind}{', same images' if same is not None else ''}"
            scale = torch.tensor(14.0, device=device)
            yield Check("clip_loss", label, dtype, {"images": images, "same": same}, {"texts": texts, "scale": scale})
        for target in ("label", "argmax"):
            inputs = {**candidates, "scale": 14.0, "target": target}
            yield Check("concept_loss", f"{kind}, {target}", dtype, inputs, {"pooled": pooled, "classes": classes})
        inputs = {"token": whole(4 * B, 2 * M), "offset": offset, "name": name, "names": K}
        yield Check("class_vectors", kind, dtype, inputs, {"units": unit(4 * B, D)})
        leaves = {"tokens": normal(4 * B, W), "projection": normal(W, D) * W**-0.5}
        yield Check("used_units", kind, dtype, {"index": used}, leaves)
        inputs = {"vectors": unit(B, N, D), "mean": 0.1 * unit(D), "std": 0.1 + unit(D).abs()}
        yield Check("quantise", kind, dtype, inputs, {})
    for storage, width in itertools.product(
        (torch.int8, torch.float16, torch.float32), (40,) if run.toy else (128, 192, 384, 768, 1024, 100)
    ):
        for length in (N,) if run.toy or width != 768 else (N, 50, 1369):
            patches = speed().table().patches_of(B, length, width, storage, device)
            row, vectors = whole(B, M), unit(K, width)
            judged = torch.float32 if storage == torch.float32 else torch.float16
            label = f"{str(storage).removeprefix('torch.')}, N {length}, D {width}"
            inputs = {"patches": patches, "row": row, "name": name, "temperature": 0.1}
            yield Check("concept_pool", label, judged, inputs, {"classes": vectors}, cast=False)
            if length == N:
                inputs |= {**candidates, "scale": 14.0}
                for one in "01":
                    label_one = f"{label}, {'one kernel' if one == '1' else 'two kernels'}"
                    switch = {"FASTZSS_FUSED_STEP": one}
                    yield Check("local_loss", label_one, judged, inputs, {"classes": vectors}, switch, cast=False)


def outputs(check, run, dtype, backend=None):
    """[output, gradients], of our kernels unless another backend is named."""
    import torch

    from fastzss import kernels

    backend = backend or ("interpret" if run.device == "cpu" else "triton")
    wide = lambda t: t.to(dtype) if torch.is_tensor(t) and t.is_floating_point() else t  # noqa: E731
    leaves = {name: wide(leaf).detach().clone().requires_grad_() for name, leaf in check.leaves.items()}
    inputs = {name: value if name == "patches" else wide(value) for name, value in check.inputs.items()}
    with speed().environment(FASTZSS_BACKEND=backend, **check.environment):
        found = getattr(kernels, check.op)(**inputs, **leaves)
    if not leaves:
        return list(found)
    steps = torch.linspace(-1, 2, found.numel(), device=found.device, dtype=torch.float64).view(found.shape)
    upstream = torch.ones_like(found) if found.dim() == 0 else steps.to(found.dtype)
    return [found.detach(), *torch.autograd.grad(found, list(leaves.values()), upstream)]


def gap(found, exact):
    found, exact = found.double(), exact.double()
    return ((found - exact).norm() / exact.norm().clamp_min(1e-12)).item()


def parity(run):
    import torch

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
        row["errors"], row["right"] = {}, True
        for which, (o, p, e) in enumerate(zip(ours, plain, exact, strict=True)):
            # a single number may lie anywhere within its own rounding
            floor = max(1e-6, torch.finfo(check.dtype).eps / 2 if e.dim() == 0 else 0)
            error, allowed = gap(o, e), max((3 if which else 2) * gap(p, e), floor)
            row["errors"][list(check.leaves)[which - 1] if which else "output"] = [error, allowed]
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
    for op, sizes, launch in itertools.islice(speed().points(run), mine, None, workers) if sweeps else ():
        with contextlib.suppress(Exception):  # the sizes that are compiled in, with few images
            speed().swept(run, op, (sizes[0], 64, *sizes[2:]), launch, trials=False)


def compile_all(sweeps):
    """Hundreds of kernels of some seconds each: on all processors."""
    workers = min(12, os.cpu_count())
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(compile_part, [(mine, workers, sweeps) for mine in range(workers)]))


def compare(run):
    yield from speed().compare(run)


def sweep(run):
    yield from speed().sweep(run)


def ops(run):
    if run.toy:
        yield {"left_out": "sizes for a GPU"}
        return
    copy = speed().table().copy_speed()
    for label in speed().table().CASES:
        if run.left() < 10:
            yield {"op": label, "left_out": "out of time"}
        else:
            yield speed().table().measure(label, "cuda", 10, copy)


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
    machine = speed().table().machine(run.device) | {"triton": importlib.metadata.version("triton")}
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
