"""Gradients summed while the backward pass goes on: the same sums, asked for in one order by all ranks."""

from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch
import torch.distributed as dist
from helpers.processes import in_processes
from safetensors.torch import load_file

from fastzss.base.ranks import Ranks
from fastzss.base.runs import Run
from fastzss.methods.simzss import loader
from fastzss.methods.simzss.batch import Texts
from fastzss.training import sums
from fastzss.training.loop import train
from fastzss.training.step import Trainer

FEW = 1 << 16  # bytes of a bucket: a layer of the tiny tower fills many


@pytest.fixture(scope="module")
def silent(settings):
    """Small buckets, and in the second step, for the later half of the batch, captions that mention nothing."""
    step = loader.Loader(settings.store, settings.batch, captions=settings.captions, seed=settings.seed).chosen(1)
    real = loader.read_texts

    def read_texts(store, bank):
        concepts, texts = real(store, bank)
        return concepts, without_mentions(texts, step[len(step) // 2 :])

    with mock.patch.object(sums, "BUCKET", FEW), mock.patch.object(loader, "read_texts", read_texts):
        yield


def without_mentions(texts, captions):
    caption = np.repeat(np.arange(len(texts)), np.diff(texts.mention_offset))
    kept, sizes = ~np.isin(caption, captions), np.diff(texts.token_offset)
    assert (~kept).any()
    return Texts.of(
        texts.ids,
        texts.ids_offset,
        texts.row,
        caption[kept],
        texts.name[kept],
        texts.token[np.repeat(kept, sizes)],
        np.concatenate([[0], sizes[kept].cumsum()]),
    )


@pytest.fixture(scope="module")
def whole(settings, silent, tmp_path_factory):
    """What one process learns."""
    out = tmp_path_factory.mktemp("whole") / "run"
    train(replace(settings, out=out), progress=False)
    return learned(out)


def learned(out):
    return load_file(Run.open(out).latest / "model.safetensors")


def trained(rank, config):
    train(config, progress=False)


@pytest.mark.parametrize(
    "count, micro_batch", [(2, "3"), *(pytest.param(*ways, marks=pytest.mark.slow) for ways in [(4, "0"), (4, "3")])]
)
def test_ranks_learn_what_one_process_does(config, whole, count, micro_batch):
    in_processes(count, trained, replace(config, micro_batch=micro_batch))
    assert Run(config.out).state["step"] == 20
    for name, value in learned(config.out).items():
        assert (value - whole[name]).abs().max() <= 1e-9, name


def asked_for(rank, config, constant):
    """[(of how many numbers, whether it is waited for) of each sum or maximum] of the second step; and the backward
    pass's end among them."""
    trainer = Trainer(config, Ranks("cpu"))
    trainer.task.loader.constant = constant
    trainer.begin(True)
    _, batch = trainer.task.steps(0, 2)
    assert (trainer.task.tokens is None) == (config.micro_batch == "0")
    assert (len(batch[0].name) == 0) == (rank >= dist.get_world_size() / 2)
    events, reduce, derive = [], dist.all_reduce, trainer.derive

    def all_reduce(tensor, *rest, async_op=False, **options):
        events.append((tensor.numel(), not async_op))
        return reduce(tensor, *rest, async_op=async_op, **options)

    def derived(batch):
        losses = derive(batch)
        events.append("end")
        return losses

    trainer.derive = derived
    with mock.patch.object(dist, "all_reduce", all_reduce):
        trainer.differentiate(batch)
    return events, [sum(p.numel() for p in bucket) for bucket in trainer.sums.buckets]


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize("constant", [False, True], ids=["as it comes", "filled up"])
@pytest.mark.parametrize("micro_batch", ["0", "3"])
def test_all_ask_in_one_order_and_most_before_the_backward_pass_ends(config, silent, count, constant, micro_batch):
    found = in_processes(count, asked_for, replace(config, micro_batch=micro_batch), constant)
    events, sizes = found[0]
    assert all(other == found[0] for other in found), "also those without a mention"
    of_losses = [event for event in events if event != "end" and event[1]]
    assert len(of_losses) >= 4 and events[: len(of_losses)] == of_losses
    assert [event[0] for event in events[len(of_losses) :] if event != "end"] == sizes and len(sizes) > 10
    assert events.index("end") >= len(events) - 2, "all buckets but the last one are on their way"


class Odd(torch.nn.Module):
    """Of four parameters one is used twice, one never, and the order of use is that of the ranks' numbers."""

    def __init__(self):
        super().__init__()
        self.often, self.never, self.a, self.b = (torch.nn.Parameter(torch.full((n,), float(n))) for n in (3, 4, 5, 7))

    def forward(self, rank):
        ways = [lambda: (self.a * self.often[0]).sum(), lambda: (self.b**2).sum() * self.often.sum()]
        first, last = ways if rank % 2 else ways[::-1]
        return (rank + 1) * first() + last()


def odd_gradients(rank):
    model = Odd()
    own = sums.Sums(model.parameters())
    found = []
    for _ in range(2):
        model(rank).backward()
        own.finish()
        found.append([None if p.grad is None else p.grad.tolist() for p in model.parameters()])
        model.zero_grad()
    return found


def test_gradients_that_come_in_another_order_on_each_rank(monkeypatch):
    expected = [torch.zeros_like(p) for p in Odd().parameters()]
    for rank in range(3):
        model = Odd()
        model(rank).backward()
        for total, parameter in zip(expected, model.parameters(), strict=True):
            total += 0 if parameter.grad is None else parameter.grad
    for most in (1, 20, 40, 1 << 20):
        monkeypatch.setattr(sums, "BUCKET", most)
        for first, second in in_processes(3, odd_gradients):
            assert first == second and first[1] is None
            for found, total in zip(first, expected, strict=True):
                assert found is None or found == total.tolist()


def test_buckets_take_neighbours_up_to_their_size():
    a, b, c, d = (torch.zeros(n, dtype=torch.uint8) for n in (4, 6, 30, 1))
    assert [[t.numel() for t in bucket] for bucket in sums.buckets([a, b, c, d], 10)] == [[4, 6], [30], [1]]
    assert sums.buckets([], 10) == []


def test_a_process_alone_does_nothing_of_it():
    model = Odd()
    own = sums.Sums(model.parameters())
    model(0).backward()
    gradient = model.a.grad
    own.finish()
    assert own.buckets == [] and model.a.grad is gradient
