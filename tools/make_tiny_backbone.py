"""Train the tiny backbone by looking: no labels, no masks, no captions.

A region of a scene that seems to be one thing (regions.py: its patches resemble each other, to the backbone as it is
so far) is pasted on two other scenes, each time turned, scaled, flipped and recoloured anew. Where the two views show
the same point of the region, their features should agree, and differ from those of other regions:

    patch     a patch of one view finds its own point in the other view among the points of the batch
    region    a patch of one view, and the mean of its region, find the mean of the region in the other view
    raw       the region terms once more on the features themselves, without the projector: these are what is shipped
    global    the class token finds the mean of its own view's patches, held fixed; a weak term

All are InfoNCE at temperature TAU on cosines. The views are smaller than the scenes and see a window of the position
table, moved about, so that place does not give the answer away. The shipped weights are a running average.

    python tools/make_tiny_backbone.py --minutes 30        # resumes with --resume; writes the weights and their card
    python tools/make_tiny_backbone.py --probe             # how much of the truth a linear readout finds in them
"""

import argparse
import copy
import os
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from linear_probe import load, normalised, probe, shown, untrained
from pasted_views import VIEW, apply, inside, inverted, make_view, patch_centres, pick
from regions import FIRST, FRESH, Scenes
from timm.layers import set_fused_attn
from torch import nn

from fastzss.backbones import tiny

OUT = Path(__file__).parents[1] / "fastzss" / "backbones" / "tiny.safetensors"
TAU = 0.1
PAIRS = 1024  # matching points that one step compares
AVERAGE = 0.998
COOLDOWN = 0.25  # share of a call at whose end the learning rate falls


class Student(nn.Module):
    """The backbone, and the projector that is thrown away after training."""

    def __init__(self):
        super().__init__()
        self.vit = tiny.tiny_vit()
        self.project = nn.Sequential(nn.Linear(tiny.WIDTH, 512), nn.GELU(), nn.Linear(512, tiny.WIDTH))

    def forward(self, pictures):
        """[B, 3, VIEW, VIEW] with a window of the position table -> [B, 1 + P, WIDTH]."""
        vit, grid, window = self.vit, tiny.SIZE // tiny.PATCH, VIEW // tiny.PATCH
        top, left = torch.randint(grid - window + 1, (2,)).tolist()
        place = vit.pos_embed[0, 1:].view(grid, grid, -1)[top : top + window, left : left + window].flatten(0, 1)
        x = vit.patch_embed.proj(normalised(pictures)).flatten(2).transpose(1, 2) + place
        first = (vit.cls_token + vit.pos_embed[:, :1]).expand(len(x), -1, -1)
        return vit.norm(vit.blocks(torch.cat([first, x], 1)))


# Losses. Vectors are normalised; `same` marks pairs that are no fair negatives.


def info_nce(a, b, target=None, same=None):
    logits = a @ b.T / TAU
    if same is not None:
        logits = logits.masked_fill(same, -1e4)
    return F.cross_entropy(logits, torch.arange(len(a), device=a.device) if target is None else target)


def both_ways(a, b, same=None):
    return (info_nce(a, b, same=same) + info_nce(b, a, same=None if same is None else same.T)) / 2


def region_terms(points, regions, owner):
    """Patches to the other view's region, and region to region; points and regions of the two views, normalised."""
    to_region = (info_nce(points[0], regions[1], owner) + info_nce(points[1], regions[0], owner)) / 2
    return to_region + both_ways(*regions)


