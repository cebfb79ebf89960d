"""Batches: packing, ragged mentions, shares of ranks."""

from dataclasses import fields

import numpy as np
import pytest
import torch

from fastzss.base.ragged import offsets, ranges
from fastzss.kernels.reference_tower import caption_mask, positions
from fastzss.methods.simzss.batch import Texts, collate
from fastzss.text.packing import pack


def random_texts(captions=40, names=7, longest=20, seed=0):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, longest + 1, captions)
    counts = rng.integers(0, 4, captions)
    caption = np.repeat(np.arange(captions), counts)
    sizes = rng.integers(1, 3, len(caption))
    return Texts.of(
        ids=rng.integers(0, 1000, lengths.sum()),
        ids_offset=offsets(lengths),
        row=rng.integers(0, 30, captions),
        caption=caption,
        name=rng.integers(0, names, len(caption)),
        token=rng.integers(0, lengths[np.repeat(caption, sizes)]),
        token_offset=offsets(sizes),
    )


@pytest.mark.parametrize("longest", [2, 13, 64, 77])
def test_every_token_stands_once_in_its_caption_and_in_order(longest):
    texts = random_texts(longest=longest)
    chosen = np.array([3, 17, 0, 39, 3, 8, 21])  # a caption may stand in a batch twice
    batch = collate(texts, chosen)
    segment, place, ids = batch.segment.flatten(), positions(batch.segment).flatten(), batch.ids.flatten()
    for number, caption in enumerate(chosen):
        own = torch.nonzero(segment == number).flatten()
        expected = texts.ids[texts.ids_offset[caption] : texts.ids_offset[caption + 1]]
        assert ids[own].tolist() == expected.tolist()
        assert place[own].tolist() == list(range(len(expected)))
        assert own[-1] == batch.eot[number]
    assert (segment >= 0).sum() == np.diff(texts.ids_offset)[chosen].sum()
    assert batch.ids.shape[1] == (64 if longest <= 64 else 128)


def test_mentions_point_at_their_tokens():
    texts = random_texts()
    chosen = np.arange(40)[::-3].copy()
    batch = collate(texts, chosen)
    mention = 0
    for number, caption in enumerate(chosen):
        for m in range(texts.mention_offset[caption], texts.mention_offset[caption + 1]):
            flat = batch.token[batch.offset[mention] : batch.offset[mention + 1]].long()
            assert batch.segment.flatten()[flat].tolist() == [number] * len(flat)
            own = texts.token[texts.token_offset[m] : texts.token_offset[m + 1]]
            assert positions(batch.segment).flatten()[flat].tolist() == own.tolist()
            assert (batch.caption[mention], batch.name[mention], batch.weight[mention]) == (
                number,
                texts.name[m],
                texts.weight[m],
            )
            mention += 1
    assert mention == len(batch.name)
    assert batch.present.tolist() == sorted(set(batch.name.tolist()))


def test_mentions_of_one_name_in_one_caption_become_one_with_a_weight():
    texts = Texts.of(
        ids=[0] * 12,
        ids_offset=[0, 6, 12],
        row=[0, 1],
        caption=[1, 0, 1, 1],
        name=[5, 5, 2, 5],
        token=[3, 1, 2, 4, 1, 2],
        token_offset=[0, 1, 3, 4, 6],
    )
    assert texts.mention_offset.tolist() == [0, 1, 3]
    assert texts.name.tolist() == [5, 2, 5]
    assert texts.weight.tolist() == [1, 1, 2]
    parts = [texts.token[a:b].tolist() for a, b in zip(texts.token_offset, texts.token_offset[1:], strict=False)]
    assert parts == [[1, 2], [4], [3, 1, 2]]  # all tokens of both mentions


def test_no_mention_at_all():
    texts = Texts.of([1, 2, 1, 2], [0, 2, 4], [0, 1], [], [], [], [0])
    batch = collate(texts, np.array([1, 0]))
    assert (len(batch.name), len(batch.token), batch.offset.tolist(), len(batch.present)) == (0, 0, [0], 0)


def test_ranks_share_a_batch_without_gap_or_overlap():
    texts = random_texts()
    chosen = np.arange(12, 36)
    whole = collate(texts, chosen)
    shares = [collate(texts, chosen, rank, 3) for rank in range(3)]
    assert [share.first for share in shares] == [0, 8, 16]
    for share in shares:
        assert torch.equal(share.row, whole.row)
        assert torch.equal(share.present, whole.present)
    assert sorted(torch.cat([s.name for s in shares]).tolist()) == sorted(whole.name.tolist())
    assert torch.cat([s.caption + s.first for s in shares]).tolist() == whole.caption.tolist()
    with pytest.raises(ValueError, match="24 captions do not divide among 5 ranks"):
        collate(texts, chosen, 0, 5)


@pytest.mark.parametrize("seed", range(5))
def test_packing_never_overlaps_and_wastes_little(seed):
    lengths = np.random.default_rng(seed).integers(5, 30, 500)
    start, rows = pack(lengths, 64)
    spots = ranges(start, lengths)
    assert len(set(spots.tolist())) == lengths.sum()
    assert (start // 64 == (start + lengths - 1) // 64).all(), "a caption crosses rows"
    assert lengths.sum() / (rows * 64) > 0.95


def test_a_caption_longer_than_any_row_is_refused():
    texts = Texts.of([0] * 129, [0, 129], [0], [], [], [], [0])
    with pytest.raises(ValueError, match="129 tokens"):
        collate(texts, np.array([0]))


def test_a_token_sees_the_earlier_ones_of_its_caption_only():
    segment = torch.tensor([[0, 0, 0, 1, 1, -1, -1]])
    seen = caption_mask(segment)[0, 0].int().tolist()
    assert seen == [
        [1, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0],
        [0, 0, 0, 1, 0, 0, 0],
        [0, 0, 0, 1, 1, 0, 0],
        [0, 0, 0, 0, 0, 1, 0],  # a free slot sees free slots: no row of the softmax is empty
        [0, 0, 0, 0, 0, 1, 1],
    ]
    assert positions(segment).tolist() == [[0, 1, 2, 0, 1, 0, 0]]


def test_moving_a_batch_moves_all_of_it():
    batch = collate(random_texts(), np.arange(5))
    more = batch.with_lists()
    assert len(more.tensors()) == len(batch.tensors()) + 9 == len(fields(batch)) - 2 + 9
    assert all(tensor.device.type == "meta" for tensor in more.to("meta").tensors())
    assert len(batch) == 5
