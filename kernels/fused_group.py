"""Pooling by groups in Triton: a softmax over the groups, patch by patch, and what each group gathers.

    Y_kn = softmax_k( L_kn )         A = Y, or (hard) one for the likeliest group of a patch and zero for the others
    O_k  = sum_n A_kn X_n / Z_k      Z_k = sum_n A_kn + eps

A patch needs its own G logits alone, so nothing is rescaled on the way: a program walks over the patches of its image
with a tile of channels, and nothing of size [G, N] is written.  With g the gradient of O and hard's that of soft:

    dA_kn = (<g_k, X_n> - <g_k, O_k>) / Z_k          dL_kn = Y_kn (dA_kn - sum_j Y_jn dA_jn)
    dX_n  = sum_k A_kn g_k / Z_k                     only where somebody wants it: frozen patches do not

Sizes: B images of N patches, G groups, C channels.
"""

import torch
import triton
import triton.language as tl
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from fastzss.kernels.configs import SHARED, AotCase, Budget, arch_of, options, short
from fastzss.kernels.products import LOW, arithmetic


@triton.jit
def shares(logits, image, n, N, G, BG: tl.constexpr, HARD: tl.constexpr, LOW: tl.constexpr):
    """(Y, A) [BG, BN] of patches n; zero for groups and patches that are not there."""
    k = tl.arange(0, BG)
    inside = (k < G)[:, None] & (n < N)[None, :]
    at = logits + (image * G + k)[:, None] * N + n[None, :]
    logit = tl.where(inside, tl.load(at, mask=inside, other=0.0).to(tl.float32), LOW)
    weight = tl.where(inside, tl.exp(logit - tl.max(logit, 0)[None, :]), 0.0)
    soft = weight / tl.maximum(tl.sum(weight, 0), 1e-30)[None, :]
    if HARD:
        best = tl.argmax(logit, 0)
        return soft, tl.where(inside & (k[:, None] == best[None, :]), 1.0, 0.0)
    return soft, soft


