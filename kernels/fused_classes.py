"""Class vectors: the sum of a class's unit token vectors over all its mentions, normalised.

Going back, a token collects from the class it is a token of.

Sizes: T token vectors, D channels, M mentions, K names.
"""

import torch
import triton
import triton.language as tl

from fastzss.kernels.configs import AotCase, Budget, short
from fastzss.kernels.fused_sums import SPLITS, sum_rows
from fastzss.kernels.fused_used import unit
from fastzss.kernels.lists import class_lists
from fastzss.kernels.reference import identity

TILE = {"BLOCK_T": 16, "BLOCK_D": 256}


@triton.jit
def _of_class(classes, name, out, T, K, D: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr):
    """out[t] = classes[name[t]], and zero where there is no such class."""
    t = tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    k = tl.load(name + t, mask=t < T, other=K)
    inside = (t < T)[:, None] & (d < D)[None, :]
    rows = tl.load(classes + k[:, None] * D + d[None, :], mask=inside & (k < K)[:, None], other=0.0)
    tl.store(out + t.to(tl.int64)[:, None] * D + d[None, :], rows.to(out.dtype.element_ty), mask=inside)


class _ClassSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx, units, lists):
        ctx.save_for_backward(lists.name)
        ctx.dtype = units.dtype
        return sum_rows(units, lists.tokens, SPLITS, dtype=torch.float32)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        (name,) = ctx.saved_tensors
        (K, D), T = gradient.shape, len(name)
        out = torch.empty(T, D, dtype=ctx.dtype, device=gradient.device)
        if out.numel():
            grid = (triton.cdiv(T, TILE["BLOCK_T"]), triton.cdiv(D, TILE["BLOCK_D"]))
            _of_class[grid](gradient.contiguous(), name, out, T, K, D, **TILE, num_warps=4)
        return out, None


def class_vectors(units, offset, name, names, all_sum=identity, lists=None):
    """See reference.class_vectors.  Nothing here waits for the device."""
    lists = lists or class_lists(offset, name, names, len(units))
    return unit(all_sum(_ClassSums.apply(units, lists)), units.dtype)


def aot_cases():
    """The kernel of this file as configs.AotCase."""
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        for D in (768, 1000):
            types = {"classes": "*fp32", "name": "*i64", "out": f"*{short(dtype)}", "T": "i32", "K": "i32"}
            budgets = dict.fromkeys((80, 90, 100), Budget(128, 16 * 1024))
            name = f"of_class-{short(dtype)}-D{D}"
            yield AotCase(name, _of_class, types, {"D": D, **TILE}, {"num_warps": 4}, budgets)
