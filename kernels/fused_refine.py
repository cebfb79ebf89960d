"""Refining scores along the edges of an image, in Triton: what neighbours weigh once, then their mean again and again.

    closeness   weights [P, H W]; a program has all P neighbours of some pixels and reads the colours one by one
    average     one iteration: a program has some pixels of some classes and walks over the neighbours

Both find a neighbour by arithmetic on its pixel's place, so nothing is padded and no list of places is read.  Scores
are float32 between the iterations.  Held are the weights, and of some classes (all, unless the image is large) the
scores before and behind an iteration.

Sizes: C colours, H x W pixels, L dilations, P = 8 L neighbours, K classes.
"""

import torch
import triton
import triton.language as tl

from fastzss.kernels import chunked_filters
from fastzss.kernels.configs import AotCase, Budget, arch_of, options

TABLE = 1 << 26  # scores of an iteration at most, 256 MiB: an image of 2048 x 1024 in parts of 32 classes
DILATIONS = 32  # at most; a program has all neighbours of its pixels


@triton.jit(do_not_specialize=["C", "H", "W", "L"])
def _closeness(image, dilations, weights, C, H, W, L, PP: tl.constexpr, BN: tl.constexpr):
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    pixel = tl.minimum(n, H * W - 1)
    p = tl.arange(0, PP)
    there = p < 8 * L
    distant = tl.load(dilations + p // 8, mask=there, other=0)  # beyond the last neighbour the pixel itself: no matter
    window = p % 8 + p % 8 // 4  # of 9, without the pixel in the middle
    y = (pixel // W)[None, :] + ((window // 3 - 1) * distant)[:, None]
    x = (pixel % W)[None, :] + ((window % 3 - 1) * distant)[:, None]
    at = tl.minimum(tl.maximum(y, 0), H - 1) * W + tl.minimum(tl.maximum(x, 0), W - 1)
    seen = 9.0 * L
    distance = tl.zeros([PP, BN], tl.float32)
    for _ in range(C):
        apart = tl.load(image + at) - tl.load(image + pixel)[None, :]
        # of differences from the pixel itself, whose own are zeros: where colours hardly differ, nothing cancels
        total = tl.sum(apart, 0)
        squares = tl.maximum(tl.sum(apart * apart, 0) - total * total / seen, 0.0)
        spread = tl.sqrt_rn(squares / (seen - 1))
        distance += tl.abs(apart) / (C * (0.1 * spread + 1e-8))[None, :]
        image += H * W
    distance = tl.where(there[:, None], distance, float("inf"))
    weight = tl.exp(tl.min(distance, 0)[None, :] - distance)
    weight = weight / tl.sum(weight, 0)[None, :]
    place = p.to(tl.int64)[:, None] * H * W + n[None, :]
    tl.store(weights + place, weight, mask=there[:, None] & (n < H * W)[None, :])


@triton.jit(do_not_specialize=["K", "H", "W", "L"])
def _average(scores, weights, dilations, mean, K, H, W, L, BK: tl.constexpr, BN: tl.constexpr):
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    k = tl.program_id(1) * BK + tl.arange(0, BK)
    pixels = tl.cast(H, tl.int64) * W
    pixel = tl.minimum(n, H * W - 1)
    own_y, own_x = pixel // W, pixel % W
    planes = (tl.minimum(k, K - 1) * (H * W))[:, None]  # 32 bits are enough for a table of scores
    weight = weights + pixel
    total = tl.zeros([BK, BN], tl.float32)
    for number in range(L):
        distant = tl.load(dilations + number)
        for window in tl.static_range(9):
            if window != 4:  # the pixel itself
                y = tl.minimum(tl.maximum(own_y + (window // 3 - 1) * distant, 0), H - 1)
                x = tl.minimum(tl.maximum(own_x + (window % 3 - 1) * distant, 0), W - 1)
                total += tl.load(scores + planes + (y * W + x)[None, :]) * tl.load(weight)[None, :]
                weight += pixels
    tl.store(mean + k[:, None] * pixels + n[None, :], total, mask=(k < K)[:, None] & (n < H * W)[None, :])


def closeness_options(arch, neighbours):
    """Constexprs and launch options: about as many numbers a thread whatever the number of neighbours."""
    PP = triton.next_power_of_2(neighbours)
    default = dict(BN=max(16, 2048 // PP), num_warps=4 if PP <= 128 else 8, num_stages=1)
    return {**options("closeness", arch, neighbours, 1, torch.float32, default), "PP": PP}


def average_options(arch, K):
    """Constexprs and launch options of an iteration."""
    return options("average", arch, K, 1, torch.float32, dict(BK=16 if K > 8 else 8, BN=128, num_warps=4, num_stages=2))


def refine_scores(image, scores, iterations=10, dilations=(1, 2, 4, 8, 12, 24), **forced):
    """reference.refine_scores on a GPU.  `forced`: constexprs of an iteration, for tests and tuning."""
    if scores.dtype == torch.float64 or len(dilations) > DILATIONS:
        return chunked_filters.refine_scores(image, scores, iterations, dilations)
    (C, H, W), K, L = image.shape, len(scores), len(dilations)
    # beyond the border all rows and columns are the border's; and far beyond, a place would be no 32-bit number
    dilations = torch.tensor([min(d, max(H, W)) for d in dilations], dtype=torch.int32, device=image.device)
    weights = torch.empty(8 * L, H * W, dtype=torch.float32, device=image.device)
    launch = closeness_options(arch_of(image.device), 8 * L)
    grid = (triton.cdiv(H * W, launch["BN"]),)
    _closeness[grid](image.float().contiguous(), dilations, weights, C, H, W, L, **launch)
    refined = torch.empty(scores.shape, dtype=scores.dtype, device=scores.device)
    some = max(1, min(K, TABLE // (H * W)))
    tables = torch.empty(2, some, H, W, dtype=torch.float32, device=image.device)
    launch = average_options(arch_of(image.device), some) | forced
    for first in range(0, K, some):
        own = scores[first : first + some]
        read, written = tables[:, : len(own)]
        read.copy_(own)
        grid = (triton.cdiv(H * W, launch["BN"]), triton.cdiv(len(own), launch["BK"]))
        for _ in range(iterations):
            _average[grid](read, weights, dilations, written, len(own), H, W, L, **launch)
            read, written = written, read
        refined[first : first + some] = read
    return refined


def aot_cases():
    """The kernels of this file as configs.AotCase."""
    sizes = dict.fromkeys(("C", "K", "H", "W", "L"), "i32")
    pointers = dict.fromkeys(("image", "weights", "scores", "mean"), "*fp32") | {"dilations": "*i32"}
    for dilations in (1, 4, 6, DILATIONS):
        yield case(f"closeness-L{dilations}", _closeness, pointers | sizes, closeness_options(90, 8 * dilations))
    for K in (8, 171):
        yield case(f"average-K{K}", _average, pointers | sizes, average_options(90, K))


def case(name, kernel, types, launch):
    """AotCase of a kernel with all its launch options."""
    names = kernel.arg_names
    return AotCase(
        name,
        kernel,
        {key: value for key, value in types.items() if key in names},
        {key: value for key, value in launch.items() if key in names},
        {key: value for key, value in launch.items() if key not in names},
        dict.fromkeys((80, 90, 100), Budget(128, 8192)),
    )
