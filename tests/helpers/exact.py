"""How far a result is from the exact one."""


def gap(found, exact):
    """Relative distance from the exact tensor; where that is zero, the absolute one."""
    found, exact = found.detach().double(), exact.detach().double()
    assert found.shape == exact.shape
    return ((found - exact).norm() / (exact.norm() if exact.norm() > 0 else 1)).item()
