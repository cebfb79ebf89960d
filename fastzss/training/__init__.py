"""Training: loader -> objective -> optimiser -> run, on any number of processes.

step.py        one step, and all it needs
loop.py        a run from its first step to its last
resume.py      what must be the same when a run goes on
validation.py  mIoU inside a run
trackers.py    TensorBoard, W&B
pretrained.py  a text tower that begins with CLIP's weights
forecast.py    what a training will be
"""

from fastzss.console import say
from fastzss.ranks import join_ranks, told_to_launcher
from fastzss.training.loop import train
from fastzss.training.resume import FREE
from fastzss.training.step import Learner, learning_rate

__all__ = ["FREE", "Learner", "join_ranks", "learning_rate", "main", "train"]


def main(config, json=False, dry_run=False):
    """What the door fastzss/train.py opens to."""
    with told_to_launcher():
        if dry_run:
            from fastzss.training.forecast import forecast

            result = forecast(config)
        else:
            result = {"run": str(config.out), **train(config)}
    if join_ranks(config.device).is_main_process:
        say(result, json)
