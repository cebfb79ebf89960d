"""The demo's chapter on SimZSS: a text tower learns from captions, with the global loss alone and with both."""

from dataclasses import replace

import numpy as np
import torch

from fastzss import world
from fastzss.base.config import build
from fastzss.base.runs import Run
from fastzss.demo.telling import HARDER, Chapter, judged_with_ceiling, pictures, rows_of, stage
from fastzss.evaluation.datasets.world import world_set
from fastzss.evaluation.evaluate import evaluate
from fastzss.evaluation.oracles import class_means
from fastzss.masks.inference import DEFAULT, PLAIN
from fastzss.masks.segment import Model
from fastzss.methods.registry import load
from fastzss.pages.maps import layout
from fastzss.text.readout import READOUTS, Readout
from fastzss.text.tower import PRESETS, TextTower
from fastzss.training.loop import train
from fastzss.training.settings import RECIPES, TrainConfig

MAPPED, EACH = 60, 12  # test scenes that the map has patches of, and patches of a class at most


def tell(config, store, tests, means, times):
    """Train and judge; the Chapter of it."""
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
        best = best_readout(models["global only"], world_set(f"world:validation,n={tests // 2}"))
        found = {split: judge(split, tests // HARDER.get(split, 1), models, best, means) for split in ("test", *HARDER)}
    data = world_set(f"world:test,n={tests}")
    shown = ("global only", "global + local", "class means")
    return Chapter(
        rows=rows_of(found),
        classes={row: found["test"][row][0]["classes"] for row in shown},
        curves={row: Run(outs[0]).metrics() for row, outs in runs.items()},
        readout={"global only": best, "global + local": model.words.readout},
        scenes=pictures(model, data, "SimZSS" if config.method == "both" else ""),
        map=concept_map(model, data),
    )


def best_readout(models, data):
    """The readout that serves the global loss best, on scenes that nobody is scored on."""
    words = {
        (readout, seed): model.vocabulary(data.names, PLAIN, readout)
        for seed, model in enumerate(models)
        for readout in READOUTS
    }
    scores = evaluate(models[0].vision, words, data)
    return max(READOUTS, key=lambda readout: sum(scores[readout, seed]["all"] for seed in range(len(models))))


def judge(split, n, models, readout, means):
    """{row: the scores of each seed} on n scenes of a split of the world; `readout`: of global only."""
    data = world_set(f"world:{split},n={n}")
    vision, classifiers = models["global + local"][0].vision, {}
    for seed, (both, only) in enumerate(zip(models["global + local"], models["global only"], strict=True)):
        classifiers["random text", seed] = untrained(both, seed).class_vectors(data.names)
        for how, inference in (("", DEFAULT), (", plain", PLAIN)):
            classifiers["global + local" + how, seed] = both.vocabulary(data.names, inference)
            classifiers["global only" + how, seed] = only.vocabulary(data.names, inference, readout)
    if data.names == world.NAMES:
        classifiers["class means", 0] = means
    scores, bound = judged_with_ceiling(vision, classifiers, data)
    found = {}
    for name, seed in sorted(classifiers):
        found.setdefault(name, []).append(scores[name, seed])
    return {**found, "ceiling": [bound]}


def untrained(model, seed):
    """The same model with a text tower that has learned nothing."""
    torch.manual_seed(seed)
    tower = TextTower(PRESETS[RECIPES["demo"]["text"]], model.vision.channels).to(model.vision.device)
    return Model(model.vision, Readout(tower, model.words.readout))


def concept_map(model, data):
    """Places of the evaluated classes' words, and of patches that are wholly of one, of test scenes."""
    side, kept = model.vision.size // model.vision.grid[0], {k: [] for k in range(len(data.names))}
    for index in range(min(MAPPED, len(data))):
        image, truth = data.read(index)
        patches = model.embed_image(image)[0].flatten(0, 1)
        cells = truth.reshape(truth.shape[0] // side, side, truth.shape[1] // side, side).swapaxes(1, 2)
        cells = cells.reshape(-1, side * side)
        for place in np.flatnonzero((cells == cells[:, :1]).all(1)):
            if cells[place, 0] in kept and len(kept[cells[place, 0]]) < EACH:
                kept[cells[place, 0]].append(patches[place])
    labels = [k for k, own in kept.items() for _ in own]
    every = torch.cat([model.embed_text(list(data.names)).cpu(), *(torch.stack(own) for own in kept.values() if own)])
    places = layout(every.numpy()).round(2).tolist()
    K = len(data.names)
    patches = [[*place, k] for place, k in zip(places[K:], labels, strict=True)]
    return {"names": list(data.names), "concepts": places[:K], "patches": patches}
