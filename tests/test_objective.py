"""The objective on several ranks: their shares are the whole, even where one rank has no mention."""

import os

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

from fastzss import kernels
from fastzss.batch import Texts, collate, offsets
from fastzss.objective import simzss, used_units
from fastzss.text import TextTower, TowerSize

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


def losses_and_gradients(rank, world):
    tower, texts, patches, images, log_scale = world_of_numbers()
    batch = collate(texts, np.arange(CAPTIONS), rank, world)
    losses = simzss(used_units(tower, batch), batch, patches, images, log_scale, local_weight=0.7, temperature=0.1)
    losses.loss.backward()
    values = torch.stack([losses.loss, losses.loss_global, losses.loss_local]).detach()
    return [values, log_scale.grad, *(p.grad for p in tower.parameters())]


def one_rank(rank, folder):
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(WORLD))
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORLD)
    torch.save(losses_and_gradients(rank, WORLD), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_the_shares_of_two_processes_add_up_to_the_whole(tmp_path):
    context = torch.multiprocessing.get_context("fork")
    processes = [context.Process(target=one_rank, args=(rank, tmp_path)) for rank in range(WORLD)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    shares = [torch.load(tmp_path / f"{rank}.pt") for rank in range(WORLD)]
    whole = losses_and_gradients(0, 1)
    assert shares[1][0][2] == 0, "the second rank has no mention, and no share of the local loss"
    for total, *parts in zip(whole, *shares, strict=True):
        assert (sum(parts) - total).norm() <= 1e-12 * max(1, total.norm())


def test_same_captions_in_another_order_have_the_same_loss():
    tower, texts, patches, images, log_scale = world_of_numbers()
    found = []
    for order in ([0, 1, 2, 3, 4, 5], [4, 2, 0, 5, 1, 3]):
        batch = collate(texts, np.array(order))
        losses = simzss(used_units(tower, batch), batch, patches, images, log_scale, local_weight=1.0, temperature=0.1)
        found.append(losses.loss.item())
    assert found[0] == pytest.approx(found[1], rel=1e-12)
