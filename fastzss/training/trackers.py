"""--log: metrics also go to TensorBoard and W&B, where those are installed."""

import importlib.util
import logging

from fastzss.base.errors import UserError

log = logging.getLogger("fastzss")


def check_trackers(names):
    """Refuse a tracker whose package is not there."""
    for name in names:
        found = importlib.util.find_spec(name)
        if found is None or found.origin is None:  # a folder of that name is no package
            raise UserError(f"--log {name}: the package is not installed; `pip install {name}` brings it", code=2)


class Trackers:
    """Open trackers of a run; none where `names` is empty."""

    def __init__(self, names, run, settings, start):
        self.writer = self.wandb = None
        if "tensorboard" in names:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(run.path / "tensorboard", purge_step=start + 1)
            log.info("TensorBoard: `tensorboard --logdir %s`", run.path / "tensorboard")
        if "wandb" in names:
            import wandb

            # one name for the run, so that going on goes on there too
            try:
                self.wandb = wandb.init(
                    project="fastzss", id=run.tracker_id, resume="allow", name=run.path.name, dir=run.path,
                    config=settings,
                )  # fmt: skip
            except Exception as problem:  # no account, no network, no room: wandb says what
                first = str(problem).strip().split("\n")[0].rstrip(".")
                raise UserError(f"--log wandb: {first}. Set WANDB_MODE=offline to go without an account") from None

    def __enter__(self):
        return self

    def __exit__(self, *problem):
        if self.writer:
            self.writer.close()
        if self.wandb:
            self.wandb.finish()

    def add(self, metrics):
        values = {name: value for name, value in metrics.items() if name != "step"}
        if self.writer:
            for name, value in values.items():
                self.writer.add_scalar(name, value, metrics["step"])
            self.writer.flush()
        if self.wandb:
            self.wandb.log(values, step=metrics["step"])
