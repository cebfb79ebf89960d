"""The golden files of SimZSS, and what is computed from their inputs."""

import os
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from fastzss import kernels
from fastzss.base.ragged import offsets
from fastzss.kernels.reference_tower import positions
from fastzss.methods.simzss.batch import Texts, collate
from fastzss.methods.simzss.objective import simzss

FOLDER = Path(os.environ.get("FASTZSS_GOLDENS") or Path(__file__).parents[1] / "goldens")
FILES = sorted(FOLDER.glob("simzss_*.npz"))
FAMILIES = {"ref": "argmax", "lab": "label"}
SINGLE = [(f, family) for f in FILES for family in FAMILIES if f"{family}_loss_total" in np.load(f)]
RANKS = [(f, family) for f in FILES for family in FAMILIES if f"{family}_grad_mean_tokens" in np.load(f)]


def texts_of(z):
    """The golden's index tensors as the ragged captions and mentions batches are cut from."""
    ids, spots, labels = z["in_text_ids"], z["in_concept_token_index"], z["in_concept_label"]
    length = ids.argmax(1) + 1
    caption, slot = np.nonzero(labels >= 0)
    tokens = [spots[b, m][spots[b, m] > 0] for b, m in zip(caption, slot, strict=True)]
    return Texts.of(
        ids=np.concatenate([row[:n] for row, n in zip(ids, length, strict=True)]),
        ids_offset=offsets(length),
        row=np.arange(len(ids)),
        caption=caption,
        name=labels[caption, slot],
        token=np.concatenate([np.empty(0, int), *tokens]),
        token_offset=offsets([len(t) for t in tokens]),
    )


def units_of(tokens, batch, first=0):
    """The unit vectors used_units would give, were `tokens` [B, 77, d] the projected output of the tower."""
    used = torch.cat([batch.eot, batch.token]).long()
    caption, place = batch.segment.flatten()[used].long(), positions(batch.segment).flatten()[used]
    return F.normalize(tokens[first + caption, place], dim=-1)


def inputs(z, dtype=torch.float64):
    tokens = torch.tensor(z["in_tokens_proj"], dtype=dtype, requires_grad=True)
    log_scale = torch.tensor(float(z["in_logit_scale_log"]), dtype=dtype, requires_grad=True)
    patches = F.normalize(torch.tensor(z["in_image_patches"], dtype=dtype), dim=-1)
    return tokens, log_scale, kernels.Patches(patches), torch.tensor(z["in_image_cls"], dtype=dtype)


def name(value):
    return value.stem if isinstance(value, Path) else value


def outputs(z, family, dtype=torch.float64):
    """Name -> loss or gradient of the whole batch, by the backend of the environment."""
    tokens, log_scale, patches, images = inputs(z, dtype)
    texts = texts_of(z)
    batch = collate(texts, np.arange(len(texts)))
    losses = simzss(
        units_of(tokens, batch),
        batch,
        patches,
        images,
        log_scale,
        local_weight=float(z["in_lambda"]),
        temperature=float(z["in_temp_pool"]),
        target=FAMILIES[family],
    )
    found = {}
    for part, loss in [("global", losses.loss_global), ("local", losses.loss_local), ("total", losses.loss)]:
        found[f"{family}_loss_{part}"] = loss
        gradients = torch.autograd.grad(loss, [tokens, log_scale], retain_graph=True, allow_unused=True)
        for what, like, gradient in zip(["tokens", "logit_scale"], [tokens, log_scale], gradients, strict=True):
            found[f"{family}_grad_{part}_{what}"] = torch.zeros_like(like) if gradient is None else gradient
    return {key: value.detach() for key, value in found.items()}
