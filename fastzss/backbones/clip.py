"""Teachers: vision encoders of the CLIP family, which say of a view what a caption of it would.

    tiny                          the shipped one, for the built-in world
    ViT-L-14/openai               open_clip's architecture and pretrained weights, fetched; or ViT-L-14 and a file
    vit_large_patch14_clip_224.*  timm's CLIP towers, by name; these come without a text tower

A view is an image brought to the teacher's size as it is; its embedding is what lies in the space that images and texts
share, not normalised.

Sizes: S pixels a side, D_t channels of the shared space.
"""

from pathlib import Path

import torch

from fastzss.backbones import tiny_clip
from fastzss.backbones.vision import as_tensor
from fastzss.backbones.weights import first_line, nothing_missing, patient_only_online, weights_hash
from fastzss.base.errors import UserError, nearest

PREFIX = "open_clip:"


class Teacher:
    """A frozen image tower with its preprocessing, and what there is of its text tower.

    `words`: of the tiny teacher its weights by name, of open_clip's the whole model; None where there is no text tower.
    """

    def __init__(self, model, embed, name, size, channels, mean, std, interpolation, licence, origin, device, words):
        self.model, self.embed = model.eval().requires_grad_(False).to(device), embed
        self.name, self.size, self.channels, self.device = name, size, channels, torch.device(device)
        self.mean, self.std, self.interpolation = tuple(mean), tuple(std), interpolation
        self.licence, self.origin, self.words = licence, origin, words

    @property
    def record(self):
        """All that decides the embeddings; part of a views layer's identity."""
        return {
            "model": self.name,
            "weights": weights_hash(self.model),
            "licence": self.licence,
            "size": self.size,
            "channels": self.channels,
            "preprocess": {"interpolation": self.interpolation, "mean": list(self.mean), "std": list(self.std)},
        }

    def view(self, image, box):
        """uint8 [3, S, S]: a box (left, top, right, bottom) of a PIL image, brought to the teacher's size."""
        from PIL import Image

        resampling = getattr(Image.Resampling, self.interpolation.upper())
        return as_tensor(image.resize((self.size, self.size), resampling, box=box))

    @torch.inference_mode()
    def __call__(self, views):
        """uint8 [B, 3, S, S] -> float32 [B, D_t], not normalised."""
        return self.embed(self.model, self.normalised(views)).float()

    def normalised(self, views):
        """Pixels as the tower wants them."""
        x = views.to(self.device).float() / 255
        return (x - x.new_tensor(self.mean).view(1, 3, 1, 1)) / x.new_tensor(self.std).view(1, 3, 1, 1)


@torch.random.fork_rng(devices=[])
def load_teacher(name, weights=None, device="cpu"):
    """A Teacher by name, with its shipped, fetched or given (`weights`: a file) weights."""
    if weights is not None and not Path(weights).is_file():
        raise UserError(f"--teacher-weights {weights}: no such file; expected the weights of {name}")
    origin = str(Path(weights).resolve()) if weights else "shipped" if name == "tiny" else "hub"
    if name == "tiny":
        return load_tiny(weights, origin, device)
    architecture, _, tag = name.removeprefix(PREFIX).partition("/")
    if tag or name.startswith(PREFIX) or weights and not is_timm(name):
        return load_open_clip(name, architecture, tag, weights, origin, device)
    return load_timm(name, weights, origin, device)


def reload_teacher(record, origin, weights=None, device="cpu"):
    """The teacher that a run or a views layer was made with; refuses other weights."""
    given = weights or (None if origin in ("shipped", "hub") else origin)
    teacher = load_teacher(record["model"], given, device)
    if (found := teacher.record) != record:
        key = next(key for key in {**record, **found} if found.get(key) != record.get(key))
        raise UserError(
            f"the teacher {record['model']} is not the one that the views were made with: its {key} is "
            f"{found.get(key)}, expected {record.get(key)}; give its weights again, or extract the views anew"
        )
    return teacher


def load_tiny(weights, origin, device):
    state = tiny_clip.load_weights(weights)
    model = tiny_clip.TinyClip()
    model.load_state_dict(tiny_clip.visual_part(state))
    return Teacher(
        model, lambda model, x: model(x), "tiny", tiny_clip.SIZE, tiny_clip.WIDTH, tiny_clip.MEAN, tiny_clip.STD,
        "bicubic", "Apache-2.0", origin, device, state,
    )  # fmt: skip


def load_open_clip(name, architecture, tag, weights, origin, device):
    import open_clip

    known = open_clip.list_models()
    if architecture not in known:
        hint = nearest(architecture, known)
        raise UserError(f"--teacher {name}: open_clip has no architecture {architecture!r}{hint}", code=2)
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if weights is None and tag not in tags:
        there = ", ".join(tags) or "none: give a file with --teacher-weights"
        raise UserError(
            f"--teacher {name}: open_clip has no weights {tag!r} of {architecture}{nearest(tag, tags)}; "
            f"there are {there}",
            code=2,
        )
    try:
        with patient_only_online():
            model = open_clip.create_model(architecture, pretrained=str(weights) if weights else tag)
    except Exception as problem:  # whatever the hub's client, torch and open_clip say
        raise no_weights(name, architecture, weights, problem) from None
    config = open_clip.get_model_preprocess_cfg(model)
    size = config["size"][0] if isinstance(config["size"], tuple | list) else config["size"]
    with torch.inference_mode():
        channels = model.encode_image(torch.zeros(1, 3, size, size)).shape[1]
    return Teacher(
        model, lambda model, x: model.encode_image(x), name, size, channels, config["mean"], config["std"],
        config.get("interpolation", "bicubic"), "see its model card", origin, device, model,
    )  # fmt: skip


def no_weights(name, architecture, weights, problem):
    """What to say where a teacher's weights cannot be had."""
    if weights:
        return UserError(f"--teacher-weights {weights}: these are no weights of {architecture} ({first_line(problem)})")
    return UserError(
        f"--teacher {name}: its weights cannot be fetched ({first_line(problem)}); give a file of them with "
        f"--teacher-weights FILE, or use --teacher tiny"
    )


def is_timm(name):
    import timm

    return timm.is_model(name)


def load_timm(name, weights, origin, device):
    import timm
    from timm.data import resolve_model_data_config

    if not is_timm(name) or "clip" not in name:
        towers = timm.list_models("*clip*", pretrained=True)
        raise UserError(
            f"--teacher {name}: is no vision encoder of the CLIP family{nearest(name, towers)}; expected tiny, "
            f"ARCHITECTURE/TAG of open_clip (ViT-L-14/openai), or a CLIP tower of timm "
            f"(vit_large_patch14_clip_224.openai)",
            code=2,
        )
    try:
        with patient_only_online(), nothing_missing():
            overlay = {"file": str(weights)} if weights else None
            model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay)
    except Exception as problem:  # whatever the hub's client, torch and timm say
        raise no_weights(name, name, weights, problem) from None
    config = resolve_model_data_config(model)
    licence = (model.pretrained_cfg or {}).get("license") or "unknown"
    return Teacher(
        model, lambda model, x: model(x), name, config["input_size"][-1], model.num_classes, config["mean"],
        config["std"], config["interpolation"], licence, origin, device, None,
    )  # fmt: skip
