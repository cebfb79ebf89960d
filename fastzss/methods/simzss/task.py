"""A training of SimZSS: only the text tower and one scale learn, from captions and their mentions."""

import math
from dataclasses import asdict, fields, replace

import numpy as np
import torch
from torch import nn

from fastzss.base.errors import UserError
from fastzss.base.runs import Run
from fastzss.masks.segment import Model
from fastzss.methods.placing import put_where
from fastzss.methods.simzss.graph import Captured
from fastzss.methods.simzss.loader import Loader
from fastzss.methods.simzss.micro import captions_at_once
from fastzss.methods.simzss.objective import MAX_SCALE, simzss, used_units
from fastzss.store.reading.joined import shares_of
from fastzss.store.upkeep.origin import weights_origin
from fastzss.text.own_words import OwnWords
from fastzss.text.readout import Readout
from fastzss.text.tower import PRESETS, TextTower
from fastzss.text.weights import activation_of, start_from


class Learner(nn.Module):
    """What learns: the text tower and the logarithm of the global scale.

    `shared`: whether ranks sum its gradients, which then come block by block, not all at the end.
    """

    def __init__(self, size, out, activation="gelu", shared=False):
        super().__init__()
        self.text = TextTower(size, out, activation)
        self.text.blocks_at_once = 1 if shared else None
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))


def activation_for(config):
    """The tower's activation: as it was in the run that goes on or begins this one, else that of the weights given."""
    for folder in filter(None, (config.out, config.from_run)):
        if (run := Run(folder)).exists and (text := run.config.get("text")) is not None:
            return text.get("activation", "gelu")
    return activation_of(config.text_init)


