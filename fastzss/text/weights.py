"""--text-init: a text tower that begins with the weights of a pretrained CLIP.

    FILE               .safetensors or .pt: a CLIP model of open_clip with its text tower at the top or under "text.",
                       a text tower alone, or a checkpoint of ours; also inside {"state_dict": ...}, under "module.";
                       OpenAI's own archives
    FILE,quick_gelu    the same, trained with QuickGELU (or ,gelu), where that is not written anywhere
    open_clip:A/TAG    the pretrained weights TAG of open_clip's architecture A, fetched

All but the projection must fit; that is made anew where the vision width differs.  The tower gets the activation that
the weights were trained with.  A file of tensors says nothing of it: open_clip's list of pretrained weights does, the
open_clip_config.json beside a file from the hub, the config.yaml of the run whose checkpoint it is, and the code in
OpenAI's archives.  Where none of them does, it is taken for GELU, and a line says so.
"""

import json
import logging
import pickle
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from fastzss.backbones.weights import patient_only_online
from fastzss.base.errors import UserError, nearest
from fastzss.base.runs import Run
from fastzss.text.tower import ACTIVATIONS, PRESETS

log = logging.getLogger("fastzss")

OPEN_CLIP = "open_clip:"
MEANINGS = {
    "token_embedding.weight": "a vocabulary of {} tokens",
    "positional_embedding": "a context of {} tokens",
    "ln_final.weight": "a width of {}",
}
WRAPPERS = ("state_dict", "model", "model_state_dict")


def activation_of(spec):
    """The activation that the weights of `spec` were trained with; without any it is GELU."""
    if spec is None:
        return "gelu"
    name, activation = parted(spec)
    if activation:
        return activation
    if name.startswith(OPEN_CLIP):
        return _named(pretrained(name)["quick_gelu"])
    activation = said_of(Path(name), read(name, spec))
    if activation is None:
        log.info("%s: does not say its activation; GELU is taken (`--text-init %s,quick_gelu`: QuickGELU)", name, name)
    return activation or "gelu"


def said_of(path, loaded):
    """The activation of a file's weights, by what it holds or what lies beside it; None where nobody says."""
    if isinstance(loaded, torch.jit.ScriptModule):
        return _named(any(module.original_name == "QuickGELU" for module in loaded.modules()))
    if path.name.startswith("open_clip_"):
        try:
            model = json.loads((path.parent / "open_clip_config.json").read_text(encoding="utf-8"))["model_cfg"]
            return _named(model.get("quick_gelu"))
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return None
    run = Run(path.absolute().parent.parent.parent)
    if path.parent.parent.name == "checkpoints" and run.exists:
        return run.config.get("text", {}).get("activation", "gelu")
    return None


def _named(quick):
    return "quick_gelu" if quick else "gelu"


def parted(spec):
    """(file or name of weights, the activation that is said behind it or None)."""
    name, _, activation = spec.rpartition(",")
    return (name, activation) if name and activation in ACTIVATIONS else (spec, None)


def start_from(tower, spec):
    """Give a TextTower, made with their activation, the weights that `spec` names."""
    name, _ = parted(spec)
    found = text_tower(read(fetched(name) if name.startswith(OPEN_CLIP) else name, spec), spec)
    own = tower.state_dict()
    check_sizes(found, own, spec)
    projection = found["text_projection"]
    if projection.shape[1] != own["text_projection"].shape[1]:
        width, wanted = projection.shape[1], own["text_projection"].shape[1]
        log.info("%s: its projection leads to %d channels, the store has %d: it is made anew", spec, width, wanted)
        found["text_projection"] = own["text_projection"]
    tower.load_state_dict(found)


def read(path, spec):
    """What a file holds: tensors by name, or the module of an archive."""
    try:
        if str(path).endswith(".safetensors"):
            return load_file(path)
        if is_archive(path):
            return torch.jit.load(path, map_location="cpu")
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(
            f"--text-init {spec}: no such file; expected a .safetensors or .pt file, or open_clip:ARCHITECTURE/TAG "
            f"(FILE,quick_gelu for weights trained with QuickGELU that do not say so)"
        ) from None
    except (OSError, SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, zipfile.BadZipFile) as problem:
        first = str(problem).strip().split("\n")[0][:120]
        raise UserError(
            f"--text-init {spec}: cannot be read as weights ({first}); expected a state dict saved as .safetensors or "
            f"by torch.save"
        ) from None


