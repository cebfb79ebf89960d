"""The operations of the text tower, in Triton's interpreter, against the definition in float64."""

import weakref
from unittest import mock

import pytest
import torch
from helpers.exact import gap
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from fastzss.kernels import BlockWeights, fused_embed, fused_tower, reference_tower

pytestmark = pytest.mark.usefixtures("poison")
# rows, tokens, heads, channels of a head, hidden channels, blocks
SIZES = [(2, 64, 3, 8, 50, 3), (1, 128, 2, 20, 72, 2), (3, 17, 1, 5, 7, 1)]
EXACT = 1e-6


def captions(R, L):
    """[R, L] captions of 1 to 20 tokens, some free slots at the end of most rows."""
    lengths = torch.randint(1, 21, (L,))
    segment = torch.full((R, L), -1, dtype=torch.int32)
    for row in range(R):
        own = torch.arange(L).repeat_interleave(lengths.roll(row))[: L - row % 3 * (L // 8)]
        segment[row, : len(own)] = own.int() + row * L
    return segment


def case(R, L, H, C, V, n, seed=0):
    """(leaves: the stream, its norm and the weights of n blocks; captions, heads)."""
    torch.manual_seed(seed)
    W = H * C
    sizes = (3 * W, W), (3 * W,), (W, W), (W,), (W,), (W,), (V, W), (V,), (W, V), (W,), (W,), (W,)
    leaves = [torch.randn(R, L, W, dtype=torch.double) for _ in range(2)]
    for _ in range(n):
        leaves += [torch.randn(*s, dtype=torch.double) * (s[1] ** -0.5 if len(s) > 1 else 1) for s in sizes]
    return leaves, captions(R, L), H


def ours(*inputs, quick=False):
    return fused_tower.transformer_blocks(*inputs, quick=quick)


def defined(*inputs, quick=False):
    return reference_tower.transformer_blocks(*inputs, quick=quick)


def called(op, leaves, segment, heads, quick=False):
    x, normal, *weights = leaves
    return op(x, normal, segment, fused_tower.parted(weights, BlockWeights), heads, quick=quick)


def gradients(out, leaves):
    steps = [
        torch.linspace(-1, 2 + i, o.numel(), dtype=torch.double).view(o.shape).to(o.dtype) for i, o in enumerate(out)
    ]
    return torch.autograd.grad(out, leaves, steps, allow_unused=True)


def results(op, leaves, segment, heads, dtype, quick=False):
    """[the stream, its norm, the gradients of all leaves]."""
    leaves = [t.to(dtype).requires_grad_() for t in leaves]
    out = called(op, leaves, segment, heads, quick)
    return [*out, *gradients(out, leaves)]


def same(found, expected):
    return all(torch.equal(f, e) for f, e in zip(found, expected, strict=True))


@pytest.mark.parametrize("quick", [False, True], ids=["gelu", "quick_gelu"])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_values_and_gradients(sizes, quick):
    inputs = case(*sizes)
    found = results(ours, *inputs, torch.float32, quick)
    plain = results(defined, *inputs, torch.float32, quick)
    for which, (f, p, e) in enumerate(zip(found, plain, results(defined, *inputs, torch.double, quick), strict=True)):
        assert gap(f, e) <= max((2 if which < 2 else 3) * gap(p, e), EXACT), which


@pytest.mark.parametrize("sizes", [(2, 64, 3, 8, 50, 2), (1, 128, 2, 20, 72, 1)], ids=str)
def test_float16_is_as_near_as_plain_pytorch(sizes):
    leaves, *rest = case(*sizes)
    inputs = [t.half() for t in leaves], *rest
    found, plain = (results(op, *inputs, torch.float16) for op in (ours, defined))
    for which, (f, p, e) in enumerate(zip(found, plain, results(defined, *inputs, torch.double), strict=True)):
        assert f.dtype == torch.float16
        assert gap(f, e) <= (2 if which < 2 else 3) * gap(p, e), which


def test_autocast_shortens_the_products_and_keeps_the_stream():
    inputs = case(2, 64, 2, 16, 100, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = results(ours, *inputs, torch.float32)
    assert [f.dtype for f in found[:2]] == [torch.float32, torch.bfloat16]
    assert all(f.dtype == torch.float32 for f in found[2:])
    assert all(gap(f, e) <= 2e-2 for f, e in zip(found, results(defined, *inputs, torch.double), strict=True))


def test_same_bits_every_time_and_in_parts():
    inputs = case(3, 64, 2, 12, 30, 3)

    def in_parts(x, normal, segment, blocks, heads, quick):
        for start in (0, 2):
            x, normal = ours(x, normal, segment, blocks[start : start + 2], heads, quick=quick)
        return x, normal

    first = results(ours, *inputs, torch.float32)
    assert same(first, results(ours, *inputs, torch.float32))
    for whole, part in zip(first, results(in_parts, *inputs, torch.float32), strict=True):
        assert torch.equal(whole, part) if whole.dim() > 1 else gap(part, whole) <= EXACT  # sums in another order


def test_frozen_weights_get_no_gradient_and_no_product():
    leaves, segment, H = case(2, 17, 2, 12, 30, 2)
    everything = results(ours, leaves, segment, H, torch.float32)[2:]
    blocks = fused_tower.parted(range(2, len(leaves)), BlockWeights)
    frozen = {0, 1, *blocks[0], blocks[1].in_bias, blocks[1].fc_weight, blocks[1].next_shift}
    leaves = [t.float().requires_grad_(i not in frozen) for i, t in enumerate(leaves)]
    with mock.patch.object(fused_tower, "precise", side_effect=fused_tower.precise) as product:
        found = gradients(called(ours, leaves, segment, H), [t for t in leaves if t.requires_grad])
    assert product.call_count == 3
    assert same(found, [g for i, g in enumerate(everything) if i not in frozen])


def test_without_a_gradient_nothing_is_kept():
    leaves, segment, H = case(2, 17, 2, 12, 30, 2)
    leaves = [t.float().requires_grad_() for t in leaves]
    expected = called(ours, leaves, segment, H)
    with torch.no_grad(), mock.patch.object(fused_tower, "Kept", side_effect=AssertionError):
        assert same(called(ours, leaves, segment, H), expected)


def test_what_a_row_keeps():
    R, L, H, C, V, n = 4, 64, 2, 12, 30, 2
    held = []
    for rows in (R, R // 2):
        leaves, segment, _ = case(rows, L, H, C, V, n)
        leaves, sizes = [t.float().requires_grad_() for t in leaves], {}
        with saved_tensors_hooks(lambda t: sizes.update({t.data_ptr(): t.nbytes}) or t, lambda t: t):  # noqa: B023
            out = called(ours, leaves, segment, H)
        held.append(sum(sizes.values()))
        del out
    assert held[0] - held[1] == R // 2 * L * (n * (8 * H * C + 2 * V) + 1) * 4


def test_what_a_block_kept_is_freed_when_it_has_been_gone_through():
    leaves, segment, H = case(2, 17, 2, 12, 30, 4)
    leaves, held, alive = [t.float().requires_grad_() for t in leaves], [], []
    real, kept = fused_tower.attention_gradient, fused_tower.Kept

    def watched_kept(*tensors):
        held.extend(weakref.ref(t) for t in tensors)
        return kept(*tensors)

    def watched_gradient(*rest):
        alive.append(sum(tensor() is not None for tensor in held))
        return real(*rest)

    with mock.patch.object(fused_tower, "Kept", watched_kept):
        out = called(ours, leaves, segment, H)
    with mock.patch.object(fused_tower, "attention_gradient", watched_gradient):
        gradients(out, leaves)
    assert alive == [32, 24 + 1, 16 + 1, 8 + 1]  # eight of each block; the last stream is also the output


def test_read_twice_by_a_checkpoint_it_is_the_same():
    leaves, segment, H = case(2, 64, 2, 12, 30, 2)
    leaves = [t.float().requires_grad_() for t in leaves]
    plain = called(ours, leaves, segment, H)
    twice = checkpoint(called, ours, leaves, segment, H, use_reentrant=False)
    assert same([*twice, *gradients(twice, leaves)], [*plain, *gradients(plain, leaves)])


def test_several_calls_add_their_gradients():
    leaves, segment, H = case(4, 17, 2, 12, 30, 2)
    x, normal, *weights = [t.float().requires_grad_() for t in leaves]
    parts = [called(ours, [x[rows], normal[rows], *weights], segment[rows], H)[1] for rows in (slice(3), slice(3, 4))]
    found = gradients([torch.cat(parts)], [x, normal, *weights])
    expected = gradients(called(ours, [x, normal, *weights], segment, H)[1:], [x, normal, *weights])
    assert same(found[:2], expected[:2])
    assert all(gap(f, e) <= 3 * EXACT for f, e in zip(found[2:], expected[2:], strict=True))


def test_either_output_alone():
    inputs = case(2, 17, 2, 12, 30, 2)
    for which in (0, 1):
        found, exact = (
            results(lambda *rest, op=op, **more: (op(*rest, **more)[which],), *inputs, dtype)  # noqa: B023
            for op, dtype in ((ours, torch.float32), (defined, torch.double))
        )
        used = [(f, e) for f, e in zip(found, exact, strict=True) if e is not None]
        assert len(used) >= len(found) - 2 and all(gap(f, e) <= 3 * EXACT for f, e in used)
        assert all(f is None or f.eq(0).all() for f, e in zip(found, exact, strict=True) if e is None)


def test_inputs_that_are_not_contiguous():
    leaves, segment, H = case(2, 17, 2, 12, 30, 1)
    turned = [t.transpose(0, 1).contiguous().transpose(0, 1) if t.dim() > 1 else t for t in leaves]
    found = results(ours, turned, segment.long().T.contiguous().T, H, torch.float32)
    exact = results(defined, leaves, segment, H, torch.double)
    assert all(gap(f, e) <= 3 * EXACT for f, e in zip(found, exact, strict=True))


def test_longer_rows_than_a_tile_holds_are_the_definitions():
    inputs = case(1, 150, 2, 8, 20, 1)
    assert same(*(results(op, *inputs, torch.float32) for op in (ours, defined)))


def test_no_rows_at_all():
    found = results(ours, *case(0, 64, 2, 12, 30, 2), torch.float32)
    assert all(f.shape == (0, 64, 24) for f in found[:4]) and all(f.eq(0).all() for f in found[4:])


def embed_case(R, L, W, words=9, places=20):
    torch.manual_seed(0)
    tables = [torch.randn(size, W, dtype=torch.double) for size in (words, places)]
    return [*tables, *torch.randn(2, W, dtype=torch.double)], torch.randint(words, (R, L)), captions(R, L)


def embedded(op, leaves, index, segment, dtype):
    """[the stream, its norm, the gradients of both tables, of gain and shift]."""
    leaves = [t.to(dtype).requires_grad_() for t in leaves]
    out = op(*leaves[:2], index, segment, *leaves[2:])
    return [*out, *gradients(out, leaves)]


@pytest.mark.parametrize("R, L, W", [(3, 64, 24), (1, 128, 40), (2, 17, 600), (1, 1, 9), (5, 77, 7)])
def test_words_places_and_their_norm(R, L, W):
    inputs = embed_case(R, L, W)
    found, plain, exact = (
        embedded(op, *inputs, dtype)
        for op, dtype in (
            (fused_embed.embed_norm, torch.float32),
            (reference_tower.embed_norm, torch.float32),
            (reference_tower.embed_norm, torch.double),
        )
    )
    assert torch.equal(found[0], plain[0]), "words and places of all tokens"
    for which, (f, p, e) in enumerate(zip(found, plain, exact, strict=True)):
        assert gap(f, e) <= max((2 if which < 2 else 3) * gap(p, e), EXACT), which
    assert same(found, embedded(fused_embed.embed_norm, *inputs, torch.float32))


def test_words_in_float16_are_as_near_as_plain_pytorch():
    leaves, *rest = embed_case(3, 64, 24)
    inputs = [t.half() for t in leaves], *rest
    found, plain = (embedded(op, *inputs, torch.float16) for op in (fused_embed.embed_norm, reference_tower.embed_norm))
    exact = embedded(reference_tower.embed_norm, *inputs, torch.double)
    for which, (f, p, e) in enumerate(zip(found, plain, exact, strict=True)):
        assert f.dtype == torch.float16 and gap(f, e) <= (2 if which < 2 else 3) * gap(p, e), which


def test_frozen_tables_other_integers_and_autocast():
    (words, places, gain, shift), index, segment = embed_case(2, 64, 24)
    words, places, gain, shift = (t.float() for t in (words, places, gain, shift))
    gain.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        x, normal = fused_embed.embed_norm(words, places, index.int().T.contiguous().T, segment.long(), gain, shift)
    expected = reference_tower.embed_norm(words, places, index, segment, gain, shift)
    assert torch.equal(x, expected[0]) and normal.dtype == torch.bfloat16
    assert gap(normal, expected[1]) <= 5e-3
    assert gap(*(torch.autograd.grad(n.float().sum(), gain)[0] for n in (normal, expected[1]))) <= 5e-3


def test_no_words_at_all():
    found = embedded(fused_embed.embed_norm, *embed_case(0, 64, 24), torch.float32)
    assert all(f.shape == (0, 64, 24) for f in found[:2]) and all(f.eq(0).all() for f in found[2:])


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_the_whole_tower(monkeypatch, activation):
    """All of its kernels together, against float64."""
    from fastzss.text.tower import TextTower, TowerSize

    torch.manual_seed(0)
    tower = TextTower(TowerSize(48, 2, 3), 20, activation)
    segment = torch.tensor([[0] * 9 + [1] * 20 + [2] * 30 + [-1] * 5, [3] * 60 + [-1] * 4]).int()
    ids, used = torch.randint(1, 400, segment.shape), torch.tensor([8, 28, 28, 58, 123, 70])
    found = {}
    for backend, dtype in (("interpret", torch.float32), ("reference", torch.double)):
        monkeypatch.setenv("FASTZSS_BACKEND", backend)
        units = tower.to(dtype).units(ids, segment, used)
        units.backward(torch.linspace(-1, 2, units.numel(), dtype=torch.double).view(units.shape).to(dtype))
        found[backend] = [units.detach(), *(p.grad for p in tower.parameters())]
        tower.zero_grad(set_to_none=True)
    names = ["units", *(name for name, _ in tower.named_parameters())]
    for name, f, e in zip(names, found["interpret"], found["reference"], strict=True):
        assert gap(f, e) <= 5e-6, name
