"""The authors' schedule, by hand; and a run beside the same training written in plain PyTorch."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from helpers.flags import train_config
from open_clip.transformer import TextTransformer
from safetensors.torch import load_file

from fastzss.base.runs import Run
from fastzss.methods.simzss.loader import Loader
from fastzss.methods.simzss.task import Learner
from fastzss.store.reading.reader import PatchStore
from fastzss.text.tower import PRESETS
from fastzss.training.loop import train
from fastzss.training.schedule import learning_rate
from fastzss.training.settings import RECIPES
from fastzss.training.step import parameter_groups

DECAYING = {  # of the paper's tower, by hand
    "text.token_embedding.weight",
    "text.positional_embedding",
    "text.text_projection",
    *(
        f"text.transformer.resblocks.{block}.{name}"
        for block in range(12)
        for name in ("attn.in_proj_weight", "attn.out_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
    ),
}


@pytest.mark.parametrize("step, rate", [(0, 0.1), (1, 0.2), (9, 1.0), (10, 1.0), (55, 0.5), (100, 0.0)])
def test_the_learning_rate_rises_for_a_tenth_and_then_falls_like_a_cosine(step, rate):
    assert learning_rate(step, 100, 1.0, 0.1) == pytest.approx(rate)


def test_the_recipe_is_the_authors_at_every_step():
    """280 steps of 16,384 pairs: 28 of warm-up to 1.92e-3, then a cosine over 252 that would reach 0 at step 280."""
    config, *_ = train_config(["--store", "s", "--out", "o", "--recipe", "simzss-coco"])
    assert (config.steps, config.batch, config.text, config.captions) == (280, 16384, "base", "all")
    assert (config.weight_decay, config.local_weight, config.temperature) == (0.2, 0.05, 0.1)
    assert (config.same_image, config.local_target, config.seed) == ("keep", "label", 0)
    rates = [learning_rate(step, config.steps, config.peak, config.warmup) for step in range(280)]
    rise = [1.92e-3 / 28 * n for n in range(1, 29)]
    fall = [9.6e-4 * (1 + math.cos(math.pi * n / 252)) for n in range(252)]
    assert rates == pytest.approx(rise + fall, rel=1e-12)
    assert rates[27] == rates[28] == pytest.approx(1.92e-3)
    assert rates[28 + 126] == pytest.approx(9.6e-4) and 0 < rates[279] < 1e-7


def test_the_papers_tower_is_the_recipes():
    size = PRESETS[RECIPES["simzss-coco"]["text"]]
    assert (size.layers, size.width, size.heads) == (12, 512, 8)


def test_only_matrices_decay():
    with torch.device("meta"):
        learner = Learner(PRESETS["base"], 768)
    names = {id(parameter): name for name, parameter in learner.named_parameters()}
    decaying, free = parameter_groups(learner, 0.2)
    assert (decaying["weight_decay"], free["weight_decay"]) == (0.2, 0.0)
    assert {names[id(p)] for p in decaying["params"]} == DECAYING
    assert {names[id(p)] for p in free["params"]} == set(names.values()) - DECAYING
    assert "logit_scale" in {names[id(p)] for p in free["params"]}


@pytest.mark.parametrize("lr, scale", [(10.0, (1.0, 100.0)), (-10.0, (1.0, 100.0))])
def test_the_scale_stays_between_1_and_100(config, lr, scale):
    """A first step of 10 would take its logarithm from 2.7 far beyond either bound."""
    train(replace(config, lr=lr, warmup=0.0, steps=1))
    assert min(abs(Run(config.out).metrics()[0]["scale"] - bound) for bound in scale) < 1e-9


class Plain(torch.nn.Module):
    """open_clip's tower on padded captions, and the formulas of the paper, with nothing of ours."""

    def __init__(self, weights, channels):
        super().__init__()
        self.text = TextTransformer(width=128, heads=4, layers=2, output_dim=channels, output_tokens=True)
        self.logit_scale = torch.nn.Parameter(torch.zeros(()))
        self.double().load_state_dict(weights)

    def losses(self, texts, chosen, patches, images, masked):
        lengths = [int(texts.ids_offset[c + 1] - texts.ids_offset[c]) for c in chosen]
        ids = torch.zeros(len(chosen), 77, dtype=torch.long)
        for place, (caption, length) in enumerate(zip(chosen, lengths, strict=True)):
            begin = texts.ids_offset[caption]
            ids[place, :length] = torch.tensor(texts.ids[begin : begin + length])
        tokens = F.normalize(self.text(ids)[1] @ self.text.text_projection, dim=-1)
        rows = torch.tensor(texts.row[chosen])
        ends = tokens[torch.arange(len(chosen)), torch.tensor(lengths) - 1]
        logits = self.logit_scale.exp() * F.normalize(images[rows], dim=-1) @ ends.T
        if masked:
            twins = (rows.unsqueeze(1) == rows) & ~torch.eye(len(rows), dtype=torch.bool)
            logits = logits.masked_fill(twins, -torch.inf)
        own = torch.arange(len(chosen))
        loss_global = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2

        mentions = []  # (place, name, weight, sum of its tokens)
        for place, caption in enumerate(chosen):
            for m in range(texts.mention_offset[caption], texts.mention_offset[caption + 1]):
                spots = torch.tensor(texts.token[texts.token_offset[m] : texts.token_offset[m + 1]])
                mentions.append((place, int(texts.name[m]), float(texts.weight[m]), tokens[place, spots].sum(0)))
        names = sorted({name for _, name, _, _ in mentions})
        classes = F.normalize(
            torch.stack([sum(v for _, name, _, v in mentions if name == wanted) for wanted in names]), dim=-1
        )
        total, weights = 0.0, 0.0
        for place, name, weight, _ in mentions:
            seen, own = patches[rows[place]], names.index(name)
            pooled = ((seen @ classes[own]) / 0.1).softmax(0) @ seen
            logits = F.normalize(pooled, dim=0) @ classes.T / 0.07
            total = total - weight * logits.log_softmax(0)[own]
            weights += weight
        return loss_global, total / weights


