"""Train the tiny teacher: a CLIP of the built-in world, from scenes of its train split and their whole captions.

    image tower   the tiny backbone's weights to begin with (they were trained without labels), 48 px
    text tower    a new one of 2 layers
    loss          the contrastive loss of a batch of crops and captions, both ways

A crop of any size and place keeps the whole caption of its scene: what it does not show is noise that the batch
averages out, and the image tower learns to read views of all scales.  No mask is looked at in training.  The shipped
weights are a running average, in float16; of the token table only the rows that occur in captions are kept.

    python tools/backbone/make_teacher.py --minutes 25     # goes on from its .checkpoint with --resume
"""

import argparse
import copy
import math
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from fastzss import world
from fastzss.backbones import tiny, tiny_clip
from fastzss.captions.tokens import Tokenizer
from fastzss.text.packing import packed
from fastzss.text.tower import PRESETS, TextTower

FIRST = 200_000  # scenes from here on are used by nothing else
SMALLEST = 0.25  # side of the smallest crop, of the scene's
AVERAGE = 0.998
FRESH = 16  # scenes that are replaced each step
MAX_SCALE = 100.0


class Clip(nn.Module):
    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.image = tiny_clip.TinyClip()
        self.text = TextTower(PRESETS["tiny"], tiny_clip.WIDTH)
        self.scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.image.visual.load_state_dict(begun(load_file(tiny.Path(tiny.__file__).parent / "tiny.safetensors")))

    def restrict(self, tokens):
        """Keep only some rows of the token table; ids are places in `tokens` from now on."""
        self.text.token_embedding = nn.Embedding(len(tokens), self.text.size.width)
        nn.init.normal_(self.text.token_embedding.weight, std=0.02)


def begun(state):
    """The tiny backbone's weights, with the middle of its table of positions."""
    state = {name: value.float() for name, value in state.items()}
    grid, own = tiny.SIZE // tiny.PATCH, tiny_clip.SIZE // tiny_clip.PATCH
    place, at = state["pos_embed"], (grid - own) // 2
    window = place[0, 1:].view(grid, grid, -1)[at : at + own, at : at + own].reshape(1, own * own, -1)
    state["pos_embed"] = torch.cat([place[:, :1], window], 1)
    return state


class Scenes:
    """A pool of scenes with the token ids of their captions, slowly replaced."""

    def __init__(self, seed, drawn, count):
        self.seed, self.next, self.tokenizer = seed, FIRST + drawn, Tokenizer()
        self.pictures = torch.empty(count, 3, world.SIZE, world.SIZE, dtype=torch.uint8)
        self.captions = [None] * count
        for place in range(count):
            self.renew(place)

    def renew(self, place):
        scene = world.scene("train", self.next, self.seed)
        self.next += 1
        self.pictures[place] = torch.from_numpy(np.array(scene.image)).permute(2, 0, 1)
        self.captions[place] = [self.tokenizer.encode(self.tokenizer.clean(text))[0] for text in scene.captions]

    def batch(self, n, random):
        """(n crops of tiny_clip.SIZE in 0..1, n lists of token ids)."""
        for place in random.choice(len(self.captions), FRESH, replace=False):
            self.renew(int(place))
        rows = random.choice(len(self.captions), n, replace=False)
        crops = torch.stack([crop(self.pictures[row], random) for row in rows])
        return crops, [self.captions[row][random.integers(2)] for row in rows]


def crop(picture, random):
    side = round(world.SIZE * random.uniform(SMALLEST, 1))
    top, left = random.integers(world.SIZE - side + 1, size=2)
    return scaled(picture[:, top : top + side, left : left + side])


def scaled(picture):
    size = (tiny_clip.SIZE, tiny_clip.SIZE)
    return F.interpolate(picture[None] / 255, size, mode="bicubic", antialias=True)[0].clamp(0, 1)


def normalised(pictures):
    mean, std = (torch.tensor(v)[:, None, None] for v in (tiny_clip.MEAN, tiny_clip.STD))
    return (pictures - mean) / std


def text_units(tower, captions, place):
    """[n, D] unit vectors of captions, each a list of token ids."""
    lengths = np.array([len(caption) for caption in captions])
    ids = np.array([place[token] for caption in captions for token in caption], np.int32)
    laid = packed(ids, np.cumsum(lengths) - lengths, lengths)
    return tower.units(laid.ids, laid.segment, torch.from_numpy(laid.start + lengths - 1))


