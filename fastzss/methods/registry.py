"""A method by its name, and the model of a run."""

from importlib import import_module

from fastzss.backbones import reload_vision
from fastzss.base.errors import UserError, nearest
from fastzss.base.ranks import usable
from fastzss.base.runs import Run
from fastzss.masks.hub import fetched
from fastzss.methods import METHODS


def method_of(name):
    """The Method of that name; only that one is imported."""
    if name not in METHODS:
        raise UserError(f'unknown method "{name}"{nearest(name, METHODS)}; expected {", ".join(METHODS)}', code=2)
    return import_module(f"fastzss.methods.{name}.method").METHOD


def load(path, device=None, weights=None, checkpoint=None):
    """The model of a run folder.

    Args:
        path: the run, or hf://ORG/NAME for one on the hub.
        device: "cpu", "cuda", ...; by default cuda where there is one.
        weights: file of the backbone's weights, where they are not where they were.
        checkpoint: "best", "latest" or the name of one, such as "step-000100"; by default the best where there is one.
    """
    run, device = Run.open(fetched(path), checkpoint), usable(device)
    config = run.config
    vision = reload_vision(config["vision"], config["weights"], weights, device)
    model = method_of(config["settings"]["method"]).model(run, vision, device)
    model.run = run
    return model
