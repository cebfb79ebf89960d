"""--dry-run: what a training will be, in numbers, before anything is written."""

from fastzss.loader import place
from fastzss.ranks import join_ranks
from fastzss.room import said
from fastzss.runs import Run
from fastzss.training.resume import check_same
from fastzss.training.step import Trainer
from fastzss.training.trackers import check_trackers
from fastzss.training.validation import Validation


def forecast(config):
    """All that can be known without a step; a time is not."""
    ranks = join_ranks(config.device)
    check_trackers(config.trackers)
    run, trainer = Run(config.out), Trainer(config, ranks)
    begun, loader = check_same(run, trainer.record, config.resume), trainer.loader
    done = run.state["step"] if begun and run.latest else 0
    where, patches = None, "none are needed without the local loss"
    if config.local_weight:
        where, patches = place(config.loader, loader.bytes, trainer.device, trainer.states)
    _, forward = trainer.tokens_at_once(taken=loader.bytes if where == "device" else 0)
    weights = trainer.parameters * trainer.exact.itemsize
    found = {
        "run": f"goes on after step {done}" if begun else "is new",
        "device": str(trainer.device),
        "processes": ranks.num_processes,
        "parameters": trainer.parameters,
        "samples": loader.samples,
        "batch": config.batch,
        "steps an epoch": loader.steps_per_epoch,
        "steps": config.steps,
        "epochs": round(config.steps / loader.steps_per_epoch, 2),
        "peak learning rate": config.peak,
        "patches": patches,
        "tower": forward,
        "weights, gradients, optimiser": said(weights + trainer.states),
        "checkpoints": f"{said(3 * weights)} each, the last {config.keep} are kept",
    }
    if config.eval_every:
        validation = Validation(config, trainer, ranks)
        found["evaluation"] = f"every {config.eval_every} steps on {len(validation.data)} images"
    return found
