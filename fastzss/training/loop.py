"""A run from its first step to its last: stopping, going on, being watched.

A run that is stopped goes on from its checkpoint as if nothing had happened.
"""

import logging
import math
import signal
from contextlib import closing, nullcontext
from dataclasses import fields

import torch
from tqdm import tqdm

from fastzss.config import plain
from fastzss.errors import UserError
from fastzss.ranks import all_sum, join_ranks
from fastzss.runs import Run
from fastzss.training.resume import check_same, restored
from fastzss.training.step import Trainer
from fastzss.training.trackers import Trackers, check_trackers
from fastzss.training.validation import Validation

log = logging.getLogger("fastzss")


def train(config, progress=True):
    """Train or continue a run; returns its last metrics.  Ctrl-C and SIGTERM leave a checkpoint behind."""
    ranks = join_ranks(config.device)
    check_trackers(config.trackers)
    run, trainer = Run(config.out), Trainer(config, ranks)
    validation = Validation(config, trainer, ranks) if config.eval_every else None
    begun = check_same(run, trainer.record, config.resume)
    fresh = run.latest is None
    ranks.wait_for_everyone()  # all have looked before one writes
    if begun and not fresh and run.state["step"] == config.steps:
        log.info("%s: all %d steps are done", run.path, config.steps)
        return (run.metrics() or [{}])[-1]

    said = trainer.begin(fresh)
    lead = ranks.is_main_process
    with run.alone() if lead else nullcontext():
        start, best = (0, None) if fresh else restored(run, trainer)
        if lead:
            if not begun:
                run.create(trainer.record, trainer.loader.bank)
            run.cut_metrics(start)
            for sentence in [*([f"{run.path}: {start} of {config.steps} steps are done"] if start else []), *said]:
                log.info(sentence)
        if validation:
            validation.prepare(run.path, lead and progress)
        Loop(config, run, trainer, validation, ranks, best).go(start, progress)
    ranks.wait_for_everyone()
    return run.metrics()[-1]


class Loop:
    def __init__(self, config, run, trainer, validation, ranks, best):
        self.config, self.run, self.trainer, self.validation, self.ranks = config, run, trainer, validation, ranks
        self.lead = ranks.is_main_process
        self.best = best if best and validation and best["on"] == validation.identity else None

    def go(self, start, progress):
        config, trainer = self.config, self.trainer
        bar = tqdm(
            total=config.steps,
            initial=start,
            desc="train",
            unit=" pairs",
            unit_scale=config.batch,
            disable=None if self.lead and progress else True,  # None: shown on a terminal
        )
        trackers = Trackers(config.trackers if self.lead else (), self.run, plain(config), start)
        steps = closing(trainer.loader.steps(start, config.steps))
        with Stop() as stop, bar, trackers, steps as batches:
            for done, (batch, patches) in enumerate(batches, start + 1):
                losses = trainer.losses(batch, patches)
                values, signum = agreed(losses, stop.signal)
                metrics = {"step": done, **values}
                if not math.isfinite(metrics["loss"]):
                    self.give_up(batch, metrics)
                trainer.learn(losses, done - 1)
                bar.update()
                bar.set_postfix(self.shown(metrics), refresh=False)
                self.look(metrics, signum, trackers)
                if signum:
                    raise Stopped(signum, done)

    def look(self, metrics, stopped, trackers):
        """Evaluate, log and save after a step, when it is time to."""
        config, done = self.config, metrics["step"]
        last, better = done == config.steps, False
        evaluated = self.validation and (done % config.eval_every == 0 or last)
        scores = self.validation.scores() if evaluated else {}
        if scores:
            better = self.best is None or scores["miou"] > self.best["miou"]
            if better:
                self.best = {"step": done, "miou": scores["miou"], "on": self.validation.identity}
        if not self.lead:
            return
        if done % config.log_every == 0 or evaluated or last:
            metrics = metrics | self.trainer.readings | scores
            self.run.log(metrics)
            trackers.add(metrics)
        if done % config.checkpoint_every == 0 or better or last or stopped:
            state = {"seed": config.seed, "method": config.method, "best": self.best}
            weights = dict(self.trainer.learner.state_dict())
            self.run.save(done, weights, self.trainer.moments(), state, config.keep, better)

    def shown(self, metrics):
        best = {"best mIoU": f"{self.best['miou']:.1f}"} if self.best else {}
        return {"loss": f"{metrics['loss']:.3f}", **best}

    def give_up(self, batch, metrics):
        """The loss is no number: keep what made it so, and stop."""
        done, rank = metrics["step"], self.ranks.process_index
        tensors = {f.name: getattr(batch, f.name) for f in fields(batch) if f.name != "first"}
        folder = self.run.dump(done, f"batch-{rank}", tensors)
        if self.lead:
            self.run.dump(done, "model", self.trainer.learner.state_dict())
        self.ranks.wait_for_everyone()
        raise UserError(
            f"{self.run.path}: the loss is {metrics['loss']} at step {done}; the last checkpoint is kept, and "
            f"{folder} holds the batch and the weights that made it. "
            f"A lower --lr (now {self.config.peak:g}) is the usual remedy"
        )


def agreed(losses, signum):
    """(losses of the whole batch as numbers, signal to any of the ranks): the same on all of them."""
    parts = {"loss": losses.loss, "loss_global": losses.loss_global, "loss_local": losses.loss_local}
    signals = losses.loss.new_tensor([signum == number for number in Stop.SIGNALS])
    *values, term, interrupt = all_sum(torch.cat([torch.stack(list(parts.values())).detach(), signals])).tolist()
    heard = signal.SIGINT if interrupt else signal.SIGTERM if term else None
    return dict(zip(parts, values, strict=True)), heard


class Stopped(UserError):
    """Training was asked to stop, and has left a checkpoint: after SIGTERM that is no failure."""

    def __init__(self, signum, step):
        code = 130 if signum == signal.SIGINT else 0
        super().__init__(f"stopped at step {step}; the same command goes on from there", code)


class Stop:
    """Remembers a Ctrl-C or SIGTERM until the step is over; a second Ctrl-C interrupts at once."""

    SIGNALS = (signal.SIGTERM, signal.SIGINT)
    signal = None

    def __enter__(self):
        self._before = {s: signal.signal(s, self._note) for s in self.SIGNALS}
        return self

    def __exit__(self, problem, *_):
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        if self.signal == signal.SIGINT and problem is None:  # it came behind the last step
            raise KeyboardInterrupt

    def _note(self, signum, frame):
        if self.signal == signal.SIGINT == signum:
            raise KeyboardInterrupt
        self.signal = signum
