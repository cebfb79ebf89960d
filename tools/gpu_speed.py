"""The speed of the kernels on a GPU, for tools/gpu_check.py: beside other forms, and over launch options.

`run` tells device, toy (tiny sizes), trials() and left() (seconds).  All times are medians with cold caches.
"""

import functools
import itertools
import os
from unittest import mock

import torch
import torch.nn.functional as F
from cases import gap, mentions, naive_clip, patches_of, unit  # of benchmarks/
from measuring import cuda_milliseconds, peak_megabytes, seconds

from fastzss import kernels
from fastzss.kernels import configs, fused_clip, fused_pool

ALIKE = 1e-2  # relative error that half precision may have


def timed(run, call):
    """Milliseconds, the caches cold."""
    return cuda_milliseconds(call, run.trials()) if run.device == "cuda" else 1e3 * seconds(call)


def copy_speed():
    """GB/s of a plain copy on the GPU, read and written bytes together."""
    source = torch.empty(1 << 30, dtype=torch.int8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.numel() / cuda_milliseconds(lambda: target.copy_(source), 20) / 1e6


def open_clip(images, texts, log_scale):
    """Both matrices of logits from products of their own, as open_clip's local loss has it."""
    own = torch.arange(len(images), device=images.device)
    by_image, by_text = (log_scale.exp() * a @ b.T for a, b in ((images, texts), (texts, images)))
    return (F.cross_entropy(by_image, own) + F.cross_entropy(by_text, own)) / 2


def compare(run):
    """Rows of the losses beside other forms of them."""
    dtype, size = torch.float16 if run.toy else torch.bfloat16, 64 if run.toy else 8192
    a, b = (torch.randn(size, size, dtype=dtype, device=run.device) for _ in "ab")
    rate = 2 * size**3 / timed(run, lambda: a @ b) / 1e9
    yield {"what": "matrix product", "size": size, "tflop_s": rate}
    with mock.patch.dict(os.environ, FASTZSS_BACKEND="interpret" if run.device == "cpu" else "triton"):
        for B in (16, 40) if run.toy else (2048, 4096, 8192, 16384, 32768):
            yield compared_clip(run, B, 24 if run.toy else 768, dtype, rate)
        for storage, N in itertools.product((torch.int8, torch.float16), (20,) if run.toy else (256, 1024)):
            yield compared_local(run, storage, N, *((5, 24, 6) if run.toy else (16384 * 256 // N, 768, 574)))


def cost(run, call):
    """Time and memory of a call, or why there are none."""
    try:
        call()
        return {"ms": timed(run, call), "peak_mb": peak_megabytes(call, "cuda") if run.device == "cuda" else None}
    except torch.OutOfMemoryError:
        return {"left_out": "out of memory"}


def compared_clip(run, B, D, dtype, rate):
    images = F.normalize(torch.randn(B, D, device=run.device), dim=-1)
    texts = F.normalize(images + torch.randn(B, D, device=run.device) * D**-0.5, dim=-1).to(dtype).requires_grad_()
    images, scale = images.to(dtype), torch.tensor(3.9, device=run.device, requires_grad=True)
    row = {"what": "clip_loss", "B": B, "D": D}
    for name, form in (("ours", kernels.clip_loss), ("naive", naive_clip), ("open_clip", open_clip)):
        row[name] = cost(run, lambda form=form: torch.autograd.grad(form(images, texts, scale), [texts, scale]))
    if "ms" in row["ours"]:  # three products of B x B x D
        row["share_of_product"] = 6 * B * B * D / row["ours"]["ms"] / 1e9 / rate
    return row


def compared_local(run, storage, N, B, D, names):
    with torch.device(run.device):
        patches, (row, name), classes = patches_of(storage, B, N, D), mentions(B, names), unit(names, D)
        inputs = (classes.requires_grad_(), patches, row, name, torch.ones(names).bool(), torch.ones(len(row)))

    def call():
        return torch.autograd.grad(kernels.local_loss(*inputs, temperature=0.1, scale=14.0), classes)

    found = {"what": "local_loss", "storage": str(storage).removeprefix("torch."), "B": B, "N": N, "D": D}
    for one, form in (("1", "one_kernel"), ("0", "two_kernels")):
        with mock.patch.dict(os.environ, FASTZSS_FUSED_STEP=one):
            found[form] = cost(run, call)
    return found


def points(run):
    """(op, sizes, launch options) of the sweep; the first options of each size are the shipped ones."""
    if run.toy:
        yield from (("concept_pool", ("int8", 5, 20, 24), o) for o in ({}, {"BN": 16}))
        yield from (("clip_loss", ("float16", 40, 24), o) for o in ({}, {"BM": 32, "BN": 32}))
        return
    stages, warps = (2, 3, 4), (4, 8)
    for storage, (N, D) in itertools.product(("int8", "float16"), ((256, 768), (256, 384), (256, 1024), (1024, 768))):
        yield "concept_pool", (storage, 4096 * 256 // N, N, D), {}
        for BN, w, s, tma in itertools.product((32, 64), warps, stages, (True, False)):
            if tma or (BN == 32 and s < 4):
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
        names = 6 if run.toy else 574
        with torch.device(device):
            patches, (row, name), leaf = patches_of(dtype, B, sizes[2], D), mentions(B, names), unit(names, D)
        leaf.requires_grad_()
        forward = lambda **launch: fused_pool.concept_pool(leaf, patches, row, name, 0.1, **launch)  # noqa: E731
        read = len(row.unique()) * (patches.tokens[0].nbytes + (2 * sizes[2] if dtype == torch.int8 else 0))
    else:
        images = F.normalize(torch.randn(B, D, device=device), dim=-1).to(dtype)
        leaf, read = images.flip(0).clone().requires_grad_(), None
        scale = torch.tensor(3.9, device=device)
        forward = lambda **launch: fused_clip.clip_loss(images, leaf, scale, **launch)  # noqa: E731
    output = forward()
    return forward, leaf, read, [output, *torch.autograd.grad(output, leaf, torch.ones_like(output))]


def swept(run, op, sizes, launch, trials=True):
    """Forward and backward time of one point; raises where the options give other numbers than the shipped ones."""
    case, leaf, read, usual = swept_case(run, op, sizes)
    forward = functools.partial(case, **launch)
    output = forward()
    upstream = torch.ones_like(output)
    backward = lambda: torch.autograd.grad(output, leaf, upstream, retain_graph=True)  # noqa: E731
    if max(map(gap, [output, *backward()], usual)) > ALIKE:
        raise ValueError("these options give other numbers")
    if not trials:
        return None
    times = {"forward_ms": timed(run, forward), "backward_ms": timed(run, backward)}
    rates = {f"{n[:-3]}_gb_s": read / ms / 1e6 for n, ms in times.items()} if read else {}
    return times | rates


def sweep(run):
    copy = copy_speed() if run.device == "cuda" else None
    yield {"what": "copy", "gb_s": copy}
    rows = []
    for op, sizes, launch in points(run):
        row = {"op": op, "sizes": sizes, "options": launch}
        if run.left() < 20:
            yield row | {"left_out": "out of time"}
            break
        try:
            row |= swept(run, op, sizes, launch)
        except Exception as problem:  # too much shared memory for this device
            row["left_out"] = f"{type(problem).__name__}: {str(problem)[:120]}"
        if copy and "forward_gb_s" in row:
            row["forward_share"], row["backward_share"] = (row[f"{w}_gb_s"] / copy for w in ("forward", "backward"))
        rows.append(row)
        yield row
    for key, options, shipped, best in entries(rows, configs.arch_of(run.device)):
        yield {"what": "entry of configs.TUNED", "key": key, "options": options, "shipped_ms": shipped, "best_ms": best}


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
