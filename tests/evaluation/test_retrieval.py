"""Recall and zero-shot classification, against ranks counted by hand and images painted by a known rule."""

import pytest
import torch
import torch.nn.functional as F

import fastzss
from fastzss import world
from fastzss.base.errors import UserError
from fastzss.base.runs import Run
from fastzss.evaluation.protocols import protocol_of
from fastzss.evaluation.retrieval import classified, recall, retrieval


def test_recall_of_vectors_whose_ranks_are_known():
    """Two images, three captions: the second image's own are both nearer to the first."""
    images = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    captions = F.normalize(torch.tensor([[1.0, 0.1], [1.0, 0.3], [1.0, 0.2]]), dim=-1)
    found = recall(images, captions, torch.tensor([0, 1, 1]))
    assert found["text to image"] == pytest.approx({"recall@1": 100 / 3, "recall@5": 100, "recall@10": 100})
    # of the second image the caption [1, 0.3] is its own, and nearest of all; the first has its own nearest too
    assert found["image to text"] == {"recall@1": 100, "recall@5": 100, "recall@10": 100}


def test_recall_is_that_of_a_sort():
    torch.manual_seed(0)
    images, captions = (F.normalize(torch.randn(n, 8), dim=-1) for n in (40, 1200))
    own = torch.randint(40, (1200,))
    own[:40] = torch.arange(40)
    found, nearness = recall(images, captions, own), captions @ images.T
    order = nearness.argsort(1, descending=True)
    for k in (1, 5, 10):
        hit = (order[:, :k] == own[:, None]).any(1).double().mean() * 100
        assert found["text to image"][f"recall@{k}"] == pytest.approx(hit.item())
        top = nearness.T.argsort(1, descending=True)[:, :k]
        hit = (own[top] == torch.arange(40)[:, None]).any(1).double().mean() * 100
        assert found["image to text"][f"recall@{k}"] == pytest.approx(hit.item())


def test_a_trained_run_finds_its_own_captions_better_than_chance(trained, store):
    model, run = fastzss.load(trained, "cpu"), Run.open(trained)
    found = retrieval(model, run, store)
    assert found["images"] == 80 and found["captions"] > 80
    assert found["text to image"]["recall@10"] > 2 * 100 * 10 / 80
    assert found["text to image"]["recall@1"] <= found["text to image"]["recall@5"]


@pytest.fixture
def classes(tmp_path):
    """Plain pictures, in folders that are named as what is in them."""
    for number, name in enumerate(("grass", "red_ball")):
        (tmp_path / name).mkdir()
        for index in range(2):
            world.scene("test", 2 * number + index).image.save(tmp_path / name / f"{index}.png")
    return tmp_path


def test_images_of_a_folder_are_classified(trained, classes):
    model, run, protocol = fastzss.load(trained, "cpu"), Run.open(trained), protocol_of("world")
    found = classified(model, run, classes, protocol)
    assert found["images"] == 4 and list(found["classes"]) == ["grass", "red ball"] and found["top5"] == 100
    text = model.class_vectors(["grass", "red ball"], "eot", protocol.templates)
    looked = torch.stack([model.vision.pixels(world.scene("test", index).image) for index in range(4)])
    nearest = (F.normalize(model.vision(looked)[1][:, 1], dim=-1) @ text.T).argmax(1)
    right = (nearest == torch.tensor([0, 0, 1, 1])).tolist()
    assert found["top1"] == 100 * sum(right) / 4
    assert found["mean class accuracy"] == pytest.approx((found["classes"]["grass"] + found["classes"]["red ball"]) / 2)


def test_what_is_wrong_with_a_folder_is_said(trained, classes):
    model, run, protocol = fastzss.load(trained, "cpu"), Run.open(trained), protocol_of("world")
    with pytest.raises(UserError, match="no such folder"):
        classified(model, run, classes / "no", protocol)
    with pytest.raises(UserError, match="no images in folders; expected"):
        classified(model, run, classes / "grass", protocol)
    (classes / "grass" / "0.png").write_bytes(b"no")
    with pytest.raises(UserError, match="0.png: not a readable image.*--skip-bad"):
        classified(model, run, classes, protocol)
    assert classified(model, run, classes, protocol, skip=True)["bad"] == 1