def step_loss(student, scenes, regions, grounds, autocast):
    n, device, window = len(scenes), scenes.device, VIEW // tiny.PATCH
    views = [make_view(scenes, regions, ground) for ground in grounds]
    with autocast:
        tokens = student(torch.cat([view[0] for view in views]))
        projected = student.project(tokens)
    raw, projected = tokens.float().chunk(2), projected.float().chunk(2)

    # the patches of the first view whose point also shows in the second
    centres = patch_centres(VIEW, device).expand(n, -1, -1)
    sources = [apply(affine, centres) for _, affine, _ in views]
    held = [inside(source, *view[2]) > 0 for source, view in zip(sources, views, strict=True)]
    other = apply(inverted(views[1][1]), sources[0])
    edge = torch.minimum(other, VIEW - other).amin(-1)
    matched = held[0] & (edge > tiny.PATCH / 2) & (inside(sources[0], *views[1][2]) > 0)
    chosen = matched.flatten().nonzero()[:, 0]
    chosen = chosen[torch.randperm(len(chosen), device=device)[:PAIRS]]
    owner = chosen // window**2
    where = sources[0].flatten(0, 1)[chosen]
    near = (owner[:, None] == owner) & (torch.cdist(where, where) < 1.5 * tiny.PATCH)
    near.fill_diagonal_(False)

    def both_points(features):
        first = features[0][:, 1:].flatten(0, 1)[chosen]
        grid = features[1][:, 1:].transpose(1, 2).reshape(n, -1, window, window)
        second = pick(grid, other / tiny.PATCH).flatten(0, 1)[chosen]
        return F.normalize(first, dim=-1), F.normalize(second, dim=-1)

    def both_regions(features):
        means = []
        for feature, here in zip(features, held, strict=True):
            here = here[..., None].float()
            means.append(F.normalize((F.normalize(feature[:, 1:], dim=-1) * here).sum(1), dim=-1))
        return means

    points = both_points(projected)
    tokens = torch.cat(raw)
    summary = F.normalize(tokens[:, 1:].mean(1).detach(), dim=-1)
    terms = {
        "patch": both_ways(*points, near),
        "region": region_terms(points, both_regions(projected), owner),
        "raw": region_terms(both_points(raw), both_regions(raw), owner),
        "global": 0.2 * info_nce(F.normalize(tokens[:, 0], dim=-1), summary),
    }
    return sum(terms.values()), {name: value.item() for name, value in terms.items()}


def optimisers(student):
    """Muon for the matrices of the blocks, AdamW for the rest."""
    matrices = [p for p in student.vit.blocks.parameters() if p.ndim == 2]
    rest = [p for p in student.parameters() if not any(p is m for m in matrices)]
    muon = torch.optim.Muon(matrices, lr=2e-3, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
    return [muon, torch.optim.AdamW(rest, lr=1e-3, weight_decay=0.05, betas=(0.9, 0.98))]


def train(args):
    from tqdm import tqdm

    torch.manual_seed(args.seed)
    set_fused_attn(args.device != "cpu")  # on a CPU the fused one takes a third of the whole step
    student = Student().to(args.device)
    steppers = optimisers(student)
    rates = [stepper.param_groups[0]["lr"] for stepper in steppers]
    slow = copy.deepcopy(student.vit).eval().requires_grad_(False)  # the running average: it chooses the regions
    average = slow.state_dict()
    done, seconds, cpu, calls = 0, 0.0, 0.0, []
    checkpoint = args.out.with_suffix(".checkpoint")
    if args.resume and checkpoint.exists():
        state = torch.load(checkpoint, map_location=args.device, weights_only=True)
        student.load_state_dict(state["student"])
        for stepper, value in zip(steppers, state["steppers"], strict=True):
            stepper.load_state_dict(value)
        slow.load_state_dict(state["average"])
        done, seconds, cpu, calls = (state[key] for key in ("steps", "seconds", "cpu", "calls"))
        torch.manual_seed(args.seed + done)  # other views than those already seen
    calls.append(command(args))
    begun, saved, cpu_begun, first_step = time.monotonic(), time.monotonic(), time.process_time(), done
    scenes = Scenes(args.seed, done * FRESH, args.pool, slow, args.device)
    autocast = torch.autocast(torch.device(args.device).type, torch.bfloat16)

    def spent():
        return seconds + time.monotonic() - begun, cpu + time.process_time() - cpu_begun

    def save():
        state = {"student": student.state_dict(), "steppers": [stepper.state_dict() for stepper in steppers]}
        state |= {"average": average, "steps": done, "seconds": spent()[0], "cpu": spent()[1], "calls": calls}
        replace(checkpoint, lambda path: torch.save(state, path))

    bar = tqdm(total=args.steps, initial=done, unit="step", disable=not sys.stderr.isatty())
    while done < args.steps:
        minutes = (time.monotonic() - begun) / 60
        share = max((done - first_step) / (args.steps - first_step), minutes / args.minutes if args.minutes else 0)
        if share >= 1:
            break
        pace = min(1, (done - first_step + 1) / 100, max(0.02, (1 - share) / COOLDOWN))
        for stepper, rate in zip(steppers, rates, strict=True):
            stepper.param_groups[0]["lr"] = pace * rate
        loss, terms = step_loss(student, *scenes.batch(args.batch), autocast)
        student.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 3.0)
        for stepper in steppers:
            stepper.step()
        done += 1
        bar.update()
        keep = min(AVERAGE, done / (done + 10))
        for name, value in student.vit.state_dict().items():
            average[name].lerp_(value, 1 - keep)
        if done % 50 == 0:
            line = ", ".join(f"{name} {value:.3f}" for name, value in terms.items())
            bar.write(f"step {done}, {spent()[0]:.0f} s: {line}", file=sys.stderr)
        if time.monotonic() - saved > 60:
            save()
            saved = time.monotonic()
    bar.close()
    save()
    wall, cpu_spent = spent()
    facts = {"seed": args.seed, "steps": done, "seconds": round(wall), "cpu_seconds": round(cpu_spent)}
    return average, facts | {"calls": "\n".join(calls)}


