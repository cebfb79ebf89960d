"""The words of a store learn, the others decay: what AdamW makes of the whole table, which others see as a whole."""

import copy

import pytest
import torch

from fastzss.text.own_words import OwnWords
from fastzss.text.tower import VOCABULARY, TextTower, TowerSize
from fastzss.training.schedule import Schedule

WORDS = torch.tensor([0, 7, 320, 999, 20000, 31000, 49405, 49406, 49407])
SHARE = torch.tensor([0.3, 0.3, 0.2, 0.1, 0.05, 0.03, 0.01, 0.005, 0.005])  # the last ones come once in many steps


def towers(dtype=torch.float32):
    """The same tower with its whole table and with some words of it."""
    torch.manual_seed(0)
    plain = TextTower(TowerSize(16, 1, 2), 8).to(dtype)
    own = copy.deepcopy(plain)
    own.token_embedding = OwnWords(own.token_embedding, WORDS)
    return plain, own


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("asked", [1000, 37], ids=["at the end", "in between"])
def test_300_steps_are_those_of_adamw_on_the_whole_table(dtype, asked):
    plain, own = towers(dtype)
    schedule, decay = Schedule([300], 2e-3, 0.1), 0.2
    optimisers = [torch.optim.AdamW(t.parameters(), betas=(0.9, 0.98), eps=1e-6, fused=True) for t in (plain, own)]
    generator, segment = torch.Generator().manual_seed(1), torch.zeros(2, 5, dtype=torch.int32)
    before, missed = plain.token_embedding.weight.detach().clone(), 0
    for step in range(300):
        places = SHARE.multinomial(10, True, generator=generator).view(2, 5)
        wanted = torch.randn(10, 8, generator=generator).to(dtype)
        missed += len(places.unique()) < len(WORDS)
        for tower, ids, optimiser in zip((plain, own), (WORDS[places], places), optimisers, strict=True):
            optimiser.param_groups[0].update(lr=schedule.rate(step), weight_decay=decay)
            (tower.units(ids, segment, torch.arange(10)) - wanted).square().sum().backward()
            optimiser.step()
            optimiser.zero_grad()
        own.token_embedding.decay(1 - schedule.rate(step) * decay)
        if step % asked == asked - 1:
            own.token_embedding.whole()
    assert missed > 200, "most steps lack some of the words"
    found, expected = own.state_dict(), plain.state_dict()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert (found[name] - value).abs().max() <= 1e-6, name
    moved = (expected["token_embedding.weight"] - before).abs().amax(1)
    others = torch.ones(VOCABULARY, dtype=torch.bool).index_fill(0, WORDS, False)
    assert moved[WORDS].min() > 0.01 and moved[others].max() > 1e-3, "there was something to get wrong"


def test_when_the_table_is_asked_for_changes_no_bit():
    _, often = towers()
    once, factors = copy.deepcopy(often), torch.rand(60, generator=torch.Generator().manual_seed(2)).mul(1e-2)
    for number, factor in enumerate((1 - factors).tolist()):
        for tower in (often, once):
            tower.token_embedding.decay(factor)
        if number % 7 == 3:
            often.token_embedding.whole()
            if number % 2:  # as a run that goes on does
                often.load_state_dict({name: tensor.clone() for name, tensor in often.state_dict().items()})
    assert torch.equal(often.token_embedding.whole(), once.token_embedding.whole())


def test_to_the_outside_it_is_an_embedding_of_all_words():
    plain, own = towers()
    ids, segment = WORDS[torch.tensor([[3, 1, 1, 8], [0, 2, 5, 4]])], torch.zeros(2, 4, dtype=torch.int32)
    places = torch.searchsorted(WORDS, ids)
    assert torch.equal(own(places, segment), plain(ids, segment))
    own.token_embedding.decay(0.5)
    state = own.state_dict()
    assert {name: t.shape for name, t in state.items()} == {name: t.shape for name, t in plain.state_dict().items()}
    table = plain.token_embedding.weight.detach().clone() * 0.5
    table[WORDS] *= 2
    assert torch.equal(state["token_embedding.weight"], table)

    another = TextTower(own.size, 8)
    own.token_embedding.decay(0.5)  # of a table that is no more
    own.load_state_dict(another.state_dict())
    assert torch.equal(own(places, segment), another(ids, segment))
    assert torch.equal(own.state_dict()["token_embedding.weight"], another.token_embedding.weight)
    with pytest.raises(RuntimeError, match="Missing key.*token_embedding.weight"):
        own.load_state_dict({name: t for name, t in state.items() if name != "token_embedding.weight"})


def test_moments_follow_their_words():
    _, own = towers()
    table = own.token_embedding
    assert torch.equal(table.moments(torch.arange(VOCABULARY)[:, None]), WORDS[:, None]), "of a whole table"
    known = torch.tensor([5, 7, 999, 49407])
    rows = (known + 1.0)[:, None].expand(-1, 16)
    expected = torch.where(torch.isin(WORDS, known), WORDS + 1.0, 0.0)
    assert torch.equal(table.moments(rows, known), expected[:, None].expand(-1, 16)), "of other captions"
