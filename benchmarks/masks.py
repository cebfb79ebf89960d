"""Masks: what each step of the default inference is worth, in mIoU on the built-in world, and in seconds.

    python benchmarks/masks.py runs/demo                      one run; its store is runs/demo/store, or --store
    python benchmarks/masks.py runs/demo runs/demo/runs/...   several seeds: means, and how far they differ
    python benchmarks/masks.py runs/demo --json               the same as JSON, with machine, versions and load

Rows: the bare readout (plain), plain and one step, all but one step, all.  Columns: test scenes; the same scenes with a
memory whose bank lacks every third class (`lacking` are those, `others` the others, on the whole bank too); new
drawings; combinations of a colour and a thing that no caption has (`unseen`) and that some have (`seen`).  The worth of
a step is what all steps lose without it, run by run; one whose worth is less than its spread over the runs is marked.
Seconds are of one core of the processor, for an image of 128 x 128 with 32 classes, all of a row's steps with looking
at it.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from ops import machine

from fastzss.base.console import guarded

TIMED = 20  # images
COLUMNS = {
    "test": ("all", "things", "others"),
    "bank": ("lacking", "others"),
    "drawings": ("all", "things"),
    "combinations": ("unseen", "seen"),
}


def inferences():
    """{row: Inference}"""
    from fastzss.masks.inference import DEFAULT, PLAIN

    steps = ("dense", "evidence", "smoothing", "refinement")
    rows = {"plain": PLAIN}
    rows |= {f"plain and {step}": replace(PLAIN, **{step: getattr(DEFAULT, step)}) for step in steps}
    rows |= {f"all but {step}": replace(DEFAULT, **{step: getattr(PLAIN, step)}) for step in steps}
    return rows | {"all": DEFAULT}


def lacking(store, run, folder):
    """A memory of a run whose bank has no word for every third class."""
    from fastzss import world
    from fastzss.bank import Bank
    from fastzss.base.runs import Run
    from fastzss.captions.parsers import choose_parser
    from fastzss.extraction.concepts import add_concepts
    from fastzss.masks.patch_memory import build_memory, load_memory

    if not (folder / "store").exists():
        gone = {word for name in world.NAMES[::3] for word in (name, *world.SYNONYMS[name])}
        names = tuple(name for name in Bank.from_json(Run.open(run).bank).names if gone.isdisjoint(name.split()))
        shutil.copytree(store, folder / "store", ignore=shutil.ignore_patterns("concepts"))
        bank = Bank(names, ((),) * len(names), ("fewer",) * len(names))
        add_concepts(folder / "store", bank, choose_parser("bank"))
    build_memory(folder / "store", run, folder / "memory")
    return load_memory(folder / "memory", run)


def seen(vision, spec):
    """(EvaluationSet, {dense: [Field]}, [truth]) of scenes, each looked at once in each way."""
    from fastzss.evaluation.datasets.world import world_set
    from fastzss.masks.field import see

    data = world_set(spec)
    images, truths = zip(*(data.read(index) for index in range(len(data))), strict=True)
    return data, {dense: [see(vision, image, dense) for image in images] for dense in (True, False)}, truths


def scored(vocabulary, data, fields, truths, groups):
    from fastzss.evaluation.evaluate import scores
    from fastzss.evaluation.score import confusion
    from fastzss.masks.windows import winners

    K = len(data.names)
    matrix = np.zeros((K, K), np.int64)
    for field, truth in zip(fields[vocabulary.inference.dense], truths, strict=True):
        matrix += confusion(truth, winners(vocabulary.scores(field), truth.shape)[1].numpy(), K)
    return scores(matrix, groups)


def seconds(model, vocabulary, images):
    from fastzss.masks.windows import winners

    taken = []
    for image in images:
        began = time.process_time()
        winners(vocabulary.scores(vocabulary.see(model.vision, image)), (image.height, image.width))
        taken.append(time.process_time() - began)
    return statistics.median(taken)


def measured(runs, store, scenes):
    """{row: {"seconds": ..., column: {key: [of each run]}}}"""
    import fastzss
    from fastzss.base.errors import UserError
    from fastzss.evaluation.datasets.world import world_set
    from fastzss.masks.vocabulary import Vocabulary

    models = [fastzss.load(run, device="cpu") for run in runs]
    for run, model in zip(runs, models, strict=True):
        if model.memory is None:
            raise UserError(f"{run}: has no patch memory; `fastzss bank memory STORE --run {run}` makes one")
    half = max(1, scenes // 2)
    splits = {
        split: f"world:{split},n={n}" for split, n in (("test", scenes), ("drawings", half), ("combinations", half))
    }
    looks = {split: seen(models[0].vision, spec) for split, spec in splits.items()}
    timed = [image for image, _ in map(world_set(splits["test"]).read, range(min(TIMED, scenes)))]
    rows = {row: {column: {key: [] for key in keys} for column, keys in COLUMNS.items()} for row in inferences()}
    with tempfile.TemporaryDirectory() as folder:
        for run, model in zip(runs, models, strict=True):
            less = lacking(store, run, Path(folder))
            for row, inference in inferences().items():
                for column, keys in COLUMNS.items():
                    data, fields, truths = looks["test" if column == "bank" else column]
                    memory, groups = (less, thirds(data)) if column == "bank" else (model.memory, data.groups)
                    groups = groups | thirds(data) if column == "test" else groups
                    vocabulary = Vocabulary(data.names, model.class_vectors(data.names), inference, memory)
                    found = scored(vocabulary, data, fields, truths, groups)
                    for key in keys:
                        rows[row][column][key].append(found[key])
            for _, fields, _ in looks.values():
                for field in fields[True] + fields[False]:
                    field.forget()
    data = looks["test"][0]
    for row, inference in inferences().items():
        vocabulary = Vocabulary(data.names, models[0].class_vectors(data.names), inference, models[0].memory)
        rows[row]["seconds"] = seconds(models[0], vocabulary, timed)
    return rows


def thirds(data):
    every = range(len(data.names))
    return {"lacking": [k for k in every if k % 3 == 0], "others": [k for k in every if k % 3]}


def worth(rows):
    """{step: {"column key": [mean, spread] of what all steps lose without it}}"""
    found = {}
    for row in rows:
        if row.startswith("all but "):
            found[row.removeprefix("all but ")] = {
                f"{column} {key}": spread(np.subtract(rows["all"][column][key], rows[row][column][key]))
                for column, keys in COLUMNS.items()
                for key in keys
            }
    return found


def spread(values):
    return round(float(np.mean(values)), 2), round(float(np.std(values)), 2)


def shown(rows, runs):
    titles = [f"{column} {key}" for column, keys in COLUMNS.items() for key in keys]
    print(f"{'':24}" + "".join(f"{title:>21}" for title in titles) + f"{'seconds':>10}")
    for row, values in rows.items():
        cells = [spread(values[column][key]) for column, keys in COLUMNS.items() for key in keys]
        print(
            f"{row:24}" + "".join(f"{mean:>15.1f} ± {by:3.1f}" for mean, by in cells) + f"{values['seconds']:>10.3f}",
            flush=True,
        )
    for step, values in worth(rows).items():
        lost = ", ".join(f"{title} {mean:+.1f} ± {by:.1f}" for title, (mean, by) in values.items())
        mark = "" if values["test all"][0] > values["test all"][1] or runs == 1 else "  (less than its spread)"
        print(f"worth of {step}: {lost}{mark}")


def work(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--store", type=Path, help="the runs' store (default: the first run's folder /store)")
    parser.add_argument("--scenes", type=int, default=200, help="of the test split; half of the others (default: 200)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    if args.scenes < 1:
        parser.error(f"--scenes {args.scenes}: expected at least one")
    torch.set_num_threads(1)
    where = machine("cpu")
    rows = measured(args.runs, args.store or args.runs[0] / "store", args.scenes)
    if not args.json:
        shown(rows, len(args.runs))
        print(", ".join(f"{key} {value}" for key, value in where.items()))
        return 0
    plain, default = rows["plain"], rows["all"]
    best = {f"{c} {k}": (spread(plain[c][k])[0], spread(default[c][k])[0]) for c, keys in COLUMNS.items() for k in keys}
    headlines = [[f"mIoU, {title}: plain, default", f"{a:.1f}, **{b:.1f}**"] for title, (a, b) in best.items()]
    headlines.append(
        ["seconds an image of 128 x 128: plain, default", f"{plain['seconds']:.3f}, {default['seconds']:.3f}"]
    )
    result = {"machine": where, "runs": len(args.runs), "scenes": args.scenes, "headlines": headlines}
    print(json.dumps({**result, "rows": rows, "worth": worth(rows)}, indent=1))
    return 0


def main(argv=None):
    return guarded("masks", lambda: work(argv), "interrupted")


if __name__ == "__main__":
    sys.exit(main())
