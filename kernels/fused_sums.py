"""Sums of rows by lists, in a fixed order: class vectors and the backward pass of every gather.

    out_k = sum over t of list k of rows[source_t]

Lists lie end to end (compressed sparse rows: list k is order[start[k] : start[k + 1]]), made by a stable sort, so each
output row has one owner and its terms one order: no atomics, and the same bits on every run.  A long list is cut into
SPLITS parts, added up afterwards in their order.

Sizes: U rows of D channels, T entries of the lists.
"""

import torch
import triton
import triton.language as tl

from fastzss.kernels.configs import AotCase, Budget, short

SPLITS = 8  # of a class's tokens; the name "person" owns a fifth of all tokens of a batch of photographs


@triton.jit
def _sum_rows(
    rows, source, order, start, out, lists,
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
    total = tl.zeros([BLOCK_D], tl.float32)
    for first in range(begin, end, BLOCK_T):
        t = first + tl.arange(0, BLOCK_T)
        place = tl.load(order + t, mask=t < end, other=0)
        row = tl.load(source + place, mask=t < end, other=0).to(tl.int64)
        inside = (t < end)[:, None] & (d < D)[None, :]
        tile = tl.load(rows + row[:, None] * D + d[None, :], mask=inside, other=0.0).to(
            tl.float32
        )  # [BLOCK_T, BLOCK_D]
        total += tl.sum(tile, 0)
    place = (split.to(tl.int64) * lists + k) * D
    tl.store(out + place + d, total.to(out.dtype.element_ty), mask=d < D)


def lists_of(keys, count):
    """Positions of equal keys, in their order: order [T] and start [count + 1]; keys >= count are in no list."""
    ordered, order = torch.sort(keys, stable=True)
    return order, torch.searchsorted(ordered, torch.arange(count + 1, device=keys.device, dtype=keys.dtype))


def sum_rows(rows, source, keys, count, splits=1, dtype=None):
    """[count, D]: at k, the sum of rows[source[t]] over all t with keys[t] == k."""
    D = rows.shape[-1]
    out = torch.empty(splits, count, D, dtype=torch.float32 if splits > 1 else dtype or rows.dtype, device=rows.device)
    if len(keys) == 0 or count == 0 or D == 0:
        return out.new_zeros(count, D, dtype=dtype or rows.dtype)
    order, start = lists_of(keys, count)
    tiles = tiles_of(D, splits)
    grid = (count, triton.cdiv(D, tiles["BLOCK_D"]), splits)
    _sum_rows[grid](rows.contiguous(), source.contiguous(), order, start, out, count, D, **tiles, num_warps=4)
    return (out[0] if splits == 1 else out.sum(0)).to(dtype or rows.dtype)


def tiles_of(D, splits):
    """Lists of a class are long, those of a token have one entry or none."""
    block = min(triton.next_power_of_2(D), 256)
    return {"SPLITS": splits, "BLOCK_T": 8 if splits > 1 else 2, "BLOCK_D": block}


def aot_cases():
    """The kernel of this file as configs.AotCase."""
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        for splits, index in ((SPLITS, "*i32"), (1, "*i64")):  # class vectors; the backward pass of a gather
            types = {"rows": f"*{short(dtype)}", "source": index, "order": "*i64", "start": "*i64", "lists": "i32"}
            types["out"] = "*fp32" if splits > 1 else f"*{short(dtype)}"
            for D in (768, 1000):
                yield AotCase(
                    f"sum_rows-{splits}-{short(dtype)}-D{D}",
                    _sum_rows,
                    types,
                    {"D": D, **tiles_of(D, splits)},
                    {"num_warps": 4},
                    dict.fromkeys((80, 90, 100), Budget(128, 16 * 1024)),
                )
