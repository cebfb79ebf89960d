"""One step: a batch -> losses -> gradients -> other weights.

Only the text tower and one scale learn.  Step s is a function of the settings and of s alone, and N processes compute
what one would: each takes its share of the batch, and gradients are summed.
"""

import logging
import math
from dataclasses import asdict

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from fastzss.config import plain
from fastzss.errors import UserError
from fastzss.extract import weights_origin
from fastzss.loader import Loader
from fastzss.objective import MAX_SCALE, simzss, used_units
from fastzss.ranks import all_sum, alone
from fastzss.room import free_bytes, said
from fastzss.text import PRESETS, TextTower
from fastzss.training.pretrained import start_from

log = logging.getLogger("fastzss")

BETAS, EPS = (0.9, 0.98), 1e-6  # of AdamW
ROOM = 0.8  # share of the free memory that a forward pass may fill


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

    def __init__(self, config, ranks):
        self.config, self.device = config, ranks.device
        if rest := config.batch % ranks.num_processes:
            near = f"{config.batch - rest} or {config.batch - rest + ranks.num_processes}"
            among = f"does not divide among {ranks.num_processes} processes"
            raise UserError(f"--batch {config.batch} {among}; it counts the pairs of all: give {near}", code=2)
        self.loader = Loader(
            config.store,
            config.batch,
            bank=config.bank,
            captions=config.captions,
            feature=config.global_feature,
            seed=config.seed,
            device=self.device,
            rank=ranks.process_index,
            world=ranks.num_processes,
        )
        if config.local_weight and not len(self.loader.texts.name):
            raise UserError(
                f"{config.store}: no caption mentions a name of its concept bank: the local loss has nothing to learn. "
                f"Train with --local-weight 0, or make another: `fastzss-cache concepts {config.store} --bank FILE`"
            )
        precision = config.precision
        if precision == "auto":
            precision = "bfloat16" if self.device.type == "cuda" else "float32"
        self.exact = torch.float64 if precision == "float64" else torch.float32  # of the losses
        self.amp = torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bfloat16")
        torch.manual_seed(config.seed)
        self.learner = Learner(PRESETS[config.text], self.loader.store.plan.channels).to(self.device, self.exact)

    def begin(self, fresh):
        """Make ready for the first step; returns sentences about where there is room for what."""
        config = self.config
        if fresh and config.text_init:
            start_from(self.learner.text, config.text_init)
        groups = self.learner.groups(config.weight_decay)
        self.optimizer = torch.optim.AdamW(groups, lr=0, betas=BETAS, eps=EPS, fused=True)
        sentences = [self.loader.load(config.loader, self.states)] if config.local_weight else []
        self.tokens, sentence = self.tokens_at_once()
        return sentences if self.tokens is None else [*sentences, sentence]

    @property
    def parameters(self):
        return sum(p.numel() for p in self.learner.parameters())

    @property
    def states(self):
        """Bytes of the gradients, of AdamW's two moments, and of one more gradient on its way."""
        return 4 * self.parameters * self.exact.itemsize

    def tokens_at_once(self, taken=0):
        """(tokens, of packed rows, that the tower reads at a time, None: all of a batch; a sentence about it).

        `taken`: bytes of the free memory that something else will fill.
        """
        asked, batch = self.config.micro_batch, self.loader.step(0)
        captions, (rows, length) = len(batch.eot), batch.ids.shape
        if asked == "auto":
            each = self.bytes_per_row(batch)
            most = int((ROOM * (free_bytes(self.device) - taken) - self.states) / each)
            needed = f"a forward pass of {captions} captions takes about {said(each * rows)}"
        else:
            most, needed = int(asked) * rows // captions, f"micro-batches of about {asked} captions"
            if asked == "0":
                most, needed = rows, f"{captions} captions in one forward pass"
        if most >= rows:
            return None, needed
        parts = -(-rows // max(1, most))
        most = -(-rows // parts)
        return most * length, f"{needed}: {rows} rows of {length} tokens are read twice, {most} at a time"

    def bytes_per_row(self, batch):
        """What autograd keeps of a packed row on the way through the tower: counted, on a few rows."""
        more = min(4, len(batch.ids))
        fewer = more // 2  # the difference leaves out what is kept once, such as the weights
        return (self.kept(batch, more) - self.kept(batch, fewer)) / (more - fewer)

    def kept(self, batch, rows):
        """Bytes that autograd keeps of a forward pass over the first rows of a batch."""
        if not rows:
            return 0
        used = torch.cat([batch.eot, batch.token])
        used = used[used < rows * batch.ids.shape[1]].to(self.device)
        sizes = {}

        def note(tensor):
            storage = tensor.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
            return tensor

        with saved_tensors_hooks(note, lambda tensor: tensor), self.amp:
            units = self.learner.text.units(
                batch.ids[:rows].to(self.device), batch.segment[:rows].to(self.device), used
            )
        del units  # until here nothing was freed, so that no two tensors had the same place
        return sum(sizes.values())

    @property
    def record(self):
        """What a run remembers of how it was made: all that is needed to use it or to continue it."""
        config, store = self.config, self.loader.store
        return {
            "settings": plain(config),
            "text": {"preset": config.text, **asdict(PRESETS[config.text]), "out": store.plan.channels},
            "readout": "both" if config.local_weight else "eot",
            "vision": store.plan.vision,
            "weights": weights_origin(config.store),
            "store": {"features": store.identity, "bank": self.loader.bank["identity"]},
        }

    def losses(self, batch, patches):
        """This rank's shares of the losses of a batch."""
        config, learner = self.config, self.learner
        with self.amp:
            rows = self.tokens and max(1, self.tokens // batch.ids.shape[1])
            units = used_units(learner.text, batch, rows)
        return simzss(
            units.to(self.exact),
            batch,
            patches,
            self.loader.images,
            learner.logit_scale,
            local_weight=config.local_weight,
            temperature=config.temperature,
            target=config.local_target,
            same=config.same_image,
        )

    def learn(self, losses, step):
        """Take step number `step`, counted from 0."""
        config = self.config
        losses.loss.backward()
        sum_gradients(self.learner)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, config.steps, config.peak, config.warmup)
        self.optimizer.step()
        self.optimizer.zero_grad()
        with torch.no_grad():
            self.learner.logit_scale.clamp_(0, math.log(MAX_SCALE))

    @property
    def readings(self):
        """What there is to log besides the losses."""
        return {"scale": self.learner.logit_scale.exp().item(), "lr": self.optimizer.param_groups[0]["lr"]}

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


def sum_gradients(learner):
    """Each rank has the gradient of its share of the loss; the batch's is their sum."""
    if alone():
        return
    gradients = [p.grad for p in learner.parameters() if p.grad is not None]
    flat = all_sum(torch.cat([g.flatten() for g in gradients]))
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))
