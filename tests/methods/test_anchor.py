"""What a head begins with: clusters of its store's patches."""

from dataclasses import replace

import pytest
import torch

from fastzss.base.ranks import Ranks
from fastzss.extraction.flow import extract
from fastzss.extraction.settings import ExtractConfig
from fastzss.methods.zeroseg.anchor import clusters
from fastzss.training.settings import TrainConfig
from fastzss.training.step import Trainer


def chosen():
    return torch.Generator().manual_seed(0)


def test_clusters_are_those_that_were_planted():
    middles = 10 * torch.randn(5, 8, generator=chosen())
    own = torch.randint(5, (400,), generator=chosen())
    points = middles[own] + 0.1 * torch.randn(400, 8, generator=torch.Generator().manual_seed(1))
    centres, distance = clusters(points, 5, chosen())
    nearest = torch.cdist(middles, centres).argmin(1)
    assert nearest.unique().numel() == 5
    means = torch.stack([points[own == number].mean(0) for number in range(5)])
    assert torch.allclose(centres[nearest], means, atol=1e-5)
    assert torch.allclose(distance, (points - means[own]).norm(dim=1), atol=1e-4)
    assert torch.equal(centres, clusters(points, 5, chosen())[0])


def test_there_are_no_more_clusters_than_points():
    points = torch.randn(3, 4, generator=chosen())
    centres, distance = clusters(points, 3, chosen())
    assert torch.equal(centres, points) and not distance.any()


def test_points_may_all_be_the_same():
    centres, distance = clusters(torch.ones(9, 4), 3, chosen())
    assert torch.equal(centres, torch.ones(3, 4)) and not distance.any()


@pytest.fixture(scope="module")
def viewed(tmp_path_factory):
    path = tmp_path_factory.mktemp("anchor") / "store"
    extract(ExtractConfig(source="world:train,n=16", store=path, teacher="tiny", views="1,2", bank="none"))
    return path


@pytest.mark.parametrize("student", ["frozen", "light"])
def test_a_head_begins_with_patches_in_their_nearest_cluster(viewed, tmp_path, student):
    config = TrainConfig(
        method="zeroseg", store=viewed, out=tmp_path / "run", student=student, groups="6,6", batch=8, steps=2, lr=1e-3,
        weight_decay=0.05, device="cpu",
        anchor="linear", places="clusters",
    )  # fmt: skip
    task = Trainer(config, Ranks("cpu")).task
    task.begin(True, 0)
    head, rows = task.learner, task.loader.pool[:4]
    x = task.loader.store.take(rows).take(torch.arange(4))
    with torch.no_grad():
        found = head(x)
    nearest = torch.cdist(head.standard(x), head.centres.expand(4, -1, -1)).argmin(2)
    assert torch.equal(found.first.argmax(1), nearest)
    assert torch.equal(found.second.argmax(1)[0].sort().values, torch.arange(6)), "each group is a segment of its own"
    assert nearest.unique().numel() > 2
    with torch.no_grad():
        other = Trainer(replace(config, places="random"), Ranks("cpu")).task.learner(x)
    assert not torch.equal(other.first.argmax(1), nearest)
