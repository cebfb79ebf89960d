"""The tower against open_clip's TextTransformer with the same weights."""

import numpy as np
import pytest
import torch
from open_clip.transformer import QuickGELU, TextTransformer, text_global_pool

from fastzss import kernels
from fastzss.base.ragged import offsets
from fastzss.captions.tokens import Tokenizer
from fastzss.methods.simzss.batch import Texts, collate
from fastzss.text.tower import TextTower, TowerSize

CAPTIONS = [
    "a red boat",
    "two houses and a tree on the grass under a pale sky, seen from far away",
    "",
    "car",
    "a photo of a " + "very " * 80 + "long caption",  # cut at the context: 77 tokens
]
SIZE, OUT = TowerSize(64, 3, 4), 48


@pytest.fixture(scope="module", params=["gelu", "quick_gelu"])
def towers(request):
    torch.manual_seed(0)
    theirs = TextTransformer(
        width=64, heads=4, layers=3, output_dim=OUT, context_length=77, output_tokens=True,
        act_layer={"gelu": torch.nn.GELU, "quick_gelu": QuickGELU}[request.param],
    )  # fmt: skip
    with torch.no_grad():  # not only near 0, where the two activations are nearly one
        theirs.transformer.resblocks[0].mlp.c_fc.weight *= 10
    ours = TextTower(SIZE, OUT, request.param)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return theirs, ours


@pytest.fixture(scope="module")
def padded():
    tokenizer = Tokenizer()
    ids = torch.zeros(len(CAPTIONS), 77, dtype=torch.long)
    for row, text in enumerate(CAPTIONS):
        tokens = tokenizer(tokenizer.clean(text)).ids
        ids[row, : len(tokens)] = torch.tensor(tokens)
    return ids


def packed(padded, captions):
    lengths = padded[captions].argmax(1).numpy() + 1
    flat = np.concatenate([padded[c, :n].numpy() for c, n in zip(captions, lengths, strict=True)])
    none = np.empty(0, int)
    texts = Texts.of(flat, offsets(lengths), np.arange(len(captions)), none, none, none, np.zeros(1, int))
    return collate(texts, np.arange(len(captions)))


def gradients(module, loss):
    module.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in module.named_parameters()}


def near(a, b):
    return (a - b).norm() <= 1e-5 * b.norm()


@pytest.mark.parametrize(
    "captions, row", [([0, 1, 2, 3], 64), ([0, 1, 2, 3, 4], 128)], ids=["rows of 64", "rows of 128"]
)
def test_packed_captions_give_open_clips_vectors_and_gradients(towers, padded, captions, row):
    theirs, ours = towers
    batch = packed(padded, captions)
    assert batch.ids.shape[1] == row
    expected, _ = theirs(padded[captions])
    found = ours(batch.ids, batch.segment)[batch.eot] @ ours.text_projection
    assert near(found, expected)
    weights = torch.linspace(-1, 1, expected.numel()).view_as(expected)
    wanted = gradients(theirs, (expected * weights).sum())
    for name, gradient in gradients(ours, (found * weights).sum()).items():
        assert near(gradient, wanted[name]), name


def test_another_activation_is_another_tower(towers, padded):
    theirs, ours = towers
    other = TextTower(SIZE, OUT, {"gelu": "quick_gelu", "quick_gelu": "gelu"}[ours.activation])
    other.load_state_dict(theirs.state_dict(), strict=True)
    batch = packed(padded, [0, 1, 2, 3])
    found = other(batch.ids, batch.segment)[batch.eot] @ other.text_projection
    assert not near(found, theirs(padded[:4])[0])


def test_every_token_is_open_clips_not_only_the_last(towers, padded):
    theirs, ours = towers
    _, tokens = theirs(padded)
    batch = packed(padded, [0, 1, 2, 3, 4])
    flat = ours(batch.ids, batch.segment)
    for caption in range(5):
        own = flat[batch.segment.flatten() == caption]
        assert near(own, tokens[caption, : len(own)])


def test_padded_input_is_one_caption_a_row(towers, padded):
    """The padding behind a caption is just more of it to a causal tower: [B, 77] ids work as they are."""
    theirs, ours = towers
    segment = torch.arange(len(padded), dtype=torch.int32).unsqueeze(1).expand_as(padded)
    found = ours(padded, segment).view(*padded.shape, -1)
    expected, _ = theirs(padded)
    assert near(text_global_pool(found, padded, "argmax") @ ours.text_projection, expected)


def test_captions_in_one_row_do_not_see_each_other(towers, padded):
    _, ours = towers
    together, alone = packed(padded, [0, 1, 3]), packed(padded, [1])
    assert together.ids.shape[0] == 1
    own = ours(together.ids, together.segment)[together.segment.flatten() == 1]
    assert near(own, ours(alone.ids, alone.segment)[: len(own)])


def test_blocks_in_parts_are_the_same_tower(towers, padded, monkeypatch):
    _, ours = towers
    batch, parts, real = packed(padded, [0, 1, 2, 3]), [], kernels.transformer_blocks
    monkeypatch.setattr(kernels, "transformer_blocks", lambda *rest: parts.append(len(rest[3])) or real(*rest))
    found = []
    for at_once in (None, 2):
        monkeypatch.setattr(ours, "blocks_at_once", at_once)
        out = ours(batch.ids, batch.segment) @ ours.text_projection
        found.append([out, *gradients(ours, out.square().sum()).values()])
    assert parts == [3, 2, 1]
    assert all(torch.equal(whole, part) for whole, part in zip(*found, strict=True))


def test_weights_go_to_open_clip_and_back_unchanged(towers):
    theirs, ours = towers
    back = TextTower(SIZE, OUT)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    back.load_state_dict(theirs.state_dict(), strict=True)
    for name, value in ours.state_dict().items():
        assert torch.equal(value, back.state_dict()[name]), name


def test_the_initialisation_is_clips():
    torch.manual_seed(0)
    tower = TextTower(TowerSize(256, 4, 4), 128)
    spread = {
        "token_embedding.weight": 0.02,
        "positional_embedding": 0.01,
        "text_projection": 256**-0.5,
        "transformer.resblocks.2.attn.in_proj_weight": 256**-0.5,
        "transformer.resblocks.2.attn.out_proj.weight": (2 * 4 * 256) ** -0.5,
        "transformer.resblocks.2.mlp.c_fc.weight": (2 * 256) ** -0.5,
        "transformer.resblocks.2.mlp.c_proj.weight": (2 * 4 * 256) ** -0.5,
    }
    state = tower.state_dict()
    for name, expected in spread.items():
        assert state[name].std().item() == pytest.approx(expected, rel=0.03), name
