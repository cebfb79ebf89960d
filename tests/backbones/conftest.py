"""Backbones that the tests here share."""

import pytest
import timm
import torch
from helpers.backbones import SMALL

from fastzss.backbones import load_vision


@pytest.fixture(scope="module")
def small():
    return load_vision("tiny")


@pytest.fixture
def other_weights():
    """State of the toy model with weights that no seed of ours gives."""
    with torch.random.fork_rng():
        torch.manual_seed(1234)
        return timm.create_model(SMALL, pretrained=False).state_dict()
