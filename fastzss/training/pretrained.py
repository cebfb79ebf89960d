"""--text-init: a text tower that begins with the weights of a pretrained CLIP.

    FILE               .safetensors or .pt: a CLIP model of open_clip with its text tower at the top or under "text.",
                       a text tower alone, or a checkpoint of ours; also inside {"state_dict": ...}, under "module."
    open_clip:A/TAG    the pretrained weights TAG of open_clip's architecture A, fetched

All but the projection must fit; that is made anew where the vision width differs.  The activation is not written in a
file: weights trained with QuickGELU (OpenAI's own) are refused where open_clip names them, and fit less well elsewhere.
"""

import logging
import pickle
import zipfile

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from fastzss.errors import UserError, nearest
from fastzss.text import PRESETS
from fastzss.vision import patient_only_online

log = logging.getLogger("fastzss")

MEANINGS = {
    "token_embedding.weight": "a vocabulary of {} tokens",
    "positional_embedding": "a context of {} tokens",
    "ln_final.weight": "a width of {}",
}
WRAPPERS = ("state_dict", "model", "model_state_dict")


def start_from(tower, spec):
    """Give a TextTower the weights that `spec` names."""
    path = fetched(spec.removeprefix("open_clip:")) if spec.startswith("open_clip:") else spec
    found = text_tower(read(path, spec), spec)
    own = tower.state_dict()
    check_sizes(found, own, spec)
    projection = found["text_projection"]
    if projection.shape[1] != own["text_projection"].shape[1]:
        width, wanted = projection.shape[1], own["text_projection"].shape[1]
        log.info("%s: its projection leads to %d channels, the store has %d: it is made anew", spec, width, wanted)
        found["text_projection"] = own["text_projection"]
    tower.load_state_dict(found)


def read(path, spec):
    """The tensors of a file by name."""
    try:
        if str(path).endswith(".safetensors"):
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(
            f"--text-init {spec}: no such file; expected a .safetensors or .pt file, or open_clip:ARCHITECTURE/TAG"
        ) from None
    except (OSError, SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, zipfile.BadZipFile) as problem:
        first = str(problem).strip().split("\n")[0][:120]
        raise UserError(
            f"--text-init {spec}: cannot be read as weights ({first}); expected a state dict saved as .safetensors or "
            f"by torch.save"
        ) from None
    for wrapper in WRAPPERS:
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
    if not isinstance(loaded, dict):
        raise UserError(
            f"--text-init {spec}: holds a {type(loaded).__name__}; expected a state dict of tensors by name"
        )
    return loaded


def text_tower(tensors, spec):
    """The part of a state dict that is the text tower, under our names; causal masks and the like are left out."""
    tensors = {str(name).removeprefix("module."): value for name, value in tensors.items()}
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


def fetched(name):
    """The file of open_clip's pretrained weights ARCHITECTURE/TAG, from its cache or the network."""
    import open_clip  # late: it takes seconds

    architecture, _, tag = name.partition("/")
    if architecture not in open_clip.list_models():
        hint = nearest(architecture, open_clip.list_models())
        raise UserError(f'--text-init open_clip:{name}: open_clip has no "{architecture}"{hint}', code=2)
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if tag not in tags:
        there = ", ".join(tags) or "none"
        raise UserError(
            f'--text-init open_clip:{name}: {architecture} has no weights "{tag}"{nearest(tag, tags)}; '
            f"expected open_clip:{architecture}/TAG with one of {there}",
            code=2,
        )
    config = open_clip.get_pretrained_cfg(architecture, tag)
    if config.get("quick_gelu") or open_clip.get_model_config(architecture).get("quick_gelu"):
        raise UserError(
            f"--text-init open_clip:{name}: these weights were trained with QuickGELU, this tower has GELU; "
            f"take weights trained with GELU, such as laion2b",
            code=2,
        )
    try:
        with patient_only_online():
            return open_clip.download_pretrained(config)
    except Exception as problem:  # whatever the hub's client and the network say
        first = str(problem).strip().split("\n")[0][:200]
        raise UserError(
            f"--text-init open_clip:{name}: cannot be fetched ({first}); give a file of it with --text-init FILE"
        ) from None
