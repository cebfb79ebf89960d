"""Segmentation and evaluation of a trained run."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import fastzss
from fastzss import world
from fastzss.errors import UserError
from fastzss.evaluate import ceiling, class_means, evaluate
from fastzss.protocols import EvaluationSet, world_set
from fastzss.segment import check_classes, resized, similarity, window_starts, winners
from fastzss.settings import TrainConfig
from fastzss.training import train
from fastzss.vision import as_tensor


@pytest.fixture(scope="module")
def run(store, tmp_path_factory):
    out = tmp_path_factory.mktemp("segment") / "run"
    train(
        TrainConfig(
            store=store,
            out=out,
            text="tiny",
            batch=32,
            steps=60,
            lr=2e-3,
            local_weight=1.0,
            global_feature="patch-mean",
            device="cpu",
        )  # fmt: skip
    )
    return out


@pytest.fixture(scope="module")
def model(run):
    return fastzss.load(run, device="cpu")


def test_a_result_says_what_is_where(model, tmp_path):
    scene = world.scene("test", 3)
    result = model.segment(scene.image, ["Brick", "a  boat", "sand"])
    assert result.names == ("Brick", "a boat", "sand")
    assert result.mask.shape == (128, 128) and result.mask.dtype == np.uint8
    assert sum(s["share"] for s in result.scores.values()) == pytest.approx(1)
    for k, name in enumerate(result.names):
        assert result.scores.get(name, {"share": 0})["share"] == pytest.approx((result.mask == k).mean())
    result.save(tmp_path / "scene.png")
    assert np.array_equal(np.array(Image.open(tmp_path / "scene.mask.png")), result.mask)
    assert Image.open(tmp_path / "scene.png").size[0] >= 128


def test_any_size_and_a_file(model, tmp_path):
    image = world.scene("test", 0).image
    image.resize((301, 97)).save(tmp_path / "wide.png")
    result = model.segment(tmp_path / "wide.png", ["tree", "water"])
    assert result.mask.shape == (97, 301)
    whole = model.segment(image.resize((1, 1)), ["tree", "water"])
    assert whole.mask.shape == (1, 1)


def test_one_class_takes_all(model):
    assert (model.segment(world.scene("test", 1).image, "sky").mask == 0).all()


def test_the_concept_readout_is_the_normalised_sum_of_its_words(model):
    """By hand: each name tokenised alone, its own tokens projected, normalised, summed."""
    names, model.templates = ["boat", "red house"], ("{}",)
    found, both = model.class_vectors(names, "concept"), model.class_vectors(names, "both")
    for vector, mixed, name in zip(found, both, names, strict=True):
        ids = torch.tensor([model.tokenizer(name).ids])
        tokens = model.tower(ids, torch.zeros_like(ids, dtype=torch.int32))
        tokens = F.normalize(tokens @ model.tower.text_projection, dim=-1)
        assert torch.allclose(vector, F.normalize(tokens[1:-1].sum(0), dim=0), atol=1e-5)
        eot = model.class_vectors([name], "eot")[0]
        assert torch.allclose(eot, tokens[-1], atol=1e-5)
        assert torch.allclose(mixed, F.normalize(vector + eot, dim=0), atol=1e-5)


def test_several_templates_are_averaged(model):
    single = []
    for template in ("a photo of a {}.", "{} on a car"):
        model.templates = (template,)
        single.append(model.class_vectors(["car", "fish"]))
    model.templates = ("a photo of a {}.", "{} on a car")
    together = model.class_vectors(["car", "fish"])
    model.templates = ("{}",)
    assert torch.allclose(together, F.normalize(sum(single) / 2, dim=-1), atol=1e-6)


@pytest.mark.parametrize("length", [128, 129, 180, 192, 193, 256, 1000])
def test_windows_cover_an_image_and_stay_inside(length):
    starts = window_starts(length, 128)
    seen = np.zeros(length)
    for start in starts:
        assert 0 <= start <= length - 128
        seen[start : start + 128] += 1
    assert seen.min() >= 1
    assert len(set(starts)) == len(starts)
    assert max(np.diff(starts), default=0) <= 64


def test_one_window_is_the_plain_comparison(model):
    image = world.scene("test", 5).image
    vectors = model.class_vectors(["tree", "grass"])
    patches, _ = model.vision(as_tensor(image)[None])
    plain = F.interpolate((patches[0] @ vectors.T).T.view(1, 2, 16, 16), (128, 128), mode="bilinear")[0]
    assert torch.allclose(similarity(model.vision, image, vectors), plain, atol=1e-6)


@pytest.mark.parametrize("size", [(16, 16), (128, 128), (128, 200), (7, 33), (16, 5), (1, 1)])
def test_maps_are_resized_as_pytorch_does_it(size):
    maps = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(0))
    plain = F.interpolate(maps[None], size, mode="bilinear")[0]
    assert torch.allclose(resized(maps, size), plain, atol=1e-6)
    assert resized(maps.half(), size).dtype == torch.half


@pytest.mark.parametrize("classes", [1, 15, 16, 17, 40])
def test_winners_are_the_largest_of_all_classes(classes):
    scores = torch.randn(classes, 5, 7, generator=torch.Generator().manual_seed(0))
    best, winner = winners(scores, (23, 18))
    whole = resized(scores, (23, 18))
    assert torch.equal(best, whole.max(0).values)
    assert torch.equal(winner, whole.argmax(0))


@pytest.mark.parametrize(
    "classes, sentence",
    [("", "class list is empty"), (" , ,", "class list is empty"), ([], "class list is empty"),
     ([f"thing {i}" for i in range(300)], "300 classes; a mask holds at most 255")],
)  # fmt: skip
def test_class_lists_are_checked(classes, sentence):
    with pytest.raises(UserError, match=sentence):
        check_classes(classes)
    assert check_classes("dog,  red   car ,dog") == ("dog", "red car")


def test_an_unreadable_image_is_named(model, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match="broken.jpg: not a readable image"):
        model.segment(tmp_path / "broken.jpg", ["tree"])


def test_a_moved_or_empty_run_is_named(tmp_path):
    with pytest.raises(UserError, match="no such run"):
        fastzss.load(tmp_path / "nothing")
    with pytest.raises(UserError, match="is no run"):
        fastzss.load(tmp_path)


def test_one_look_scores_many_classifiers_and_knows_the_best(model):
    data = world_set("world:test,n=12")
    true = class_means(model.vision, world_set("world:train,n=30"))
    chance = F.normalize(torch.randn(true.shape, generator=torch.Generator().manual_seed(0)), dim=-1)
    scores = evaluate(model.vision, {"means": true, "chance": chance, "text": model.class_vectors(data.names)}, data)
    top = ceiling(16, data)
    assert scores["chance"]["all"] < 0.5 * scores["text"]["all"]
    assert scores["chance"]["all"] < scores["means"]["all"] < top["all"] < 100
    alone = evaluate(model.vision, {"text": model.class_vectors(data.names)}, data)["text"]
    assert alone == scores["text"]
    things = [c for c in scores["text"]["classes"][: len(world.THINGS)] if c is not None]
    assert scores["text"]["things"] == pytest.approx(np.mean(things))


def test_a_perfect_classifier_reaches_the_ceiling_of_its_grid():
    """Features that carry the class exactly: only the coarseness of the grid is lost."""
    data = world_set("world:test,n=6")
    K = len(data.names)

    class Oracle:
        size, grid, channels = 128, (16, 16), K

        def resize(self, image):
            return image

        def __call__(self, pixels):
            from fastzss.evaluate import shares_of

            return shares_of(self.truth, K, self.grid).flatten(1).T[None], None

    oracle = Oracle()

    def read(index):
        image, oracle.truth = data.read(index)
        return image, oracle.truth

    seen = EvaluationSet(data.names, data.groups, data.ids, read)
    scores = evaluate(oracle, {"identity": torch.eye(K)}, seen)["identity"]
    assert scores == ceiling(16, data)
