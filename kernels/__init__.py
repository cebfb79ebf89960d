"""Fused operations on frozen patch features.  Imports torch, and triton where there is a GPU; nothing of fastzss.

    Patches            stored patch vectors, quantised or not, and what turns them back into numbers
    quantise           unit patch vectors -> int8 and a scale per patch
    unit_rows          some rows of a frozen matrix, at length 1
    used_units         token vectors -> unit vectors of the few tokens somebody uses, in the vision space
    class_vectors      unit token vectors -> one unit vector per concept named in the batch
    concept_pool       patches -> one image-side vector per mention, under a softmax over the patches
    concept_loss       how far the pooled vectors are from their concept's class vector (cross-entropy)
    local_loss         concept_pool and concept_loss in one
    clip_loss          symmetric contrastive loss of captions and frozen image vectors
    group_pool         patches -> one vector per group, under a softmax over the groups
    segment_match      how far each segment vector is from its nearest view
    embed_norm         tokens of captions that lie end to end -> their vectors by word and place, and the norm of those
    transformer_blocks blocks of a transformer on them, with self-attention inside captions
    smooth_patches     values at patches -> their mean over the image's patches that resemble each; no gradient
    refine_scores      scores of pixels -> scores that follow the edges of the image (PAMR); no gradient

Three forms of each, with the same signature: reference*.py define it in plain PyTorch; chunked*.py are the form for
CPUs; fused_*.py are Triton kernels.  FASTZSS_BACKEND, read at every call, says which is used:

    auto        triton for tensors on a GPU of compute capability 8.0 or later, where triton is installed; else chunked
    reference   the definition
    chunked     parts that fit the cache, explicit gradients, no large temporaries; any device
    triton      kernels; what has none, and float64, is chunked
    interpret   the same kernels run by Triton's interpreter on a CPU, in a process started with TRITON_INTERPRET=1
"""

import functools
import importlib
import importlib.util
import os

import torch

from fastzss.kernels import checks, chunked, chunked_filters, chunked_losses, reference, reference_tower
from fastzss.kernels.reference import Patches
from fastzss.kernels.reference_tower import BlockWeights

__all__ = [
    "BlockWeights",
    "Patches",
    "class_vectors",
    "clip_loss",
    "concept_loss",
    "concept_pool",
    "embed_norm",
    "group_pool",
    "local_loss",
    "quantise",
    "refine_scores",
    "segment_match",
    "smooth_patches",
    "transformer_blocks",
    "unit_rows",
    "used_units",
]

BACKENDS = ("auto", "reference", "chunked", "triton", "interpret")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # triton decides when its kernels are first read


def backend(tensor):
    """Which form serves a call whose first tensor is `tensor`: "reference", "chunked" or "triton"."""
    asked = os.environ.get("FASTZSS_BACKEND") or "auto"
    if asked not in BACKENDS:
        raise ValueError(f"FASTZSS_BACKEND is {asked!r}; expected one of {', '.join(BACKENDS)}")
    if asked == "auto":
        asked = "triton" if tensor.is_cuda and triton_serves(tensor.device) else "chunked"
    elif asked == "interpret":
        if not INTERPRETED:
            raise ValueError("FASTZSS_BACKEND is interpret; expected TRITON_INTERPRET=1 before fastzss is imported")
        asked = "triton"
    elif asked == "triton" and not tensor.is_cuda:
        raise ValueError(
            f"FASTZSS_BACKEND is triton, but the tensors are on {tensor.device}; expected cuda, or another backend"
        )
    return "chunked" if asked == "triton" and tensor.dtype == torch.float64 else asked


@functools.cache
def triton_serves(device):
    return importlib.util.find_spec("triton") is not None and torch.cuda.get_device_capability(device) >= (8, 0)


def operation(name, chunks=None, fused=None, defined=reference):
    """The public function of one operation.

    `chunks` has its form for CPUs, where the definition will not do; `fused` is the file of its Triton kernels.
    """
    check, definition = getattr(checks, name), getattr(defined, name)
    leading = definition.__code__.co_varnames[0]

    @functools.wraps(definition)
    def call(*arguments, **options):
        check(*arguments, **options)
        form = backend(arguments[0] if arguments else options[leading])
        if form == "triton" and fused is not None:
            module = importlib.import_module(f"fastzss.kernels.{fused}")  # late: triton is needed here only
        else:
            module = defined if form == "reference" or chunks is None else chunks
        return getattr(module, name)(*arguments, **options)

    return call


quantise = operation("quantise", chunked, "fused_quantise")
unit_rows = operation("unit_rows", fused="fused_used")
used_units = operation("used_units", fused="fused_used")
class_vectors = operation("class_vectors", fused="fused_classes")
concept_pool = operation("concept_pool", chunked, "fused_pool")
concept_loss = operation("concept_loss", chunked_losses, "fused_concept")
local_loss = operation("local_loss", chunked, "fused_step")
clip_loss = operation("clip_loss", chunked_losses, "fused_clip")
group_pool = operation("group_pool", fused="fused_group")
segment_match = operation("segment_match", chunked, "fused_match")
embed_norm = operation("embed_norm", fused="fused_embed", defined=reference_tower)
transformer_blocks = operation("transformer_blocks", fused="fused_tower", defined=reference_tower)
smooth_patches = operation("smooth_patches", chunked_filters, "fused_smooth")
refine_scores = operation("refine_scores", chunked_filters, "fused_refine")