@pytest.mark.parametrize("same_image", ["keep", "mask"])
def test_a_run_is_what_plain_pytorch_makes_of_it(settings, tmp_path, same_image):
    """Three steps in float64, another optimiser, padded captions, a loop over mentions: the same weights."""
    config = replace(settings, out=tmp_path / "run", captions="all", steps=3, warmup=0.4, same_image=same_image)
    train(config)
    channels = PatchStore(config.store).plan.channels
    torch.manual_seed(config.seed)
    plain = Plain(Learner(PRESETS["tiny"], channels).state_dict(), channels)
    kinds = {True: [], False: []}
    for name, parameter in plain.named_parameters():
        authors_rule = parameter.ndim >= 2 and not any(part in name for part in ("bn", "ln", "bias", "logit_scale"))
        kinds[authors_rule].append(parameter)
    optimizer = torch.optim.AdamW(
        [{"params": kinds[True], "weight_decay": 0.2}, {"params": kinds[False], "weight_decay": 0.0}],
        betas=(0.9, 0.98), eps=1e-6, foreach=False,
    )  # fmt: skip
    loader = Loader(config.store, config.batch, captions="all", feature="patch-mean")
    patches = loader.store.load().take(torch.arange(len(loader.store)), torch.double)
    images, order = loader.images.double(), loader._order(0)
    rates = [1e-3, 1e-3, 5e-4]  # one of warm-up, then a cosine over two
    twins = 0
    for step, logged in enumerate(Run(config.out).metrics()):
        chosen = order[24 * step : 24 * step + 24]
        twins += 24 - len(set(loader.texts.row[chosen]))
        loss_global, loss_local = plain.losses(loader.texts, chosen, patches, images, same_image == "mask")
        assert logged["loss_global"] == pytest.approx(loss_global.item(), rel=1e-9)
        assert logged["loss_local"] == pytest.approx(loss_local.item(), rel=1e-9)
        optimizer.zero_grad()
        (loss_global + config.local_weight * loss_local).backward()
        for group in optimizer.param_groups:
            group["lr"] = rates[step]
        assert logged["lr"] == pytest.approx(rates[step])
        optimizer.step()
        plain.logit_scale.data.clamp_(0, math.log(100))
        assert logged["scale"] == pytest.approx(plain.logit_scale.exp().item(), rel=1e-9)
    assert twins, "some image was there with two captions"
    kept = load_file(Run.open(config.out).latest / "model.safetensors")
    for name, value in plain.state_dict().items():
        assert (kept[name] - value).abs().max() <= 1e-9, name