def train(args):
    torch.set_num_threads(args.threads)
    checkpoint, state = args.out.with_suffix(".checkpoint"), None
    if args.resume and checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
    done, seconds = (state["steps"], state["seconds"]) if state else (0, 0.0)
    scenes = Scenes(args.seed, done * FRESH, args.pool)
    tokens = state["tokens"] if state else sorted({t for pair in scenes.captions for ids in pair for t in ids})
    unknown = tokens[0]
    place = {token: at for at, token in enumerate(tokens)}
    model = Clip(args.seed)
    model.restrict(tokens)
    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    stepper = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.98))
    average = copy.deepcopy(model.state_dict())
    if state:
        model.load_state_dict(state["model"])
        stepper.load_state_dict(state["stepper"])
        average = state["average"]
    random = np.random.default_rng([args.seed, done])
    begun_at = saved = time.monotonic()

    def save():
        now = {"model": model.state_dict(), "stepper": stepper.state_dict(), "average": average, "tokens": tokens}
        now |= {"steps": done, "seconds": seconds + time.monotonic() - begun_at}
        replace(checkpoint, lambda path: torch.save(now, path))
        write(args.out, average, tokens)

    first, correct = done, 0.0
    while done < args.steps:
        share = max((done - first) / (args.steps - first), (time.monotonic() - begun_at) / 60 / args.minutes)
        if share >= 1:
            break
        for group in stepper.param_groups:
            group["lr"] = args.lr * min(1, (done - first + 1) / 100, max(0.02, (1 - share) / 0.5))
        crops, captions = scenes.batch(args.batch, random)
        with torch.autocast("cpu", torch.bfloat16):
            image = model.image(normalised(crops))
        image = F.normalize(image.float(), dim=-1)
        text = text_units(model.text, [[t if t in place else unknown for t in caption] for caption in captions], place)
        logits = model.scale.exp() * image @ text.T
        target = torch.arange(len(logits))
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        stepper.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        stepper.step()
        with torch.no_grad():
            model.scale.clamp_(0, math.log(MAX_SCALE))
        done += 1
        correct = 0.98 * correct + 0.02 * (logits.argmax(1) == target).float().mean().item()
        keep = min(AVERAGE, done / (done + 10))
        for name, value in model.state_dict().items():
            average[name].lerp_(value, 1 - keep)
        if done % 50 == 0:
            spent = seconds + time.monotonic() - begun_at
            print(f"step {done}, {spent:.0f} s: loss {loss.item():.3f}, matched {100 * correct:.1f} %", file=sys.stderr)
        if time.monotonic() - saved > 60:
            save()
            saved = time.monotonic()
    save()
    return {"seed": args.seed, "steps": done, "seconds": round(seconds + time.monotonic() - begun_at)}


def replace(path, do):
    """Write aside, then rename: a kill never leaves half a file."""
    aside = path.with_name(path.name + ".part")
    do(aside)
    os.replace(aside, path)


def write(out, average, tokens):
    state = {name.removeprefix("image."): value.half().contiguous() for name, value in average.items()}
    state.pop("scale")
    state["tokens"] = torch.tensor(tokens, dtype=torch.int32)
    replace(out, lambda path: save_file(state, path))


def main(argv=None):
    parser = argparse.ArgumentParser(description="Train the tiny teacher on scenes and captions of the built-in world.")
    parser.add_argument("--out", type=Path, default=tiny_clip.WEIGHTS, help="weights to write; their card goes beside")
    parser.add_argument("--steps", type=int, default=100_000, help="optimiser steps in all (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=25, help="stop this call after so many (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=256, help="crops a step (default: %(default)s)")
    parser.add_argument("--pool", type=int, default=6000, help="scenes at hand (default: %(default)s)")
    parser.add_argument("--lr", type=float, default=1e-3, help="peak learning rate (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights, the scenes and the crops")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: %(default)s)")
    parser.add_argument("--resume", action="store_true", help="go on from the .checkpoint beside --out")
    args = parser.parse_args(argv)
    print(train(args))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
