"""The operations at the sizes at which they are measured: random inputs on torch's default device, the naive form.

Sizes: B images, N patches, D channels, M mentions, K names; T tokens of which U are used, W channels wide.
"""

import functools
import statistics
from typing import NamedTuple

import torch
import torch.nn.functional as F
from measuring import cuda_milliseconds, in_turn, peak_megabytes, seconds

from fastzss import kernels
from fastzss.kernels import reference
from fastzss.kernels.reference import Patches

AGREE = 1e-4  # relative error of two forms, or the rounding of what one computes in; codes are the same to the bit


class Case(NamedTuple):
    """One operation at one size.  Each form is called as form(**inputs, **{name: leaf}) and gives the output."""

    op: str
    inputs: dict
    leaves: dict  # what gets a gradient
    naive: object
    fast: object = torch.float32  # in which ours computes on a GPU


def unit(*sizes):
    return F.normalize(torch.randn(*sizes), dim=-1)


def mentions(B, names):
    """(row, name) of about 2 mentions an image, none to six."""
    counts = torch.distributions.Binomial(6, torch.tensor(0.34)).sample((B,)).long()
    return torch.arange(B).repeat_interleave(counts), torch.randint(names, (int(counts.sum()),))


def patches_of(storage, B, N, D):
    if storage != torch.int8:
        return Patches(unit(B, N, D).to(storage))
    codes = torch.randint(-127, 128, (B, N, D), dtype=torch.int8)
    scale = torch.rand(B, N).div_(60).add_(0.005).half()
    return Patches(codes, scale, 0.3 * unit(D), unit(D).abs() + 0.01)


def pool(storage, B, N, D, K):
    row, name = mentions(B, K)
    inputs = {"patches": patches_of(storage, B, N, D), "row": row, "name": name, "temperature": 0.1}
    return Case("concept_pool", inputs, {"classes": unit(K, D)}, naive_pool, torch.float16)


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


def clip(B, D):
    images = unit(B, D)
    texts = F.normalize(images + torch.randn(B, D) * D**-0.5, dim=-1)
    return Case("clip_loss", {"images": images}, {"texts": texts, "log_scale": torch.tensor(14.0).log()}, naive_clip)


def naive_clip(images, texts, log_scale):
    logits, own = log_scale.exp() * images @ texts.T, torch.arange(len(images), device=images.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def concept(M, K, D):
    inputs = {"present": torch.ones(K, dtype=torch.bool), "name": torch.randint(K, (M,)), "weight": torch.ones(M)}
    leaves = {"pooled": torch.randn(M, D), "classes": unit(K, D)}
    return Case("concept_loss", inputs | {"scale": 1 / 0.07}, leaves, reference.concept_loss)


def classes(M, K, D):
    counts = torch.randint(1, 4, (M,))
    offset, tokens = F.pad(counts.cumsum(0), (1, 0)), int(counts.sum())
    inputs = {"offset": offset, "name": torch.randint(K, (M,)), "names": K}
    return Case("class_vectors", inputs, {"units": unit(tokens, D)}, reference.class_vectors)


def used(T, U, W, D):
    def naive(tokens, index, projection):
        return F.normalize(tokens @ projection, dim=-1)[index]

    leaves = {"tokens": torch.randn(T, W), "projection": torch.randn(W, D) * W**-0.5}
    return Case("used_units", {"index": torch.randperm(T)[:U]}, leaves, naive)


def quantiser(B, N, D):
    inputs = {"vectors": unit(B, N, D).half(), "mean": torch.zeros(D), "std": torch.full((D,), D**-0.5)}
    return Case("quantise", inputs, {}, reference.quantise)


def match(B, M, V, D):
    return Case("segment_match", {"views": unit(B, V, D)}, {"segments": unit(B, M, D)}, reference.segment_match)


INT8, HALF = torch.int8, torch.float16
# label: (maker, size on a CPU, size on a GPU)
CASES = {
    "concept_pool int8": (pool, (INT8, 256, 256, 768, 300), (INT8, 16384, 256, 768, 574)),
    "concept_pool float16": (pool, (HALF, 256, 256, 768, 300), (HALF, 16384, 256, 768, 574)),
    "clip_loss": (clip, (4096, 512), (16384, 768)),
    "concept_loss": (concept, (521, 574, 768), (32768, 574, 768)),
    "class_vectors": (classes, (521, 574, 768), (32768, 574, 768)),
    "used_units": (used, (4096, 1300, 512, 768), (229376, 80000, 512, 768)),
    "segment_match": (match, (64, 8, 29, 768), (1024, 8, 29, 768)),
    "quantise": (quantiser, (64, 256, 768), (2048, 256, 768)),
}


def run(form, case):
    """[output, gradients]."""
    leaves = {name: leaf.detach().requires_grad_() for name, leaf in case.leaves.items()}
    output = form(**case.inputs, **leaves)
    if not leaves:
        return list(output)
    upstream = torch.linspace(-1, 1, output.numel(), device=output.device).view(output.shape) if output.dim() else None
    return [output.detach(), *torch.autograd.grad(output, list(leaves.values()), upstream)]


def gap(found, exact):
    found, exact = found.double(), exact.double()
    return ((found - exact).norm() / exact.norm().clamp_min(1e-12)).item()


def measure(label, device, trials):
    """A row of the table."""
    maker, *sizes = CASES[label]
    size = sizes[device == "cuda"]
    torch.manual_seed(0)
    with torch.device(device):
        case = maker(*size)
    calls = [functools.partial(run, form, case) for form in (getattr(kernels, case.op), case.naive)]
    row = {"op": label, "wrong": None, "size": " x ".join(str(s) for s in size if isinstance(s, int))}
    agree = max(AGREE, torch.finfo(case.fast).eps if device == "cuda" else 0) if case.leaves else 0
    if not (apart := max(map(gap, *(call() for call in calls)))) <= agree:
        return row | {"wrong": f"the two forms differ by {apart:.2g}"}
    if device == "cuda":
        ms, naive_ms = (cuda_milliseconds(call, trials) for call in calls)
    else:
        times = in_turn([functools.partial(seconds, call) for call in calls], trials)
        ms, naive_ms = (1e3 * statistics.median(own) for own in times)
    peak, naive_peak = (peak_megabytes(call, device) for call in calls)
    memory = {"peak_mb": peak, "naive_peak_mb": naive_peak}
    return row | {"ms": ms, "naive_ms": naive_ms, "ratio": naive_ms / ms} | memory
