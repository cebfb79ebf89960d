"""Both towers as a folder that open_clip loads: create_model_and_transforms("local-dir:OUT").

    OUT/open_clip_config.json        sizes, and how images are prepared
    OUT/open_clip_model.safetensors  text.*, visual.*, logit_scale

A plain vision transformer becomes one of open_clip's own, at the size that the run was trained with.  What that does
not know, such as register tokens, is loaded by its name from timm; a timm model has one size, and where the run looked
at another, open_clip is told so: create_model_and_transforms("local-dir:OUT", force_image_size=S).
"""

import json

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import nn

from fastzss.backbones import load_vision
from fastzss.base.errors import UserError
from fastzss.base.files import write_file
from fastzss.captions.tokens import CONTEXT
from fastzss.export.sample import gap, kind_of, normalised
from fastzss.text.tower import VOCABULARY

BLOCK = {"norm1": "ln_1", "norm2": "ln_2", "attn.proj": "attn.out_proj", "mlp.fc1": "mlp.c_fc",
         "mlp.fc2": "mlp.c_proj", "ls1": "ls_1", "ls2": "ls_2"}  # fmt: skip


def write(model, run, out, sample):
    """(names of files, the largest difference between what open_clip loads and the run)."""
    vision, tower, size = model.vision, model.words.tower, model.words.tower.size
    kind, quick = kind_of(model, run), tower.activation == "quick_gelu"
    if is_plain(vision.model) and not quick:
        settings, visual, forced = own_vit(vision, kind)
    else:
        settings, visual, forced = by_name(vision, kind)
    config = {
        "model_cfg": {
            "embed_dim": vision.channels,
            "custom_text": True,
            "quick_gelu": quick,
            "vision_cfg": settings,
            "text_cfg": {"context_length": CONTEXT, "vocab_size": VOCABULARY, "width": size.width,
                         "heads": size.heads, "layers": size.layers},
        },
        "preprocess_cfg": {"mean": list(vision.mean), "std": list(vision.std),
                           "interpolation": vision.interpolation, "resize_mode": "shortest"},
    }  # fmt: skip
    tensors = {f"visual.{name}": value for name, value in visual.items()}
    tensors |= {f"text.{name}": value for name, value in tower.state_dict().items()}
    tensors["logit_scale"] = run.load_model()["logit_scale"]
    tensors = {name: value.detach().float().cpu().contiguous().clone() for name, value in tensors.items()}
    write_file(out / "open_clip_config.json", json.dumps(config, indent=1).encode())
    write_file(out / "open_clip_model.safetensors", save(tensors, {"format": "pt"}))
    return ["open_clip_config.json", "open_clip_model.safetensors"], difference(vision, out, sample, forced)


def is_plain(model):
    """Whether a model is all that open_clip's own vision transformer can be."""
    block = model.blocks[0] if len(getattr(model, "blocks", ())) else None
    return (
        type(model).__name__ in ("TinyViT", "VisionTransformer")
        and model.num_prefix_tokens == 1
        and getattr(model, "pos_embed", None) is not None
        and model.pos_embed.shape[1] == 1 + model.patch_embed.num_patches
        and type(block).__name__ == "Block"
        and block.attn.qkv.bias is not None
        and all(isinstance(getattr(model, name, nn.Identity()), nn.Identity) for name in ("norm_pre", "fc_norm"))
        and all(isinstance(getattr(block.attn, name, nn.Identity()), nn.Identity) for name in ("q_norm", "k_norm"))
        and type(block.mlp).__name__ == "Mlp"
        and isinstance(model.norm, nn.LayerNorm)
    )


def own_vit(vision, kind):
    """(settings, tensors, None) of one of open_clip's own."""
    model, state, width = vision.model, vision.model.state_dict(), vision.channels
    attention = getattr(model.blocks[0].attn, "num_heads", None) or model.blocks[0].attn.heads
    settings = {
        "image_size": vision.size,
        "patch_size": model.patch_embed.proj.kernel_size[0],
        "width": width,
        "layers": len(model.blocks),
        "head_width": width // attention,
        "mlp_ratio": model.blocks[0].mlp.fc1.out_features / width,
        "no_ln_pre": True,
        "norm_kwargs": {"eps": model.norm.eps},
        "pool_type": "avg" if kind == "patch-mean" else "tok",
    }
    if "blocks.0.ls1.gamma" in state:
        settings["ls_init_value"] = 1.0  # that there is such a scale; its values are among the weights
    place = state["pos_embed"][0].clone()
    place[1:] += state["patch_embed.proj.bias"]  # open_clip has no bias there
    found = {
        "class_embedding": state["cls_token"][0, 0],
        "positional_embedding": place,
        "conv1.weight": state["patch_embed.proj.weight"],
        "ln_post.weight": state["norm.weight"],
        "ln_post.bias": state["norm.bias"],
        "proj": torch.eye(width),
    }
    for name, value in state.items():
        if name.startswith("blocks."):
            _, layer, rest = name.split(".", 2)
            module, _, own = rest.rpartition(".")
            rest = f"attn.in_proj_{own}" if module == "attn.qkv" else f"{BLOCK[module]}.{own}"
            found[f"transformer.resblocks.{layer}.{rest}"] = value
    return settings, found, None


def by_name(vision, kind):
    """(settings, tensors, the size that open_clip must be told or None) of a model of timm."""
    if kind != "cls":
        raise UserError(
            f"open_clip cannot give the mean of the patches of {vision.name}, with which this run compares captions; "
            f"--to onnx gives its patches"
        )
    import timm

    native = timm.create_model(vision.name, pretrained=False, num_classes=0, device="meta").patch_embed.img_size[0]
    settings = {"timm_model_name": vision.name.partition(".")[0], "timm_model_pretrained": False,
                "timm_pool": "token", "timm_proj": "none", "image_size": vision.size}  # fmt: skip
    state, forced = vision.model.state_dict(), None
    if native != vision.size:
        if vision.origin == "random":
            raise UserError(
                f"{vision.name} has {native} pixels a side in open_clip, this run {vision.size}, and random weights "
                f"are others at another size; extract with --size {native}"
            )
        forced, weights = vision.size, None if vision.origin == "hub" else vision.origin
        state = load_vision(vision.name, weights, size=native).model.state_dict()
    return settings, {f"trunk.{name}": value for name, value in state.items()}, forced


@torch.inference_mode()
def difference(vision, out, sample, forced):
    import open_clip

    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{out}", force_image_size=forced)
    model.eval()
    images = F.normalize(model.encode_image(normalised(vision, sample.pixels)), dim=-1)
    texts = F.normalize(model.encode_text(open_clip.get_tokenizer(f"local-dir:{out}")(list(sample.words))), dim=-1)
    return max(
        gap(images, sample.images), gap(texts, sample.texts), gap(images @ texts.T, sample.images @ sample.texts.T)
    )
