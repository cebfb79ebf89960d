"""One step: a batch -> losses -> gradients -> other weights.

Step s is a function of the settings and of s alone, and N processes compute what one would: each takes its share of the
batch, and gradients are summed.
"""

from contextlib import nullcontext
from typing import NamedTuple

import torch

from fastzss.base.config import plain
from fastzss.base.errors import UserError
from fastzss.methods.registry import method_of
from fastzss.training.sums import Sums

MOMENTS = ("exp_avg", "exp_avg_sq")


class Arithmetic(NamedTuple):
    exact: torch.dtype  # of weights and losses
    fast: torch.autocast  # of what may be computed in less
    products: object  # of the losses: on a GPU their matrix products are fast too, with sums in `exact`

    @classmethod
    def of(cls, precision, device):
        if precision == "auto":
            precision = "bfloat16" if device.type == "cuda" else "float32"
        fast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
        exact = torch.float64 if precision == "float64" else torch.float32
        return cls(exact, fast, fast if device.type == "cuda" else nullcontext())


def parameter_groups(learner, weight_decay):
    """Parameters that decay, the matrices, and those that do not."""
    kinds = {True: [], False: []}
    for name, parameter in learner.named_parameters():
        kinds[parameter.ndim >= 2 and not any(word in name for word in ("ln_", "bias"))].append(parameter)
    return [{"params": kinds[True], "weight_decay": weight_decay}, {"params": kinds[False], "weight_decay": 0.0}]


class Trainer:
    """What a method trains, and its optimiser."""

    def __init__(self, config, ranks):
        self.config, self.device = config, ranks.device
        if rest := config.batch % ranks.count:
            near = f"{config.batch - rest} or {config.batch - rest + ranks.count}"
            among = f"does not divide among {ranks.count} processes"
            raise UserError(f"--batch {config.batch} {among}; it counts the pairs of all: give {near}", code=2)
        self.arithmetic = Arithmetic.of(config.precision, self.device)
        self.task = method_of(config.method).task(config, ranks, self.arithmetic)
        self.learner = self.task.learner

    def begin(self, fresh):
        """Make ready for the first step; returns sentences about where there is room for what."""
        groups = parameter_groups(self.learner, self.config.weight_decay)
        self.optimizer = torch.optim.AdamW(groups, lr=0, fused=True, **self.task.optimiser)
        sentences = self.task.begin(fresh, self.states)
        self.derive = self.task.captured(self.derive)
        self.sums = Sums(self.learner.parameters())
        return sentences

    @property
    def parameters(self):
        """How many there are, with those that only decay."""
        tables = self.task.tables
        return sum((tables[n].table if n in tables else p).numel() for n, p in self.learner.named_parameters())

    @property
    def states(self):
        """Bytes of the gradients, of AdamW's two moments, and of one more gradient on its way."""
        return 4 * sum(p.nbytes for p in self.learner.parameters())

    @property
    def record(self):
        """What a run remembers of how it was made: all that is needed to use it or to continue it."""
        return {"settings": plain(self.config), **self.task.record}

    def differentiate(self, batch):
        """This rank's share of the losses; the gradients of the whole batch's are the same on all ranks."""
        losses = self.derive(batch)
        self.sums.finish()
        return losses

    def derive(self, batch):
        """This rank's share of the losses; their gradients are left on the parameters."""
        losses = self.task.losses(batch)
        losses["loss"].backward()
        return losses

    def sound(self):
        """Whether all gradients are finite, as a truth on the device: what is no number makes the sum none."""
        sums = [p.grad.sum() for p in self.learner.parameters() if p.grad is not None]
        return torch.stack(sums).isfinite().all()

    def learn(self, rate):
        """Take a step along the gradients, at a learning rate."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        for table in self.task.tables.values():
            table.decay(1 - rate * self.config.weight_decay)
        self.task.settle()

    @property
    def readings(self):
        """What there is to log besides the losses."""
        return {**self.task.readings(), "lr": self.optimizer.param_groups[0]["lr"]}

    def moments(self):
        """AdamW's state under the names of the parameters; of a table with the words that it is of."""
        found = {
            f"{key}.{name}": value
            for name, parameter in self.learner.named_parameters()
            for key, value in self.optimizer.state[parameter].items()
        }
        return found | {f"words.{name}": table.words for name, table in self.task.tables.items()}

    def restore(self, model, moments):
        self.learner.load_state_dict(model)
        for name, parameter in self.learner.named_parameters():
            own = {key: moments[f"{key}.{name}"].to(parameter.device) for key in ("step", *MOMENTS)}
            if table := self.task.tables.get(name):
                own |= {key: table.moments(own[key], moments.get(f"words.{name}")) for key in MOMENTS}
            self.optimizer.state[parameter] = own
