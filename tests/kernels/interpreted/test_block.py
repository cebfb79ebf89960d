"""What lies between the products of a transformer block, in Triton's interpreter, against the definition in float64."""

import pytest
import torch

from fastzss.kernels import fused_block, reference

pytestmark = pytest.mark.usefixtures("poison")
# Not of three channels: a norm leaves one direction of a gradient there, what cancelling leaves of its numbers.
SIZES = [(1, 1, 9), (3, 5, 7), (37, 64, 130), (600, 24, 100), (5, 300, 520)]  # tokens, channels in, channels out
EXACT = 1e-6


def gap(found, exact):
    """Relative distance from the exact tensor; where that is zero, the absolute one."""
    found, exact = found.detach().double(), exact.detach().double()
    assert found.shape == exact.shape
    return ((found - exact).norm() / (exact.norm() if exact.norm() > 0 else 1)).item()


def norm_case(T, V, W, seed=0):
    torch.manual_seed(seed)
    sizes = (T, V), (W, V), (W,), (T, W), (W,), (W,)
    y, weight, bias, x, gain, shift = (torch.randn(*size, dtype=torch.double) for size in sizes)
    return y, weight * V**-0.5, bias, x + 3, gain, shift


def gelu_case(T, V, W, seed=0):
    return norm_case(T, V, W, seed)[:3]


def results(op, inputs, dtype, **more):
    """[outputs, gradients of all inputs]."""
    leaves = [t.to(dtype).requires_grad_() for t in inputs]
    out = op(*leaves, **more)
    out = list(out) if isinstance(out, tuple) else [out]
    upstream = [
        torch.linspace(-1, 2 + i, o.numel(), dtype=torch.double).reshape(o.shape).to(o.dtype) for i, o in enumerate(out)
    ]
    return [*out, *torch.autograd.grad(out, leaves, upstream)], len(out)


def as_near_as_plain(op, inputs, **more):
    """Forward twice, backward three times the error of plain PyTorch in float16."""
    inputs = [t.half() for t in inputs]
    found, outputs = results(getattr(fused_block, op), inputs, torch.float16, **more)
    plain, _ = results(getattr(reference, op), inputs, torch.float16, **more)
    exact, _ = results(getattr(reference, op), inputs, torch.double, **more)
    for which, (f, p, e) in enumerate(zip(found, plain, exact, strict=True)):
        assert f.dtype == torch.float16
        assert gap(f, e) <= max((2 if which < outputs else 3) * gap(p, e), EXACT)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_stream_norm_and_gradients(sizes):
    inputs = norm_case(*sizes)
    found, _ = results(fused_block.linear_residual_norm, inputs, torch.float32)
    plain, _ = results(reference.linear_residual_norm, inputs, torch.float32)
    exact, _ = results(reference.linear_residual_norm, inputs, torch.double)
    for f, p, e in zip(found, plain, exact, strict=True):
        assert gap(f, e) <= max(3 * gap(p, e), EXACT)


@pytest.mark.parametrize("quick", [False, True], ids=["gelu", "quick_gelu"])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_activation_and_gradients(sizes, quick):
    inputs = gelu_case(*sizes)
    found, _ = results(fused_block.linear_gelu, inputs, torch.float32, quick=quick)
    exact, _ = results(reference.linear_gelu, inputs, torch.double, quick=quick)
    for f, e in zip(found, exact, strict=True):
        assert gap(f, e) <= EXACT


@pytest.mark.parametrize("sizes", [(37, 64, 130), (600, 24, 100)], ids=str)
def test_float16_is_as_near_as_plain_pytorch(sizes):
    as_near_as_plain("linear_residual_norm", norm_case(*sizes))
    for quick in (False, True):
        as_near_as_plain("linear_gelu", gelu_case(*sizes), quick=quick)


def test_the_last_norm_needs_no_gradient_of_the_stream():
    inputs = norm_case(20, 8, 24)

    def last(*leaves):
        return fused_block.linear_residual_norm(*leaves)[1]

    found, _ = results(last, inputs, torch.float32)
    exact, _ = results(lambda *leaves: reference.linear_residual_norm(*leaves)[1], inputs, torch.double)
    assert all(gap(f, e) <= 3 * EXACT for f, e in zip(found, exact, strict=True))


def test_large_activations_have_a_slope_of_one_or_none():
    y = torch.tensor([[-200.0, -30.0, 30.0, 200.0]])
    for quick in (False, True):
        leaf = y.clone().requires_grad_()
        out = fused_block.linear_gelu(leaf, torch.eye(4), torch.zeros(4), quick=quick)
        assert torch.allclose(out, torch.tensor([[0.0, 0.0, 30.0, 200.0]]), atol=1e-12)
        out.sum().backward()
        assert torch.allclose(leaf.grad, torch.tensor([[0.0, 0.0, 1.0, 1.0]]), atol=1e-12)


def test_autocast_shortens_the_products_and_keeps_the_stream():
    inputs = norm_case(40, 16, 24)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, _ = results(fused_block.linear_residual_norm, inputs, torch.float32)
        hidden, _ = results(fused_block.linear_gelu, inputs[:3], torch.float32)
    assert [f.dtype for f in found[:2]] == [torch.float32, torch.bfloat16] and hidden[0].dtype == torch.bfloat16
    exact, _ = results(reference.linear_residual_norm, inputs, torch.double)
    assert all(gap(f, e) <= 2e-2 for f, e in zip(found, exact, strict=True))


def test_same_bits_every_time():
    inputs = norm_case(600, 24, 100)
    for op, own in (("linear_residual_norm", inputs), ("linear_gelu", inputs[:3])):
        first, second = (results(getattr(fused_block, op), own, torch.float32)[0] for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_inputs_that_are_not_contiguous():
    y, weight, bias, x, gain, shift = norm_case(20, 8, 24)
    views = y.T.contiguous().T, weight.T.contiguous().T, bias, x.T.contiguous().T, gain, shift
    found, _ = results(fused_block.linear_residual_norm, views, torch.float32)
    exact, _ = results(reference.linear_residual_norm, (y, weight, bias, x, gain, shift), torch.double)
    assert all(gap(f, e) <= 3 * EXACT for f, e in zip(found, exact, strict=True))


def test_no_tokens_at_all():
    inputs = norm_case(0, 8, 24)
    for op, own in (("linear_residual_norm", inputs), ("linear_gelu", inputs[:3])):
        found, outputs = results(getattr(fused_block, op), own, torch.float32)
        assert all(f.shape[0] == 0 for f in found[:outputs]) and all(f.eq(0).all() for f in found)


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
