"""The symmetric contrastive loss over frozen images, in Triton: no [B, B] matrix, and a rank sees its own texts only.

With logits S_ij = scale <image_i, text_j>, sums over j != own text of i, and sums over i != own image of j,

    row_i = log sum_j exp(S_ij)      column_j = log sum_i exp(S_ij)      m_j = S of the pair
    loss  = sum_pairs softplus(row - m) + softplus(column - m), over 2 B

which is the mean of the two cross-entropies, written so that neither a loss near zero nor its gradient cancels.  One
pass over the tiles of S yields both sums as partials [tiles, B], added in a fixed order.  Ranks exchange one number a
row.  The backward pass forms, for some texts at a time,

    G_ij = g_row_i exp(S_ij - row_i) + g_column_j exp(S_ij - column_j)      G_pair = g_m

as a tile of the compute dtype, and leaves G images to a matrix product.  With `same`, other pairs of the same image are
left out of all sums.

Sizes: B images of the whole batch, b texts of this rank, D channels.
"""

import os

import torch
import torch.nn.functional as F
import triton
import triton.language as tl

from fastzss.kernels import chunked_losses
from fastzss.kernels.configs import SHARED, AotCase, Budget, arch_of, options, short
from fastzss.kernels.reference import identity

LOW = -1e30  # the logarithm of an empty sum: finite, so that differences of two of them are no NaN
CHUNK_BYTES = 64 << 20  # of one backward tile [texts, images]