@triton.jit(do_not_specialize=["N", "G"])
def _forward(
    logits, values, out, total, eps, N, G, C,
    BG: tl.constexpr, BN: tl.constexpr, BC: tl.constexpr, HARD: tl.constexpr, COMPUTE: tl.constexpr,
    PRECISION: tl.constexpr, LOW: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    k = tl.arange(0, BG)
    gathered = tl.zeros([BG, BC], tl.float32)
    count = tl.zeros([BG], tl.float32)
    for start in range(0, N, BN):
        n = start + tl.arange(0, BN)
        _, share = shares(logits, image, n, N, G, BG, HARD, LOW)
        at = values + (image * N + n)[:, None] * C + c[None, :]
        tile = tl.load(at, mask=(n < N)[:, None] & (c < C)[None, :], other=0.0)
        gathered = tl.dot(share.to(COMPUTE), tile.to(COMPUTE), gathered, input_precision=PRECISION)
        count += tl.sum(share, 1)
    z = count + eps
    at = out + (image * G + k)[:, None] * C + c[None, :]
    tl.store(at, (gathered / z[:, None]).to(out.dtype.element_ty), mask=(k < G)[:, None] & (c < C)[None, :])
    if tl.program_id(1) == 0:
        tl.store(total + image * G + k, z, mask=k < G)


@triton.jit(do_not_specialize=["N", "G"])
def _backward(
    logits, values, upstream, along, total, grad, N, G, C,
    BG: tl.constexpr, BN: tl.constexpr, BC: tl.constexpr, COMPUTE: tl.constexpr, PRECISION: tl.constexpr,
    LOW: tl.constexpr,
):  # fmt: skip
    """dL of some patches; `along`: <g_k, O_k>."""
    image = tl.program_id(0).to(tl.int64)
    n = tl.program_id(1) * BN + tl.arange(0, BN)
    k = tl.arange(0, BG)
    product = tl.zeros([BG, BN], tl.float32)
    for start in range(0, C, BC):
        c = start + tl.arange(0, BC)
        left = tl.load(
            upstream + (image * G + k)[:, None] * C + c[None, :], mask=(k < G)[:, None] & (c < C)[None, :], other=0.0
        )
        right = tl.load(
            values + (image * N + n)[None, :] * C + c[:, None], mask=(n < N)[None, :] & (c < C)[:, None], other=0.0
        )
        product = tl.dot(left.to(COMPUTE), right.to(COMPUTE), product, input_precision=PRECISION)
    z = tl.load(total + image * G + k, mask=k < G, other=1.0)
    own = tl.load(along + image * G + k, mask=k < G, other=0.0)
    soft, _ = shares(logits, image, n, N, G, BG, False, LOW)
    towards = (product - own[:, None]) / z[:, None]
    slope = soft * (towards - tl.sum(soft * towards, 0)[None, :])
    at = grad + (image * G + k)[:, None] * N + n[None, :]
    tl.store(at, slope.to(grad.dtype.element_ty), mask=(k < G)[:, None] & (n < N)[None, :])


@triton.jit(do_not_specialize=["N", "G"])
def _backward_values(
    logits, upstream, total, grad, N, G, C,
    BG: tl.constexpr, BN: tl.constexpr, BC: tl.constexpr, HARD: tl.constexpr, COMPUTE: tl.constexpr,
    PRECISION: tl.constexpr, LOW: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(0).to(tl.int64)
    n = tl.program_id(1) * BN + tl.arange(0, BN)
    c = tl.program_id(2) * BC + tl.arange(0, BC)
    k = tl.arange(0, BG)
    _, share = shares(logits, image, n, N, G, BG, HARD, LOW)
    share = share / tl.load(total + image * G + k, mask=k < G, other=1.0)[:, None]
    at = upstream + (image * G + k)[:, None] * C + c[None, :]
    tile = tl.load(at, mask=(k < G)[:, None] & (c < C)[None, :], other=0.0)
    mine = tl.dot(tl.trans(share).to(COMPUTE), tile.to(COMPUTE), input_precision=PRECISION)
    at = grad + (image * N + n)[:, None] * C + c[None, :]
    tl.store(at, mine.to(grad.dtype.element_ty), mask=(n < N)[:, None] & (c < C)[None, :])


def launch_options(arch, G, C, N, dtype):
    """Constexprs and launch options, for operands of a dtype."""
    BG = max(16, triton.next_power_of_2(G))
    widest = 128 if BG <= 32 and dtype.itemsize == 2 else 64  # what spills nothing
    BC = min(widest, max(16, triton.next_power_of_2(C)))
    default = dict(BG=BG, BN=64 if dtype.itemsize == 2 else 32, BC=BC, num_warps=8, num_stages=2)
    if arch == 100 and dtype.itemsize == 4:
        default |= dict(BN=16, num_warps=4)
    return {**options("group", arch, C, N, dtype, default), "LOW": LOW}


class _GroupPool(Function):
    @staticmethod
    def forward(ctx, logits, values, hard, eps, forced):
        logits, values = logits.contiguous(), values.contiguous()
        (B, G, N), C = logits.shape, values.shape[2]
        launch = launch_options(arch_of(logits.device), G, C, N, values.dtype) | arithmetic(values.dtype) | forced
        out = torch.empty(B, G, C, dtype=values.dtype, device=values.device)
        total = torch.empty(B, G, dtype=torch.float32, device=values.device)
        grid = (B, triton.cdiv(C, launch["BC"]))
        _forward[grid](logits, values, out, total, float(eps), N, G, C, HARD=hard, **launch)
        ctx.save_for_backward(logits, values, out, total)
        ctx.hard, ctx.launch = hard, launch
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        logits, values, out, total = ctx.saved_tensors
        (B, G, N), C, launch = logits.shape, values.shape[2], ctx.launch
        gradient, tiles = gradient.contiguous(), triton.cdiv(N, launch["BN"])
        slopes = mine = None
        if ctx.needs_input_grad[0]:
            along = (gradient.float() * out.float()).sum(-1)
            slopes = torch.empty_like(logits)
            _backward[B, tiles](logits, values, gradient, along, total, slopes, N, G, C, **launch)
        if ctx.needs_input_grad[1]:
            mine = torch.empty_like(values)
            grid = (B, tiles, triton.cdiv(C, launch["BC"]))
            _backward_values[grid](logits, gradient, total, mine, N, G, C, HARD=ctx.hard, **launch)
        return slopes, mine, None, None, None


def group_pool(logits, values, hard, eps=1.0, **forced):
    """reference.group_pool on a GPU.  `forced`: launch options, for tests and tuning."""
    if logits.numel() == 0 or values.numel() == 0:
        return torch.zeros(*logits.shape[:2], values.shape[2], dtype=values.dtype, device=values.device) + 0 * (
            logits.sum() + values.sum()
        )
    return _GroupPool.apply(logits, values, hard, eps, forced)


def aot_cases():
    """The kernels of this file as configs.AotCase."""
    pointers = "logits values out upstream grad".split()
    for dtype in (torch.bfloat16, torch.float32):
        kind, half = short(dtype), dtype.itemsize == 2
        types = {name: f"*{kind}" for name in pointers}
        types |= {"total": "*fp32", "along": "*fp32", "eps": "fp32", "N": "i32", "G": "i32", "C": "i64"}
        compute = {"bf16": tl.bfloat16, "fp16": tl.float16, "fp32": tl.float32}[kind]
        for kernel, name in ((_forward, "forward"), (_backward, "backward"), (_backward_values, "values")):
            for G, C in ((32, 768),):
                for arch in (80, 90, 100):
                    launch = launch_options(arch, G, C, 256, dtype)
                    constants = launch | dict(HARD=True, COMPUTE=compute, PRECISION="ieee" if half else "tf32x3")
                    yield AotCase(
                        f"group_{name}-{kind}-G{G}-C{C}",
                        kernel,
                        types,
                        {name: value for name, value in constants.items() if name in kernel.arg_names},
                        dict(num_warps=launch["num_warps"], num_stages=launch["num_stages"]),
                        {arch: Budget(255, SHARED[arch])},
                    )
