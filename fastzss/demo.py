"""The demo: the whole story on the built-in world, from images to a report, in minutes on a CPU.

    OUT/store          features, captions, concepts of world:train
    OUT                the run with both losses (seed 0): `fastzss segment OUT IMAGE --classes ...` works on it
    OUT/runs/...       the run with the global loss only, and those of further seeds
    OUT/report.html    what happened

Every stage continues where an interrupted one stopped.
"""

import datetime
import logging
import os
import platform
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import cache

import numpy as np
import torch

from fastzss import world
from fastzss.bank import Bank
from fastzss.captions import Tokenizer
from fastzss.config import build
from fastzss.evaluate import ceiling, class_means, evaluate
from fastzss.extract import extract
from fastzss.protocols import world_set
from fastzss.readout import READOUTS
from fastzss.report import ROWS, SCORES, Scene, write_report
from fastzss.runs import Run
from fastzss.segment import Model, load
from fastzss.settings import RECIPES, ExtractConfig, TrainConfig
from fastzss.store import PatchStore
from fastzss.text import PRESETS, TextTower
from fastzss.training import train

log = logging.getLogger("fastzss")

HARDER = ("combinations", "drawings", "large")  # than the test split; half as many scenes of each
SCENES = 6  # pictures of the report: test scenes at equal distances, not chosen by hand


def demo(config):
    """Run all stages; returns the report's table and where it is."""
    # Matrices this small gain little from a second thread (a training: 11 s for 15 s), and on a busy machine its
    # waiting costs minutes; and one thread gives the same figures on any number of cores.
    torch.set_num_threads(1)
    images, tests, means = (300, 60, 60) if config.quick else (2400, 200, 200)
    times = {}
    store = config.out / "store"
    with stage("look at the images, once", times):
        info = extract(ExtractConfig(source=f"world:train,n={images}", store=store, device=config.device))

    recipe = build(
        TrainConfig, ("recipe demo", {**RECIPES["demo"], "store": store, "out": config.out, "recipe": "demo"})
    )
    recipe = replace(recipe, device=config.device, **({"steps": 60} if config.quick else {}))
    runs = {"global only": [], "global + local": []}
    for seed in range(config.seeds):
        for row, weight in (("global only", 0.0), ("global + local", recipe.local_weight)):
            main = row == "global + local" and seed == 0
            out = config.out if main else config.out / "runs" / f"{row.replace(' ', '-').replace('+-', '')}-{seed}"
            with stage(f"train {row}", times):
                train(replace(recipe, out=out, local_weight=weight, seed=seed))
            runs[row].append(out)

    with stage("evaluate", times):
        models = {row: [load(out, config.device) for out in outs] for row, outs in runs.items()}
        model = models["global + local"][0]
        means = class_means(model.vision, world_set(f"world:train,n={means}"))
        found = {"test": judge("test", tests, models, READOUTS, means)}
        # the readout that serves the global loss best, in its favour
        best = max(READOUTS, key=lambda r: np.mean([s["all"] for s in found["test"][f"global only, {r}"]]))
        for split in HARDER:
            found[split] = judge(split, tests // 2, models, (best,), means)
    rows = []
    for split, scores in found.items():
        scores["global only"] = scores[f"global only, {best}"]
        rows += [table_row(row, split, scores[row]) for row in ROWS if row in scores]

    data = world_set(f"world:test,n={tests}")
    concepts = PatchStore(store).concepts()
    report = {
        "title": "fastzss demo",
        "intro": f"A frozen vision transformer looked at {images} drawn scenes once. Then a text encoder learned from "
        "their captions alone; no mask was seen. Scores are mIoU in points on test scenes it never saw.",
        "rows": rows,
        "classes": {
            "names": list(data.names),
            "iou": {row: found["test"][row][0]["classes"] for row in ("global only", "global + local", "class means")},
        },
        "curves": {row: Run(outs[0]).metrics() for row, outs in runs.items()},
        "times": times,
        "store": {key: info[key] for key in ("images", "patches", "channels", "dtype", "shards", "bytes", "captions")},
        "bank": bank_record(concepts),
        "machine": machine(),
        "date": datetime.date.today().isoformat(),
        "command": "fastzss demo" + " --quick" * config.quick + f" --seeds {config.seeds}" * (config.seeds > 1),
        "readout": {"global only": best, "global + local": model.readout},
    }
    path = write_report(config.out, report, pictures(model, data))
    table = {f"{row['split']}, {row['row']}": {key: round(row[key], 1) for key in SCORES if key in row} for row in rows}
    return {**table, "report": str(path)}


@contextmanager
def stage(name, times):
    """Note how long a stage takes; stages of one name add up."""
    log.info("%s", name)
    began = time.perf_counter()
    yield
    times[name] = round(times.get(name, 0) + time.perf_counter() - began, 1)


def judge(split, n, models, readouts, means):
    """{row: the scores of each seed} on n scenes of a split of the world; of global only, a row for each readout."""
    data = world_set(f"world:{split},n={n}")
    data = replace(data, read=cache(data.read))  # the ceiling asks for the same scenes
    vision, classifiers = models["global + local"][0].vision, {}
    for seed, (both, only) in enumerate(zip(models["global + local"], models["global only"], strict=True)):
        classifiers["random text", seed] = untrained(both, seed).class_vectors(data.names)
        classifiers["global + local", seed] = both.class_vectors(data.names)
        for readout in readouts:
            classifiers[f"global only, {readout}", seed] = only.class_vectors(data.names, readout)
    if data.names == world.NAMES:
        classifiers["class means", 0] = means
    scores = evaluate(vision, classifiers, data)
    found = {}
    for name, seed in sorted(classifiers):
        found.setdefault(name, []).append(scores[name, seed])
    return {**found, "ceiling": [ceiling(vision.grid[0], data)]}


def untrained(model, seed):
    """The same model with a text tower that has learned nothing."""
    torch.manual_seed(seed)
    tower = TextTower(PRESETS[RECIPES["demo"]["text"]], model.vision.channels).to(model.vision.device)
    return Model(model.vision, tower, model.readout)


def table_row(name, split, seeds):
    """Means over the seeds, and the seeds."""
    keys = [key for key in SCORES if key in seeds[0]]
    return {
        "row": name,
        "split": split,
        **{key: float(np.mean([s[key] for s in seeds])) for key in keys},
        "seeds": [{"seed": number, **{key: s[key] for key in keys}} for number, s in enumerate(seeds)],
    }


def bank_record(concepts):
    """Size of the bank, how many captions mention it, and which evaluated classes it happens to hold."""
    bank = Bank.from_json(concepts.bank)
    held = [name for name in world.NAMES if Tokenizer().clean(name) in bank.terms]
    captions = int(concepts.caption.unique().numel())
    return {
        "names": len(bank),
        "origin": ", ".join(sorted(set(bank.origin))),
        "parser": concepts.parser,
        "captions with a mention": captions,
        "overlap": f"{len(held)} of the {len(world.NAMES)} evaluated classes are in the bank by their own name",
    }


def pictures(model, data):
    """Test scenes at equal distances, as the model sees them."""
    scenes = []
    for index in range(0, len(data), -(-len(data) // SCENES)):
        image, truth = data.read(index)
        result = model.segment(image, data.names)
        scenes.append(Scene(image, result.mask, truth, world.scene("test", index).captions[0], data.names))
    return scenes


def machine():
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "cpus": os.cpu_count(),
        "platform": platform.platform(terse=True),
    }
