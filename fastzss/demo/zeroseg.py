"""The demo's chapter on ZeroSeg: segments learn from the tiny teacher's views; what it says alone stands beside.

Rows: zeroseg-frozen, random tokens, k-means, teacher patches (baselines.py).  Of two ways to name a cluster the one
that serves the test scenes better stands in the report, in its favour; so it is with the filter of five classes.
"""

from dataclasses import replace

from fastzss.base.config import build
from fastzss.base.runs import Run
from fastzss.demo.baselines import PLACES, Clusters, TeacherPatches, untrained
from fastzss.demo.telling import HARDER, Chapter, judged_with_ceiling, mean_of, pictures, rows_of, stage
from fastzss.evaluation.datasets.world import world_set
from fastzss.evaluation.evaluate import evaluate
from fastzss.masks.inference import DEFAULT, PLAIN
from fastzss.masks.vocabulary import Vocabulary
from fastzss.methods.registry import load
from fastzss.methods.zeroseg.model import ZeroSegModel
from fastzss.training.loop import train
from fastzss.training.settings import RECIPES, TrainConfig

NAME = "zeroseg-frozen"
HOW = {"": DEFAULT, ", plain": PLAIN}


def tell(config, store, tests, times):
    """Train and judge; the Chapter of it."""
    recipe = RECIPES["zeroseg-demo"] | ({"steps": 20} if config.quick else {})
    settings = build(TrainConfig, ("recipe", {**recipe, "store": store, "out": config.out, "recipe": "zeroseg-demo"}))
    outs = []
    for seed in range(config.seeds):
        main = config.method == "zeroseg" and seed == 0
        out = config.out if main else config.out / "runs" / f"{NAME}-{seed}"
        with stage(f"train {NAME}", times):
            train(replace(settings, out=out, seed=seed, device=config.device))
        outs.append(out)
    with stage("evaluate", times):
        models = [load(out, config.device) for out in outs]
        found = {"test": judge("test", tests, models, outs, PLACES, HOW)}
        best = max(PLACES, key=lambda place: mean_of(found["test"][f"k-means, {place}"]))
        for split, few in HARDER.items():
            found[split] = judge(split, tests // few, models, outs, (best,), {"": DEFAULT})
        for split, scores in found.items():
            for how in HOW if split == "test" else ("",):
                scores["k-means" + how] = scores[f"k-means, {best}{how}"]
    data = world_set(f"world:test,n={tests}")
    return Chapter(
        rows=rows_of(found),
        classes={NAME: found["test"][NAME][0]["classes"]},
        curves={NAME: Run(outs[0]).metrics()},
        readout={NAME: models[0].words.readout, "k-means": best},
        scenes=pictures(models[0], data, "ZeroSeg" if config.method == "both" else ""),
    )


def judge(split, n, models, outs, places, hows):
    """{row: the scores of each seed} on n scenes of a split of the world, of each inference: {what rows add: it}."""
    data = world_set(f"world:{split},n={n}")
    vision, words, scoring = models[0].vision, models[0].words, models[0].scoring
    teacher, vectors = words.teacher, words.class_vectors(data.names)
    classifiers, patches = {}, {}
    for how, inference in hows.items():
        for seed, (model, out) in enumerate(zip(models, outs, strict=True)):
            classifiers[NAME + how, seed] = model.vocabulary(data.names, inference)
            if not how:
                nothing = ZeroSegModel(vision, words, untrained(Run(out).config["student"], seed), scoring)
                classifiers["random tokens", seed] = nothing.vocabulary(data.names, inference)
        for place in places:
            classifiers[f"k-means, {place}{how}", 0] = Clusters(vectors, teacher, scoring, inference, place)
        patches["teacher patches" + how, 0] = Vocabulary(data.names, vectors, inference)
    found, bound = judged_with_ceiling(vision, classifiers, data)
    found |= evaluate(TeacherPatches(teacher, vision), patches, data)
    rows = {}
    for name, seed in sorted(found):
        rows.setdefault(name, []).append(found[name, seed])
    return {**rows, "ceiling": [bound]}
