"""ZeroSeg's losses against loops that are written as the formulas are read."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from helpers.memory import peak_bytes

from fastzss.methods.zeroseg.objective import losses, spread
from fastzss.methods.zeroseg.pixels import PixelStudent, patchified, positions
from fastzss.methods.zeroseg.segmenter import Segments

B, M, V, D = 3, 4, 6, 7
CONFIG = dict(norm_targets="l2", loss_reduction="mean", w_ms=1.0, w_match=1.0, w_place=0.0, w_rec=1.0)


def made(b=B):
    torch.manual_seed(0)
    vectors, whole = torch.randn(b, M, D).double().requires_grad_(), torch.randn(b, D).double().requires_grad_()
    return Segments(vectors, whole, torch.randn(b, 5, 9).double(), torch.randn(b, M, 5).double()), torch.randn(b, V, D)


def by_loops(segments, views, norm, reduction, whole_views):
    unit = (lambda t: t / t.norm()) if norm == "l2" else (lambda t: t)
    ms = match = 0.0
    for b in range(len(views)):
        v = [unit(view.double()) for view in views[b]]
        for view in v:
            ms += (unit(segments.whole[b]) - view).abs().sum()
        for i in range(M):
            match += min((unit(segments.vectors[b, i]) - view).abs().sum() for view in v[whole_views:])
    ms, match = ms / len(views), match / len(views)
    return (ms, match) if reduction == "sum" else (ms / (V * D), match / (M * D))


@pytest.mark.parametrize("norm", ["l2", "raw"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("whole_views", [0, 1])
def test_losses_are_what_loops_say(norm, reduction, whole_views):
    segments, views = made()
    config = SimpleNamespace(
        **{**CONFIG, "norm_targets": norm, "loss_reduction": reduction, "w_ms": 2.0, "w_match": 3.0}
    )
    found = losses(segments, views, config, whole_views)
    ms, match = by_loops(segments, views, norm, reduction, whole_views)
    assert found["loss_ms"].item() == pytest.approx(ms.item(), rel=1e-6)
    assert found["loss_match"].item() == pytest.approx(match.item(), rel=1e-6)
    assert found["loss"].item() == pytest.approx((2 * ms + 3 * match).item(), rel=1e-6)


def test_gradients():
    segments, views = made(2)

    def loss(vectors, whole):
        return losses(segments._replace(vectors=vectors, whole=whole), views, SimpleNamespace(**CONFIG), 1)["loss"]

    assert torch.autograd.gradcheck(loss, (segments.vectors, segments.whole))


def test_shares_add_up_and_reconstruction_counts():
    segments, views = made(4)
    config = SimpleNamespace(**{**CONFIG, "w_rec": 0.5})
    whole = losses(segments, views, config, 1, 1.0, torch.tensor(3.0))
    halves = [
        losses(Segments(*(t[part] for t in segments)), views[part], config, 1, 0.5, torch.tensor(3.0))
        for part in (slice(0, 2), slice(2, 4))
    ]
    for name in ("loss", "loss_ms", "loss_match", "loss_rec"):
        assert sum(half[name] for half in halves).item() == pytest.approx(whole[name].item(), rel=1e-12)
    assert whole["loss"].item() == pytest.approx((whole["loss_ms"] + whole["loss_match"]).item() + 1.5)


def test_matching_never_holds_segments_by_views_by_channels():
    b, m, v, d = 32, 32, 29, 768
    segments = Segments(torch.randn(b, m, d).requires_grad_(), torch.randn(b, d).requires_grad_(), None, None)
    views = torch.randn(b, v + 1, d).half()
    config = SimpleNamespace(**{**CONFIG, "w_ms": 0.0})
    peak = peak_bytes(lambda: losses(segments, views, config, 1)["loss_match"].backward())
    assert peak < 4 * b * m * v * d / 4, "a quarter of what the broadcast would be"


def test_what_is_used_is_counted():
    vectors = torch.eye(D)[None, :M].clone()
    views = torch.cat([torch.zeros(1, 1, D), torch.eye(D)[None, :3], -torch.eye(D)[None, :2]], 1)
    first = torch.full((1, 5, 9), -9.0)
    first[0, 0, :4] = first[0, 1, 4:] = 9.0
    second = torch.full((1, M, 5), -9.0)
    second[0, 2, 0] = second[0, 3, 1] = 9.0
    found = spread(Segments(vectors, vectors.mean(1), first, second), views, SimpleNamespace(**CONFIG), 1)
    assert found["groups_used"] == 2 and found["segments_alike"] == pytest.approx(0)
    assert found["views_matched"] == 3, "the fourth segment is as near to each, and the first of them is taken"


# the paper's student

ENCODER = {"name": "tiny", "width": 16, "layers": 1, "heads": 2, "patch": 4, "side": 16, "patches": 16,
           "decoder": [8, 1, 2], "sees_cls": False, "norm_pix": False}  # fmt: skip
RECORD = {"kind": "paper", "width": 16, "out": D, "groups": [4, 2], "hard": True, "tau": 1.0, "eps": 1.0,
          "tokens_for_match": "after5", "token_projector": "shared", "anchor": "none"}  # fmt: skip


ORDER = torch.rand(2, 16, generator=torch.Generator().manual_seed(3)).argsort(1)


def student(**changes):
    torch.manual_seed(0)
    return PixelStudent({**RECORD, "encoder": {**ENCODER, **changes}})


@pytest.mark.parametrize("norm_pix", [False, True])
def test_reconstruction_is_of_hidden_patches_alone(norm_pix):
    own = student(norm_pix=norm_pix)
    pixels = torch.rand(2, 3, 16, 16) * 255
    segments, rec = own(pixels, ORDER[:, :6])
    assert segments.first.shape == (2, 4, 6), "the head sees what the encoder sees"
    # with a decoder that says zero, the loss is the hidden patches' mean square
    torch.nn.init.zeros_(own.to_pixels.weight)
    _, rec = own(pixels, ORDER[:, :6])
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    total = 0.0
    for b in range(2):
        for place in ORDER[b, 6:].tolist():
            row, column = divmod(place, 4)
            patch = ((pixels[b] / 255 - mean) / std)[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
            if norm_pix:
                patch = (patch - patch.mean()) / (patch.var(unbiased=False) + 1e-6).sqrt()
            total += patch.square().mean()
    assert rec.item() == pytest.approx((total / 20).item(), rel=1e-4)


def test_patches_lie_row_by_row_and_have_positions_of_their_own():
    pixels = torch.arange(2 * 3 * 64).view(2, 3, 8, 8).float()
    assert torch.equal(patchified(pixels, 4)[1, 2].view(3, 4, 4), pixels[1, :, 4:, :4])
    place = positions((3, 5), 3, 16)[0]
    assert place.shape == (15, 16) and torch.cdist(place, place).fill_diagonal_(1).min() > 0.01
    assert torch.allclose(positions((8, 8), 4, 16).view(8, 8, 16)[::2, ::2], positions((4, 4), 4, 16).view(4, 4, 16))


@pytest.mark.parametrize("sees_cls", [False, True])
def test_afterwards_all_patches_of_any_size_are_seen(sees_cls):
    found, grid = student(sees_cls=sees_cls).eval().see(torch.rand(1, 3, 24, 32) * 255)
    assert grid == (6, 8) and found.shares().shape == (1, 48, 2)
    assert torch.allclose(F.normalize(found.vectors, dim=-1).norm(dim=-1), torch.ones(1, 2))
