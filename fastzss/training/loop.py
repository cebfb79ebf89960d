"""A run from its first step to its last: stopping, going on, being watched.

A run that is stopped goes on from its checkpoint as if nothing had happened.
"""

import logging
import math
import os
import signal
from contextlib import closing, nullcontext

import torch
from tqdm import tqdm

from fastzss.base.config import plain
from fastzss.base.errors import UserError
from fastzss.base.ranks import Ranks, all_sum, told_to_launcher
from fastzss.base.runs import Run
from fastzss.methods.registry import method_of
from fastzss.training.resume import check_same, restored, schedule_of, settled
from fastzss.training.saving import Saver
from fastzss.training.step import Trainer
from fastzss.training.trackers import Trackers, check_trackers

log = logging.getLogger("fastzss")


def main(config, dry_run=False):
    """What `fastzss train` does; returns what there is to say, in the first process."""
    with told_to_launcher():
        if dry_run:
            from fastzss.training.forecast import training_forecast

            result = training_forecast(config)
        else:
            result = {"run": str(config.out), **train(config)}
    return result if os.environ.get("RANK", "0") == "0" else None


def train(config, progress=True):
    """Train or continue a run; returns its last metrics.  Ctrl-C and SIGTERM leave a checkpoint behind."""
    ranks = Ranks(config.device)
    check_trackers(config.trackers)
    run = Run(config.out)
    config, chosen = settled(config, run, ranks)
    trainer = Trainer(config, ranks)
    validation = None
    if config.eval_every:
        from fastzss.training.validation import Validation  # late: it reads class names, which a training may never do

        validation = Validation(config, trainer, ranks)
    begun = check_same(run, trainer.record, config.resume)
    schedule = schedule_of(config, run)
    fresh = run.latest is None
    ranks.wait()  # all have looked before one writes
    if begun and not fresh and run.state["step"] == schedule.steps:
        log.info("%s: all %d steps are done; --extend takes more", run.path, schedule.steps)
        finish(run, config, ranks)
        return (run.metrics() or [{}])[-1]

    sentences = trainer.begin(fresh)
    lead = ranks.first
    with run.alone() if lead else nullcontext():
        start, best = (0, None) if fresh else restored(run, trainer)
        if lead:
            if not begun:
                run.create(trainer.record, trainer.task.bank)
            if len(schedule.ends) > 1:
                run.amend(ends=schedule.ends)
            run.cut_metrics(start)
            known = [f"{run.path}: {start} of {schedule.steps} steps are done"] if start else []
            for sentence in [*chosen, *known, *sentences]:
                log.info(sentence)
        if validation:
            validation.prepare(run.path, lead and progress)
        Loop(config, run, trainer, schedule, validation, ranks, best).go(start, progress)
    finish(run, config, ranks)
    return run.metrics()[-1]


def finish(run, config, ranks):
    """What the method leaves behind a run's last step; the first rank does it, the others wait."""
    if ranks.first:
        with run.alone():
            sentence = method_of(config.method).finish(run, config, ranks.device)
        if sentence:
            log.info(sentence)
    ranks.wait()


class Loop:
    def __init__(self, config, run, trainer, schedule, validation, ranks, best):
        self.config, self.run, self.trainer, self.validation, self.ranks = config, run, trainer, validation, ranks
        self.schedule = schedule
        self.lead = ranks.first
        self.best = best if best and validation and best["on"] == validation.identity else None
        self.saver = Saver(run, config.keep)

    def looked_at(self, done):
        """Whether a step is logged, evaluated or saved: then its gradients must be finite before they are used."""
        every = (self.config.log_every, self.config.checkpoint_every, self.config.eval_every)
        return done == self.schedule.steps or any(each and done % each == 0 for each in every)

    def go(self, start, progress):
        config, trainer = self.config, self.trainer
        bar = tqdm(
            total=self.schedule.steps,
            initial=start,
            desc="train",
            unit=" pairs",
            unit_scale=config.batch,
            disable=None if self.lead and progress else True,  # None: shown on a terminal
        )
        self.quiet = progress and bar.disable  # nobody sees a bar: lines instead
        trackers = Trackers(config.trackers if self.lead else (), self.run, plain(config), start)
        steps = closing(trainer.task.steps(start, self.schedule.steps))
        if self.lead:
            self.saver.prepare(trainer.learner.state_dict(), dict(trainer.learner.named_parameters()))
        with Stop() as stop, bar, trackers, self.saver, steps as batches:
            for done, batch in enumerate(batches, start + 1):
                losses = trainer.differentiate(batch)
                values, sound, signum = agreed(losses, trainer.sound() if self.looked_at(done) else None, stop.signal)
                metrics = {"step": done, **values}
                if not (sound and math.isfinite(metrics["loss"])):
                    self.give_up(batch, metrics)
                trainer.learn(self.schedule.rate(done - 1))
                bar.update()
                bar.set_postfix(self.shown(metrics), refresh=False)
                self.after_step(metrics, signum, trackers)
                if signum:
                    raise Stopped(signum, done)

    def after_step(self, metrics, stopped, trackers):
        """Evaluate, log and save after a step, when it is time to."""
        config, done = self.config, metrics["step"]
        last, better = done == self.schedule.steps, False
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
            if self.quiet:
                log.info("step %d of %d: %s", done, self.schedule.steps, in_words(metrics))
            trackers.add(metrics)
        if done % config.checkpoint_every == 0 or better or last or stopped:
            state = {"seed": config.seed, "method": config.method, "best": self.best}
            self.saver.save(done, self.trainer.learner.state_dict(), self.trainer.moments(), state, better)

    def shown(self, metrics):
        best = {"best mIoU": f"{self.best['miou']:.1f}"} if self.best else {}
        return {"loss": f"{metrics['loss']:.3f}", **best}

    def give_up(self, batch, metrics):
        """The loss or a gradient is no number: keep what made it so, and stop."""
        done, rank, loss = metrics["step"], self.ranks.rank, metrics["loss"]
        what = f"the loss is {loss}"
        if math.isfinite(loss):
            what = f"its gradient holds NaN or infinite values, though its loss is {loss:.4g},"
        folder = self.run.dump(done, f"batch-{rank}", self.trainer.task.dump(batch))
        if self.lead:
            self.run.dump(done, "model", self.trainer.learner.state_dict())
        self.ranks.wait()
        raise UserError(
            f"{self.run.path}: {what} at step {done}; the last checkpoint is kept, and "
            f"{folder} holds the batch and the weights that made it. "
            f"A lower --lr (now {self.config.peak:g}) is the usual remedy"
        )


def in_words(metrics):
    return ", ".join(f"{name} {value:.4g}" for name, value in metrics.items() if name != "step")


def agreed(losses, sound, signum):
    """(losses of the whole batch as numbers, whether it is sound, signal to any of the ranks): the same on all of them.

    All of it comes from the device at once.

    Args:
        losses: {name: this rank's share}.
        sound: a truth on the device, or None where nobody asked.
        signum: the signal that this rank was sent, or None.
    """
    total = losses["loss"]
    flags = total.new_tensor([0, *(signum == number for number in Stop.SIGNALS)])
    if sound is not None:
        flags[0] = ~sound
    *values, broken, term, interrupt = all_sum(torch.cat([torch.stack(list(losses.values())).detach(), flags])).tolist()
    heard = signal.SIGINT if interrupt else signal.SIGTERM if term else None
    return dict(zip(losses, values, strict=True)), not broken, heard


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
