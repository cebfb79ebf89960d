"""Checkpoints in the background: a step waits while its weights are copied, not while they are written.

What is not finite is not written: the newest checkpoint is always one that training can go on from.
"""

import torch

from fastzss.base.background import Worker
from fastzss.base.errors import UserError
from fastzss.training.step import MOMENTS


class Saver:
    """Writes the checkpoints of a run, one at a time; at its end the last one is on disk."""

    def __init__(self, run, keep):
        self.run, self.keep = run, keep
        self._held, self._worker, self._problem = {}, None, None

    def __enter__(self):
        return self

    def __exit__(self, problem, *_):
        self._finish()
        if problem is None:
            self._tell()

    def prepare(self, model, learned):
        """Make room for the copies in the background: the first checkpoint waits for new pages no more than the others.

        Args:
            model: {name: tensor}.
            learned: {name: tensor} of those with two moments of their size.
        """

        def touch():
            for name, tensor in model.items():
                self._held["model", name] = room_for(tensor).zero_()
            for name, tensor in learned.items():
                for key in MOMENTS:
                    self._held["moments", f"{key}.{name}"] = room_for(tensor).zero_()

        self._worker = Worker("room for checkpoints", touch)

    def save(self, step, model, moments, state, best=False):
        """Copy the tensors, {name: tensor}, and begin to write them; waits for the checkpoint before."""
        self._finish()
        self._tell()
        copies = {what: self._copied(what, tensors) for what, tensors in (("model", model), ("moments", moments))}
        copied = torch.cuda.Event() if torch.cuda.is_available() else None
        if copied:
            copied.record()
        self._worker = Worker("checkpoint", lambda: self._write(step, copies, copied, state, best))

    def _copied(self, what, tensors):
        """The tensors in memory that is kept from one checkpoint to the next: new pages would cost as much again."""
        copies = {}
        for name, tensor in tensors.items():
            place = self._held.get((what, name))
            if place is None:
                place = room_for(tensor)
            copies[name] = self._held[what, name] = place.copy_(tensor.detach(), non_blocking=True)
        return copies

    def _write(self, step, copies, copied, state, best):
        try:
            if copied:
                copied.synchronize()
            broken = next((name for part in copies.values() for name, t in part.items() if not finite(t)), None)
            if broken:
                raise UserError(
                    f"{self.run.path}: after step {step} {broken} holds NaN or infinite values; no checkpoint was "
                    f"written, and the last one is kept. A lower --lr is the usual remedy"
                )
            self.run.save(step, copies["model"], copies["moments"], state, self.keep, best)
        except BaseException as problem:  # told by the thread that trains
            self._problem = problem

    def _finish(self):
        if self._worker is not None:
            self._worker.finish(lambda: None)
            self._worker = None

    def _tell(self):
        problem, self._problem = self._problem, None
        if problem is not None:
            raise problem


def room_for(tensor):
    """Memory of the machine for a tensor, page-locked where that is on a GPU."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)


def finite(tensor):
    """Whether all its numbers are, without a mask as large as it: what is no number makes the sum none."""
    return bool(tensor.sum().isfinite())
