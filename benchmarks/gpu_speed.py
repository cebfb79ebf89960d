"""The speed of the kernels on a GPU: beside other forms, and over launch options.

For tools/gpu_check.py and `python benchmarks/ops.py --tune`.  `run` tells device, toy (tiny sizes), trials() and left()
(seconds).  All times are medians with cold caches.
"""

import contextlib
import functools
import importlib.util
import itertools
import os
import time
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F

from fastzss import kernels
from fastzss.kernels import configs, fused_clip, fused_pool

ALIKE = 1e-2  # relative error that half precision may have


@functools.cache
def table():
    """ops.py beside this file, as a module."""
    path = Path(__file__).parent / "ops.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def environment(**values):
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


def timed(run, call):
    """Milliseconds, the caches cold."""
    if run.device == "cuda":
        return table().cuda_milliseconds(call, run.trials())
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def peak(run, call):
    """Megabytes held beyond what was held before."""
    if run.device == "cpu":
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 1e6


def naive_clip(images, texts, scale):
    logits, own = scale * images @ texts.T, torch.arange(len(images), device=images.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def open_clip(images, texts, scale):
    """Both matrices of logits from products of their own, as open_clip's local loss has it."""
    own = torch.arange(len(images), device=images.device)
    by_image, by_text = scale * images @ texts.T, scale * texts @ images.T
    return (F.cross_entropy(by_image, own) + F.cross_entropy(by_text, own)) / 2


def compare(run):
    """Rows of the losses beside other forms of them."""
    dtype, size = torch.float16 if run.toy else torch.bfloat16, 64 if run.toy else 8192
    a, b = (torch.randn(size, size, dtype=dtype, device=run.device) for _ in "ab")
    rate = 2 * size**3 / timed(run, lambda: a @ b) / 1e9
    yield {"what": "matrix product", "size": size, "tflop_s": rate}
    with environment(FASTZSS_BACKEND="interpret" if run.device == "cpu" else "triton"):
        for B in (16, 40) if run.toy else (2048, 4096, 8192, 16384, 32768):
            yield compared_clip(run, B, 24 if run.toy else 768, dtype, rate)
        for storage, N in itertools.product((torch.int8, torch.float16), (20,) if run.toy else (256, 1024)):
            yield compared_local(run, storage, N, *((5, 24, 6) if run.toy else (16384 * 256 // N, 768, 574)))


def cost(run, call):
    """Time and memory of a call, or why there are none."""
    try:
        call()
        return {"ms": timed(run, call), "peak_mb": peak(run, call)}
    except torch.OutOfMemoryError:
        return {"left_out": "out of memory"}


def compared_clip(run, B, D, dtype, rate):
    images = F.normalize(torch.randn(B, D, device=run.device), dim=-1)
    texts = F.normalize(images + torch.randn(B, D, device=run.device) * D**-0.5, dim=-1).to(dtype).requires_grad_()
    images, scale = images.to(dtype), torch.tensor(50.0, device=run.device, requires_grad=True)
    row = {"what": "clip_loss", "B": B, "D": D}
    for name, form in (("ours", kernels.clip_loss), ("naive", naive_clip), ("open_clip", open_clip)):
        row[name] = cost(run, lambda form=form: torch.autograd.grad(form(images, texts, scale), [texts, scale]))
    if "ms" in row["ours"]:  # three products of B x B x D
        row["share_of_product"] = 6 * B * B * D / row["ours"]["ms"] / 1e9 / rate
    return row


def compared_local(run, storage, N, B, D, names):
    patches = table().patches_of(B, N, D, storage, run.device)
    row, name = table().mentions(B, names, run.device)
    classes = F.normalize(torch.randn(names, D, device=run.device), dim=-1).requires_grad_()
    present = torch.ones(names, dtype=torch.bool, device=run.device)
    inputs = (classes, patches, row, name, present, torch.ones(len(row), device=run.device))

    def call():
        return torch.autograd.grad(kernels.local_loss(*inputs, temperature=0.1, scale=14.0), classes)

    found = {"what": "local_loss", "storage": str(storage).removeprefix("torch."), "B": B, "N": N, "D": D}
    for one, form in (("1", "one_kernel"), ("0", "two_kernels")):
        with environment(FASTZSS_FUSED_STEP=one):
            found[form] = cost(run, call)
    return found


def points(run, wide=False):
    """(op, sizes, launch options) of the sweep; the first options of each size are the shipped ones.

    `wide`: every number of channels that has an entry of its own in configs.TUNED, and smaller tiles.
    """
    if run.toy:
        yield from (("concept_pool", ("int8", 5, 20, 24), o) for o in ({}, {"BN": 16}))
        yield from (("clip_loss", ("float16", 40, 24), o) for o in ({}, {"BM": 32, "BN": 32}))
        return
    stages, warps = (2, 3, 4), (4, 8)
    shapes = [(256, 768), (256, 384), (256, 1024), (1024, 768)]
    if wide:
        shapes = [(N, D) for N in (256, 1024) for D in (128, 192, 384, 768, 1024)]
    for storage, (N, D) in itertools.product(("int8", "float16"), shapes):
        yield "concept_pool", (storage, 4096 * 256 // N, N, D), {}
        for BN, w, s, tma in itertools.product((16, 32, 64) if wide else (32, 64), warps, stages, (True, False)):
            if wide or tma or (BN == 32 and s < 4):
                yield "concept_pool", (storage, 4096 * 256 // N, N, D), dict(BN=BN, num_warps=w, num_stages=s, TMA=tma)
    yield "clip_loss", ("bfloat16", 16384, 768), {}
    for (BM, BN), BD, w, s in itertools.product(((128, 128), (128, 256), (64, 128)), (32, 64), warps, (3, 4)):
        yield "clip_loss", ("bfloat16", 16384, 768), dict(BM=BM, BN=BN, BD=BD, num_warps=w, num_stages=s)


@functools.lru_cache(2)
def swept_case(run, op, sizes):
    """(loss as a function of launch options, its leaf, bytes read, output and gradient with the shipped options)."""
    device = run.device
    torch.manual_seed(0)
    dtype, B, *_, D = sizes
    dtype = getattr(torch, dtype)
    if op == "concept_pool":
        patches = table().patches_of(B, sizes[2], D, dtype, device)
        row, name = table().mentions(B, names := 6 if run.toy else 574, device)
        leaf = F.normalize(torch.randn(names, D, device=device), dim=-1).requires_grad_()
        forward = lambda **launch: fused_pool.concept_pool(leaf, patches, row, name, 0.1, **launch)  # noqa: E731
        read = len(row.unique()) * (patches.tokens[0].nbytes + (2 * sizes[2] if dtype == torch.int8 else 0))
    else:
        images = F.normalize(torch.randn(B, D, device=device), dim=-1).to(dtype)
        leaf, read = images.flip(0).clone().requires_grad_(), None
        forward = lambda **launch: fused_clip.clip_loss(images, leaf, 50.0, **launch)  # noqa: E731
    output = forward()
    return forward, leaf, read, [output, *torch.autograd.grad(output, leaf, torch.ones_like(output))]


def swept(run, op, sizes, launch, trials=True):
    """Forward and backward time of one point; raises where the options give other numbers than the shipped ones."""
    case, leaf, read, usual = swept_case(run, op, sizes)
    forward = functools.partial(case, **launch)
    output = forward()
    upstream = torch.ones_like(output)
    backward = lambda: torch.autograd.grad(output, leaf, upstream, retain_graph=True)  # noqa: E731
    if max(map(table().gap, [output, *backward()], usual)) > ALIKE:
        raise ValueError("these options give other numbers")
    if not trials:
        return None
    times = {"forward_ms": timed(run, forward), "backward_ms": timed(run, backward)}
    rates = {f"{n[:-3]}_gb_s": read / ms / 1e6 for n, ms in times.items()} if read else {}
    return times | rates


def sweep(run, wide=False):
    copy = table().copy_speed() if run.device == "cuda" else None
    yield {"what": "copy", "gb_s": copy}
    for op, sizes, launch in points(run, wide):
        row = {"op": op, "sizes": sizes, "options": launch}
        if run.left() < 20:
            yield row | {"left_out": "out of time"}
            return
        try:
            row |= swept(run, op, sizes, launch)
        except Exception as problem:  # too much shared memory for this device
            row["left_out"] = f"{type(problem).__name__}: {str(problem)[:120]}"
        if copy and "forward_gb_s" in row:
            row["forward_share"], row["backward_share"] = (row[f"{w}_gb_s"] / copy for w in ("forward", "backward"))
        yield row


def entries(rows, arch):
    """Rows of a sweep -> (key of configs.TUNED, best options or None where the shipped ones are, their ms, its ms)."""
    rows = [row for row in rows if "forward_ms" in row]
    for (op, sizes), group in itertools.groupby(rows, key=lambda row: (row["op"], row["sizes"])):
        tried = list(group)
        dtype, length, D = sizes[0], sizes[-2], sizes[-1]
        for which in ("forward", "backward"):
            best = min(tried, key=lambda row: row[f"{which}_ms"])
            kernel = f"{op.split('_')[-1 if op == 'concept_pool' else 0]}_{which}"
            key = configs.key(kernel, arch, D, length, dtype)
            yield key, best["options"] or None, tried[0][f"{which}_ms"], best[f"{which}_ms"]


class Patient(NamedTuple):
    """A `run` on a GPU that takes as long as it takes."""

    of: int
    device: str = "cuda"
    toy: bool = False

    def trials(self):
        return self.of

    def left(self):
        return float("inf")


def tuned(trials):
    """What `python benchmarks/ops.py --tune` prints."""
    yield from entries(sweep(Patient(trials), wide=True), configs.arch_of("cuda"))
