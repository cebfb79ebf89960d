"""Matrix products inside our kernels, and beside them: what the losses share.

A kernel forms a tile of logits [BM, BN] with `dots`, in the compute dtype and with sums in float32, and does with it
what it wants while it is in the registers.  What is left as a tile in memory goes into a product of PyTorch's.
"""

import os

import torch
import triton
import triton.language as tl

from fastzss.kernels.configs import SHARED, AotCase, Budget, arch_of, options, short

LOW = -1e30  # the logarithm of an empty sum: finite, so that differences of two of them are no NaN


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


@triton.jit
def softplus(x):
    """log(1 + exp(x)), with all digits where it is near zero."""
    e = tl.exp(-tl.abs(x))
    more = 1 + e
    # the rounding of 1 + e is the same in both factors; there is no log1p in Triton itself
    rest = tl.where(more == 1, e, tl.log(more) * (e / tl.where(more == 1, 1.0, more - 1)))
    return tl.maximum(x, 0.0) + rest


@triton.jit
def summed(values, n, BLOCK: tl.constexpr):
    """float64: the sum of n numbers, in a fixed order, in one program."""
    total = tl.zeros([BLOCK], tl.float64)
    for start in range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        total += tl.load(values + at, mask=at < n, other=0.0).to(tl.float64)
    return tl.sum(total, 0)


def compute_dtype(tensor, dtype=None):
    """What a matrix product of this tensor, of some dtype, is computed in: that dtype, or autocast's."""
    device = tensor.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else dtype or tensor.dtype


def precise(a, b, out=None):
    """a @ b with sums in float32, however short the numbers of a and b are; in float32, or as `out` is."""
    if out is None:
        out = torch.empty(len(a), b.shape[1], dtype=torch.float32, device=a.device)
    with torch.autocast(a.device.type, enabled=False):
        if a.dtype == out.dtype == torch.float32:
            torch.mm(a, b, out=out)
        elif a.is_cuda:
            torch.mm(a, b, out_dtype=out.dtype, out=out)
        else:
            out.copy_(a.float() @ b.float())
    return out


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
