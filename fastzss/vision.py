"""The frozen vision transformer: images -> patch vectors and global vectors.

`--model tiny` is the small backbone shipped with the package; any other name is a timm ViT.  Patches are those after
the last block and the model's own final norm, where it has one, class and register tokens dropped, then L2-normalised.
Global vectors are the class token, where there is one, and the mean of the patches; they are not normalised.

Sizes: S pixels a side, N = (S / patch)^2 patches, D channels, G kinds of global vectors.
"""

import hashlib
import socket
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from fastzss import tiny
from fastzss.errors import UserError, nearest

LONGEST = 16  # short sides: of longer images only the middle is resized
SIZES = {14: 224, 16: 224, 8: 224}  # default pixels a side by patch size, where the model is not the tiny one


class Vision:
    """A frozen backbone with its preprocessing."""

    def __init__(self, model, name, size, mean, std, interpolation, licence, origin, device):
        self.model = model.eval().requires_grad_(False).to(device)
        self.name, self.size, self.device = name, size, torch.device(device)
        self.interpolation, self.licence = interpolation, licence
        self.origin = origin  # where the weights are: "shipped", "random", "hub", or a file
        self.mean, self.std = tuple(mean), tuple(std)
        self.channels = model.num_features
        self.grid = tuple(model.patch_embed.grid_size)
        self.prefix = model.num_prefix_tokens
        self.normed = not isinstance(getattr(model, "norm", None), torch.nn.Identity)  # some models norm what they pool
        self.globals = ("cls", "patch-mean") if getattr(model, "cls_token", None) is not None else ("patch-mean",)

    @property
    def record(self):
        """All that decides the features; part of a store's identity."""
        return {
            "model": self.name,
            "weights": weights_hash(self.model),
            "licence": self.licence,
            "layer": f"last block, {'final norm, ' if self.normed else ''}prefix tokens dropped",
            "norm": "l2",
            "size": self.size,
            "preprocess": {
                "resize": "short side, then centre crop",
                "interpolation": self.interpolation,
                "mean": list(self.mean),
                "std": list(self.std),
            },
        }

    def resize(self, image):
        """A PIL image with its short side brought to S pixels."""
        width, height = (self.size * side // min(image.size) for side in image.size)
        return image.resize((width, height), getattr(Image.Resampling, self.interpolation.upper()))

    def pixels(self, image):
        """A PIL image -> uint8 [3, S, S]: short side to S, centre crop, to the pixel as timm's evaluation does it."""
        image = self.resize(thinned(image))
        left, top = (round((side - self.size) / 2) for side in image.size)
        return as_tensor(image.crop((left, top, left + self.size, top + self.size)))

    @torch.inference_mode()
    def __call__(self, pixels):
        """uint8 [B, 3, S, S] -> (unit patches [B, N, D], globals [B, G, D]), float32."""
        shape = (1, 3, 1, 1)
        x = pixels.to(self.device).float() / 255
        x = (x - x.new_tensor(self.mean).view(shape)) / x.new_tensor(self.std).view(shape)
        tokens = self.model.forward_features(x).float()
        patches = tokens[:, self.prefix :]
        kinds = {"cls": tokens[:, 0], "patch-mean": patches.mean(1)}
        return F.normalize(patches, dim=-1), torch.stack([kinds[kind] for kind in self.globals], 1)


def thinned(image):
    """The middle of a very long image, more than is looked at: resized as a whole it would take gigabytes."""
    long, short = max(image.size), min(image.size)
    if long <= LONGEST * short:
        return image
    cut = (long // short - LONGEST) // 2 * short  # whole squares: the pixels of the rest are sampled at the same places
    return image.crop((cut, 0, long - cut, short) if image.width == long else (0, cut, short, long - cut))


def as_tensor(image):
    """A PIL image -> uint8 [3, H, W]."""
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()


@torch.random.fork_rng(devices=[])  # the caller's random numbers go on as if nothing had been drawn
def load_vision(name, weights=None, random=False, size=None, device="cpu"):
    """A backbone by name, with its shipped, fetched, given (`weights`: a file) or random weights."""
    if weights is not None and not Path(weights).is_file():
        raise UserError(f"--weights {weights}: no such file; expected the weights of {name} (.safetensors or .pth)")
    origin = "random" if random else str(Path(weights).resolve()) if weights else "shipped" if name == "tiny" else "hub"
    torch.manual_seed(0)  # random weights are always the same ones
    if name == "tiny":
        if size not in (None, tiny.SIZE):
            raise UserError(f"--model tiny looks at images of {tiny.SIZE} pixels only; --size is {size}", code=2)
        model = tiny.tiny_vit()
        if not random:
            _load_tiny(model, weights)
        return Vision(model, name, tiny.SIZE, tiny.MEAN, tiny.STD, "bicubic", "Apache-2.0", origin, device)

    import timm
    from timm.data import resolve_model_data_config

    if not timm.is_model(name):
        hint = nearest(name, timm.list_models())
        raise UserError(f'unknown model "{name}"{hint}; expected tiny or a timm ViT', code=2)
    patch = _patch_size(timm, name)
    size = size or SIZES.get(patch, 16 * patch)
    if size % patch or size < 0:
        raise UserError(f"--size {size} is no multiple of the patch size {patch} of {name}", code=2)
    overlay = {"file": str(weights)} if weights else None
    try:
        with patient_only_online(), _nothing_missing():
            model = timm.create_model(
                name, pretrained=not random, num_classes=0, img_size=size, pretrained_cfg_overlay=overlay
            )
    except Exception as problem:
        if weights:
            raise UserError(f"--weights {weights}: these are no weights of {name} ({_first_line(problem)})") from None
        if random:
            raise
        raise UserError(
            f"the weights of {name} cannot be fetched ({_first_line(problem)}). "
            f"Give a file of them with --weights FILE, or use the shipped backbone with --model tiny"
        ) from None
    config = resolve_model_data_config(model)
    licence = (model.pretrained_cfg or {}).get("license") or "unknown"
    return Vision(model, name, size, config["mean"], config["std"], config["interpolation"], licence, origin, device)


def reload_vision(record, origin, weights=None, device="cpu"):
    """The backbone a store or a run was made with; refuses other weights."""
    if weights is None and origin not in ("shipped", "random", "hub"):
        weights = origin
    random = origin == "random" and weights is None
    vision = load_vision(record["model"], weights, random, record["size"], device)
    found = vision.record
    if found != record:
        keys = [key for key in {**record, **found} if found.get(key) != record.get(key)]
        raise UserError(
            f"the backbone {record['model']} differs from the one that made these features in {', '.join(keys)} "
            f"(found {found.get(keys[0])}, expected {record.get(keys[0])}); give its weights with --weights FILE"
        )
    return vision


def weights_hash(model):
    """sha256 over the names and values of all weights, wherever they were loaded from."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _load_tiny(model, weights):
    from timm.models import load_state_dict

    path = Path(weights) if weights else Path(__file__).parent / "data" / "tiny.safetensors"
    try:
        model.load_state_dict({name: value.float() for name, value in load_state_dict(path).items()})
    except Exception as problem:  # whatever safetensors, pickle and torch say of a file that is none of theirs
        found = _first_line(problem)
        raise UserError(f"--weights {path}: these are no weights of the tiny backbone ({found})") from None


@torch.random.fork_rng(devices=[])
def _patch_size(timm, name):
    try:
        model = timm.create_model(name, pretrained=False, num_classes=0, device="meta")
    except TypeError:  # models of older timm take no device: a real one then, thrown away
        model = timm.create_model(name, pretrained=False, num_classes=0)
    except RuntimeError as problem:
        found = _first_line(problem)
        raise UserError(f'unknown model "{name}" ({found}); expected tiny or a timm ViT', code=2) from None
    embed = getattr(model, "patch_embed", None)
    plain = hasattr(model, "num_prefix_tokens") and hasattr(embed, "grid_size") and not hasattr(embed, "backbone")
    if not plain:
        raise UserError(
            f"{name} is no plain vision transformer; expected a timm ViT such as vit_small_patch14_dinov2", code=2
        )
    return embed.patch_size[0]


@contextmanager
def _nothing_missing():
    """timm leaves weights that a file lacks random, without a word, where it drops the classifier: here that fails."""
    load = torch.nn.Module.load_state_dict

    def load_all(module, *args, **named):
        result = load(module, *args, **named)
        if result.missing_keys:
            raise RuntimeError(f"{len(result.missing_keys)} weights are missing, {result.missing_keys[0]} among them")
        return result

    torch.nn.Module.load_state_dict = load_all
    try:
        yield
    finally:
        torch.nn.Module.load_state_dict = load


def _first_line(problem):
    return str(problem).strip().split("\n")[0][:200]


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
