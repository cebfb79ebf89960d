"""What a method is: all that training and `fastzss.load` do not know of what is learned.

A Method makes a Task for each training: its learner, its batches, its losses.  Every rank has a Task of its own, and
computes its share of the losses of a batch: the shares' sum, and the sum of the ranks' gradients, are exactly those of
one process.
"""

from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from fastzss.base.ranks import Ranks
from fastzss.base.runs import Run


class Task(Protocol):
    """One training.  Made from (config, ranks, arithmetic); what the store lacks is a UserError then."""

    learner: nn.Module  # all that learns; where losses sum over ranks, its last parameter's gradient comes behind that
    tables: dict  # {parameter: the text.own_words.OwnWords it belongs to}, where only some rows of a table learn
    samples: int  # of an epoch
    steps_per_epoch: int
    bank: dict | None  # that the run records
    optimiser: dict  # betas and eps of AdamW

    @property
    def record(self) -> dict:
        """What a run remembers of it, besides the settings: "vision", "weights" and "store" among them."""

    def begin(self, fresh: bool, reserve: int) -> list[str]:
        """Make ready for the first step; `fresh`: no weights are taken up; `reserve`: bytes that the optimiser needs.
        Returns sentences about where there is room for what."""

    def forecast(self, reserve: int) -> dict:
        """The same in words, for a training that does not take place."""

    def steps(self, begin: int, end: int) -> Iterator[Any]:
        """The batches of the steps begin .. end - 1: functions of the settings and of their number alone."""

    def captured(self, derive: Callable) -> Callable:
        """`derive`, which leaves the gradients of a batch's losses, as this training wants it done: mostly as it is."""

    def losses(self, batch: Any) -> dict[str, Tensor]:
        """This rank's shares by name; "loss" is what is learned from, the others begin with "loss_"."""

    def settle(self) -> None:
        """Called after each step of the optimiser: keeps values within their limits."""

    def readings(self) -> dict[str, float]:
        """What there is to log besides the losses."""

    def dump(self, batch: Any) -> dict[str, Tensor]:
        """The tensors of a batch whose loss was no number."""

    def classifier(self) -> Any:
        """The learner as it is now, as something that has `vocabulary(names, inference, readout, templates)`."""


class Method(Protocol):
    name: ClassVar[str]  # as --method has it, and as a run records it
    free: ClassVar[tuple]  # its settings that do not change what is computed, or that `going_on` looks after

    def going_on(self, config: Any, record: dict) -> Any:
        """The settings with which a recorded run goes on: what the user leaves open is as it was."""

    def choose(self, config: Any, ranks: Ranks) -> tuple[Any, list[str]]:
        """The settings of a new run with a value for each of config.left_open, and sentences that say why."""

    def task(self, config: Any, ranks: Ranks, arithmetic: Any) -> Task: ...

    def model(self, run: Run, vision: Any, device: Any) -> Any:
        """The masks.segment.Model of a Run's chosen checkpoint, with the backbone that it was trained on."""

    def finish(self, run: Run, config: Any, device: Any) -> str | None:
        """Leave in a finished Run what its model needs besides the checkpoint, unless it is there.

        One process does it.  Returns a sentence about it, or None.
        """
