"""--graph: the padded step is the step, and a graph's fixed places hold each batch's own losses and gradients."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from fastzss.base.errors import UserError
from fastzss.base.ranks import Ranks
from fastzss.base.runs import Run
from fastzss.methods.simzss import graph
from fastzss.methods.simzss.graph import WARM_UP, Captured
from fastzss.training.loop import train
from fastzss.training.step import Trainer


def test_a_training_in_constant_shapes_is_the_training(config, tmp_path):
    train(config)
    other = replace(config, out=tmp_path / "graph", graph=True)
    train(other)
    for found, expected in zip(Run(other.out).metrics(), Run(config.out).metrics(), strict=True):
        for name in ("loss", "loss_global", "loss_local", "scale"):
            assert found[name] == pytest.approx(expected[name], rel=1e-6)
    found, expected = (load_file(Run(c.out).latest / "model.safetensors") for c in (other, config))
    for name, value in expected.items():
        assert (found[name] - value).norm() <= 1e-6 * value.norm(), name


def test_every_batch_gets_its_own_losses_and_gradients(config, monkeypatch):
    trainer = Trainer(replace(config, graph=True), Ranks("cpu"))
    trainer.begin(True)
    parameters = list(trainer.learner.parameters())

    def rerun(work):
        """As a graph: nothing is computed now; a replay does the work again, its results to the same places."""
        result = work()
        losses = {name: loss.detach().clone() for name, loss in result.items()}
        places = [*losses.values(), *(p.grad for p in parameters)]
        for place in places:
            place.fill_(torch.nan)

        def replay():
            trainer.learner.zero_grad()
            for place, tensor in zip(places, [*work().values(), *(p.grad for p in parameters)], strict=True):
                place.copy_(tensor.detach())

        return replay, losses

    monkeypatch.setattr(graph, "captured", rerun)
    derive = Captured(trainer.derive, parameters)
    for step, batch in enumerate(trainer.task.steps(0, WARM_UP + 4)):
        found = [t.detach().clone() for t in (*derive(batch).values(), *(p.grad for p in parameters))]
        assert (derive.replay is None) == (step < WARM_UP)
        trainer.learner.zero_grad()
        expected = [*trainer.derive(batch).values(), *(p.grad for p in parameters)]
        assert all(torch.equal(f, e) for f, e in zip(found, expected, strict=True))
        trainer.learner.zero_grad()


@pytest.mark.parametrize(
    "change, sentence",
    [({"micro_batch": "8"}, "does not fit in the memory at once"), ({"loader": "stream"}, "the patches lie elsewhere")],
)
def test_what_no_graph_can_hold_is_refused(config, change, sentence):
    with pytest.raises(UserError, match=f"--graph: .*{sentence}.*leave --graph out"):
        train(replace(config, graph=True, **change))
