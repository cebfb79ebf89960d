"""How fast and how lean each operation is beside its naive form, forward and backward.

    python benchmarks/ops.py               one table, for the GPU where there is one
    python benchmarks/ops.py --json        the same as JSON, with machine and versions
    python benchmarks/ops.py --tune        GPU: try launch options of the kernels, print the best as entries of a table

The naive forms, below, are what one writes first: turn all patches of the batch into float32 and pool them in one
padded product; project every token, then choose; form the whole matrix of logits.  All start from the same inputs.

No speed is printed before the numbers are right: at a small size, the output and every gradient may be off from the
float64 reference by twice (gradients: three times) the error of the naive form, or by 1e-6; at full size, the two forms
must agree.  A row that fails says so, and the command ends with 1.

`peak` is the most memory held beyond the inputs, as the allocator of torch saw it.  On a GPU the caches are cold: a
buffer larger than the L2 cache is written before each trial, and events on the device time it.  `GB/s` counts each
patch once per pass; `share` is that of the speed of a plain copy on the same device.
"""

import argparse
import datetime
import itertools
import json
import os
import platform
import shlex
import statistics
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F

from fastzss import kernels
from fastzss.console import guarded
from fastzss.kernels import reference
from fastzss.kernels.reference import Patches

ROOT = Path(__file__).resolve().parent.parent
FLOOR, AGREE = 1e-6, 1e-4  # relative errors: of a small size against float64, and of two forms at full size


class Case(NamedTuple):
    """One operation at one size.  Each form is called as form(**inputs, **{name: leaf}) and gives the output."""

    inputs: dict
    leaves: dict  # what gets a gradient
    ours: object
    naive: object  # None: the reference is already what one would write
    exact: object  # the reference
    moved: int = 0  # bytes of patches read by the two passes


def normal(*sizes, device, dtype=torch.float32):
    return torch.randn(*sizes, device=device, dtype=dtype)


def unit(*sizes, device):
    return F.normalize(normal(*sizes, device=device), dim=-1)


def mentions(B, names, device):
    """(row, name) of about 2 mentions an image, none to six."""
    counts = torch.distributions.Binomial(6, torch.tensor(0.34)).sample((B,)).long()
    row = torch.arange(B).repeat_interleave(counts)
    return row.to(device), torch.randint(names, (len(row),)).to(device)


def patches_of(B, N, D, storage, device):
    if storage != torch.int8:
        return Patches(unit(B, N, D, device=device).to(storage))
    codes = torch.randint(-127, 128, (B, N, D), dtype=torch.int8, device=device)
    scale = torch.rand(B, N, device=device).div_(60).add_(0.005).half()
    return Patches(codes, scale, 0.3 * unit(D, device=device), unit(D, device=device).abs() + 0.01)


def pool(storage, B, N, D, names, device):
    row, name = mentions(B, names, device)
    patches = patches_of(B, N, D, storage, device)
    read = N * D * storage.itemsize + (2 * N if storage == torch.int8 else 0)
    return Case(
        {"patches": patches, "row": row, "name": name, "temperature": 0.1},
        {"classes": unit(names, D, device=device)},
        kernels.concept_pool,
        naive_pool,
        reference.concept_pool,
        2 * read * len(row.unique()),
    )


def naive_pool(classes, patches, row, name, temperature):
    """All patches as float32, mentions padded to the most an image has, one softmax over [B, most, N]."""
    vectors = patches.tokens.to(classes.dtype)
    if patches.scale is not None:
        mean, std, scale = (t.to(classes.dtype) for t in (patches.mean, patches.std, patches.scale))
        vectors = mean + std * (vectors * scale.unsqueeze(-1))
    counts = torch.bincount(row, minlength=len(vectors))  # mentions come sorted by image
    slot = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]
    most = int(counts.max())
    queries = classes.new_zeros(len(vectors), most, classes.shape[1]).index_put((row, slot), classes[name])
    attention = (queries @ vectors.mT / temperature).softmax(-1)
    return (attention @ vectors)[row, slot]


