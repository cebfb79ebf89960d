"""Trainings as users start them, and as they stop them."""

import signal
from contextlib import contextmanager
from unittest import mock

from fastzss.training.loop import Loop, Stopped
from fastzss.training.settings import of_others


@contextmanager
def interrupted_after(step):
    """Ctrl-C comes in that step of a training."""
    real = Loop.after_step

    def after_step(self, metrics, signum, trackers):
        stop = signal.SIGINT if metrics["step"] == step else signum
        real(self, metrics, stop, trackers)
        if stop:
            raise Stopped(stop, step)

    with mock.patch.object(Loop, "after_step", after_step):
        yield


def flags(config):
    """A config as the command line has it."""
    left = {"method", "recipe", "bank", *of_others("simzss")}
    given = {k: getattr(config, k) for k in config.__dataclass_fields__ if k not in left}
    given = {f"--{key.replace('_', '-')}": value for key, value in given.items() if value is not None}
    return [flag if value is True else f"{flag}={value}" for flag, value in given.items() if value is not False]
