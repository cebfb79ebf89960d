"""A training of the words that captions have is the training of the whole table: when it goes on, and to who looks."""

from contextlib import contextmanager
from dataclasses import replace
from unittest import mock

import pytest
import torch
from helpers.trainings import interrupted_after
from safetensors.torch import load_file

from fastzss.base.errors import UserError
from fastzss.base.ranks import Ranks
from fastzss.base.runs import Run
from fastzss.captions.tokens import Tokenizer
from fastzss.methods.registry import load
from fastzss.methods.simzss.loader import Loader
from fastzss.methods.simzss.task import SimZSSTask
from fastzss.text.tower import VOCABULARY
from fastzss.training.loop import train
from fastzss.training.step import Trainer
from fastzss.training.validation import Validation

TABLE = "text.token_embedding.weight"


@contextmanager
def the_whole_table():
    """Training as it was before: an embedding of all words, and AdamW on all of it."""
    with mock.patch.object(SimZSSTask, "keep_to_own_words", lambda self: {}):
        yield


def written(config):
    """(weights, optimiser) of a run's newest checkpoint."""
    folder = Run.open(config.out).latest
    return load_file(folder / "model.safetensors"), load_file(folder / "optimizer.safetensors")


def whole_moments(moments):
    """As a training of the whole table has them: 0 for the words that learned nothing."""
    words = moments.pop(f"words.{TABLE}")
    for key in ("exp_avg", "exp_avg_sq"):
        rows = moments[f"{key}.{TABLE}"]
        moments[f"{key}.{TABLE}"] = rows.new_zeros(VOCABULARY, rows.shape[1]).index_copy_(0, words, rows)
    return moments


def same(found, expected, tolerance=0.0):
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name, value in other.items():
            assert one[name].shape == value.shape and (one[name] - value).abs().max() <= tolerance, name


@pytest.fixture
def decaying(config):
    """Words that only decay lose a hundredth in 20 steps."""
    return replace(config, weight_decay=1.0)


def test_a_run_is_that_of_the_whole_table(decaying, tmp_path):
    train(decaying)
    whole = replace(decaying, out=tmp_path / "whole")
    with the_whole_table():
        train(whole)
    weights, moments = written(decaying)
    same((weights, whole_moments(moments)), written(whole), tolerance=1e-12)
    words = torch.tensor(Loader(decaying.store, decaying.batch).texts.ids).unique()
    others = torch.ones(VOCABULARY, dtype=torch.bool).index_fill(0, words.long(), False)
    with the_whole_table():
        begun = Trainer(decaying, Ranks("cpu")).learner.state_dict()[TABLE]
    ratio = written(decaying)[0][TABLE][others] / begun[others]
    assert ratio.max() < 0.992 and ratio.min() == pytest.approx(ratio.max().item(), rel=1e-12)


def test_a_stopped_run_goes_on_bit_for_bit(decaying, tmp_path):
    """Weights and moments, of the words that only decay too; it stops where no checkpoint was due."""
    train(decaying)
    stopped = replace(decaying, out=tmp_path / "stopped")
    for step in (3, 13):
        with pytest.raises(UserError, match="stopped at step"), interrupted_after(step):
            train(stopped)
    train(stopped)
    same(written(stopped), written(decaying))


def test_a_run_begun_with_the_whole_table_goes_on(decaying, tmp_path):
    train(decaying)
    older = replace(decaying, out=tmp_path / "older")
    with the_whole_table(), pytest.raises(UserError, match="stopped at step"), interrupted_after(11):
        train(older)
    train(older)
    same(written(older), written(decaying), tolerance=1e-12)


def test_an_evaluation_reads_words_that_no_caption_has_as_they_are_now(config, monkeypatch):
    names, seen = ["zebra", "grand piano"], []
    known = set(Loader(config.store, config.batch).texts.ids.tolist())
    assert not known & {token for name in names for token in Tokenizer()(name).ids[1:-1]}
    real = Validation.scores

    def scores(self):
        seen.append(self.task.classifier().class_vectors(names))
        return real(self)

    monkeypatch.setattr(Validation, "scores", scores)
    train(
        replace(
            config, steps=6, eval_every=2, checkpoint_every=2, keep=3, eval_data="world:validation,n=2",
            precision="float32", weight_decay=200.0,
        )
    )  # fmt: skip
    for step, found in zip((2, 4, 6), seen, strict=True):
        assert torch.equal(found, load(config.out, "cpu", checkpoint=f"step-{step:06d}").class_vectors(names))
    assert (seen[0] - seen[1]).abs().max() > 1e-3
