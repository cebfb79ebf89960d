"""How fast a training step is beside the published formulation: one run, one batch, the same weights.

    python benchmarks/throughput.py                 ViT-B/14 at 224 px, a tower of 12 layers x 512, batch 64
    python benchmarks/throughput.py --full          a training, from a store on disk to the saved run
    python benchmarks/throughput.py --profile       what our step consists of, operation by operation
    python benchmarks/throughput.py --ledger        what it consists of on a GPU, counted without one: ledger.py
    python benchmarks/throughput.py --ledger --ranks 8   what one of 8 GPUs does of it, and for how many it pays
    python benchmarks/throughput.py --zeroseg       the second method's step, with cached views and without: zeroseg.py
    python benchmarks/throughput.py --size tiny     in seconds: to see that it works, not how fast

No time is shown before the losses agree with those of the first row, to 1e-4 (float16 store) or 1e-2 (int8).  `share`
is that of the speed of a plain matrix product, `peak` the most memory beyond weights, optimiser and stored features.
"""

import functools
import importlib
import statistics
import sys
import tempfile
from pathlib import Path

from measuring import CHANNELS, begin, command, in_turn, options, tell

from fastzss.base.errors import UserError

RECIPE = 16384  # pairs a step of the COCO recipe
TOLERANCE = {"float16": 1e-4, "int8": 1e-2}  # relative difference of the losses


def compare(args, folder):
    """The table."""
    from steps import Setting

    setting = Setting(folder / "store", args.size, args.batch, device=args.device, dtype=args.dtype)
    if not len(setting.batch.name):
        raise UserError(f"none of the {args.batch} captions mentions anything; give a larger --batch")
    found = measure(setting, args.steps)
    settings = {name: getattr(args, name) for name in ("size", "batch", "steps", "dtype")}
    settings["tokens_per_caption"] = setting.batch.segment.ge(0).sum().item() / args.batch
    settings |= {"longest_caption": int(setting.trimmed.eot.max()) + 1, "mentions": len(setting.batch.name)}
    return {
        "machine": args.machine,
        "settings": settings,
        **found,
        **({} if found["out_of_memory"] else summary(found["rows"], args.batch)),
    }


def measure(setting, rounds):
    """All there is to say about every row, in numbers; raises UserError where the losses differ."""
    import steps
    import torch

    rows, found, left_out = [], [], []
    for row in steps.rows(setting):
        try:
            found.append(inspect(row, setting))
        except torch.OutOfMemoryError:
            left_out.append(row.label)
            continue
        rows.append(row)
        for name, exact in found[0]["losses"].items():
            loss, apart = found[-1]["losses"][name], TOLERANCE[setting.store.plan.dtype]
            if not abs(loss - exact) <= apart * abs(exact):
                what = f'no times: "{row.label}" has a {name} loss of {loss:.6g}, the reference one of {exact:.6g}'
                raise UserError(f"{what}; they may differ by {apart:g} of it")
    works = [functools.partial(steps.timed, row, setting) for row in rows]
    *times, rates = in_turn([*works, functools.partial(steps.matmul_rate, setting.device)], rounds, warm_up=False)
    rate = statistics.median(rates)
    for row, own in zip(found, times, strict=True):
        row["rounds"] = [total for total, _ in own]
        row["ms"] = statistics.median(row["rounds"])
        row["pairs_s"] = len(setting.batch) / row["ms"] * 1e3
        row["parts"] = {part: statistics.median(parts[part] for _, parts in own) for part in steps.PARTS}
        row["share"] = row["flops"] / row["ms"] * 1e3 / rate
    return {"rows": found, "matmul_gflop_s": rate / 1e9, "out_of_memory": left_out}


def inspect(row, setting):
    """Losses, FLOPs and memory of a row; on a GPU the losses are those of float32."""
    import steps

    seen, once = {"flops": 0, "peak_mb": 0.0}, row
    if row.vision:  # the look by which the store was made need not be counted again
        seen, once = setting.vision_cost, row._replace(vision=lambda: setting.features)
    found, losses = steps.cost(lambda: steps.step(once, setting, exact=True), setting.device)
    if setting.device.type == "cuda":
        found["peak_mb"] = steps.cost(lambda: steps.step(row, setting), setting.device)[0]["peak_mb"]
    losses = {"global": losses.loss_global, "local": losses.loss_local, "summed": losses.loss}
    values = {name: loss.item() for name, loss in losses.items()}
    peak = max(found["peak_mb"], seen["peak_mb"])
    return {"row": row.label, "losses": values, "flops": found["flops"] + seen["flops"], "peak_mb": peak}


