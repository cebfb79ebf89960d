"""A batch that lies on two ranks gives, in shares, the losses and gradients of one process with the whole of it."""

import threading

import pytest
import torch
import torch.nn.functional as F

from fastzss.kernels import fused_classes, fused_clip, fused_concept, fused_step, reference

pytestmark = pytest.mark.usefixtures("poison")


def on_ranks(world, work):
    """[work(rank, all_sum, all_max) of each rank].  They run one at a time and meet in the collectives, whose results
    stay in the autograd graph: the backward pass of the shares' sum is then that of all ranks together."""
    running, meeting = threading.Lock(), threading.Barrier(world)
    posted, results = [{} for _ in range(world)], [None] * world

    def run(rank):
        def meet(tensor, combine):
            call = len(posted[rank])
            posted[rank][call] = tensor
            running.release()
            meeting.wait(30)
            running.acquire()
            return combine(torch.stack([of_rank[call] for of_rank in posted]))

        with running:
            try:
                results[rank] = work(
                    rank, lambda t: meet(t, lambda all: all.sum(0)), lambda t: meet(t, lambda all: all.amax(0))
                )
            except Exception as problem:
                results[rank] = problem
                meeting.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, Exception):
            raise result
    return results


def gap(found, exact):
    found, exact = found.detach().double(), exact.detach().double()
    return ((found - exact).norm() / exact.norm()).item()


@pytest.mark.parametrize("same", [None, torch.arange(50) // 4], ids=["all", "same"])
@pytest.mark.parametrize("cuts", [(0, 25, 50), (0, 7, 50), (0, 3, 6, 50)], ids=str)
def test_contrastive_loss(cuts, same):
    torch.manual_seed(0)
    images = F.normalize(torch.randn(50, 24, dtype=torch.double), dim=-1)
    texts = F.normalize(torch.randn(50, 24, dtype=torch.double) + images, dim=-1).requires_grad_()
    scale = torch.tensor(2.6, dtype=torch.double, requires_grad=True)
    exact = reference.clip_loss(images, texts, scale, same=same)
    mine, learned = texts.detach().float().requires_grad_(), scale.detach().float().requires_grad_()

    def work(rank, all_sum, all_max):
        first, last = cuts[rank : rank + 2]
        return fused_clip.clip_loss(images.float(), mine[first:last], learned, first, all_sum, all_max, same)

    shares = on_ranks(len(cuts) - 1, work)
    assert gap(sum(shares), exact) <= 1e-6
    exact = torch.autograd.grad(exact, [texts, scale])
    for f, e in zip(torch.autograd.grad(sum(shares), [mine, learned]), exact, strict=True):
        assert gap(f, e) <= 5e-6


@pytest.mark.parametrize("target", ["label", "argmax"])
def test_class_vectors_and_concept_loss(target):
    """The second rank has no mention at all of one class, the third no mention of any."""
    torch.manual_seed(0)
    units = F.normalize(torch.randn(30, 16, dtype=torch.double), dim=-1).requires_grad_()
    pooled = torch.randn(15, 16, dtype=torch.double, requires_grad=True)
    name, weight, present = torch.arange(15) % 4, torch.randint(1, 4, (15,)).double(), torch.ones(4, dtype=torch.bool)
    name[8:] %= 3
    offset = 2 * torch.arange(16, dtype=torch.int32)
    classes = reference.class_vectors(units, offset, name, 4)
    exact = reference.concept_loss(pooled, classes, present, name, weight, 14.0, target)
    mine, rows = units.detach().float().requires_grad_(), pooled.detach().float().requires_grad_()
    cuts = (0, 8, 15, 15)

    def work(rank, all_sum, _):
        own = slice(*cuts[rank : rank + 2])
        mentions = offset[own.start : own.stop + 1] - 2 * own.start
        part = mine[2 * own.start : 2 * own.stop]
        classes = fused_classes.class_vectors(part, mentions, name[own], 4, all_sum)
        return fused_concept.concept_loss(rows[own], classes, present, name[own], weight[own], 14.0, target, all_sum)

    shares = on_ranks(3, work)
    assert gap(sum(shares), exact) <= 1e-6
    exact = torch.autograd.grad(exact, [units, pooled])
    for f, e in zip(torch.autograd.grad(sum(shares), [mine, rows]), exact, strict=True):
        assert gap(f, e) <= 5e-6


@pytest.mark.parametrize("fused", [False, True], ids=["two kernels", "one kernel"])
def test_local_loss(fused):
    """The second rank has one mention only, the third none."""
    torch.manual_seed(0)
    classes = F.normalize(torch.randn(4, 16, dtype=torch.double), dim=-1).requires_grad_()
    patches = F.normalize(torch.randn(3, 9, 16, dtype=torch.double), dim=-1)
    row, name, present = torch.randint(3, (12,)), torch.arange(12) % 4, torch.ones(4, dtype=torch.bool)
    weight, options = torch.randint(1, 4, (12,)).double(), {"temperature": 0.1, "scale": 14.0}
    exact = reference.local_loss(classes, reference.Patches(patches), row, name, present, weight, **options)
    mine, cuts = classes.detach().float().requires_grad_(), (0, 11, 12, 12)

    def work(rank, all_sum, _):
        own, stored = slice(*cuts[rank : rank + 2]), reference.Patches(patches.float())
        more = {**options, "all_sum": all_sum, "fused": fused}
        return fused_step.local_loss(mine, stored, row[own], name[own], present, weight[own], **more)

    shares = on_ranks(3, work)
    assert gap(sum(shares), exact) <= 1e-6
    gradients = torch.autograd.grad(sum(shares), mine)[0], torch.autograd.grad(exact, classes)[0]
    assert gap(*gradients) <= 5e-6
