"""A sweep: runs of several settings, some at a time, and a table of them, the best first.

    DIR/KEY=VALUE,.../   a run, as `fastzss train` leaves it, and score.json
    DIR/evaluation/      what was seen of the images that all are compared by
    DIR/sweep.csv        the table

Each run is a process of its own, so that nothing of one is left in the next; one that fails is a row of the table, and
the others go on.  A process whose sweep has died leaves a checkpoint and ends.
"""

import csv
import io
import logging
import multiprocessing
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from pathlib import Path

import torch

from fastzss.base.background import Worker
from fastzss.base.errors import Incomplete, UserError
from fastzss.base.files import locked, make_folder, read_json, write_file, write_json
from fastzss.base.machine import cores
from fastzss.base.ranks import Ranks
from fastzss.base.runs import Run
from fastzss.methods import METHODS
from fastzss.methods.registry import load, method_of
from fastzss.training import resume
from fastzss.training.grid import folder_of
from fastzss.training.judges import judge_of
from fastzss.training.loop import train
from fastzss.training.settings import TrainConfig

log = logging.getLogger("fastzss")

FREE = {*resume.FREE, *(name for method in METHODS for name in method_of(method).free)} - {"recipe", "from_run", "bank"}
PATIENCE = 60  # seconds in which a run's former process may come to its end


@dataclass(frozen=True)
class Trial:
    """One run of a sweep: what is varied in it, and all its settings."""

    values: dict
    config: TrainConfig

    @classmethod
    def of(cls, values, config):
        return cls(values, replace(config, out=config.out / folder_of(values)))

    def score(self, judge):
        """The scores of the finished run, where it was judged by this judge."""
        path = self.config.out / "score.json"
        found = read_json(path) if path.is_file() else {}
        return found["scores"] if found.get("judge") == judge.identity else None

    def row(self, judge, problem=None):
        scores = self.score(judge)
        state = "done" if scores else f"failed: {problem}" if problem else far(Run(self.config.out))
        values = {key: str(value) if isinstance(value, Path) else value for key, value in self.values.items()}
        return {**values, **dict.fromkeys(judge.columns), **(scores or {}), "state": state, "run": str(self.config.out)}


def far(run):
    """How far a run is, in words."""
    if not run.exists or run.latest is None:
        return "not begun"
    return f"after step {run.state['step']}"


def sweep(trials, folder, processes=1, dry_run=False):
    """Train and judge what is not there yet; returns the table, the best run first."""
    judge = judge_of(trials[0].config)
    trials = [
        replace(trial, config=replace(trial.config, hold_out=trial.config.hold_out or judge.hold_out))
        for trial in trials
    ]
    if dry_run:
        log.info("%d runs are compared by: %s", len(trials), judge.words)
        return table(trials, judge)
    ranks = Ranks(trials[0].config.device)
    if ranks.count > 1:
        raise UserError("a sweep starts its own processes (--processes); start it without a launcher", code=2)
    make_folder(folder)
    with locked(folder, f"{folder}: another process is sweeping here; wait for it, or give another --out"):
        open_trials = [trial for trial in trials if not trial.score(judge)]
        log.info("%d of %d runs are to be trained; compared by: %s", len(open_trials), len(trials), judge.words)
        if open_trials:
            judge.prepare(folder, ranks, shown=True)
        problems = train_all(open_trials, folder, processes, judge)
        rows = table(trials, judge, problems)
        write_file(folder / "sweep.csv", as_csv(rows))
    if problems:
        first = next(iter(problems.values()))
        raise Incomplete(f"{len(problems)} of {len(trials)} runs failed: {first}; the same command tries again", rows)
    return rows


def table(trials, judge, problems=None):
    """A row for each run, those with a score first and the best of them at the top."""
    rows = [trial.row(judge, (problems or {}).get(trial.config.out)) for trial in trials]
    return sorted(rows, key=lambda row: -float("inf") if row["score"] is None else row["score"], reverse=True)


def as_csv(rows):
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def train_all(trials, folder, processes, judge):
    """Train and judge each, `processes` at a time; returns {run folder: what went wrong}."""
    waiting, running, problems = list(trials), {}, {}
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                trial = waiting.pop(0)
                process, ear = begun(trial.config, folder, max(1, cores() // processes))
                running[process.sentinel] = trial, process, ear
            for sentinel in wait(list(running)):
                trial, process, ear = running.pop(sentinel)
                process.join()
                scores = trial.score(judge)
                if scores is None:
                    problems[trial.config.out] = heard(ear) or f"its process ended with {process.exitcode}"
                name = f"{len(trials) - len(waiting) - len(running)} of {len(trials)}, {trial.config.out.name}"
                log.info("%s: %s", name, problems.get(trial.config.out) or f"{scores['score']:.1f}")
    finally:
        for _, process, _ in running.values():
            process.terminate()  # it leaves a checkpoint
        for _, process, _ in running.values():
            process.join()
    return problems


def begun(config, folder, threads):
    """(a process that trains and judges a run, the end of a pipe by which it says what went wrong).

    It does not hear the terminal's Ctrl-C before it can leave a checkpoint: the sweep passes it on.
    """
    context = multiprocessing.get_context("spawn")
    ear, mouth = context.Pipe(duplex=False)
    process = context.Process(target=trained, args=(config, folder, threads, mouth), daemon=True)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process.start()
    finally:
        signal.signal(signal.SIGINT, before)
    mouth.close()
    return process, ear


def heard(ear):
    """What a process that has ended said; None where it said nothing."""
    try:
        return ear.recv()
    except EOFError:
        return None


def trained(config, folder, threads, mouth):
    """What such a process does."""
    Worker("sweep", end_with_sweep)
    torch.set_num_threads(min(threads, torch.get_num_threads()))  # which OMP_NUM_THREADS may have set
    run = Run(config.out)
    try:
        wait_for_former(run)
        train(config, progress=False)
        ranks, judge = Ranks(config.device), judge_of(config)
        judge.prepare(folder, ranks)
        scores = judge.scores(load(run.path, ranks.device), run.path)
        checkpoint = Run.open(run.path).checkpoint.name
        write_json(run.path / "score.json", {"judge": judge.identity, "checkpoint": checkpoint, "scores": scores})
    except UserError as problem:
        with suppress(BrokenPipeError):  # nobody listens any more
            mouth.send(str(problem))


def end_with_sweep():
    """When the sweep is gone, however it ended, so is this process: after its step, with a checkpoint."""
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGTERM)


def wait_for_former(run):
    """Until the process of a sweep that was killed has left its checkpoint."""
    end = time.monotonic() + PATIENCE
    while run.path.is_dir():
        try:
            with run.alone():
                return
        except UserError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)
