"""Held-out images: which they are, and that no training learns from them."""

from dataclasses import replace

import numpy as np
import pytest

from fastzss.base.errors import UserError
from fastzss.base.ranks import Ranks
from fastzss.base.runs import Run
from fastzss.methods.held_out import held_out
from fastzss.training.loop import train
from fastzss.training.resume import check_same
from fastzss.training.step import Trainer


def test_about_that_share_is_held_out_and_stays_so_as_a_store_grows():
    few, many = held_out(1000, 0.1), held_out(100_000, 0.1)
    assert np.array_equal(few, many[:1000])
    assert many.mean() == pytest.approx(0.1, abs=0.005)
    assert (held_out(1000, 0.2) >= few).all(), "a larger share holds the smaller one"
    assert not held_out(1000, 0.0).any()


@pytest.mark.parametrize("captions, samples", [("one", 1), ("all", 2)])
def test_no_batch_has_a_held_out_caption(config, captions, samples):
    task = Trainer(replace(config, hold_out=0.4, captions=captions), Ranks("cpu")).task
    held = held_out(80, 0.4)
    assert task.samples == samples * (80 - held.sum())
    seen = np.concatenate([task.loader.step(step).row for step in range(4 * task.steps_per_epoch)])
    assert not held[seen].any()
    assert len(np.unique(seen)) > 0.8 * (80 - held.sum())


def test_too_large_a_batch_is_named(config):
    with pytest.raises(UserError, match=r"--batch 80 is more than the \d+ samples that --hold-out 0.5 leaves"):
        train(replace(config, batch=80, hold_out=0.5))


def test_a_run_from_before_there_was_such_a_setting_goes_on(config):
    train(replace(config, steps=2))
    run = Run(config.out)
    settings = {key: value for key, value in run.config["settings"].items() if key != "hold_out"}
    run.amend(settings=settings)
    assert train(replace(config, steps=2))["step"] == 2
    with pytest.raises(UserError, match="other settings: hold_out is 0.0, now 0.3"):
        record = run.config
        check_same(run, {**record, "settings": {**record["settings"], "hold_out": 0.3}}, "auto")
