"""Training: loader -> objective -> optimiser -> run, on any number of processes.

Only the text tower and one scale learn.  Step s of a run is a function of the settings and of s alone, so a run that is
stopped goes on from its checkpoint as if nothing had happened, and N processes compute what one would: each takes its
share of every batch, and gradients are summed.
"""

import logging
import math
import os
import signal
import time
from contextlib import nullcontext
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


def train(config, progress=True):
    """Train or continue a run; returns its last metrics.  KeyboardInterrupt and SIGTERM leave a checkpoint behind."""
    world = join_ranks(config.device)
    device, lead = world.device, world.is_main_process
    if config.batch % world.num_processes:
        raise UserError(f"--batch {config.batch} does not divide among {world.num_processes} processes", code=2)
    run = Run(config.out)
    loader = Loader(
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
    if config.local_weight and not len(loader.texts.name):
        raise UserError(
            f"{config.store}: no caption mentions a name of its concept bank, so the local loss has nothing to learn. "
            f"Make another bank (`fastzss-cache concepts {config.store} --bank FILE`) or train with --local-weight 0"
        )
    precision = config.precision
    if precision == "auto":
        precision = "bfloat16" if device.type == "cuda" else "float32"
    torch.manual_seed(config.seed)
    learner = Learner(PRESETS[config.text], loader.store.plan.channels).to(device)
    if precision == "float64":
        learner.double()
    optimizer = torch.optim.AdamW(learner.groups(config.weight_decay), lr=0, betas=(0.9, 0.98), eps=1e-6, fused=True)

    record = {
        "settings": plain(config),
        "text": {"preset": config.text, **asdict(PRESETS[config.text]), "out": loader.store.plan.channels},
        "readout": "concept" if config.local_weight else "eot",
        "vision": loader.store.plan.vision,
        "weights": weights_origin(config.store),
        "store": {"features": loader.store.identity, "bank": loader.bank["identity"]},
    }
    start = resume(run, record, learner, optimizer) if run.exists else 0
    if lead and not run.exists:
        run.create(record, loader.bank)
    if lead and start:
        run.cut_metrics(start)
        log.info(
            "%s: goes on from step %d of %d" if start < config.steps else "%s: %d of %d steps are done",
            run.path,
            start,
            config.steps,
        )

    amp = torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()
    stop = Stop()
    last, began = None, time.perf_counter()
    bar = tqdm(
        total=config.steps, initial=start, unit="step", desc="train", disable=None if lead and progress else True
    )
    with stop, bar:
        for step in range(start, config.steps):
            batch = loader.step(step)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, config.steps, config.peak, config.warmup)
            with amp:
                units = used_units(learner.text, batch)
            losses = simzss(
                units if precision == "float64" else units.float(),
                batch,
                loader.patches,
                loader.images,
                learner.logit_scale,
                local_weight=config.local_weight,
                temperature=config.temperature,
                target=config.local_target,
            )
            losses.loss.backward()
            sum_gradients(learner)
            optimizer.step()
            optimizer.zero_grad()
            with torch.no_grad():
                learner.logit_scale.clamp_(0, math.log(MAX_SCALE))

            done = step + 1
            bar.update()
            stopped = stop.agreed(device)
            due = done % config.checkpoint_every == 0 or done == config.steps or stopped
            if done % config.log_every == 0 or due:  # what is saved has been looked at
                last = measured(losses, learner, group["lr"], done)
                if not math.isfinite(last["loss"]):
                    raise UserError(
                        f"{run.path}: the loss is {last['loss']} at step {done}; the last checkpoint is kept. "
                        f"A lower --lr (now {config.peak:g}) is the usual remedy"
                    )
                if lead:
                    run.log(last)
                    bar.set_postfix(loss=f"{last['loss']:.3f}", pairs=f"{rate(config, start, done, began):.0f}/s")
            if lead and due:
                run.save(done, dict(learner.state_dict()), optimizer_tensors(learner, optimizer), {"seed": config.seed})
            if stopped:
                raise Stopped(stop.signal, done)
    world.wait_for_everyone()
    return last or (run.metrics() or [{}])[-1]


def rate(config, start, done, began):
    return (done - start) * config.batch / (time.perf_counter() - began)


def measured(losses, learner, lr, step):
    """The losses of the whole batch, as numbers."""
    names = ("loss", "loss_global", "loss_local")
    shares = all_sum(torch.stack([getattr(losses, name).detach().double() for name in names]))
    values = dict(zip(names, shares.tolist(), strict=True))
    return {"step": step, **values, "scale": learner.logit_scale.exp().item(), "lr": lr}


def sum_gradients(learner):
    """Each rank has the gradient of its share of the loss; the batch's is their sum."""
    if alone():
        return
    gradients = [p.grad for p in learner.parameters() if p.grad is not None]
    flat = all_sum(torch.cat([g.flatten() for g in gradients]))
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def optimizer_tensors(learner, optimizer):
    """AdamW's state under the names of the parameters."""
    return {
        f"{key}.{name}": value
        for name, parameter in learner.named_parameters()
        for key, value in optimizer.state[parameter].items()
    }


def resume(run, record, learner, optimizer):
    """Take up the newest checkpoint of a run with the same settings; returns its step."""
    found, wanted = (
        {**r, "settings": {k: v for k, v in r["settings"].items() if k not in FREE}} for r in (run.config, record)
    )
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
    learner.load_state_dict(model)
    for name, parameter in learner.named_parameters():
        optimizer.state[parameter] = {
            key: moments[f"{key}.{name}"].to(parameter.device) for key in ("step", "exp_avg", "exp_avg_sq")
        }
    return state["step"]


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