def clip(B, D, device):
    images = unit(B, D, device=device)
    texts = F.normalize(images + normal(B, D, device=device) * D**-0.5, dim=-1)
    leaves = {"texts": texts, "scale": torch.tensor(14.0, device=device)}
    return Case({"images": images}, leaves, kernels.clip_loss, naive_clip, reference.clip_loss)


def naive_clip(images, texts, scale):
    logits = scale * images @ texts.T
    own = torch.arange(len(images), device=images.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def concept(M, K, D, device):
    inputs = {
        "present": torch.ones(K, dtype=torch.bool, device=device),
        "name": torch.randint(K, (M,), device=device),
        "weight": torch.ones(M, device=device),
        "scale": 1 / 0.07,
    }
    leaves = {"pooled": normal(M, D, device=device), "classes": unit(K, D, device=device)}
    return Case(inputs, leaves, kernels.concept_loss, None, reference.concept_loss)


def classes(M, names, D, device):
    counts = torch.randint(1, 4, (M,))
    inputs = {
        "offset": torch.cat([torch.zeros(1, dtype=torch.long), counts.cumsum(0)]).to(device),
        "token": torch.arange(int(counts.sum()), device=device),
        "name": torch.randint(names, (M,), device=device),
        "names": names,
    }
    leaves = {"units": unit(int(counts.sum()), D, device=device)}
    return Case(inputs, leaves, kernels.class_vectors, None, reference.class_vectors)


def used(T, U, W, D, device):
    index = torch.randperm(T)[:U].to(device)
    leaves = {"tokens": normal(T, W, device=device), "projection": normal(W, D, device=device) * W**-0.5}
    return Case({"index": index}, leaves, kernels.used_units, naive_used, reference.used_units)


def naive_used(tokens, index, projection):
    return F.normalize(tokens @ projection, dim=-1)[index]


def quantiser(B, N, D, device):
    inputs = {"vectors": unit(B, N, D, device=device).half()}
    inputs |= {"mean": torch.zeros(D, device=device), "std": torch.full((D,), D**-0.5, device=device)}
    return Case(inputs, {}, lambda **i: back(*kernels.quantise(**i)), lambda **i: back(*reference.quantise(**i)), None)


def back(codes, scale):
    return codes, scale


def match(B, M, V, D, device):
    inputs = {"views": unit(B, V, D, device=device)}
    leaves = {"segments": unit(B, M, D, device=device)}
    return Case(inputs, leaves, kernels.segment_match, reference.segment_match, reference.segment_match)


def groups(B, G, N, C, device):
    leaves = {"logits": normal(B, G, N, device=device), "values": normal(B, N, C, device=device)}
    return Case({"hard": True}, leaves, kernels.group_pool, None, reference.group_pool)


def attention(R, heads, L, channels, device):
    leaves = {name: normal(R, heads, L, channels, device=device) for name in "qkv"}
    segment = (torch.arange(L, device=device) // 14).expand(R, L)
    return Case(
        {"mask": kernels.caption_mask(segment)}, leaves, kernels.packed_attention, None, reference.packed_attention
    )


INT8, HALF = torch.int8, torch.float16
# label: (maker, small size, size on a CPU, size on a GPU)
CASES = {
    "concept_pool int8": (pool, (INT8, 9, 50, 96, 20), (INT8, 256, 256, 768, 300), (INT8, 16384, 256, 768, 574)),
    "concept_pool float16": (pool, (HALF, 9, 50, 96, 20), (HALF, 256, 256, 768, 300), (HALF, 16384, 256, 768, 574)),
    "clip_loss": (clip, (96, 64), (4096, 512), (16384, 768)),
    "concept_loss": (concept, (40, 20, 64), (521, 574, 768), (32768, 574, 768)),
    "class_vectors": (classes, (40, 20, 64), (521, 574, 768), (32768, 574, 768)),
    "used_units": (used, (90, 30, 48, 64), (4096, 1300, 512, 768), (229376, 80000, 512, 768)),
    "segment_match": (match, (5, 4, 7, 64), (64, 8, 29, 768), (1024, 8, 29, 768)),
    "group_pool": (groups, (5, 4, 49, 64), (64, 8, 196, 384), (1024, 8, 196, 384)),
    "packed_attention": (attention, (3, 2, 64, 32), (32, 8, 64, 64), (1024, 8, 128, 64)),
    "quantise": (quantiser, (9, 50, 96), (64, 256, 768), (2048, 256, 768)),
}


def run(form, case, dtype=None):
    """[output, gradients]; all in another float dtype when one is given."""
    wide = lambda t: t.to(dtype) if dtype and torch.is_tensor(t) and t.is_floating_point() else t  # noqa: E731
    leaves = {name: wide(leaf).detach().requires_grad_() for name, leaf in case.leaves.items()}
    inputs = {n: Patches(*map(wide, v)) if isinstance(v, Patches) else wide(v) for n, v in case.inputs.items()}
    output = form(**inputs, **leaves)
    if not leaves:
        return list(output)
    upstream = torch.linspace(-1, 1, output.numel(), device=output.device, dtype=output.dtype).view(output.shape)
    upstream = torch.ones_like(output) if output.dim() == 0 else upstream
    return [output.detach(), *torch.autograd.grad(output, list(leaves.values()), upstream)]


def gap(found, exact):
    found, exact = found.double(), exact.double()
    return ((found - exact).norm() / exact.norm().clamp_min(1e-12)).item()


def fault(label, device):
    """What is wrong with the numbers at the small size, or None."""
    torch.manual_seed(0)
    maker, small, *_ = CASES[label]
    case = maker(*small, device)
    ours = run(case.ours, case)
    if case.exact is None:
        return None if all(map(torch.equal, ours, run(case.naive, case))) else "differs from the reference"
    exact = run(case.exact, case, torch.float64)
    naive = run(case.naive or case.exact, case)
    for which, (a, b, c) in enumerate(zip(ours, naive, exact, strict=True)):
        allowed = max(FLOOR, (3 if which else 2) * gap(b, c))
        if not gap(a, c) <= allowed:
            what = f"gradient of {list(case.leaves)[which - 1]}" if which else "output"
            return f"{what} is off by {gap(a, c):.2g}; allowed {allowed:.2g}"
    return None


def milliseconds(forms, case, trials):
    """Median time of forward and backward of each form; they take turns, so that a busy machine slows both."""
    device = next(iter([*case.leaves.values(), *case.inputs.values()])).device
    if device.type == "cuda":
        return [cuda_milliseconds(lambda form=form: run(form, case), trials) for form in forms]
    times = [[] for _ in forms]
    for trial in range(trials + 1):
        for form, kept in zip(forms, times, strict=True):
            start = time.perf_counter()
            run(form, case)
            if trial:  # the first is to warm up
                kept.append(time.perf_counter() - start)
    return [statistics.median(kept) * 1e3 for kept in times]


def cuda_milliseconds(call, trials):
    """Median time on the device, with nothing of use in its L2 cache."""
    for _ in range(2):
        call()
    cold = torch.empty(256 << 20, dtype=torch.int8, device="cuda")  # larger than any L2 cache
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(trials)]
    for begin, end in events:
        cold.zero_()
        begin.record()
        call()
        end.record()
    torch.cuda.synchronize()
    return statistics.median(begin.elapsed_time(end) for begin, end in events)


def copy_speed():
    """GB/s of a plain copy on the GPU, read and written bytes together."""
    source = torch.empty(1 << 30, dtype=torch.int8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.numel() / cuda_milliseconds(lambda: target.copy_(source), 20) / 1e6


def peak_megabytes(call, device):
    """The most memory held beyond what was held before."""
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


def measure(label, device, trials, copy):
    """One row of the table."""
    wrong = fault(label, device)
    row = {"op": label, "wrong": wrong}
    if wrong:
        return row
    torch.manual_seed(0)
    maker, _, on_cpu, on_gpu = CASES[label]
    size = on_cpu if device == "cpu" else on_gpu
    case = maker(*size, device)
    row["size"] = " x ".join(str(s) for s in size if isinstance(s, int))
    forms = {"": case.ours} | ({"naive_": case.naive} if case.naive else {})
    if case.naive:
        apart = max(map(gap, run(case.ours, case), run(case.naive, case)))
        if not apart <= AGREE:
            return row | {"wrong": f"at full size the two forms differ by {apart:.2g}"}
    for (name, form), time_of in zip(forms.items(), milliseconds(forms.values(), case, trials), strict=True):
        row[f"{name}ms"] = time_of
        row[f"{name}peak_mb"] = peak_megabytes(lambda form=form: run(form, case), device)
    if case.naive:
        row["ratio"] = row["naive_ms"] / row["ms"]
    if copy and case.moved:
        row["gb_s"] = case.moved / row["ms"] / 1e6
        row["share"] = row["gb_s"] / copy
    return row


def machine(device):
    """Where and with what this was measured."""
    name = torch.cuda.get_device_name() if device == "cuda" else processor()
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    if device == "cuda":
        import triton

        versions["triton"] = triton.__version__
    where = {"device": name, "cores": os.cpu_count(), "threads": torch.get_num_threads()}
    where["load"] = round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None  # our own threads among them
    where["backend"] = os.environ.get("FASTZSS_BACKEND", "auto")
    script = Path(sys.argv[0]).resolve()
    script = script.relative_to(ROOT) if script.is_relative_to(ROOT) else script.name
    command = shlex.join(["python", str(script), *sys.argv[1:]])
    return {**where, **versions, "date": datetime.date.today().isoformat(), "command": command}


def processor():
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


COLUMNS = [("ms", "{:.1f}"), ("naive_ms", "{:.1f}"), ("ratio", "{:.2f}x"), ("peak_mb", "{:.1f}")]
COLUMNS += [("naive_peak_mb", "{:.1f}"), ("gb_s", "{:.0f}"), ("share", "{:.0%}")]


def show(rows):
    print(f"{'operation':22}{'size':24}" + "".join(f"{name:>14}" for name, _ in COLUMNS))
    for row in rows:
        if row["wrong"]:
            print(f"{row['op']:22}no speed: {row['wrong']}")
            continue
        cells = (form.format(row[name]) if name in row else "-" for name, form in COLUMNS)
        print(f"{row['op']:22}{row['size']:24}" + "".join(f"{cell:>14}" for cell in cells))


def work(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ops", nargs="+", metavar="NAME", help="only operations whose label begins so")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU (default: %(default)s)")
    parser.add_argument("--trials", type=int, help="the median of so many (default: 7, on a GPU 20)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--tune", action="store_true", help="print launch options for this GPU")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    trials = args.trials or (7 if args.device == "cpu" else 20)
    if args.tune:
        if args.device != "cuda":
            parser.error("--tune needs a GPU")
        from gpu_speed import tuned  # late: it imports this file, and triton

        for key, options, before, after in tuned(trials):
            print(f"    {key}: {options},  # {before:.3f} -> {after:.3f} ms" if options else f"    # {key}: as it is")
        return 0
    copy = copy_speed() if args.device == "cuda" else None
    labels = [label for label in CASES if not args.ops or label.startswith(tuple(args.ops))]
    rows = [measure(label, args.device, trials, copy) for label in labels]
    if args.json:
        print(
            json.dumps({"machine": machine(args.device), "copy_gb_s": copy, "trials": trials, "rows": rows}, indent=1)
        )
    else:
        show(rows)
        facts = machine(args.device) | {"trials": trials} | ({"copy GB/s": round(copy)} if copy else {})
        print(", ".join(f"{name} {value}" for name, value in facts.items()))
    return 1 if any(row["wrong"] for row in rows) else 0


def main(argv=None):
    return guarded("ops", lambda: work(argv), "interrupted")


if __name__ == "__main__":
    sys.exit(main())
