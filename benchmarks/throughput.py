"""How fast a training step is beside the published formulation: one run, one batch, the same weights.

    python benchmarks/throughput.py                 ViT-B/14 at 224 px, a tower of 12 layers x 512, batch 64
    python benchmarks/throughput.py --fake-data     the same pairs, drawn from as many captions as COCO has
    python benchmarks/throughput.py --full          the whole simzss-coco recipe, from a store on disk to the saved run
    python benchmarks/throughput.py --profile       what our step consists of, operation by operation
    python benchmarks/throughput.py --size tiny     in seconds: to see that it works, not how fast

The first row is the method as published, written plainly in PyTorch: the frozen transformer looks at every pair's image
in every step, captions are padded to 77 tokens, mentions to the most of a batch, and all logits are formed.  Decoding
of images and building of padded inputs are left out of it, in its favour.  The second row is what a careful user
writes: features computed once and kept in memory in float16, captions trimmed to the longest of the batch, ordinary
PyTorch.  Then our changes, one at a time.  Pictures are made up, weights are random; captions are as long as
coco_lengths.json says.

No time is shown before the losses agree with those of the first row, to 1e-4 (float16 store) or 1e-2 (int8).  Rows take
turns; a ratio is the median of those of single rounds.  `share` is that of the speed of a plain matrix product in the
same rounds.  `peak` is the most memory held beyond weights, optimiser and stored features.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

import fake
import full
import operations
import steps
import torch
from graphs import Captured
from ops import machine
from steps import PARTS, Setting

from fastzss.console import guarded
from fastzss.errors import UserError
from fastzss.settings import TrainConfig

TOLERANCE = {"float16": 1e-4, "int8": 1e-2}  # relative difference of the losses
OFTEN = 2  # times that the quick rows are measured in a round


def measure(setting, rounds):
    """All there is to say about every row, in numbers; raises Disagree where the losses differ."""
    rows, found = steps.rows(setting), []
    for row in rows:
        found.append(inspect(row, setting))
        check(found[0], found[-1], TOLERANCE[setting.store.plan.dtype])
    missing = {"+ CUDA graph of the whole step": "needs a GPU", "Triton kernels and bfloat16": "needs a GPU"}
    if setting.device.type == "cuda":
        missing = {}
        try:
            rows.append(graph_row(rows[-1], setting))
            found.append(inspect(rows[-2], setting) | {"row": rows[-1].label})
        except Exception as problem:  # whatever the capture stumbles over
            missing["+ CUDA graph of the whole step"] = f"{type(problem).__name__}: {str(problem)[:200]}"
    rates = []
    for _ in range(rounds):
        rates.append(steps.matmul_rate(setting.device))
        times = [[] for _ in rows]
        for turn in range(OFTEN):
            for row, own in zip(rows, times, strict=True):
                if turn == 0 or not row.slow:
                    own.append(timed(row, setting))
        for row, own in zip(found, times, strict=True):
            row.setdefault("rounds", []).append(statistics.median(total for total, _ in own))
            row.setdefault("parts", []).extend(parts for _, parts in own)
    rate = statistics.median(rates)
    for row in found:
        row["ms"] = statistics.median(row["rounds"])
        row["pairs_s"] = len(setting.batch) / row["ms"] * 1e3
        row["parts"] = {part: statistics.median(one.get(part, 0.0) for one in row["parts"]) for part in PARTS}
        row["share"] = row["flops"] / row["ms"] * 1e3 / rate
    return {"rows": found, "matmul_gflop_s": rate / 1e9, "not_measured": missing}


def inspect(row, setting):
    """Losses, FLOPs and memory of a row; on a GPU the losses are those of float32.

    The reference's look at the images is that by which the store was made: it need not be counted again.
    """
    seen = {"flops": 0, "peak_mb": 0.0}
    once = row
    if row.vision != steps.nothing:
        seen, once = setting.vision_cost, row._replace(vision=lambda: setting.features)
    found, losses = steps.cost(lambda: steps.step(once, setting, exact=True), setting.device)
    if setting.device.type == "cuda":
        found["peak_mb"] = steps.cost(lambda: steps.step(row, setting), setting.device)[0]["peak_mb"]
    peak = max(found["peak_mb"], seen["peak_mb"])
    return {"row": row.label, "losses": values(losses), "flops": found["flops"] + seen["flops"], "peak_mb": peak}


def graph_row(ours, setting):
    """Our last row, replayed from a graph; its losses are those of the row in the same precision."""
    row = ours._replace(label="+ CUDA graph of the whole step", replay=Captured(setting))
    own, graph = ({"row": r.label, "losses": values(steps.step(r, setting))} for r in (ours, row))
    check(own, graph, TOLERANCE["int8"])
    return row


def values(losses):
    parts = {"global": losses.loss_global, "local": losses.loss_local, "summed": losses.loss}
    return {name: loss.item() for name, loss in parts.items()}


def timed(row, setting):
    """(milliseconds of a step, of its parts); on a GPU in two steps, for waiting between parts costs time."""
    clock = steps.Clock(setting.device)
    steps.step(row, setting, clock)
    total = clock.total
    if setting.device.type == "cuda":
        whole = steps.Clock(setting.device, parts=False)
        steps.step(row, setting, whole)
        total = whole.total
    return total, clock.ms


class Disagree(UserError):
    """Two forms of the step have different losses: there is no speed to speak of."""


def check(reference, row, tolerance):
    for name, exact in reference["losses"].items():
        found = row["losses"][name]
        if not abs(found - exact) <= tolerance * abs(exact):
            raise Disagree(
                f'no times: "{row["row"]}" has a {name} loss of {found:.6g}, the reference one of {exact:.6g}; '
                f"they may differ by {tolerance:g} of it"
            )


def ratio(slow, fast):
    """Median over the rounds of how many times faster one row is than another."""
    return statistics.median(a / b for a, b in zip(slow["rounds"], fast["rounds"], strict=True))


def summary(found, batch):
    """What the rows say beside each other, and what the full recipe would take."""
    rows = found["rows"]
    reference, careful, cache, packing, *_, ours = rows[:7]
    pairs = TrainConfig.steps * TrainConfig.batch
    beside = ours["parts"]["read"] + ours["parts"]["losses"]
    look = reference["parts"]["vision"] / batch  # ms an image
    return {
        "speedup": ratio(reference, ours),
        "over_careful": ratio(careful, ours),
        "cache_alone": ratio(reference, cache),
        "packing_alone": ratio(cache, packing),
        "read_and_losses": beside / sum(ours["parts"].values()),
        "projection": {
            "of": f"{TrainConfig.steps} steps x {TrainConfig.batch} pairs at these rates; nothing of it was run",
            "reference_hours": pairs / reference["pairs_s"] / 3600,
            "training_hours": pairs / ours["pairs_s"] / 3600,
            "extraction_hours": fake.IMAGES * look / 3.6e6,
        },
    }


def show(result):
    heads = ["pairs/s", "ms", *PARTS, "GFLOP/pair", "share", "peak MB"]
    print(f"{'step':52}" + "".join(f"{head:>11}" for head in heads))
    batch = result["settings"]["batch"]
    for row in result["rows"]:
        parts = [f"{row['parts'][part]:.1f}" if row["parts"][part] >= 0.05 else "-" for part in PARTS]
        cells = [f"{row['pairs_s']:.2f}", f"{row['ms']:.1f}", *parts, f"{row['flops'] / batch / 1e9:.3g}"]
        cells += [f"{row['share']:.0%}", f"{row['peak_mb']:.0f}"]
        print(f"{row['row']:52}" + "".join(f"{cell:>11}" for cell in cells))
    for label, why in result["not_measured"].items():
        print(f"{label:52}{'not measured':>22}: {why}")
    print(
        f"\n(B) over (A): {result['speedup']:.1f}x; over the careful user: {result['over_careful']:.2f}x; "
        f"cache alone {result['cache_alone']:.2f}x, packing alone {result['packing_alone']:.2f}x; "
        f"reading and losses are {result['read_and_losses']:.1%} of (B)"
    )
    plan = result["projection"]
    print(
        f"projection, {plan['of']}: (A) {plan['reference_hours']:.3g} h; (B) {plan['training_hours']:.3g} h, "
        f"and {plan['extraction_hours']:.3g} h to look at COCO's images once"
    )
    print("; ".join(f"{name} {value}" for name, value in {**result["settings"], **result["machine"]}.items()))


def work(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], help="by default cuda where there is one")
    parser.add_argument("--steps", type=int, default=2, help="rounds of measured steps (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=64, help="pairs a step (default: %(default)s)")
    parser.add_argument("--size", choices=["tiny", "small", "base", "large"], default="base", help="of both towers")
    parser.add_argument("--dtype", choices=list(TOLERANCE), default="int8", help="of the store (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="of the CPU; by default all cores")
    parser.add_argument("--fake-data", action="store_true", help="591,753 captions, as COCO has")
    parser.add_argument("--images", type=int, help="of the store; by default 2048, and on a GPU COCO's 118,287")
    parser.add_argument("--full", action="store_true", help="the whole recipe; on a CPU a fraction of it")
    parser.add_argument("--profile", action="store_true", help="our step, operation by operation")
    parser.add_argument("--dir", type=Path, help="where stores are written, and stay; by default a temporary folder")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(argv)
    for name in ("steps", "batch", "threads", "images"):
        value = getattr(args, name)
        if value is not None and value < 1:
            parser.error(f"--{name} must be positive, got {value}")

    torch.set_num_threads(args.threads or os.cpu_count())
    args.device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: PyTorch sees no GPU here; leave --device out, or say --device cpu")
    with tempfile.TemporaryDirectory() as folder:
        folder = args.dir or Path(folder)
        if args.full:
            result, print_it = full.run(args, folder), full.show
        elif args.profile:
            result, print_it = operations.run(args, folder), operations.show
        else:
            result, print_it = compare(args, folder), show
    print(json.dumps(result, indent=1)) if args.json else print_it(result)


def compare(args, folder):
    """The table."""
    images, captions = args.batch, args.batch
    if args.fake_data:
        images = args.images or (fake.IMAGES if args.device == "cuda" else 2048)
        captions = fake.CAPTIONS
    setting = Setting(
        folder / "store", args.size, args.batch, device=args.device, dtype=args.dtype, images=images, captions=captions
    )
    if not len(setting.batch.name):
        raise UserError(f"none of the {args.batch} captions mentions anything; give a larger --batch")
    found = measure(setting, args.steps)
    lengths = setting.batch.segment.ge(0).sum().item()
    settings = {
        **{name: getattr(args, name) for name in ("size", "batch", "steps", "dtype", "fake_data")},
        "images": images,
        "captions": captions,
        "tokens_per_caption": lengths / args.batch,
        "longest_caption": int(setting.trimmed.eot.max()) + 1,
        "mentions": len(setting.batch.name),
    }
    facts = {"settings": settings, **found, **summary(found, args.batch)}
    return {"machine": machine(args.device), **facts}


def main(argv=None):
    return guarded("throughput", lambda: work(argv), "interrupted")


if __name__ == "__main__":
    sys.exit(main())
