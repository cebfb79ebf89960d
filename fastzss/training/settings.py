"""What can be set of a training, and the recipes.

Light to import, so that `--help` is instant.
"""

from dataclasses import dataclass, fields
from pathlib import Path

from fastzss.base.config import option, refuse_negative, refuse_zero
from fastzss.base.errors import nearest
from fastzss.methods import METHODS
from fastzss.methods.simzss import settings as simzss
from fastzss.methods.simzss.settings import SimZSSSettings
from fastzss.methods.zeroseg import settings as zeroseg
from fastzss.methods.zeroseg.settings import ZeroSegSettings

AUTO = "auto"
TRACKERS = ("tensorboard", "wandb")
WARMUP = 0.1  # of methods that choose no settings

# What a recipe leaves open, None, its method chooses when a run begins (Method.choose); of `auto` that is all of these.
OPEN = {"simzss": simzss.OPEN}
# A recipe is a set of settings with a name; the first one of a method is where settings begin when none is named.
RECIPES = {AUTO: {}, **simzss.RECIPES, **zeroseg.RECIPES}
OWN = {"simzss": SimZSSSettings, "zeroseg": ZeroSegSettings}  # the settings that only one method has
PEAKS = {"simzss": simzss.peak, "zeroseg": zeroseg.peak}


@dataclass(frozen=True, kw_only=True)
class CommonSettings:
    """Settings of every training, whatever the method."""

    store: Path = option(
        "feature store written by `fastzss-cache extract`; several, each with its --store, are learned from together, "
        "and STORE@2 comes twice an epoch",
        several=True,
    )
    out: Path = option("run folder: settings, metrics, checkpoints")
    method: str = option("what is trained", METHODS[0], choices=METHODS)
    recipe: str = option("settings to begin from: " + ", ".join(RECIPES), next(iter(RECIPES)))
    steps: int | None = option("optimiser steps", None)
    batch: int | None = option("pairs a step, over all processes", None)
    lr: float | None = option(
        "peak learning rate; of simzss-coco 3e-5 for every 256 of the batch, of zeroseg 1.5e-4", None
    )
    warmup: float | None = option("share of the steps in which the learning rate rises", None)
    weight_decay: float = option("of matrices; vectors and scales have none", 0.2)
    precision: str = option("arithmetic of the tower", "auto", choices=("auto", "float32", "bfloat16", "float64"))
    extend: int | None = option("go on with a finished run to so many steps in all; they rise and fall once more", None)
    from_run: Path | None = option(
        "begin with the weights of another run, at whose end this one starts", None, flag="from"
    )
    hold_out: float = option("share of the images whose captions are not learned from, to judge the run by them", 0.0)
    seed: int = option("of the weights and of the order of the samples", 0)
    device: str | None = option("cpu, cuda, ...; by default cuda where there is one", None)
    loader: str = option("where patches lie", "auto", choices=("auto", "device", "host", "stream"))
    memory: str = option("at the end, remember patches by their concepts, or not", "auto", choices=("auto", "none"))
    resume: str = option("go on with the run in --out", "auto", choices=("auto", "never", "must"))
    log: str | None = option("where metrics go besides: tensorboard, wandb, or both with a comma", None)
    log_every: int = option("steps between two lines of metrics.jsonl", 10)
    checkpoint_every: int = option("steps between two checkpoints", 100)
    keep: int = option("checkpoints that stay, beside the best one", 2)
    eval_every: int = option("steps between two evaluations; 0: none", 0)
    eval_protocol: str = option("of the evaluations, as for `fastzss evaluate`", "world")
    eval_data: str | None = option("what they see; for world by default world:validation,n=100", None)

    def __post_init__(self):
        refuse_zero(self, "steps", "batch", "log_every", "checkpoint_every", "keep")
        refuse_negative(self, "weight_decay", "warmup", "eval_every", "hold_out")
        lacking = [name for name in ("steps", "batch") if getattr(self, name) is None]
        if self.warmup is None and self.method not in OPEN:
            object.__setattr__(self, "warmup", WARMUP)
        if lacking and self.method not in OPEN:
            raise ValueError(
                f"--{lacking[0]} is not set, and {self.method} does not choose it: name one of its recipes"
            )
        if self.hold_out and self.method not in OPEN:
            raise ValueError(f"--hold-out is of captions, and {self.method} learns from none")
        if self.hold_out >= 1:
            raise ValueError(f"--hold-out must be less than 1, got {self.hold_out}")
        for name in self.trackers:
            if name not in TRACKERS:
                raise ValueError(
                    f"--log {self.log}: {name!r} is none of {', '.join(TRACKERS)}{nearest(name, TRACKERS)}"
                )

    @property
    def trackers(self):
        return tuple(name.strip() for name in (self.log or "").split(",") if name.strip())

    @property
    def peak(self):
        return self.lr if self.lr is not None else PEAKS[self.method](self)

    @property
    def left_open(self):
        """The settings that are yet to be chosen; without a rate, a recipe of another name has that of `peak`."""
        open_ones = [key for key in OPEN.get(self.method, ()) if getattr(self, key) is None]
        return open_ones if self.recipe == AUTO else [key for key in open_ones if key != "lr"]


def of_others(method):
    """The names of settings that a method does not have: they change nothing of its runs."""
    return {field.name for other, own in OWN.items() if other != method for field in fields(own)}


@dataclass(frozen=True, kw_only=True)
class TrainConfig(ZeroSegSettings, SimZSSSettings, CommonSettings):
    """Train a method on a finished store.  Run the same command again to continue a stopped run."""

    def __post_init__(self):
        CommonSettings.__post_init__(self)
        SimZSSSettings.__post_init__(self)
        ZeroSegSettings.__post_init__(self)