def is_archive(path):
    """Whether a file was saved by TorchScript: code and tensors, as OpenAI's are."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def text_tower(loaded, spec):
    """The part of what a file holds that is the text tower, under our names; causal masks and the like are left out."""
    if isinstance(loaded, torch.jit.ScriptModule):
        loaded = dict(loaded.state_dict())
    for wrapper in WRAPPERS:
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
    if not isinstance(loaded, dict):
        raise UserError(
            f"--text-init {spec}: holds a {type(loaded).__name__}; expected a state dict of tensors by name"
        )
    tensors = {str(name).removeprefix("module."): value for name, value in loaded.items()}
    if "text.token_embedding.weight" in tensors:
        tensors = {n.removeprefix("text."): value for n, value in tensors.items() if n.startswith("text.")}
    if "token_embedding.weight" not in tensors:
        names = ", ".join(list(tensors)[:3]) or "nothing"
        raise UserError(
            f"--text-init {spec}: holds no text tower of CLIP (it begins with {names}); "
            f"expected token_embedding.weight, at the top or under text."
        )
    return {
        name: value
        for name, value in tensors.items()
        if name.split(".")[0]
        in ("token_embedding", "positional_embedding", "transformer", "ln_final", "text_projection")
    }


def check_sizes(found, own, spec):
    """Refuse by name what does not fit."""
    for name, meaning in MEANINGS.items():
        if name in found and len(found[name]) != len(own[name]):
            there, here = (meaning.format(len(t[name])) for t in (found, own))
            hint = fitting(found) if name == "ln_final.weight" else ""
            raise UserError(f"--text-init {spec}: has {there}, this tower {here}{hint}")
    missing, extra = own.keys() - found.keys(), found.keys() - own.keys()
    depth, wanted = (len({n.split(".")[2] for n in t if n.startswith("transformer.resblocks.")}) for t in (found, own))
    if depth != wanted:
        raise UserError(f"--text-init {spec}: has {depth} layers, this tower {wanted}{fitting(found)}")
    if missing or extra:
        what = f"lacks {sorted(missing)[0]}" if missing else f"has {sorted(extra)[0]}, which this tower has not"
        raise UserError(f"--text-init {spec}: {what}; expected the text tower of a CLIP model of open_clip")
    for name, value in found.items():
        if name != "text_projection" and value.shape != own[name].shape or value.ndim != own[name].ndim:
            sizes = f"{list(value.shape)}; expected {list(own[name].shape)}"
            raise UserError(f"--text-init {spec}: {name} has the shape {sizes}")


def fitting(found):
    """A hint at the tower that would take such weights, where there is one."""
    width = found["token_embedding.weight"].shape[1]
    depth = len({name.split(".")[2] for name in found if name.startswith("transformer.resblocks.")})
    fits = [name for name, size in PRESETS.items() if (size.width, size.layers) == (width, depth)]
    return f"; --text {fits[0]} has its size" if fits else f"; no tower of {depth} layers x {width} is offered"


def pretrained(name):
    """open_clip's entry of the pretrained weights open_clip:ARCHITECTURE/TAG, with "quick_gelu" set or not."""
    import open_clip  # late: it takes seconds

    architecture, _, tag = name.removeprefix(OPEN_CLIP).partition("/")
    if architecture not in open_clip.list_models():
        hint = nearest(architecture, open_clip.list_models())
        raise UserError(f'--text-init {name}: open_clip has no "{architecture}"{hint}', code=2)
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if tag not in tags:
        there = ", ".join(tags) or "none"
        raise UserError(
            f'--text-init {name}: {architecture} has no weights "{tag}"{nearest(tag, tags)}; '
            f"expected open_clip:{architecture}/TAG with one of {there}",
            code=2,
        )
    entry, model = open_clip.get_pretrained_cfg(architecture, tag), open_clip.get_model_config(architecture)
    return {**entry, "quick_gelu": bool(entry.get("quick_gelu") or model.get("quick_gelu"))}


def fetched(name):
    """The file of open_clip's pretrained weights, from its cache or the network."""
    import open_clip

    entry = pretrained(name)
    try:
        with patient_only_online():
            return open_clip.download_pretrained(entry)
    except Exception as problem:  # whatever the hub's client and the network say
        first = str(problem).strip().split("\n")[0][:200]
        raise UserError(
            f"--text-init {name}: cannot be fetched ({first}); give a file of it with --text-init FILE"
        ) from None
