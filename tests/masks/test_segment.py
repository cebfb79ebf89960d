"""Segmentation and evaluation of a trained run."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import fastzss
from fastzss import world
from fastzss.backbones.vision import as_tensor
from fastzss.base.errors import UserError
from fastzss.evaluation.datasets.world import world_set
from fastzss.evaluation.evaluate import evaluate, judged
from fastzss.evaluation.looks import Looks
from fastzss.evaluation.oracles import ceiling, class_means, shares_of
from fastzss.masks import segment
from fastzss.masks.field import Field
from fastzss.masks.inference import PLAIN
from fastzss.masks.windows import possible, resized, window_starts, winners
from fastzss.training.loop import train
from fastzss.training.settings import TrainConfig


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
    names, model.words.templates = ["boat", "red house"], ("{}",)
    found, both = model.class_vectors(names, "concept"), model.class_vectors(names, "both")
    for vector, mixed, name in zip(found, both, names, strict=True):
        ids = torch.tensor([model.words.tokenizer(name).ids])
        tokens = model.words.tower(ids, torch.zeros_like(ids, dtype=torch.int32))
        tokens = F.normalize(tokens @ model.words.tower.text_projection, dim=-1)
        assert torch.allclose(vector, F.normalize(tokens[1:-1].sum(0), dim=0), atol=1e-5)
        eot = model.class_vectors([name], "eot")[0]
        assert torch.allclose(eot, tokens[-1], atol=1e-5)
        assert torch.allclose(mixed, F.normalize(vector + eot, dim=0), atol=1e-5)


def test_several_templates_are_averaged(model):
    single = []
    for template in ("a photo of a {}.", "{} on a car"):
        model.words.templates = (template,)
        single.append(model.class_vectors(["car", "fish"]))
    model.words.templates = ("a photo of a {}.", "{} on a car")
    together = model.class_vectors(["car", "fish"])
    model.words.templates = ("{}",)
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
    vocabulary = model.vocabulary(["tree", "grass"], PLAIN)
    assert torch.allclose(vocabulary.scores(vocabulary.see(model.vision, image)), plain, atol=1e-6)


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
    assert torch.allclose(best, whole.max(0).values, rtol=0, atol=1e-6)  # products of fewer classes round otherwise
    assert torch.allclose(whole.gather(0, winner[None].long())[0], best, rtol=0, atol=1e-6)


def test_classes_that_can_win_nowhere_are_not_brought_to_the_image():
    scores = torch.randn(40, 6, 9, generator=torch.Generator().manual_seed(1))
    scores[::2] -= 4  # half of them are far behind
    kept = possible(scores)
    whole = resized(scores, (71, 90))
    assert set(whole.argmax(0).unique().tolist()) <= set(kept.tolist()) and len(kept) <= 25
    assert torch.equal(winners(scores, (71, 90))[1], whole.argmax(0))
    # A wins left, C right; between them B, second everywhere, is in front
    between = torch.tensor([[1.0, 0.0], [0.6, 0.6], [0.0, 1.0]]).unsqueeze(1)
    assert possible(between).tolist() == [0, 1, 2]
    assert winners(between, (1, 20))[1][0, 10] == 1


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

    class Oracle(Looks):
        def seen(self, loaded):
            return [self.one(truth) for _, truth in loaded]

        def one(self, truth):
            shares = shares_of(truth, K, (16, 16)).flatten(1).T
            field = Field(shares, (16, 16), 8, torch.zeros(3, 128, 128, dtype=torch.uint8))
            return lambda dense: field, truth

    perfect = SimpleNamespace(inference=PLAIN, scores=lambda field: field.maps(field.patches))
    scores = judged(Oracle(data, None), {"identity": perfect})["identity"]
    assert scores == ceiling(16, data)


def test_images_in_every_form_give_the_same_mask_and_lists_give_lists(model, tmp_path):
    image = world.scene("test", 4).image
    image.save(tmp_path / "a.png")
    pixels = np.array(image)
    forms = [tmp_path / "a.png", (tmp_path / "a.png").read_bytes(), pixels, torch.from_numpy(pixels).permute(2, 0, 1)]
    expected = model.segment(image, "tree, grass, sky").mask
    results = model.segment(forms, ["tree", "grass", "sky"])
    assert len(results) == len(forms) and all(np.array_equal(result.mask, expected) for result in results)
    with open(tmp_path / "a.png", "rb") as opened:
        assert np.array_equal(model.segment(opened, "tree, grass, sky").mask, expected)
    assert [type(r) for r in model.segment(iter([image]), "tree")] == [type(results[0])]
    assert model.segment([], "tree") == []
    with pytest.raises(TypeError, match="an image is given as int; expected a path"):
        model.segment([image, 3], "tree")


def test_a_class_is_the_mean_of_its_aliases_and_prompts(model):
    single = model.class_vectors(["car", "automobile", "fish"])
    found = model.embed_text("car|automobile, fish")
    expected = F.normalize(torch.stack([single[0] + single[1], single[2]]), dim=-1)
    assert torch.allclose(found, expected, atol=1e-5)

    prompts = {"fish": ["a photo of a {}.", "a fish"]}
    parts = [model.words.class_vectors(["fish"], templates=("a photo of a {}.",)),
             model.words.class_vectors(["a fish"], templates=("{}",))]  # fmt: skip
    assert torch.allclose(model.embed_text(prompts), F.normalize(sum(parts), dim=-1), atol=1e-5)


def test_vectors_of_words_are_kept_and_bounded(model, monkeypatch):
    asked, words = [], model.words.class_vectors
    monkeypatch.setattr(
        model.words, "class_vectors", lambda names, *a, **k: asked.extend(names) or words(names, *a, **k)
    )
    monkeypatch.setattr(segment, "REMEMBERED", 3)
    model._vectors.clear()
    first = model.embed_text("one, two")
    assert asked == ["one", "two"]
    assert torch.equal(model.embed_text("one, two"), first) and asked == ["one", "two"]
    model.embed_text("two, three, four")
    assert asked == ["one", "two", "three", "four"] and len(model._vectors) == 3
    model.embed_text([f"thing {k}" for k in range(9)])
    assert len(model._vectors) == 3
    model.words.templates = ("the {}",)
    assert not torch.equal(model.embed_text("one"), first[:1]), "other templates, other vectors"
    model.words.templates = ("{}",)


def test_an_image_becomes_patches_and_global_vectors(model):
    image = world.scene("test", 6).image
    patches, pooled = model.embed_image(image)
    own, globals_ = model.vision(model.vision.pixels(image)[None])
    assert patches.shape == (16, 16, 128) and torch.allclose(patches.flatten(0, 1), own[0], atol=1e-5)
    assert torch.allclose(pooled, globals_[0]) and len(pooled) == len(model.vision.globals)
    wide, _ = model.embed_image(image.resize((256, 128)))
    assert wide.shape == (16, 32, 128) and torch.allclose(wide.norm(dim=-1), torch.ones(16, 32), atol=1e-5)


def test_a_model_names_what_it_sees_by_the_bank_of_its_run(model):
    result = model.name(world.scene("test", 2).image, regions=4)
    assert set(result.names) <= set(model.bank.names) and len(result.names) <= 4
    with pytest.raises(UserError, match="no bank"):
        segment.Model(model.vision, model.words).name(world.scene("test", 2).image)


@pytest.mark.parametrize("size", [(1, 1), (16, 1), (17, 1), (2000, 3), (50, 8000), (640, 480)])
def test_pieces_cover_an_image_once(size):
    seen = np.zeros(size[::-1], int)
    for (left, top, right, bottom), part in segment.pieces(Image.new("L", size)):
        assert part.size == (right - left, bottom - top)
        seen[top:bottom, left:right] += 1
        assert max(right - left, bottom - top) <= 16 * min(size)
    assert (seen == 1).all()


def test_a_very_long_image_is_segmented_in_pieces(model):
    image = world.scene("test", 6).image.resize((40, 40))
    long = Image.new("RGB", (40 * 20, 40))
    for k in range(20):
        long.paste(image, (40 * k, 0))
    result = model.segment(long, "tree, water, sky")
    assert np.array_equal(result.mask[:, :640], model.segment(long.crop((0, 0, 640, 40)), "tree, water, sky").mask)
    assert np.array_equal(result.probabilities().argmax(0), result.mask)
    assert all(maps.shape[1:] == (40, right - left) for (left, _, right, _), maps in result.parts)


def test_many_classes_are_uint16(model):
    names = [f"thing {k}" for k in range(400)]
    result = model.segment(world.scene("test", 6).image, names)
    assert result.mask.dtype == np.uint16 and result.mask.max() < 400
