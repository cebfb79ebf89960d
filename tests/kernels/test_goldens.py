"""The losses and gradients of SimZSS against golden numbers made from the semantics of the authors' released code.

Reads every simzss_*.npz of tests/goldens, or of the folder in FASTZSS_GOLDENS.  Files may leave out outputs and may
hold 2-d and larger arrays as float32; an output is judged to 1e-10 (float64) or 1e-6 (float32), relative to its norm.
Computed in float32, the faster forms may be off by twice what the reference in float32 is off, or by 1e-7 of the norm.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.goldens import FAMILIES, FOLDER, RANKS, SINGLE, inputs, name, outputs, texts_of, units_of

from fastzss import kernels
from fastzss.methods.simzss.batch import collate


def close(found, golden):
    tolerance = 1e-6 if golden.dtype == np.float32 else 1e-10
    off, size = gap(found, golden), np.linalg.norm(golden)
    assert off <= max(tolerance * size, 1e-12), f"off by {off:.3g} of {size:.3g}"


def gap(found, golden):
    golden = torch.as_tensor(golden).double()
    assert found.shape == golden.shape
    return (found.detach().double() - golden).norm().item()


@pytest.fixture(params=["reference", "chunked"])
def backend(request, monkeypatch):
    monkeypatch.setenv("FASTZSS_BACKEND", request.param)


def judged(z, family, dtype=torch.float64):
    """(golden, what we make of its inputs) of every loss, and of every gradient that the file holds."""
    found = outputs(z, family, dtype)
    return [(z[key][()], value) for key, value in found.items() if key in z or "_loss_" in key]


@pytest.mark.parametrize("file, family", SINGLE, ids=name)
def test_losses_and_gradients_are_the_golden_ones(file, family, backend):
    for golden, found in judged(np.load(file), family):
        close(found, golden)


@pytest.mark.parametrize("file, family", SINGLE, ids=name)
def test_in_float32_the_chunked_form_is_as_good_as_the_plain_one(file, family, monkeypatch):
    off = {}
    for form in ("reference", "chunked"):
        monkeypatch.setenv("FASTZSS_BACKEND", form)
        off[form] = [
            gap(found, golden) / max(np.linalg.norm(golden), 1e-12)
            for golden, found in judged(np.load(file), family, torch.float32)
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
        classes = kernels.class_vectors(units[share:], batch.offset, name, names)
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
