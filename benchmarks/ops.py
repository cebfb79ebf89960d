"""How fast and how lean each operation is beside its naive form, forward and backward.

    python benchmarks/ops.py                          one table, for the GPU where there is one
    python benchmarks/ops.py --ops clip_loss          some of them

No speed is printed before output and all gradients of the two forms agree, to 1e-4 of their norm
(on a GPU, where ours computes in float16, to its rounding); a row that fails
says so, and the command ends with 1.  That both are right is tested in tests/kernels, on a GPU by tools/gpu_check.py.
"""

import sys

from measuring import begin, collected, command, options, tell

COLUMNS = ("ms", "naive_ms", "ratio", "peak_mb", "naive_peak_mb")


def shown(row):
    if row["wrong"]:
        return f"{row['op']:22}no speed: {row['wrong']}"
    return f"{row['op']:22}{row['size']:24}" + "".join(f"{row[name]:14.2f}" for name in COLUMNS)


@command
def main(argv):
    parser = options(__doc__, threads=1)
    parser.add_argument("--ops", nargs="+", metavar="NAME", help="only operations whose label begins so")
    parser.add_argument("--trials", type=int, help="the median of so many (default: 7, on a GPU 20)")
    args = begin(parser, argv)
    from cases import CASES, measure

    trials = args.trials or (7 if args.device == "cpu" else 20)
    labels = [label for label in CASES if not args.ops or label.startswith(tuple(args.ops))]
    if not args.json:
        print(f"{'operation':22}{'size':24}" + "".join(f"{name:>14}" for name in COLUMNS))
    rows = collected((measure(label, args.device, trials) for label in labels), shown, args)
    tell({"machine": args.machine, "trials": trials, "rows": rows}, args)
    return 1 if any(row["wrong"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
