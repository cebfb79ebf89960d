"""Training: loader -> objective -> optimiser -> run, on any number of processes.

Only the text tower and one scale learn.  Step s of a run is a function of the settings and of s alone, so a run that is
stopped goes on from its checkpoint as if nothing had happened, and N processes compute what one would: each takes its
share of every batch, and gradients are summed.
"""

import logging
import math
import os
import signal
from dataclasses import asdict

import torch
from accelerate import PartialState
from torch import nn
from tqdm import tqdm

from fastzss.config import plain
from fastzss.console import say
from fastzss.errors import UserError
from fastzss.extract import weights_origin
from fastzss.loader import Loader
from fastzss.objective import MAX_SCALE, all_max, all_sum, alone, simzss, used_units
from fastzss.runs import Run
from fastzss.text import PRESETS, TextTower

log = logging.getLogger("fastzss")

# Settings that do not change what is computed: they may differ when a run goes on.
FREE = ("out", "store", "device", "log_every", "checkpoint_every", "recipe")


class Learner(nn.Module):
    """What learns: the text tower and the logarithm of the global scale."""

    def __init__(self, size, out):
        super().__init__()
        self.text = TextTower(size, out)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def groups(self, weight_decay):
        """Parameters that decay, and those that do not."""
        kinds = {True: [], False: []}
        for name, parameter in self.named_parameters():
            kinds[parameter.ndim >= 2 and not any(word in name for word in ("ln_", "bias"))].append(parameter)
        return [{"params": kinds[True], "weight_decay": weight_decay}, {"params": kinds[False], "weight_decay": 0.0}]


def learning_rate(step, steps, peak, warmup):
    """Linear rise over the first `warmup` of the steps, then half a cosine down to 0."""
    rise = int(warmup * steps)
    if step < rise:
        return peak * (step + 1) / rise
    return peak * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


class Trainer:
    """All that a step needs: the loader, what learns, and its optimiser."""

    def __init__(self, config, world):
        self.config, device = config, world.device
        self.loader = Loader(
            config.store,
            config.batch,
            bank=config.bank,
            captions=config.captions,
            feature=config.global_feature,
            seed=config.seed,
            device=device,
            rank=world.process_index,
            world=world.num_processes,
        )
        if config.local_weight and not len(self.loader.texts.name):
            raise UserError(
                f"{config.store}: no caption mentions a name of its concept bank: the local loss has nothing to learn. "
                f"Train with --local-weight 0, or make another: `fastzss-cache concepts {config.store} --bank FILE`"
            )
        precision = config.precision
        if precision == "auto":
            precision = "bfloat16" if device.type == "cuda" else "float32"
        self.exact = torch.float64 if precision == "float64" else torch.float32  # of the losses
        self.amp = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
        torch.manual_seed(config.seed)
        self.learner = Learner(PRESETS[config.text], self.loader.store.plan.channels).to(device, self.exact)
        groups = self.learner.groups(config.weight_decay)
        self.optimizer = torch.optim.AdamW(groups, lr=0, betas=(0.9, 0.98), eps=1e-6, fused=True)

    @property
    def record(self):
        """What a run remembers of how it was made: all that is needed to use it or to continue it."""
        config, store = self.config, self.loader.store
        return {
            "settings": plain(config),
            "text": {"preset": config.text, **asdict(PRESETS[config.text]), "out": store.plan.channels},
            "readout": "concept" if config.local_weight else "eot",
            "vision": store.plan.vision,
            "weights": weights_origin(config.store),
            "store": {"features": store.identity, "bank": self.loader.bank["identity"]},
        }

    def step(self, step):
        """Learn from the batch of one step, counted from 0; returns this rank's shares of its losses."""
        config, learner = self.config, self.learner
        batch = self.loader.step(step)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, config.steps, config.peak, config.warmup)
        with self.amp:
            units = used_units(learner.text, batch)
        losses = simzss(
            units.to(self.exact),
            batch,
            self.loader.patches,
            self.loader.images,
            learner.logit_scale,
            local_weight=config.local_weight,
            temperature=config.temperature,
            target=config.local_target,
        )
        losses.loss.backward()
        sum_gradients(learner)
        self.optimizer.step()
        self.optimizer.zero_grad()
        with torch.no_grad():
            learner.logit_scale.clamp_(0, math.log(MAX_SCALE))
        return losses

    def moments(self):
        """AdamW's state under the names of the parameters."""
        return {
            f"{key}.{name}": value
            for name, parameter in self.learner.named_parameters()
            for key, value in self.optimizer.state[parameter].items()
        }

    def restore(self, model, moments):
        self.learner.load_state_dict(model)
        for name, parameter in self.learner.named_parameters():
            self.optimizer.state[parameter] = {
                key: moments[f"{key}.{name}"].to(parameter.device) for key in ("step", "exp_avg", "exp_avg_sq")
            }


