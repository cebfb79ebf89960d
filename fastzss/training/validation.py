"""Evaluation inside a run: the backbone looks at every image once; then each evaluation is a product with class names.

RUN/evaluation holds what was seen (evaluation/looks.py).
"""

from dataclasses import replace
from functools import partial

from fastzss.backbones import reload_vision
from fastzss.base.errors import UserError
from fastzss.base.files import identity
from fastzss.evaluation.datasets.opened import open_set
from fastzss.evaluation.evaluate import judged
from fastzss.evaluation.looks import Looks
from fastzss.evaluation.protocols import protocol_of
from fastzss.masks.inference import PLAIN

WORLD = "world:validation,n=100"  # what choosing is done on; the test scenes are for the end


def bare_protocol(name, spec):
    """(a protocol with the bare readout, its set): a learner has no memory yet, and the steps behind it take time."""
    protocol = replace(protocol_of(name), inference=PLAIN)
    if protocol.look != "field":
        raise UserError(
            f"--eval-protocol {name}: inside a training images are looked at as world and folder have it; expected one "
            f"of these, and `fastzss evaluate --protocol {name}` at its end",
            code=2,
        )
    return protocol, open_set(name, spec, "--eval-data")


class Validation:
    """An evaluation set that learners in training are scored on."""

    def __init__(self, config, trainer, ranks):
        spec = config.eval_data or (WORLD if config.eval_protocol == "world" else None)
        self.protocol, self.data = bare_protocol(config.eval_protocol, spec)
        self.ranks, self.task = ranks, trainer.task
        record = trainer.record
        self.looks = Looks(self.data, partial(reload_vision, record["vision"], record["weights"], device=ranks.device))
        self.plan = {
            "protocol": config.eval_protocol,
            "data": spec,
            "images": identity(list(self.data.ids)),
            "classes": list(self.data.names),
            "vision": record["vision"],
        }
        self.identity = identity(self.plan)

    def prepare(self, folder, shown):
        """Look at the images that nobody has looked at yet."""
        self.looks.keep(folder / "evaluation", self.plan, self.ranks, shown)

    def scores(self):
        """{"miou": ..., "miou_GROUP": ...} in points, of the learner as it is now."""
        vocabulary = self.protocol.vocabulary(self.task.classifier(), self.data.names)
        found = judged(self.looks, {"run": vocabulary}, self.ranks, shown=False)["run"]
        return {"miou": found["all"], **{f"miou_{group}": found[group] for group in self.data.groups}}
