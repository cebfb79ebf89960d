"""The nearest view of each segment in Triton: every view of an image is read once, and no [segments, views, D] is made.

    distance_ij = mean_d |g_id - v_jd|       j*_i = the first view with the least       loss = mean_i distance_ij*

A program has some segments of one image, and walks over its views with a running least.  The gradient is the sign of
what is left, sign(g_i - v_j*), over the number of all numbers.

Sizes: B images of M segments and V views, D channels.
"""

import torch
import triton
import triton.language as tl
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from fastzss.kernels.configs import AotCase, Budget, short

BLOCK_M = 8  # segments of a program


@triton.jit(do_not_specialize=["M", "V"])
def _nearest(
    segments, views, nearest, least, M, V, D: tl.constexpr, BM: tl.constexpr, BD: tl.constexpr
):  # fmt: skip
    image = tl.program_id(0).to(tl.int64)
    m = tl.program_id(1) * BM + tl.arange(0, BM)
    best = tl.full([BM], float("inf"), tl.float32)
    which = tl.zeros([BM], tl.int32)
    for j in range(0, V):
        apart = tl.zeros([BM], tl.float32)
        for start in range(0, D, BD):
            d = start + tl.arange(0, BD)
            own = tl.load(
                segments + (image * M + m)[:, None] * D + d[None, :],
                mask=(m < M)[:, None] & (d < D)[None, :],
                other=0.0,
            )
            view = tl.load(views + (image * V + j) * D + d, mask=d < D, other=0.0)
            apart += tl.sum(tl.abs(own.to(tl.float32) - view.to(tl.float32)[None, :]), 1)
        closer = apart < best
        which = tl.where(closer, j, which)
        best = tl.where(closer, apart, best)
    tl.store(nearest + image * M + m, which, mask=m < M)
    tl.store(least + image * M + m, best / D, mask=m < M)


@triton.jit(do_not_specialize=["M", "V"])
def _pull(segments, views, nearest, upstream, grad, count, M, V, D: tl.constexpr, BD: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * BD + tl.arange(0, BD)
    view = (row // M) * V + tl.load(nearest + row)
    own = tl.load(segments + row * D + d, mask=d < D, other=0.0).to(tl.float32)
    apart = own - tl.load(views + view * D + d, mask=d < D, other=0.0).to(tl.float32)
    sign = tl.where(apart > 0, 1.0, tl.where(apart < 0, -1.0, 0.0))
    slope = sign * tl.load(upstream).to(tl.float32) / count
    tl.store(grad + row * D + d, slope.to(grad.dtype.element_ty), mask=d < D)


def tiles_of(D):
    return min(512, max(16, triton.next_power_of_2(D)))


class _SegmentMatch(Function):
    @staticmethod
    def forward(ctx, segments, views, forced):
        segments, views = segments.contiguous(), views.contiguous()
        (B, M, D), V = segments.shape, views.shape[1]
        launch = dict(BM=BLOCK_M, BD=tiles_of(D), num_warps=4) | forced
        nearest = torch.empty(B, M, dtype=torch.int32, device=segments.device)
        least = torch.empty(B, M, dtype=torch.float32, device=segments.device)
        _nearest[B, triton.cdiv(M, launch["BM"])](segments, views, nearest, least, M, V, D=D, **launch)
        ctx.save_for_backward(segments, views, nearest)
        ctx.launch = launch
        return least.mean().to(segments.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        segments, views, nearest = ctx.saved_tensors
        (B, M, D), V, BD = segments.shape, views.shape[1], ctx.launch["BD"]
        grad = torch.empty_like(segments)
        upstream = gradient.reshape(1).contiguous()
        _pull[B * M, triton.cdiv(D, BD)](
            segments, views, nearest, upstream, grad, float(segments.numel()), M, V, D=D, BD=BD, num_warps=4
        )
        return grad, None, None


def segment_match(segments, views, **forced):
    """reference.segment_match on a GPU.  `forced`: launch options, for tests and tuning."""
    return _SegmentMatch.apply(segments, views, forced)


def aot_cases():
    """The kernels of this file as configs.AotCase."""
    for dtype in (torch.bfloat16, torch.float32):
        kind = short(dtype)
        types = {name: f"*{kind}" for name in ("segments", "views", "grad", "upstream")}
        types |= {"nearest": "*i32", "least": "*fp32", "count": "fp32", "M": "i32", "V": "i32"}
        for kernel, name in ((_nearest, "nearest"), (_pull, "pull")):
            for D in (768,):
                constants = {"D": D, "BM": BLOCK_M, "BD": tiles_of(D)}
                yield AotCase(
                    f"match_{name}-{kind}-D{D}",
                    kernel,
                    types,
                    {key: value for key, value in constants.items() if key in kernel.arg_names},
                    {"num_warps": 4},
                    dict.fromkeys((80, 90, 100), Budget(128, 16 * 1024)),
                )
