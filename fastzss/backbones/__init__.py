"""Frozen backbones: `tiny`, which is shipped, and every plain vision transformer of timm, by name.

vision.py    a backbone with its preprocessing: images -> patch vectors and global vectors
looking.py   how it looks: layer, crop, colours, precision
denoiser.py  a block behind it
tiny.py      the shipped one
timm_vit.py  timm's
weights.py   which weights they are, and where they come from
"""

from dataclasses import replace

import torch

from fastzss.backbones import timm_vit, tiny
from fastzss.backbones.looking import Looking, looking_of
from fastzss.backbones.weights import place_of
from fastzss.base.errors import UserError


@torch.random.fork_rng(devices=[])  # the caller's random numbers go on as if nothing had been drawn
def load_vision(name, weights=None, random=False, size=None, device="cpu", how=None):
    """A backbone by name, with its shipped, fetched, given (`weights`: a file, a folder, hf-hub:NAME) or random
    weights; `how` it looks: a Looking."""
    given = place_of(weights, name) if weights is not None else None
    origin = "random" if random else given or ("shipped" if name == "tiny" else "hub")
    torch.manual_seed(0)  # random weights are always the same ones
    load = tiny.load if name == "tiny" else timm_vit.load
    vision = load(name, given, random, size, origin, device, how or Looking())
    if origin not in ("shipped", "random"):  # these have no other positions than their own
        vision.reload = lambda size: load_vision(name, weights, False, size, device, how)
    return vision


def reload_vision(record, origin, weights=None, device="cpu"):
    """The backbone a store or a run was made with; refuses other weights."""
    how, place = looking_of(record, origin)
    if torch.device(device).type == "cpu":
        how = replace(how, precision="fp32")  # half precision is for speed, and there it has none
    if weights is None and place not in ("shipped", "random", "hub"):
        weights = place
    random = place == "random" and weights is None
    vision = load_vision(record["model"], weights, random, record["size"], device, how)
    found, expected = ({k: v for k, v in one.items() if k != "precision"} for one in (vision.record, record))
    if found != expected:
        keys = [key for key in {**expected, **found} if found.get(key) != expected.get(key)]
        raise UserError(
            f"the backbone {record['model']} differs from the one that made these features in {', '.join(keys)} "
            f"(found {found.get(keys[0])}, expected {expected.get(keys[0])}); give its weights with --weights FILE"
        )
    return vision


__all__ = ["Looking", "load_vision", "reload_vision"]
