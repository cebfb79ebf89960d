"""Weights of backbones: which they are, and getting all of them, with a network or without."""

import hashlib
import io
import socket
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from urllib.parse import urlparse

import torch

from fastzss.base.errors import UserError

HUB = "hf-hub:"
NAMES = ("model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin")  # of weights in a folder, best first
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


def weights_hash(model):
    """sha256 over the names and values of all weights, wherever they were loaded from."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def place_of(weights, model):
    """The file that --weights means, or the name on the hub."""
    if str(weights).startswith(HUB):
        return str(weights)
    path = Path(weights)
    if path.is_dir():
        found = [path / name for name in NAMES if (path / name).is_file()]
        found = found or [file for file in sorted(path.iterdir()) if file.suffix in SUFFIXES]
        if len(found) != 1 and not (found and found[0].name in NAMES):
            there = ", ".join(file.name for file in found[:4]) or "none"
            raise UserError(f"--weights {path}: which file of this folder? Weights in it: {there}; name one")
        return str(found[0].resolve())
    if not path.is_file():
        raise UserError(
            f"--weights {weights}: no such file; expected the weights of {model} (.safetensors or .pth), a folder that "
            f"holds them, or {HUB}NAME"
        )
    return str(path.resolve())


@contextmanager
def nothing_missing():
    """timm leaves weights that a file lacks random, without a word, where it drops the classifier: here that fails, and
    what differs is named.  What timm prints meanwhile is dropped: results alone go to stdout."""
    load = torch.nn.Module.load_state_dict

    def load_all(module, state, *args, **named):
        wanted = module.state_dict()
        missing = [name for name in wanted if name not in state]
        other = [name for name in wanted if name in state and wanted[name].shape != state[name].shape]
        strange = [name for name in state if name not in wanted and "head" not in name]
        if missing or other:
            parts = [_some(missing, "weights are missing", str)]
            parts += [_some(other, "have another shape", lambda n: f"{n} {_shape(state[n])} for {_shape(wanted[n])}")]
            parts += [_some(strange, "are unknown to it", str)]
            raise RuntimeError("; ".join(filter(None, parts)))
        return load(module, state, *args, **named)

    torch.nn.Module.load_state_dict = load_all
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        torch.nn.Module.load_state_dict = load


def _some(names, what, say):
    return f"{len(names)} {what}, {', '.join(map(say, names[:2]))} among them" if names else ""


def _shape(tensor):
    return " x ".join(map(str, tensor.shape))


def first_line(problem):
    return str(problem).strip().split("\n")[0][:300]


@contextmanager
def patient_only_online():
    """Without a network the hub's client would retry for most of a minute: then look into its cache only."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    try:
        socket.getaddrinfo(urlparse(constants.ENDPOINT).hostname, 443)
    except OSError:
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
