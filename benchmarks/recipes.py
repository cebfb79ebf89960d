"""Recipes: what `--recipe auto` is worth beside the best of a small sweep, on worlds of several sizes.

    python benchmarks/recipes.py --out /tmp/recipes             200, 2,000 and 20,000 training images of the world
    python benchmarks/recipes.py 200 --out /tmp/recipes --json  one size, as JSON with machine, versions and load

Scores are mIoU by the words alone on 100 scenes of the validation split, which the rule was chosen on too; one seed.
Stopped, the same command goes on.  OUT/store-N is what was extracted, OUT/N a sweep as `fastzss sweep` leaves it.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

from measuring import begin, command, options

DEMO = {"text": "tiny", "lr": 2e-3, "local_weight": 0.25, "warmup": 0.1}  # its batch and steps are 64, 200
HEAVY = DEMO | {"local_weight": 1.0}
# What is tried beside auto on each size: about the recipe of the demo, bounded in steps.
TRIED = {
    200: (
        DEMO | {"batch": 64, "steps": 200},
        DEMO | {"batch": 64, "steps": 400},
        DEMO | {"batch": 128, "steps": 200},
        DEMO | {"batch": 128, "steps": 400},
        HEAVY | {"batch": 64, "steps": 400},
        DEMO | {"batch": 64, "steps": 400, "lr": 4e-3},
    ),
    2_000: (
        DEMO | {"batch": 64, "steps": 200},
        DEMO | {"batch": 64, "steps": 400},
        HEAVY | {"batch": 64, "steps": 400},
        HEAVY | {"batch": 128, "steps": 400},
        HEAVY | {"batch": 64, "steps": 400, "lr": 4e-3},
        HEAVY | {"batch": 64, "steps": 800},
    ),
    20_000: (
        DEMO | {"batch": 64, "steps": 200},
        HEAVY | {"batch": 64, "steps": 400},
        HEAVY | {"batch": 128, "steps": 400},
        DEMO | {"batch": 256, "steps": 400},
        HEAVY | {"batch": 256, "steps": 400},
        HEAVY | {"batch": 128, "steps": 800},
        HEAVY | {"batch": 256, "steps": 625},
    ),
}
SHOWN = ("text", "batch", "steps", "lr", "local_weight")


def measured(images, out):
    """The rows of a size, the best first."""
    from fastzss.base.config import build
    from fastzss.base.runs import Run
    from fastzss.extraction.flow import extract
    from fastzss.extraction.settings import ExtractConfig
    from fastzss.training.settings import TrainConfig
    from fastzss.training.sweep import Trial, sweep

    store, folder = out / f"store-{images}", out / str(images)
    extract(ExtractConfig(source=f"world:train,n={images}", store=store))
    common = {"store": store, "out": folder, "memory": "none", "device": "cpu"}
    trials = [
        Trial.of(values, build(TrainConfig, ("here", common | values)))
        for values in (
            {"recipe": "auto"},
            *({"recipe": "demo"} | tried for tried in TRIED[images]),
        )  # all of demo's set
    ]
    rows = []
    for row in sweep([replace(trial, values={"recipe": trial.values["recipe"]}) for trial in trials], folder):
        settings = Run(row["run"]).config["settings"]
        scores = {key: round(row[key], 1) for key in ("score", "things", "stuff")}
        name = "auto" if row["recipe"] == "auto" else "set"
        rows.append({"recipe": name, **{key: settings[key] for key in SHOWN}, **scores})
    return rows


def parser():
    made = options(__doc__, device=False, threads=1)
    made.add_argument("sizes", nargs="*", type=int, help="numbers of training images (default: all three)")
    made.add_argument("--out", type=Path, required=True, help="folder of the stores and the runs")
    return made


@command
def main(argv=None):
    args = begin(parser(), argv)
    if unknown := set(args.sizes) - set(TRIED):
        parser().error(f"{unknown.pop()} images: expected {', '.join(map(str, TRIED))}")
    found = {}
    for images in args.sizes or TRIED:
        rows = measured(images, args.out)
        auto = next(row["score"] for row in rows if row["recipe"] == "auto")
        tried = max(row["score"] for row in rows if row["recipe"] != "auto")
        found[images] = {"auto": auto, "best of the others": tried, "ratio": round(auto / tried, 3), "runs": rows}
    if args.json:
        print(json.dumps({"kind": "recipes", "machine": args.machine, "sizes": found}))
        return
    for images, result in found.items():
        print(f"\n{images:,} images: auto {result['auto']}, the best of the others {result['best of the others']}\n")
        print("| recipe | " + " | ".join([*SHOWN, "all", "things", "stuff"]).replace("_", " ") + " |")
        print("|---" * (len(SHOWN) + 4) + "|")
        for row in result["runs"]:
            print(
                "| "
                + " | ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in row.values())
                + " |"
            )


if __name__ == "__main__":
    sys.exit(main())
