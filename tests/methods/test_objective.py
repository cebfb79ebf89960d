"""The objective in parts: several ranks, several passes of the tower; and which pairs are negatives."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.processes import in_processes

from fastzss import kernels
from fastzss.base.ragged import offsets
from fastzss.methods.simzss.batch import Texts, collate
from fastzss.methods.simzss.objective import simzss, used_units
from fastzss.text.tower import TextTower, TowerSize

WORLD, CAPTIONS, D = 2, 6, 16


def world_of_numbers():
    """A tower, captions of which the second half mentions nothing, and images."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    lengths = rng.integers(4, 9, CAPTIONS)
    texts = Texts.of(
        ids=rng.integers(1, 400, lengths.sum()),
        ids_offset=offsets(lengths),
        row=[0, 1, 2, 3, 1, 4],
        caption=[0, 0, 1, 2],
        name=[3, 1, 3, 2],
        token=[1, 2, 3, 1, 2],
        token_offset=[0, 2, 3, 4, 5],
    )
    tower = TextTower(TowerSize(32, 1, 4), D).double()
    patches = kernels.Patches(F.normalize(torch.randn(5, 9, D, dtype=torch.double), dim=-1))
    images = torch.randn(5, D, dtype=torch.double)
    return tower, texts, patches, images, torch.tensor(2.5, dtype=torch.double, requires_grad=True)


def losses_and_gradients(rank, world, rows=None, **options):
    tower, texts, patches, images, log_scale = world_of_numbers()
    batch = collate(texts, np.arange(CAPTIONS), rank, world)
    units = used_units(tower, batch, rows)
    losses = simzss(units, batch, patches, images, log_scale, local_weight=0.7, temperature=0.1, **options)
    losses.loss.backward()
    values = torch.stack([losses.loss, losses.loss_global, losses.loss_local]).detach()
    return [values, log_scale.grad, *(p.grad for p in tower.parameters())]


def one_rank(rank):
    ways = [losses_and_gradients(rank, WORLD, rows=rows, same="mask") for rows in (None, 1)]
    return [[tensor.numpy() for tensor in way] for way in ways]  # a tensor in a queue is a file its process takes along


def test_the_shares_of_two_processes_add_up_to_the_whole():
    shares = in_processes(WORLD, one_rank)
    whole = losses_and_gradients(0, 1, same="mask")
    for way in zip(*shares, strict=True):
        assert way[1][0][2] == 0, "the second rank has no mention, and no share of the local loss"
        for total, *parts in zip(whole, *way, strict=True):
            assert (torch.as_tensor(sum(parts)) - total).norm() <= 1e-12 * max(1, total.norm())


def many_captions(seed=0, dtype=torch.double):
    """A tower and a batch of 90 captions in more than ten rows."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    lengths = rng.integers(4, 30, 90)
    caption = np.sort(rng.integers(0, 90, 150))
    texts = Texts.of(
        ids=rng.integers(1, 400, lengths.sum()),
        ids_offset=offsets(lengths),
        row=rng.integers(0, 40, 90),
        caption=caption,
        name=rng.integers(0, 12, 150),
        token=np.concatenate([rng.choice(np.arange(1, lengths[c] - 1), 2) for c in caption]),
        token_offset=2 * np.arange(151),
    )
    patches = kernels.Patches(F.normalize(torch.randn(40, 9, D, dtype=dtype), dim=-1))
    log_scale = torch.tensor(2.5, dtype=dtype, requires_grad=True)
    tower = TextTower(TowerSize(32, 2, 4), D).to(dtype)
    return tower, collate(texts, np.arange(90)), patches, torch.randn(40, D, dtype=dtype), log_scale


def learned(rows, dtype=torch.double, **options):
    tower, batch, patches, images, log_scale = many_captions(dtype=dtype)
    assert len(batch.ids) > 10
    units = used_units(tower, batch, rows)
    losses = simzss(units, batch, patches, images, log_scale, local_weight=0.7, temperature=0.1, **options)
    losses.loss.backward()
    return [losses.loss.detach(), log_scale.grad, *(p.grad for p in tower.parameters())]


@pytest.mark.parametrize("rows", [1, 4, 7, 1000])
@pytest.mark.parametrize("dtype, tolerance", [(torch.double, 1e-13), (torch.float, 1e-5)], ids=["float64", "float32"])
def test_a_batch_in_parts_is_the_batch(rows, dtype, tolerance):
    for part, whole in zip(learned(rows, dtype), learned(None, dtype), strict=True):
        assert (part - whole).norm() <= tolerance * max(1, whole.norm())


def test_parts_hold_the_memory_of_one_part(monkeypatch):
    """What autograd keeps between the two passes, at most."""
    monkeypatch.setenv("KINETO_LOG_LEVEL", "99")  # the profiler talks on stderr

    def peak(rows):
        tower, batch, *_ = many_captions(dtype=torch.float)
        tower.token_embedding.weight.requires_grad_(False)  # its gradient is larger than all else here
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as record:
            used_units(tower, batch, rows).sum().backward()
        events = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
        return max(itertools.accumulate(e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())))

    assert peak(1) < 0.3 * peak(None)


def test_other_captions_of_an_image_are_negatives_or_not():
    """Against two cross-entropies over the matrix of all pairs."""
    tower, batch, patches, images, log_scale = many_captions()
    units = used_units(tower, batch).detach()
    logits = log_scale.exp() * F.normalize(images[batch.row], dim=-1) @ units[:90].T
    own, twins = torch.arange(90), batch.row.unsqueeze(1) == batch.row
    assert twins.sum() > 90 + 50, "there are captions of the same image"
    masked = logits.masked_fill(twins & ~torch.eye(90, dtype=torch.bool), -torch.inf)
    for same, matrix in (("keep", logits), ("mask", masked)):
        expected = (F.cross_entropy(matrix, own) + F.cross_entropy(matrix.T, own)) / 2
        losses = simzss(units, batch, patches, images, log_scale, local_weight=0, temperature=0.1, same=same)
        assert losses.loss.item() == pytest.approx(expected.item(), rel=1e-12)


def test_same_captions_in_another_order_have_the_same_loss():
    tower, texts, patches, images, log_scale = world_of_numbers()
    found = []
    for order in ([0, 1, 2, 3, 4, 5], [4, 2, 0, 5, 1, 3]):
        batch = collate(texts, np.array(order))
        losses = simzss(used_units(tower, batch), batch, patches, images, log_scale, local_weight=1.0, temperature=0.1)
        found.append(losses.loss.item())
    assert found[0] == pytest.approx(found[1], rel=1e-12)