@triton.jit
def dots(
    a, b, i, j, A, B,
    D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr, COMPUTE: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """[BM, BN] float32: products of rows i of a [A, D] and rows j of b [B, D]; beyond the end the last row again."""
    d = tl.arange(0, BD)
    at_a = a + tl.minimum(i, A - 1).to(tl.int64)[:, None] * D + d[None, :]
    at_b = b + tl.minimum(j, B - 1).to(tl.int64)[None, :] * D + d[:, None]
    total = tl.zeros([BM, BN], tl.float32)
    for done in range(0, D, BD):
        if D % BD == 0:
            left = tl.load(at_a + done)
            right = tl.load(at_b + done)
        else:
            left = tl.load(at_a + done, mask=d[None, :] < D - done, other=0.0)
            right = tl.load(at_b + done, mask=d[:, None] < D - done, other=0.0)
        total = tl.dot(left.to(COMPUTE), right.to(COMPUTE), total, input_precision=PRECISION)
    return total


@triton.jit
def grouped(program, tiles_m, tiles_n, GROUP: tl.constexpr):
    """Tile of a program: GROUP rows of tiles share the columns they read while those are in the L2 cache."""
    width = GROUP * tiles_n
    first = program // width * GROUP
    rows = tl.minimum(tiles_m - first, GROUP)
    return first + program % width % rows, program % width // rows


@triton.jit(do_not_specialize=["first"])
def _forward(
    images, texts, scale, same, row_top, row_sum, column_top, column_sum, matched, first, B, b,
    D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr, GROUP: tl.constexpr,
    COMPUTE: tl.constexpr, PRECISION: tl.constexpr, LOW: tl.constexpr,
):  # fmt: skip
    tile_m, tile_n = grouped(tl.program_id(0), tl.cdiv(B, BM), tl.cdiv(b, BN), GROUP)
    i = tile_m * BM + tl.arange(0, BM)
    j = tile_n * BN + tl.arange(0, BN)
    own = first + j  # image of text j
    logit = dots(images, texts, i, j, B, b, D, BM, BN, BD, COMPUTE, PRECISION) * tl.load(scale)
    pair = i[:, None] == own[None, :]
    tl.store(matched + j, tl.sum(tl.where(pair, logit, 0.0), 0), mask=(j < b) & (own // BM == tile_m))
    others = (i < B)[:, None] & (j < b)[None, :] & ~pair
    if same is not None:
        image_i = tl.load(same + i, mask=i < B, other=-1)
        image_j = tl.load(same + own, mask=j < b, other=-2)
        others &= image_i[:, None] != image_j[None, :]
    logit = tl.where(others, logit, LOW)
    top = tl.max(logit, 1)
    place = tile_n.to(tl.int64) * B + i
    tl.store(row_top + place, top, mask=i < B)
    tl.store(row_sum + place, tl.sum(tl.exp(logit - top[:, None]), 1), mask=i < B)
    top = tl.max(logit, 0)
    place = tile_m.to(tl.int64) * b + j
    tl.store(column_top + place, top, mask=j < b)
    tl.store(column_sum + place, tl.sum(tl.exp(logit - top[None, :]), 0), mask=j < b)


@triton.jit(do_not_specialize=["first", "start", "stop"])
def _backward(
    images, texts, scale, same, row_top, column_top, g_row, g_column, g_pair, gradient, g_logit, stride,
    first, start, stop, B, b,
    D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr, GROUP: tl.constexpr,
    COMPUTE: tl.constexpr, PRECISION: tl.constexpr, LOW: tl.constexpr,
):  # fmt: skip
    """G of the texts start..stop, [stop - start, B] in rows of `stride`, and per tile the sum of G S without the pairs.

    Without g_row and g_column, the tops bring the logarithms of these: registers are short in the large tiles.
    """
    tile_m, tile_n = grouped(tl.program_id(0), tl.cdiv(stop - start, BM), tl.cdiv(B, BN), GROUP)
    t = tile_m * BM + tl.arange(0, BM)
    j = start + t
    i = tile_n * BN + tl.arange(0, BN)
    own = first + j
    logit = dots(texts, images, j, i, b, B, D, BM, BN, BD, COMPUTE, PRECISION) * tl.load(scale)
    there = j < stop
    pair = i[None, :] == own[:, None]
    others = there[:, None] & (i < B)[None, :] & ~pair
    if same is not None:
        image_i = tl.load(same + i, mask=i < B, other=-1)
        image_j = tl.load(same + own, mask=there, other=-2)
        others &= image_i[None, :] != image_j[:, None]
    logit = tl.where(others, logit, LOW)
    by_image = tl.exp(logit - tl.load(row_top + i, mask=i < B, other=0.0)[None, :])
    by_text = tl.exp(logit - tl.load(column_top + j, mask=there, other=0.0)[:, None])
    if g_row is None:
        value = by_image + by_text
    else:
        value = by_image * tl.load(g_row + i, mask=i < B, other=0.0)[None, :]
        value += by_text * tl.load(g_column + j, mask=there, other=0.0)[:, None]
    tl.store(g_logit + tl.program_id(0), tl.sum(value * logit))
    value = tl.where(pair, tl.load(g_pair + j, mask=there, other=0.0)[:, None], value)
    place = t.to(tl.int64)[:, None] * stride + i[None, :]
    tl.store(gradient + place, value.to(gradient.dtype.element_ty), mask=there[:, None] & (i < B)[None, :])


def compute_dtype(tensor):
    """What a matrix product of this tensor is computed in: its dtype, or autocast's."""
    device = tensor.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else tensor.dtype


def precise(a, b):
    """a @ b in float32, however short the numbers of a and b are."""
    with torch.autocast(a.device.type, enabled=False):
        if a.dtype == torch.float32:
            return a @ b
        return torch.mm(a, b, out_dtype=torch.float32) if a.is_cuda else a.float() @ b.float()


def gain_of(*gradients):
    """1 / the largest of some gradients: times this they suit a half precision, whatever the loss was scaled with."""
    largest = torch.stack([g.abs().amax() for g in gradients if g.numel()]).amax()
    return torch.where(largest > 0, 1 / largest, 1.0).float()


def defaults(arch, dtype, twins=False):
    """Launch options where nothing was measured; `twins`: going forward with images that stand more than once."""
    if dtype == torch.float32:
        return dict(BM=64, BN=64, BD=32, GROUP=8, num_warps=4, num_stages=3)
    if arch == 86:  # 99 KiB of shared memory
        return dict(BM=128, BN=128, BD=64, GROUP=8, num_warps=8, num_stages=2)
    # on sm_100 a thread holds half a row of the tile: 128 columns would spill
    launch = dict(BM=128, BN=64 if arch == 100 else 128, BD=64, GROUP=8, num_warps=8, num_stages=4)
    if arch == 100 and twins:
        launch["maxnreg"] = 224  # the assembler would else aim at two programs at a time, and spill a little for it
    return launch


def arithmetic(dtype):
    """COMPUTE and PRECISION of a kernel made of `dots`, for operands of a dtype."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    half = dtype.itemsize == 2 and not interpreted  # the interpreter is wrong on bfloat16
    compute = {torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}[dtype] if half else tl.float32
    exact = half or interpreted
    precision = "ieee" if exact else "tf32" if torch.backends.cuda.matmul.allow_tf32 else "tf32x3"
    return dict(COMPUTE=compute, PRECISION=precision)


def launch_options(op, device, D, size, dtype, twins=False):
    """All constexprs and launch options of a kernel made of `dots`, for operands of a dtype."""
    arch = arch_of(device)
    return {**options(op, arch, D, size, dtype, defaults(arch, dtype, twins)), "D": D, **arithmetic(dtype)}


class _Sums(torch.autograd.Function):
    """(row_top [B], row_sum [B], column_top [b], column_sum [b], matched [b]) of this rank's texts.

    A sum is that of exp(S - top).  The top is a number, without a gradient.
    """

    @staticmethod
    def forward(ctx, images, texts, scale, first, same, chunk, forced):
        (B, D), b, device = images.shape, len(texts), images.device
        launch = {**launch_options("clip_forward", device, D, B, texts.dtype, same is not None), **forced}
        rows, columns = triton.cdiv(B, launch["BM"]), triton.cdiv(b, launch["BN"])
        row_tops, fused_sums = torch.empty(2, columns, B, dtype=torch.float32, device=device)
        column_tops, column_sums = torch.empty(2, rows, b, dtype=torch.float32, device=device)
        matched = torch.empty(b, dtype=torch.float32, device=device)
        _forward[(rows * columns,)](
            images, texts, scale, same, row_tops, fused_sums, column_tops, column_sums, matched, first, B, b, LOW=LOW,
            **launch,
        )  # fmt: skip
        row_top, row_sum = joined(row_tops, fused_sums)
        column_top, column_sum = joined(column_tops, column_sums)
        ctx.save_for_backward(images, texts, scale, same, row_top, column_top, matched)
        ctx.first, ctx.chunk, ctx.forced = first, chunk, forced
        ctx.mark_non_differentiable(row_top, column_top)
        return row_top, row_sum, column_top, column_sum, matched

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, _row, g_row, _column, g_column, g_matched):
        images, texts, scale, same, row_top, column_top, matched = ctx.saved_tensors
        (B, D), b, device = images.shape, len(texts), images.device
        launch = {**launch_options("clip_backward", device, D, B, texts.dtype), **ctx.forced}
        stride = triton.cdiv(B, 16) * 16
        chunk = ctx.chunk or max(launch["BM"], min(2048, CHUNK_BYTES // (stride * texts.itemsize)))
        gain = gain_of(g_row, g_column, g_matched)
        if texts.dtype.itemsize == 2:  # the sums' gradients have one sign, the pairs' the other
            gain = torch.where(g_matched.sum() > 0, -gain, gain)
            row_top, column_top = folded(row_top, g_row * gain), folded(column_top, g_column * gain)
            g_row = g_column = None
        else:
            g_row, g_column = g_row * gain, g_column * gain
        g_pair = g_matched * gain
        tile = torch.empty(min(chunk, b), stride, dtype=texts.dtype, device=device)
        g_texts, g_logits = torch.empty_like(texts), [g_pair * matched]
        for start in range(0, b, chunk):
            stop = min(start + chunk, b)
            programs = triton.cdiv(stop - start, launch["BM"]) * triton.cdiv(B, launch["BN"])
            g_logits.append(torch.empty(programs, dtype=torch.float32, device=device))
            _backward[(programs,)](
                images, texts, scale, same, row_top, column_top, g_row, g_column, g_pair, tile, g_logits[-1], stride,
                ctx.first, start, stop, B, b, LOW=LOW, **launch,
            )  # fmt: skip
            g_texts[start:stop] = precise(tile[: stop - start, :B], images) * (scale / gain)
        g_scale = (torch.cat(g_logits).sum(dtype=torch.float64) / (gain * scale)).reshape(scale.shape).float()
        return None, g_texts, g_scale, None, None, None, None


def joined(tops, sums):
    """Sums of exp(S - top) of many tiles, [tiles, *], as one."""
    top = tops.amax(0)
    return top, (sums * (tops - top).exp_()).sum(0)


def folded(top, gradient):
    """t so that exp(S - t) = gradient exp(S - top)."""
    return top - gradient.clamp_min(0).log()


def clip_loss(images, texts, scale, first=0, all_sum=identity, all_max=identity, same=None, *, chunk=None, **forced):
    """reference.clip_loss on a GPU: float32.

    `chunk` (texts of one backward tile) and launch options (BM=, BN=, num_warps=, ...) are for tests and tuning.
    """
    dtype = compute_dtype(texts)
    if dtype == torch.float64:
        return chunked_losses.clip_loss(images.to(dtype), texts, scale, first, all_sum, all_max, same)
    scale = scale.float() if torch.is_tensor(scale) else torch.full((), scale, device=texts.device)
    images, texts = images.to(dtype).contiguous(), texts.to(dtype).contiguous()
    if same is not None:  # any 64-bit numbers, as numbers below B: where each stands first in their sorted list
        same = torch.searchsorted(same.sort().values, same).int()
    own_top, row_sum, column_top, column_sum, matched = _Sums.apply(images, texts, scale, first, same, chunk, forced)
    top = all_max(own_top)
    own = slice(first, first + len(texts))
    row_sum = all_sum(row_sum * (own_top - top).exp())[own]
    by_image = F.softplus(row_sum.log() + (top[own] - matched))
    by_text = F.softplus(column_sum.log() + (column_top - matched))
    return ((by_image + by_text).sum(dtype=torch.float64) / (2 * len(images))).float()


def aot_cases():
    """The kernels of this file as configs.AotCase."""
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        for D in (768, 1000):
            for same, constants in (("alone", {"same": None}), ("same", {})):
                yield from product_cases(f"clip_forward-{same}", _forward, dtype, D, constants)
                if dtype.itemsize == 2:
                    constants = constants | {"g_row": None, "g_column": None}
                yield from product_cases(f"clip_backward-{same}", _backward, dtype, D, constants)


def product_cases(op, kernel, dtype, D, constants):
    """AotCases of a kernel made of `dots`: its pointers are float32, int32, ... or of the operands' dtype, by name."""
    half = dtype.itemsize == 2
    operands = {"images", "texts", "gradient", "rows", "classes"}
    indices = {"same": "*i32", "label": "*i64", "present": "*i1", "stride": "i64"}
    integers = dict.fromkeys(("first", "start", "stop", "B", "b", "R", "K"), "i32")
    types = dict.fromkeys(kernel.arg_names, "*fp32") | dict.fromkeys(operands, f"*{short(dtype)}") | indices | integers
    compute = {torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}[dtype] if half else tl.float32
    constants = dict(D=D, COMPUTE=compute, PRECISION="ieee" if half else "tf32x3", LOW=LOW, **constants)
    for arch, product in ((80, "HMMA"), (90, "HGMMA"), (100, "UTCHMMA")):
        launch = defaults(arch, dtype, op == "clip_forward-same")
        yield AotCase(
            f"{op}-{short(dtype)}-D{D}",
            kernel,
            {k: t for k, t in types.items() if k in kernel.arg_names},
            {k: v for k, v in (constants | launch).items() if k in kernel.arg_names},
            {k: v for k, v in launch.items() if k in ("num_warps", "num_stages", "maxnreg")},
            {arch: Budget(255, SHARED[arch], (product,))},
        )