class SimZSSTask:
    optimiser = {"betas": (0.9, 0.98), "eps": 1e-6}

    def __init__(self, config, ranks, arithmetic):
        self.config, self.device, self.arithmetic = config, ranks.device, arithmetic
        run = Run(config.out)
        self.loader = Loader(
            config.store,
            config.batch,
            bank=config.bank,
            identity=run.config["store"]["features"] if run.exists and "store" in run.config else None,
            captions=config.captions,
            hold_out=config.hold_out,
            feature=config.global_feature,
            seed=config.seed,
            device=self.device,
            rank=ranks.rank,
            world=ranks.count,
        )
        if config.local_weight and not len(self.loader.texts.name):
            raise UserError(
                f"{self.loader.store.path}: no caption mentions a name of its concept bank: the local loss has nothing "
                f"to learn. Train with --local-weight 0, or make another: "
                f"`fastzss-cache concepts {shares_of(config.store)[0].path} --bank FILE`"
            )
        torch.manual_seed(config.seed)
        channels = self.loader.store.plan.channels
        learner = Learner(PRESETS[config.text], channels, activation_for(config), shared=ranks.count > 1)
        self.learner = learner.to(self.device, arithmetic.exact)
        self.tables = self.keep_to_own_words()
        self.samples, self.steps_per_epoch = self.loader.samples, self.loader.steps_per_epoch
        self.bank = self.loader.bank

    def keep_to_own_words(self):
        """Let the tower learn the words of the captions only; a batch's ids are their places among these."""
        tower, texts = self.learner.text, self.loader.texts
        words, places = np.unique(texts.ids, return_inverse=True)
        tower.token_embedding = OwnWords(tower.token_embedding, torch.from_numpy(words.astype(np.int64)))
        self.loader.texts = replace(texts, ids=places.astype(np.int32))
        return {"text.token_embedding.weight": tower.token_embedding}

    @property
    def record(self):
        config, store = self.config, self.loader.store
        text = {"preset": config.text, **asdict(PRESETS[config.text]), "out": store.plan.channels}
        if self.learner.text.activation != "gelu":  # as runs that do not say it have
            text["activation"] = self.learner.text.activation
        return {
            "text": text,
            "readout": "both" if config.local_weight else "eot",
            "vision": store.plan.vision,
            "weights": weights_origin(shares_of(config.store)[0].path),
            "store": {"features": store.identity, "bank": self.loader.bank["identity"]} | self.several,
        }

    @property
    def several(self):
        """What a run remembers besides of several stores: how often each is seen, and the bank of each."""
        store = self.loader.store
        if len(store.shares) == 1:
            return {}
        return {"weights": [weight for _, weight in store.shares], "banks": self.loader.banks}

    def begin(self, fresh, reserve):
        config = self.config
        if fresh and config.text_init:
            start_from(self.learner.text, config.text_init)
        if fresh and config.from_run:
            self.take_over(Run.open(config.from_run))
        sentences = [self.loader.load(config.loader, reserve)] if config.local_weight else []
        self.tokens, sentence = captions_at_once(self, reserve)
        self.loader.constant |= config.graph
        return sentences if self.tokens is None else [*sentences, sentence]

    def take_over(self, run):
        """Begin with what another run has learned, about the same backbone's images."""
        there, here = run.config, self.record
        for what, was, now in [
            ("method", there["settings"]["method"], self.config.method),
            ("text", there.get("text"), here["text"]),
            ("backbone", there["vision"], here["vision"]),
        ]:
            if was != now:
                hint = f"; --text {was['preset']} has its size" if what == "text" and was else ""
                raise UserError(f"--from {run.path}: its {what} is not that of this training{hint}")
        self.learner.load_state_dict(run.load_model())

    def forecast(self, reserve):
        where, patches = None, "none are needed without the local loss"
        if self.config.local_weight:
            where, patches = put_where(self.config.loader, self.loader.bytes, self.device, reserve)
        _, forward = captions_at_once(self, reserve, taken=self.loader.bytes if where == "device" else 0)
        table = self.learner.text.token_embedding
        words = f"{len(table.words):,} of {len(table.table):,} are in captions, and learn; the others only decay"
        return {"patches": patches, "words": words, "tower": forward}

    def steps(self, begin, end):
        return self.loader.steps(begin, end)

    def captured(self, derive):
        """With --graph, as a CUDA graph on a GPU."""
        if not self.config.graph:
            return derive
        obstacle = None
        if self.loader.world > 1:
            obstacle = f"{self.loader.world} processes share a step, and what they say to each other is in no graph"
        elif self.tokens is not None:
            obstacle = "a batch does not fit in the memory at once; expected a smaller --batch, or --micro-batch 0"
        elif self.loader.where not in (None, "device"):
            obstacle = f"the patches lie elsewhere ({self.loader.where}); expected --loader device"
        if obstacle:
            raise UserError(f"--graph: {obstacle}; or leave --graph out", code=2)
        return Captured(derive, self.learner.parameters()) if self.device.type == "cuda" else derive

    def losses(self, batch):
        batch, patches = batch
        config, learner = self.config, self.learner
        with self.arithmetic.fast:
            rows = self.tokens and max(1, self.tokens // batch.ids.shape[1])
            units = used_units(learner.text, batch, rows)
        with self.arithmetic.products:
            losses = simzss(
                units.to(self.arithmetic.exact),
                batch,
                patches,
                self.loader.images,
                learner.logit_scale,
                local_weight=config.local_weight,
                temperature=config.temperature,
                target=config.local_target,
                same=config.same_image,
            )
        return {"loss": losses.loss, "loss_global": losses.loss_global, "loss_local": losses.loss_local}

    def settle(self):
        with torch.no_grad():
            self.learner.logit_scale.clamp_(0, math.log(MAX_SCALE))

    def readings(self):
        return {"scale": self.learner.logit_scale.exp().item()}

    def dump(self, batch):
        batch, _ = batch
        tensors = {f.name: getattr(batch, f.name) for f in fields(batch) if f.name not in ("first", "lists")}
        return tensors | {"ids": self.learner.text.token_embedding.words[batch.ids]}

    def classifier(self):
        tower = self.learner.text
        with torch.device("meta"):
            whole = TextTower(tower.size, tower.text_projection.shape[1], tower.activation)
        whole.load_state_dict(tower.state_dict(), assign=True)  # the same memory, but for the words of the captions
        return Model(None, Readout(whole, self.record["readout"]))
