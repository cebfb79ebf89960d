"""The board of benchmarks/README.md: what was measured, made from the files in benchmarks/results.

    python benchmarks/board.py            write it between its two marks
    python benchmarks/board.py --check    say whether it and the files agree; ends with 1 if they do not

A file is named KIND-WHERE-DATE.json, as in throughput-cpu-2026-11-21.json; of each kind and place the newest counts.  A
kind that is not known here shows its file's `headlines`: [[what, figure], ...].
"""

import argparse
import json
import re
import sys
from pathlib import Path

RESULTS, README = Path(__file__).parent / "results", Path(__file__).parent / "README.md"
BEGIN, END = "<!-- made by: python benchmarks/board.py -->", "<!-- end of the board -->"
KINDS = {  # what it is, the command that measures it
    "throughput": ("a training step", "benchmarks/throughput.py"),
    "full": ("a whole training", "benchmarks/throughput.py --full"),
    "profile": ("what a step consists of", "benchmarks/throughput.py --profile"),
    "words": ("a step that trains the words of its captions", "benchmarks/words.py"),
    "zeroseg": ("a step of ZeroSeg", "benchmarks/throughput.py --zeroseg"),
    "scaling": ("scaling", "benchmarks/scaling.py"),
    "ops": ("the operations", "benchmarks/ops.py"),
    "store": ("the store", "benchmarks/store.py"),
    "concepts": ("words to concepts", "benchmarks/concepts.py"),
    "masks": ("masks, step by step", "benchmarks/masks.py RUN..."),
    "gpu": ("kernels: right, and how fast", "tools/gpu_check.py"),
}
WANTED = [(kind, False) for kind in KINDS if kind != "gpu"]  # by a reader: (kind, on a GPU)
WANTED += [(kind, True) for kind in ("throughput", "full", "profile", "scaling", "gpu")]


def throughput(result):
    (slow, careful, *_, ours), settings = result["rows"], result["settings"]
    size = f"batch {settings['batch']}, {settings['size']} towers"
    rates = f"{slow['pairs_s']:.2f} -> {ours['pairs_s']:.1f} pairs/s"
    yield f"step over the reference formulation ({size})", f"**{result['speedup']:.1f}x** ({rates})"
    what = "step over cached features, trimmed captions, plain PyTorch"
    yield what, f"**{result['over_careful']:.2f}x** ({careful['pairs_s']:.1f} pairs/s)"
    yield "of that, the cache alone; packing alone", f"{result['cache_alone']:.1f}x; {result['packing_alone']:.1f}x"
    yield "reading and losses, of our step", f"{result['read_and_losses']:.0%}"
    look = slow["parts"]["vision"] / settings["batch"]
    yield "not in our step: looking at each image, once", f"{look:.0f} ms an image"


def full(result):
    settings, warm, cold = result["settings"], result["warm"], result["cold"]
    what = f"store on disk to saved run, {settings['steps']} steps x {settings['batch']:,} pairs"
    yield what, f"{warm['wall_s']:.0f} s warm, {cold['wall_s']:.0f} s cold"


def zeroseg(result):
    settings = result["settings"]
    what = f"a ZeroSeg step from cached views, beside one that looks ({settings['views']} views, {settings['teacher']})"
    figure = f"**{result['speedup']:.1f}x** ({result['looking_ms'] / 1e3:.1f} -> {result['cached_ms'] / 1e3:.1f} s"
    yield what, figure + f" a batch of {settings['batch']})"


def ops(result):
    for row in result["rows"]:
        if row.get("ratio") and not row["wrong"]:
            memory = f"{row['naive_peak_mb']:.0f} -> {row['peak_mb']:.0f} MB"
            yield f"{row['op']}, {row['size']}", f"{row['ratio']:.1f}x, {memory}"


def store(result):
    for row in result["rows"]:
        tested = row["row"].startswith(("int8", "demo on int8"))  # once measured here, now held by tests
        if row["bar"] is not None and not tested:  # rows without a bar are there for comparison
            missed = "" if row["met"] else f", **missed**: the bar is {row['bar']:g}"
            yield row["row"], f"{row['value']:.2g}{missed}"


def concepts(result):
    for row in result["rows"]:
        if "bar" in row:
            names = ("per CPU second", "CPU seconds", "recall of 10")
            (figure,) = (f"{row[name]:,g} {name}" for name in names if name in row)
            yield row["what"], figure + ("" if row["met"] else f", **missed**: the bar is {row['bar']}")


def masks(result):
    yield from (tuple(pair) for pair in result["headlines"])
    for step, worth in result["worth"].items():
        mean, spread = worth["test all"]
        yield (
            f"worth of {step}: what all steps lose without it, points of mIoU, test all",
            f"{mean:+.1f} (spread {spread:.1f})",
        )


FIGURES = {
    "masks": masks, "throughput": throughput, "zeroseg": zeroseg, "full": full, "ops": ops, "store": store,
    "concepts": concepts,
}  # fmt: skip


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
    """Lines of markdown: what was measured, then what was not."""
    lines = ["| | measured | where |", "|---|---|---|"]
    for key in sorted(found, key=lambda key: WANTED.index(key) if key in WANTED else len(WANTED)):
        path, result = found[key]
        where = f"[{result['machine']['device']}](results/{path.name}), {result['machine']['date']}"
        figures = list(FIGURES[key[0]](result)) if key[0] in FIGURES else result.get("headlines")
        for what, figure in figures or [(KINDS.get(key[0], key)[0], "see the file")]:
            lines.append(f"| {what} | {figure} | {where} |")
    for kind, gpu in WANTED:
        if (kind, gpu) not in found:
            what, command = KINDS[kind]
            lines.append(f"| {what}, on a {'GPU' if gpu else 'CPU'} | **not measured** | `python {command}` |")
    return lines


def written(readme, found):
    """The README with the table of the files in it."""
    if readme.count(BEGIN) != 1 or readme.count(END) != 1:
        raise SystemExit(f"board: {README.name}: expected one line {BEGIN!r} and one {END!r}")
    before, _, rest = readme.partition(BEGIN)
    return before + "\n".join([BEGIN, "", *table(found), "", END]) + rest.partition(END)[2]


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check, readme = parser.parse_args(argv).check, README.read_text()
    wanted = written(readme, newest())
    if not check:
        README.write_text(wanted)
    elif readme != wanted:
        print("benchmarks/README.md is not up to date: python benchmarks/board.py")
    return int(check and readme != wanted)


if __name__ == "__main__":
    sys.exit(main())
