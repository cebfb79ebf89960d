"""The losses and gradients of SimZSS against golden numbers made from the semantics of the authors' released code.

Reads every simzss_*.npz of tests/goldens, or of the folder in FASTZSS_GOLDENS.  Files may leave out outputs and may
hold 2-d and larger arrays as float32; an output is judged to 1e-10 (float64) or 1e-6 (float32), relative to its norm.
Computed in float32, the faster forms may be off by twice what the reference in float32 is off, or by 1e-7 of the norm.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fastzss import kernels
from fastzss.batch import Texts, collate, offsets
from fastzss.objective import simzss
from fastzss.text import positions

FOLDER = Path(os.environ.get("FASTZSS_GOLDENS") or Path(__file__).parent / "goldens")
FILES = sorted(FOLDER.glob("simzss_*.npz"))
FAMILIES = {"ref": "argmax", "lab": "label"}
SINGLE = [(f, family) for f in FILES for family in FAMILIES if f"{family}_loss_total" in np.load(f)]
RANKS = [(f, family) for f in FILES for family in FAMILIES if f"{family}_grad_mean_tokens" in np.load(f)]


def close(found, golden):
    tolerance = 1e-6 if golden.dtype == np.float32 else 1e-10
    off, size = gap(found, golden), np.linalg.norm(golden)
    assert off <= max(tolerance * size, 1e-12), f"off by {off:.3g} of {size:.3g}"


def gap(found, golden):
    golden = torch.as_tensor(golden).double()
    assert found.shape == golden.shape
    return (found.detach().double() - golden).norm().item()


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


@pytest.fixture(params=["reference", "chunked"])
def backend(request, monkeypatch):
    monkeypatch.setenv("FASTZSS_BACKEND", request.param)


def outputs(z, family, dtype=torch.float64):
    """Yield (golden, what we make of its inputs) for every loss and gradient that the file holds."""
    tokens, log_scale, patches, images = inputs(z, dtype)
    texts = texts_of(z)
    batch = collate(texts, np.arange(len(texts)))
    weight = float(z["in_lambda"])
    losses = simzss(
        units_of(tokens, batch),
        batch,
        patches,
        images,
        log_scale,
        local_weight=weight,
        temperature=float(z["in_temp_pool"]),
        target=FAMILIES[family],
    )
    for part, loss in [("global", losses.loss_global), ("local", losses.loss_local), ("total", losses.loss)]:
        yield z[f"{family}_loss_{part}"][()], loss
        gradients = torch.autograd.grad(loss, [tokens, log_scale], retain_graph=True, allow_unused=True)
        for what, gradient in zip(["tokens", "logit_scale"], gradients, strict=True):
            name = f"{family}_grad_{part}_{what}"
            if name in z:
                yield z[name], torch.zeros_like(tokens) if gradient is None else gradient


@pytest.mark.parametrize("file, family", SINGLE, ids=name)
def test_losses_and_gradients_are_the_golden_ones(file, family, backend):
    for golden, found in outputs(np.load(file), family):
        close(found, golden)


@pytest.mark.parametrize("file, family", SINGLE, ids=name)
def test_in_float32_the_chunked_form_is_as_good_as_the_plain_one(file, family, monkeypatch):
    off = {}
    for form in ("reference", "chunked"):
        monkeypatch.setenv("FASTZSS_BACKEND", form)
        off[form] = [
            gap(found, golden) / max(np.linalg.norm(golden), 1e-12)
            for golden, found in outputs(np.load(file), family, torch.float32)
        ]
    for plain, chunked in zip(off["reference"], off["chunked"], strict=True):
        assert chunked <= max(2 * plain, 1e-7)


@pytest.mark.parametrize("file, family", RANKS, ids=name)
def test_the_ranks_of_the_released_code(file, family, backend):
    """There each rank has class vectors of its own, and a class present only elsewhere keeps the logit 0."""
    z = np.load(file)
    tokens, log_scale, patches, images = inputs(z)
    texts = texts_of(z)
    world = int(z["in_world_size"])
    share = len(texts) // world
    names = int(z["in_n_classes"])
    present = torch.zeros(names, dtype=torch.bool)
    present[texts.name] = True
    totals = []
    for rank in range(world):
        batch = collate(texts, np.arange(len(texts)), rank, world)
        units = units_of(tokens, batch, batch.first)
        captions = F.normalize(tokens[torch.arange(len(texts)), torch.tensor(z["in_text_ids"].argmax(1))], dim=-1)
        logits = log_scale.exp() * F.normalize(images, dim=-1) @ captions.T
        own = torch.arange(batch.first, batch.first + share)
        globally = (F.cross_entropy(logits[own], own) + F.cross_entropy(logits.T[own], own)) / 2
        name = batch.name.long()
        token = torch.arange(share, len(units))
        classes = kernels.class_vectors(units, token, batch.offset, name, names)
        pooled = kernels.concept_pool(
            classes, patches, batch.row[batch.first + batch.caption], name, float(z["in_temp_pool"])
        )
        locally = kernels.concept_loss(
            pooled, classes, present, name, batch.weight, float(z["in_logit_scale_local"]), target=FAMILIES[family]
        )
        total = globally + float(z["in_lambda"]) * locally
        for part, loss in [("global", globally), ("local", locally), ("total", total)]:
            if f"{family}_rank{rank}_loss_{part}" in z:
                close(loss, z[f"{family}_rank{rank}_loss_{part}"][()])
        totals.append(total)
    gradient = torch.autograd.grad(sum(totals) / world, tokens)[0]
    close(gradient, z[f"{family}_grad_mean_tokens"])


def test_the_folder_holds_goldens():
    assert SINGLE or RANKS, f"no simzss_*.npz in {FOLDER}"