def train(config, progress=True):
    """Train or continue a run; returns its last metrics.  Ctrl-C and SIGTERM leave a checkpoint behind."""
    world = join_ranks(config.device)
    lead = world.is_main_process
    if config.batch % world.num_processes:
        raise UserError(f"--batch {config.batch} does not divide among {world.num_processes} processes", code=2)
    trainer, run = Trainer(config, world), Run(config.out)
    start = resume(run, trainer) if run.exists else 0
    if lead and not run.exists:
        run.create(trainer.record, trainer.loader.bank)
    if lead and start:
        run.cut_metrics(start)
        log.info("%s: %d of %d steps are done", run.path, start, config.steps)

    hidden = None if lead and progress else True  # None: shown on a terminal
    pairs = {"unit": " pairs", "unit_scale": config.batch}
    bar = tqdm(total=config.steps, initial=start, desc="train", disable=hidden, **pairs)
    with Stop() as stop, bar:
        for done in range(start + 1, config.steps + 1):
            losses = trainer.step(done - 1)
            bar.update()
            stopped = stop.agreed(world.device)
            logged = done % config.log_every == 0 or done == config.steps
            saved = done % config.checkpoint_every == 0 or done == config.steps or stopped
            if logged or saved:  # what is saved has been looked at
                metrics = measured(losses, trainer, done)
                if not math.isfinite(metrics["loss"]):
                    raise UserError(
                        f"{run.path}: the loss is {metrics['loss']} at step {done}; the last checkpoint is kept. "
                        f"A lower --lr (now {config.peak:g}) is the usual remedy"
                    )
            if lead and logged:
                run.log(metrics)
                bar.set_postfix(loss=f"{metrics['loss']:.3f}", refresh=False)
            if lead and saved:
                run.save(done, dict(trainer.learner.state_dict()), trainer.moments(), {"seed": config.seed})
            if stopped:
                raise Stopped(stop.signal, done)
    world.wait_for_everyone()
    return (run.metrics() or [{}])[-1]


def measured(losses, trainer, step):
    """The losses of the whole batch, as numbers."""
    names = ("loss", "loss_global", "loss_local")
    shares = all_sum(torch.stack([getattr(losses, name).detach().double() for name in names]))
    values = dict(zip(names, shares.tolist(), strict=True))
    scale, lr = trainer.learner.logit_scale.exp().item(), trainer.optimizer.param_groups[0]["lr"]
    return {"step": step, **values, "scale": scale, "lr": lr}


def sum_gradients(learner):
    """Each rank has the gradient of its share of the loss; the batch's is their sum."""
    if alone():
        return
    gradients = [p.grad for p in learner.parameters() if p.grad is not None]
    flat = all_sum(torch.cat([g.flatten() for g in gradients]))
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def resume(run, trainer):
    """Take up the newest checkpoint of a run with the same settings; returns its step."""
    found, wanted = _fixed(run.config), _fixed(trainer.record)
    different = [
        f"{key} is {was!r}, now {now!r}"
        for part in wanted
        for key, was, now in _pairs(part, found.get(part), wanted[part])
        if was != now
    ]
    if different:
        raise UserError(
            f"{run.path}: holds a run with other settings: {'; '.join(different)}. "
            f"Give another --out, or the settings it was begun with"
        )
    if run.latest is None:
        return 0
    model, moments, state = run.load()
    trainer.restore(model, moments)
    return state["step"]


def _fixed(record):
    """The part of a run's record that must be the same when it goes on."""
    return {**record, "settings": {key: value for key, value in record["settings"].items() if key not in FREE}}


def _pairs(part, found, wanted):
    if isinstance(wanted, dict) and isinstance(found, dict) and part != "vision":
        return [(key, found.get(key), wanted.get(key)) for key in {**found, **wanted}]
    return [(part, found, wanted)]


class Stopped(UserError):
    """Training was asked to stop, and has left a checkpoint: after SIGTERM that is no failure."""

    def __init__(self, signum, step):
        code = 130 if signum == signal.SIGINT else 0
        super().__init__(f"stopped at step {step}; the same command goes on from there", code)


class Stop:
    """Remembers a Ctrl-C or SIGTERM until the step is over; a second Ctrl-C interrupts at once."""

    signal = None

    def __enter__(self):
        self._before = {s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)}
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

    def agreed(self, device):
        """Whether any rank was asked to stop: all leave after the same step."""
        if alone():
            return self.signal is not None
        number = int(all_max(torch.tensor(self.signal or 0, device=device)))
        self.signal = signal.Signals(number) if number else None
        return bool(number)


def join_ranks(device):
    """The processes that accelerate or torchrun started; errors for the launches that silently start fewer."""
    if "WORLD_SIZE" not in os.environ and "MASTER_ADDR" in os.environ and "ACCELERATE_MIXED_PRECISION" in os.environ:
        raise UserError(
            "`accelerate launch --cpu --num_processes N` starts one process only; "
            "`torchrun --nproc_per_node N fastzss/train.py ...` starts N",
            code=2,
        )
    cpu = device == "cpu" or (device is None and not torch.cuda.is_available())
    world = PartialState(cpu=cpu)
    wanted = int(os.environ.get("WORLD_SIZE", 1))
    if world.num_processes != wanted:
        raise UserError(f"{wanted} processes were started, but each sees {world.num_processes}; nothing was trained")
    return world


def main(config, json=False):
    """What the door fastzss/train.py opens to."""
    last = train(config)
    if PartialState().is_main_process:
        say({"run": str(config.out), **last}, json)
