"""Plain vision transformers of timm, by its names, or hf-hub:NAME: repositories of the hub that hold one."""

from pathlib import Path

import torch

from fastzss.backbones.vision import Vision
from fastzss.backbones.weights import HUB, first_line, nothing_missing, patient_only_online
from fastzss.base.errors import UserError, nearest

SIZES = {14: 224, 16: 224, 8: 224}  # default pixels a side by patch size


def load(name, weights, random, size, origin, device, how):
    """The Vision of a model, with its fetched, given or random weights."""
    import timm
    from timm.data import resolve_model_data_config

    if not timm.is_model(name) and not name.startswith(HUB):
        folder = f"; its weights go to --weights {name}" if Path(name).exists() and name else ""
        hint = nearest(name, timm.list_models())
        raise UserError(f'unknown model "{name}"{hint}; expected tiny or a timm ViT{folder}', code=2)
    patch = patch_size(timm, name)
    size = size or SIZES.get(patch, 16 * patch)
    if size % patch or size < 0:
        raise UserError(f"--size {size} is no multiple of the patch size {patch} of {name}", code=2)
    overlay = None
    if weights:
        hub = weights.startswith(HUB)
        overlay = {"hf_hub_id": weights.removeprefix(HUB), "file": None} if hub else {"file": weights}
    try:
        with patient_only_online(), nothing_missing():
            model = timm.create_model(
                name, pretrained=not random, num_classes=0, img_size=size, pretrained_cfg_overlay=overlay
            )
    except Exception as problem:
        if weights and not weights.startswith(HUB):
            raise UserError(f"--weights {weights}: these are no weights of {name} ({first_line(problem)})") from None
        if random:
            raise
        raise UserError(
            f"the weights of {name} cannot be fetched ({first_line(problem)}). "
            f"Give a file of them with --weights FILE, or use the shipped backbone with --model tiny"
        ) from None
    config = resolve_model_data_config(model)
    licence = (model.pretrained_cfg or {}).get("license") or "unknown"
    return Vision(
        model, name, size, config["mean"], config["std"], config["interpolation"], licence, origin, device, how
    )


@torch.random.fork_rng(devices=[])
def patch_size(timm, name):
    try:
        with patient_only_online():
            model = timm.create_model(name, pretrained=False, num_classes=0, device="meta")
    except TypeError:  # models of older timm take no device: a real one then, thrown away
        model = timm.create_model(name, pretrained=False, num_classes=0)
    except RuntimeError as problem:
        found = first_line(problem)
        raise UserError(f'unknown model "{name}" ({found}); expected tiny or a timm ViT', code=2) from None
    except Exception as problem:  # what the hub says of a repository
        raise UserError(
            f"{name} cannot be fetched ({first_line(problem)}). Give a name of timm and a file with --weights FILE"
        ) from None
    embed = getattr(model, "patch_embed", None)
    plain = hasattr(model, "num_prefix_tokens") and hasattr(embed, "grid_size") and not hasattr(embed, "backbone")
    if not plain:
        raise UserError(
            f"{name} is no plain vision transformer; expected a timm ViT such as vit_small_patch14_dinov2", code=2
        )
    return embed.patch_size[0]