def summary(rows, batch):
    """What the rows say beside each other, as medians of single rounds; what looking at an image once costs."""
    reference, careful, cache, packing, *_, ours = rows

    def ratio(slow, fast):
        return statistics.median(a / b for a, b in zip(slow["rounds"], fast["rounds"], strict=True))

    return {
        "speedup": ratio(reference, ours),
        "over_careful": ratio(careful, ours),
        "cache_alone": ratio(reference, cache),
        "packing_alone": ratio(cache, packing),
        "read_and_losses": (ours["parts"]["read"] + ours["parts"]["losses"]) / sum(ours["parts"].values()),
        "look_ms": reference["parts"]["vision"] / batch,
    }


def show(result):
    from steps import PARTS

    heads = ["pairs/s", "ms", *PARTS, "GFLOP/pair", "share", "peak MB"]
    print(f"{'step':52}" + "".join(f"{head:>11}" for head in heads))
    for row in result["rows"]:
        parts = [f"{row['parts'][part]:.1f}" if row["parts"][part] >= 0.05 else "-" for part in PARTS]
        cells = [f"{row['pairs_s']:.2f}", f"{row['ms']:.1f}", *parts]
        cells += [f"{row['flops'] / result['settings']['batch'] / 1e9:.3g}", f"{row['share']:.0%}"]
        print(f"{row['row']:52}" + "".join(f"{cell:>11}" for cell in [*cells, f"{row['peak_mb']:.0f}"]))
    for label in result["out_of_memory"]:
        print(f"{label:52}out of memory; give a smaller --batch")
    if result["out_of_memory"]:
        return
    print(f"(B) over (A) {result['speedup']:.1f}x, over the careful user {result['over_careful']:.2f}x; ", end="")
    print(f"cache alone {result['cache_alone']:.2f}x, packing alone {result['packing_alone']:.2f}x")
    print(
        f"reading and losses {result['read_and_losses']:.1%} of (B); not in it, looking once {result['look_ms']:.1f} ms"
    )


@command
def main(argv):
    parser = options(__doc__)
    parser.add_argument("--steps", type=int, default=3, help="rounds of measured steps (default: %(default)s)")
    parser.add_argument("--batch", type=int, help="pairs a step (default: 64; of --zeroseg 4; on a GPU 16x)")
    parser.add_argument("--size", choices=list(CHANNELS), default="base", help="of both towers")
    parser.add_argument("--dtype", choices=list(TOLERANCE), default="int8", help="of the store (default: %(default)s)")
    parser.add_argument("--store", type=Path, help="of --full: a folder that keeps the made-up store")
    parser.add_argument("--images", type=int, help="of --full; by default 2048, on a GPU as many as COCO has")
    parser.add_argument("--full", action="store_true", help="on a GPU the whole recipe, on a CPU --steps of --batch")
    parser.add_argument("--profile", action="store_true", help="our step, operation by operation")
    parser.add_argument("--ledger", action="store_true", help="FLOPs, bytes and launches of our step, and its floor")
    parser.add_argument("--zeroseg", action="store_true", help="a ZeroSeg step from cached views, and one that looks")
    parser.add_argument(
        "--copy", type=float, help="GB/s of a card's memory, for --ledger (default: of this one, or H200)"
    )
    parser.add_argument("--matmul", type=float, help="TFLOP/s of its products, likewise")
    parser.add_argument("--ranks", type=int, help="of --ledger: what is left to one of so many GPUs, and its floor")
    parser.add_argument("--link", type=float, help="GB/s between them in one direction (default: as stated of NVLink)")
    args = begin(parser, argv)
    run, print_it = compare, show
    for other in ("full", "profile", "ledger", "zeroseg"):
        if getattr(args, other):
            module = importlib.import_module("operations" if other == "profile" else other)
            run, print_it = module.run, module.show
    if args.batch is None:
        small = 4 if args.zeroseg else 64
        args.batch = RECIPE if args.ledger else 16 * small if args.device == "cuda" else small
    with tempfile.TemporaryDirectory() as folder:
        tell(run(args, Path(folder)), args, print_it)


if __name__ == "__main__":
    sys.exit(main())
