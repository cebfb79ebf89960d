"""Naming without a class list: regions, the names they get, and that nothing is left to chance."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import fastzss
from fastzss import world
from fastzss.bank import Bank
from fastzss.base.runs import Run
from fastzss.evaluation.datasets.world import world_set
from fastzss.masks.naming import Namer, cluster
from fastzss.world.captions import SYNONYMS


@pytest.fixture(scope="module")
def namer(trained):
    return Namer(fastzss.load(trained, device="cpu"), Bank.from_json(Run.open(trained).bank))


def test_clusters_are_the_heaps_that_are_there():
    random = torch.Generator().manual_seed(0)
    heaps = F.normalize(torch.randn(4, 16, generator=random), dim=-1)
    member = torch.randint(4, (300,), generator=random)
    points = F.normalize(heaps[member] + 0.1 * torch.randn(300, 16, generator=random), dim=-1)
    centres = cluster(points, 4)
    nearest = (points @ centres.T).argmax(1)
    assert len(centres) == 4
    for heap in range(4):
        assert len(nearest[member == heap].unique()) == 1
    assert torch.equal(centres, cluster(points, 4)), "the same every time"
    assert len(cluster(points[:3], 8)) <= 3
    assert len(cluster(points[:1].expand(50, -1), 8)) == 1, "points that are all alike are one cluster"


def test_every_pixel_gets_a_name_of_the_bank(namer, tmp_path):
    image = world.scene("test", 3).image.resize((200, 150))
    image.save(tmp_path / "scene.png")
    result = namer.name(tmp_path / "scene.png")
    assert result.mask.shape == (150, 200) and result.mask.max() < len(result.names)
    assert set(result.names) <= set(namer.bank.names) and len(set(result.names)) == len(result.names)
    assert sum(seen["share"] for seen in result.scores.values()) == pytest.approx(1)
    assert set(result.scores) == set(result.others)
    for name, seen in result.scores.items():
        assert name not in dict(result.others[name])
        assert seen["confidence"] >= max(score for _, score in result.others[name])
    again = namer.name(image)
    assert np.array_equal(result.mask, again.mask) and result.names == again.names
    result.save(tmp_path / "named.png")
    assert np.array_equal(np.array(Image.open(tmp_path / "named.mask.png")), result.mask)


def test_regions_are_at_most_as_many_as_asked_for(namer):
    image = world.scene("test", 5).image
    assert len(namer.name(image, 1).names) == 1
    assert len(namer.name(image, 3).names) <= 3


def test_names_are_right_more_often_than_any_one_name_would_be(namer):
    """Sixteen scenes; a name counts as its class when it is a word for it."""
    data = world_set("world:test,n=16")
    classes = {name: k for k, name in enumerate(data.names)}
    meant = classes | {other: classes[name] for name, others in SYNONYMS.items() for other in others}
    right, counts = 0, np.zeros(len(data.names))
    for index in range(len(data)):
        image, truth = data.read(index)
        result = namer.name(image)
        right += (np.array([meant.get(name, -1) for name in result.names])[result.mask] == truth).sum()
        counts += np.bincount(truth.ravel(), minlength=len(counts))
    assert right / counts.sum() > counts.max() / counts.sum()
