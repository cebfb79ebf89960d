"""A vocabulary: every step of an inference alone, together, and what becomes of places that are none of the classes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import fastzss
from fastzss import world
from fastzss.base.errors import UserError
from fastzss.masks.background import other_names
from fastzss.masks.inference import BACKGROUNDS, DEFAULT, PLAIN, Inference
from fastzss.masks.vocabulary import Vocabulary

STEPS = {"dense": True, "evidence": 0.3, "smoothing": 0.1, "refinement": 10}

NOTHING = 255  # in a mask of uint8


@pytest.fixture(scope="module")
def model(trained):
    return fastzss.load(trained, device="cpu")


@pytest.fixture(scope="module")
def image():
    return world.scene("test", 5).image


def scored(model, image, inference, names=world.NAMES):
    vocabulary = model.vocabulary(names, inference)
    return vocabulary.scores(vocabulary.see(model.vision, image))


def test_plain_is_the_similarity_of_words_and_patches(model, image):
    field = model.vocabulary(["tree"], PLAIN).see(model.vision, image)
    expected = field.maps(field.patches @ model.class_vectors(["tree", "sand"]).T)
    assert torch.allclose(scored(model, image, PLAIN, ["tree", "sand"]), expected, atol=1e-6)


@pytest.mark.parametrize("step", STEPS)
def test_every_step_alone_changes_scores_and_its_absence_changes_those_of_all(model, image, step):
    off = getattr(PLAIN, step)
    alone, rest = replace(PLAIN, **{step: STEPS[step]}), replace(DEFAULT, **{step: off})
    assert not torch.allclose(scored(model, image, alone), scored(model, image, PLAIN), atol=1e-3)
    assert not torch.allclose(scored(model, image, rest), scored(model, image, DEFAULT), atol=1e-3)


def test_without_a_memory_the_evidence_is_none(model, image):
    vectors = model.class_vectors(world.NAMES)
    silent = Vocabulary(world.NAMES, vectors, DEFAULT)
    field = silent.see(model.vision, image)
    assert torch.equal(silent.scores(field), scored(model, image, replace(DEFAULT, evidence=0)))


def test_shares_are_shares_and_the_same_again(model, image):
    found = scored(model, image, DEFAULT)
    assert found.shape == (len(world.NAMES), 128, 128) and found.amin() >= 0
    assert found.sum(0).max() <= 1 + 1e-4  # less where a class that cannot win was left out
    assert torch.equal(found, scored(model, image, DEFAULT))


def test_a_second_vocabulary_asks_the_memory_nothing_again(model, image, monkeypatch):
    asked, real = [], model.memory.evidence
    monkeypatch.setattr(model.memory, "evidence", lambda patches: asked.append(len(patches)) or real(patches))
    first, second = model.vocabulary(["tree", "sand"]), model.vocabulary(["water", "kite", "sky"])
    field = first.see(model.vision, image)
    first.scores(field)
    own = second.scores(field)
    assert asked == [32 * 32]
    assert torch.equal(own, second.scores(second.see(model.vision, image)))


@pytest.mark.parametrize("kind", BACKGROUNDS)
def test_a_class_that_is_not_there_paints_nothing_where_there_is_a_background(model, kind):
    """Scenes without the class, and those with it: a background takes more of the first than of the second."""
    inference, shares = replace(DEFAULT, background=kind), {True: [], False: []}
    for index in range(24):
        scene = world.scene("validation", index)
        for name in ("grass", "brick"):
            painted = model.segment(scene.image, [name], inference).mask
            there = scene.mask == world.NAMES.index(name)
            assert set(np.unique(painted)) <= {0, NOTHING}
            for inside in (True, False):
                shares[inside] += (painted[there == inside] == 0).tolist()
    inside, outside = (np.mean(shares[part]) for part in (True, False))
    if kind == "none":
        assert inside == outside == 1
    else:
        assert inside > 0.6 and outside < 0.35


def test_with_prob_a_class_needs_more_than_half(model, image):
    """Less is a class than with `words`, and nothing is one that was none there."""
    masks = [model.segment(image, ["tree", "sand", "brick"], replace(DEFAULT, background=b)).mask
             for b in ("words", "prob")]  # fmt: skip
    assert (masks[0][masks[1] != NOTHING] == masks[1][masks[1] != NOTHING]).all()
    found = scored(model, image, replace(DEFAULT, background="prob"), ["tree", "sand", "brick"])
    assert len(found) == 4 and (found[3] == 0.5).all()


def test_the_words_of_a_background_are_those_that_are_no_class(model):
    names = model.memory.names
    rows = other_names(["blue tree", "sand"], model.class_vectors(["blue tree", "sand"]), model.memory)
    assert {"tree", "sand"} & {names[row] for row in rows} == set() and len(rows) >= len(names) - 6


@pytest.mark.parametrize("kind", ["threshold", "prob", "words"])
def test_a_background_needs_a_memory_and_says_so(model, kind):
    with pytest.raises(UserError, match=f"background {kind} asks the run's patch memory, and this run has none"):
        Vocabulary(["tree"], model.class_vectors(["tree"]), replace(DEFAULT, background=kind))


@pytest.mark.parametrize(
    "change", [{"background": "black"}, {"smoothing": -1}, {"refinement": float("nan")}, {"temperature": 0}]
)
def test_settings_that_mean_nothing_are_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        Inference(**change)


def test_the_record_is_plain_and_makes_the_inference_again():
    record = DEFAULT.record
    assert record["dilations"] == list(DEFAULT.dilations)
    assert Inference(**record | {"dilations": tuple(record["dilations"])}) == DEFAULT
