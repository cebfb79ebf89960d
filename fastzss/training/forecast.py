"""--dry-run: what a training will be, in numbers, before anything is written."""

from fastzss.base.machine import readable_bytes
from fastzss.base.ranks import Ranks
from fastzss.base.runs import Run
from fastzss.training.resume import check_same, schedule_of, settled
from fastzss.training.step import Trainer
from fastzss.training.trackers import check_trackers


def training_forecast(config):
    """All that can be known without a step; a time is not."""
    ranks = Ranks(config.device)
    check_trackers(config.trackers)
    run = Run(config.out)
    config, chosen = settled(config, run, ranks)
    trainer, schedule = Trainer(config, ranks), schedule_of(config, run)
    begun, task = check_same(run, trainer.record, config.resume), trainer.task
    done = run.state["step"] if begun and run.latest else 0
    weights = trainer.parameters * trainer.arithmetic.exact.itemsize
    found = {
        "run": f"goes on after step {done}" if begun else "is new",
        **({"recipe": " ".join(chosen)} if chosen else {}),
        "device": str(trainer.device),
        "processes": ranks.count,
        "parameters": trainer.parameters,
        "samples": task.samples,
        "batch": config.batch,
        "steps an epoch": task.steps_per_epoch,
        "steps": schedule.steps,
        "epochs": round(schedule.steps / task.steps_per_epoch, 2),
        "peak learning rate": config.peak,
        **task.forecast(trainer.states),
        "weights, gradients, optimiser": readable_bytes(weights + trainer.states),
        "checkpoints": f"{readable_bytes(3 * weights)} each, the last {config.keep} are kept",
    }
    if config.eval_every:
        from fastzss.training.validation import Validation  # late: it reads class names

        validation = Validation(config, trainer, ranks)
        found["evaluation"] = f"every {config.eval_every} steps on {len(validation.data)} images"
    return found
