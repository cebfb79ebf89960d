"""Sums of rows by lists, in a fixed order: class vectors, the gradients of class vectors, and of every gather.

    out_k = sum over t of list k of rows[t]

Each output row has one owner and its terms one order (lists.py): no atomics, and the same bits on every run.  A long
list is cut into SPLITS parts, added up afterwards in their order.

Sizes: T rows of D channels.
"""

import torch
import triton
import triton.language as tl

from fastzss.kernels.configs import AotCase, Budget, short

SPLITS = 8  # of a class's tokens; the name "person" owns a fifth of all tokens of a batch of photographs


@triton.jit
def _sum_rows(
    rows, order, start, more, out, lists,
    D: tl.constexpr, SPLITS: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    k = tl.program_id(0)
    split = tl.program_id(2)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    begin, end = tl.load(start + k), tl.load(start + k + 1)
    if SPLITS > 1:
        part = (end - begin + SPLITS - 1) // SPLITS
        begin += split * part
        end = tl.minimum(begin + part, end)
    place = (split.to(tl.int64) * lists + k) * D
    total = tl.zeros([BLOCK_D], tl.float32)
    if more is not None:
        total += tl.load(more + place + d, mask=d < D, other=0.0)
    for first in range(begin, end, BLOCK_T):
        t = first + tl.arange(0, BLOCK_T)
        row = tl.load(order + t, mask=t < end, other=0).to(tl.int64)
        inside = (t < end)[:, None] & (d < D)[None, :]
        tile = tl.load(rows + row[:, None] * D + d[None, :], mask=inside, other=0.0)  # [BLOCK_T, BLOCK_D]
        total += tl.sum(tile.to(tl.float32), 0)
    tl.store(out + place + d, total.to(out.dtype.element_ty), mask=d < D)


def sum_rows(rows, lists, splits=1, long=True, dtype=None, more=None):
    """[lists, D]: at k, the sum of the rows of list k, and of row k of `more` [lists, D] float32, if there is any.

    `long`: whether lists have many entries, as those of a class; those of a token have one or none.
    """
    D, count = rows.shape[-1], len(lists.start) - 1
    out = torch.empty(splits, count, D, dtype=torch.float32 if splits > 1 else dtype or rows.dtype, device=rows.device)
    if out.numel():
        tiles = tiles_of(D, splits, long)
        grid = (count, triton.cdiv(D, tiles["BLOCK_D"]), splits)
        _sum_rows[grid](rows.contiguous(), *lists, more, out, count, D, **tiles, num_warps=4)
    return (out[0] if splits == 1 else out.sum(0)).to(dtype or rows.dtype)


def tiles_of(D, splits, long):
    block = min(triton.next_power_of_2(D), 128 if long else 256)
    return {"SPLITS": splits, "BLOCK_T": 16 if long else 2, "BLOCK_D": block}


def aot_cases():
    """The kernel of this file as configs.AotCase."""
    uses = {"class": (SPLITS, True), "mentions": (1, True), "token": (1, False)}  # whose lists they are
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        for use, (splits, long) in uses.items():
            types = {"rows": f"*{short(dtype)}", "order": "*i64", "start": "*i64", "more": "*fp32", "lists": "i32"}
            types["out"] = f"*{short(dtype)}" if use == "token" else "*fp32"
            constants = {} if use == "mentions" else {"more": None}
            for D in (768, 1000):
                yield AotCase(
                    f"sum_rows-{use}-{short(dtype)}-D{D}",
                    _sum_rows,
                    types,
                    {"D": D, **constants, **tiles_of(D, splits, long)},
                    {"num_warps": 4},
                    dict.fromkeys((80, 90, 100), Budget(128, 16 * 1024)),
                )
