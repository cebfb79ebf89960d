"""The README's table of what was measured, made from the files in benchmarks/results.

    python benchmarks/board.py            write it between its two marks in README.md
    python benchmarks/board.py --check    say whether README and files agree; ends with 1 if they do not

A file is named KIND-WHERE-DATE.json, as in throughput-cpu-2026-11-21.json, and holds `machine` (device, cores,
versions, date, command) beside its figures; of each kind and place the newest counts.  A kind that is not known here
shows what its file lists under `headlines`: [[what, figure], ...].  What nobody has measured is in the table too, and
says so.
"""

import argparse
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS, README = ROOT / "benchmarks" / "results", ROOT / "README.md"
BEGIN, END = "<!-- made by: python benchmarks/board.py -->", "<!-- end of the board -->"
WANTED = {  # what a reader may ask for: (kind, on a GPU) -> the command that would measure it
    ("throughput", False): "python benchmarks/throughput.py",
    ("full", False): "python benchmarks/throughput.py --full",
    ("profile", False): "python benchmarks/throughput.py --profile",
    ("scaling", False): "python benchmarks/scaling.py",
    ("ops", False): "python benchmarks/ops.py",
    ("store", False): "python benchmarks/store.py",
    ("concepts", False): "python benchmarks/concepts.py",
    ("throughput", True): "python benchmarks/throughput.py --device cuda",
    ("full", True): "python benchmarks/throughput.py --full --device cuda",
    ("profile", True): "python benchmarks/throughput.py --profile --device cuda",
    ("scaling", True): "python benchmarks/scaling.py --device cuda",
    ("gpu", True): "python tools/gpu_check.py",
}
TITLES = {
    "throughput": "a training step",
    "full": "the whole recipe",
    "profile": "what a step consists of",
    "scaling": "scaling",
    "ops": "the operations",
    "store": "the store",
    "concepts": "words to concepts",
    "gpu": "kernels: right, and how fast",
}


def throughput(result):
    rows, settings, plan = result["rows"], result["settings"], result["projection"]
    slow, careful, ours = rows[0], rows[1], rows[-1]
    size = f"batch {settings['batch']}, {settings['size']} towers"
    yield (
        f"step over the reference formulation ({size})",
        f"**{result['speedup']:.1f}x** ({slow['pairs_s']:.2f} -> {ours['pairs_s']:.1f} pairs/s)",
    )
    yield (
        "step over cached features, trimmed captions, plain PyTorch",
        f"**{result['over_careful']:.2f}x** ({careful['pairs_s']:.1f} pairs/s)",
    )
    yield "of that, the cache alone; packing alone", f"{result['cache_alone']:.1f}x; {result['packing_alone']:.1f}x"
    yield "reading and losses, of our step", f"{result['read_and_losses']:.0%}"
    yield (
        "the full recipe at these rates, a projection",
        f"{plan['reference_hours']:.0f} h -> {plan['training_hours']:.1f} h + {plan['extraction_hours']:.1f} h once",
    )


def full(result):
    share, warm, cold = result["settings"]["share_of_the_recipe"], result["warm"], result["cold"]
    what = "store on disk to saved run" + ("" if share == 1 else f", {share:.2%} of the recipe")
    yield what, f"{warm['wall_s']:.0f} s warm, {cold['wall_s']:.0f} s cold"


def ops(result):
    for row in result["rows"]:
        if row.get("ratio") and not row["wrong"]:
            yield (
                f"{row['op']}, {row['size']}",
                f"{row['ratio']:.1f}x, {row['naive_peak_mb']:.0f} -> {row['peak_mb']:.0f} MB",
            )


def store(result):
    for row in result["rows"]:
        if row["bar"] is not None:  # the others are there for comparison
            missed = "" if row["met"] else f", **missed**: the bar is {row['bar']:g}"
            yield row["row"], f"{row['value']:.2g}{missed}"


def concepts(result):
    for row in result["rows"]:
        if "bar" in row:
            names = ("per CPU second", "CPU seconds", "recall of 10")
            figures = (f"{row[name]:,g} {name}" for name in names if name in row)
            yield row["what"], ", ".join(figures) + ("" if row["met"] else f", **missed**: the bar is {row['bar']}")


KINDS = {"throughput": throughput, "full": full, "ops": ops, "store": store, "concepts": concepts}


def newest(folder=None):
    """{(kind, on a GPU): (path, result)}, the latest of each."""
    found = {}
    for path in sorted((folder or RESULTS).glob("*.json"), key=lambda path: path.stem[-10:]):
        match = re.fullmatch(r"([a-z]+)-(.+)-\d{4}-\d\d-\d\d", path.stem)
        if not match:
            raise SystemExit(f"board: {path.name}: expected a name like throughput-cpu-2026-11-21.json")
        found[match[1], match[2] != "cpu"] = path, json.loads(path.read_text())
    return found


def table(found):
    """Lines of markdown."""
    lines = ["| | measured | where |", "|---|---|---|"]
    for (kind, _), (path, result) in sorted(found.items(), key=lambda item: order(item[0])):
        machine = result["machine"]
        where = f"[{machine['device']}](benchmarks/results/{path.name}), {machine['date']}"
        figures = list(KINDS.get(kind, lambda result: result.get("headlines", []))(result))
        for what, figure in figures or [(TITLES.get(kind, kind), "see the file")]:
            lines.append(f"| {what} | {figure} | {where} |")
    for (kind, gpu), command in WANTED.items():
        if (kind, gpu) not in found:
            lines.append(f"| {TITLES[kind]}, on a {'GPU' if gpu else 'CPU'} | **not measured** | `{command}` |")
    return lines


def order(key):
    wanted = list(WANTED)
    return (wanted.index(key), "") if key in wanted else (len(wanted), key[0])


def written(readme, found):
    """The README with the table of the files in it."""
    if readme.count(BEGIN) != 1 or readme.count(END) != 1:
        raise SystemExit(f"board: README.md: expected one line {BEGIN!r} and one {END!r}")
    before, rest = readme.split(BEGIN)
    _, after = rest.split(END)
    return before + "\n".join([BEGIN, "", *table(found), "", END]) + after


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    args = parser.parse_args(argv)
    readme = README.read_text()
    wanted = written(readme, newest())
    if args.check:
        print("README.md and benchmarks/results agree" if readme == wanted else "README.md is not up to date: "
              "python benchmarks/board.py")  # fmt: skip
        return int(readme != wanted)
    README.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