def replace(path, write):
    """Write aside, then rename: a kill never leaves half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".part")
    write(aside)
    os.replace(aside, path)


CARD = """# tiny: the backbone of the built-in world

A vision transformer with {parameters:.2f} M parameters: 128 px, patches of 8 px, width 128, depth 4, 4 heads
(`fastzss/backbones/tiny.py`). Trained by self-supervision on scenes of the built-in world (split `train`, seed {seed},
scenes from {first:,} on, which the demo does not use): regions that seem to be one thing to the backbone itself are
pasted on other scenes and found again. No labels, no masks, no captions. For the demo, the tests and the tutorials; it
knows nothing of photographs.

| | |
|---|---|
| seed | {seed} |
| steps | {steps} of {batch} pairs of {view} px views |
| time | {seconds} s wall, {cpu_seconds} s CPU, {device} |
| linear probe with masks, mIoU all / things / stuffs | {score} |
| the same with random weights | {chance} |
| weights | fp16, running average |
| licence | Apache-2.0, as the code |

The probe is a linear readout of the patch features, trained with the masks of 300 train scenes and judged on 100
validation scenes, patch against patch (a patch has the class of most of its pixels).

Made by

    {commands}
"""


def write(out, average, facts, args):
    from safetensors.torch import save_file

    weights = {name: value.half().cpu().contiguous() for name, value in average.items()}
    replace(out, lambda path: save_file(weights, path, metadata={key: str(value) for key, value in facts.items()}))
    scores, chance = probe(load(out)), probe(untrained(args.seed))
    parameters = sum(value.numel() for value in weights.values()) / 1e6
    words = {"score": shown(scores), "chance": shown(chance), "parameters": parameters, "first": FIRST, "view": VIEW}
    words |= {"batch": args.batch, "device": args.device}
    words |= {"commands": facts["calls"].replace("\n", "\n    ")}
    card = CARD.format(**facts, **words)
    replace(out.with_suffix(".md"), lambda path: path.write_text(card, encoding="utf-8"))
    return scores, chance


def command(args):
    """The call that is under way, without its paths."""
    flags = {"--steps": args.steps, "--minutes": args.minutes, "--batch": args.batch, "--pool": args.pool}
    flags |= {"--seed": args.seed, "--threads": args.threads, "--device": args.device}
    words = [f"{flag} {value}" for flag, value in flags.items() if value is not None]
    return " ".join(["python tools/make_tiny_backbone.py", *words] + ["--resume"] * args.resume)


def main(argv=None):
    parser = argparse.ArgumentParser(description="Train the tiny backbone by self-supervision on the built-in world.")
    parser.add_argument("--out", type=Path, default=OUT, help="weights to write; their card goes beside them")
    parser.add_argument("--steps", type=int, default=20_000, help="optimiser steps in all (default: %(default)s)")
    parser.add_argument("--minutes", type=float, help="stop this call after so many minutes")
    parser.add_argument("--batch", type=int, default=64, help="regions a step (default: %(default)s)")
    parser.add_argument("--pool", type=int, default=3000, help="scenes at hand (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights, the scenes and the views")
    parser.add_argument("--device", default="cpu", help="where to train (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: %(default)s)")
    parser.add_argument("--resume", action="store_true", help="go on from the .checkpoint beside --out")
    parser.add_argument("--probe", action="store_true", help="train nothing: print the linear probe of --out")
    args = parser.parse_args(argv)
    if args.pool < 3 * args.batch:
        parser.error(f"--pool {args.pool}: a step takes 3 scenes a region, {3 * args.batch} with --batch {args.batch}")
    torch.set_num_threads(args.threads)
    if args.probe:
        if not args.out.exists():
            sys.exit(f"make_tiny_backbone: no weights at {args.out}; train them first, or name them with --out")
        scores, chance = probe(load(args.out)), probe(untrained(args.seed))
    else:
        scores, chance = write(args.out, *train(args), args)
    print(f"{args.out}: linear probe mIoU all / things / stuffs {shown(scores)}; random weights {shown(chance)}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)  # the last checkpoint is at most a minute old
