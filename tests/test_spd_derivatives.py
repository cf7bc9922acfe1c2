"""Derivatives on positive definite matrices, also at repeated eigenvalues and coincident points."""

import pytest
import torch
from definite_matrices import SPACES, each_space, points, randn
from torch.func import grad, hessian, jacfwd, jacrev, jvp

from manifolds.matrices.spectral import log_det_sinhc, log_det_sinhc_gradient, symmetric_exp, symmetric_log, symmetrise

# The first forward-mode derivative of a process compiles torch's own decompositions with torch.jit.script.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")


@pytest.mark.parametrize("eigenvalues", [(1.0, 1.0, 1.0), (2.0, 2.0, 0.5), (1.0, 1.0 + 1e-9, 1.0 - 1e-7), (0.3, 1, 2)])
@pytest.mark.parametrize("f", [symmetric_exp, symmetric_log, log_det_sinhc, log_det_sinhc_gradient])
def test_spectral_functions_have_right_derivatives(f, eigenvalues):
    """First derivatives against differences of values, second ones against differences of first ones."""
    q = torch.linalg.qr(randn(3, 3, seed=8)).Q
    x, u, h = symmetrise((q * torch.tensor(eigenvalues, dtype=q.dtype)) @ q.mT), symmetrise(randn(3, 3)), 1e-5

    def slope(x):
        return jvp(f, (x,), (u,))[1]

    torch.testing.assert_close(slope(x), (f(x + h * u) - f(x - h * u)) / (2 * h), rtol=1e-7, atol=1e-7)
    reverse, forward = jacrev(lambda s: f(symmetrise(s)))(x), jacfwd(lambda s: f(symmetrise(s)))(x)
    torch.testing.assert_close(reverse, forward, rtol=1e-10, atol=1e-10)
    second = jvp(slope, (x,), (u,))[1]
    torch.testing.assert_close(second, (slope(x + h * u) - slope(x - h * u)) / (2 * h), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("m", SPACES[:2], ids=str)
@pytest.mark.parametrize("separation", [0.0, 1e-30, 1e-9])
@pytest.mark.parametrize("eigenvalues", [(1.0, 1.0, 1.0), (2.0, 2.0, 0.5)])
def test_derivatives_are_finite_and_agree_in_both_modes(m, separation, eigenvalues):
    x = torch.diag(torch.tensor(eigenvalues, dtype=torch.float64))
    u = separation * m.tangent_basis(x)[1]
    y = m.expmap(x, u)
    maps = {
        "expmap": lambda v: m.expmap(m.projx(x + v), u),
        "expmap in u": lambda v: m.expmap(x, m.proju(x, u + v)),
        "logmap": lambda v: m.logmap(m.projx(x + v), y),
        "logmap in y": lambda v: m.logmap(x, m.projx(y + v)),
        "dist": lambda v: m.dist(x, m.projx(y + v)),
        "norm": lambda v: m.norm(x, m.proju(x, u + v)),
        "shoot": lambda v: m.shoot(x, m.proju(x, u + v), torch.full((), 0.5, dtype=x.dtype))[1],
        "transp": lambda v: m.transp(m.projx(x + v), y, u),
        "embed": lambda v: m.embed(m.projx(x + v)),
        "log_det": lambda v: m.log_det_expmap(x, m.proju(x, u + v)),
        "log_volume": lambda v: m.log_volume_derivative(m.projx(x + v), u),
    }
    for name, f in maps.items():
        zero = torch.zeros_like(x)
        reverse, forward = jacrev(f)(zero), jacfwd(f)(zero)
        assert torch.isfinite(reverse).all(), name
        torch.testing.assert_close(reverse, forward, rtol=1e-9, atol=1e-9, msg=name)
        if separation in (0.0, 1e-9) and name != "basis":
            assert torch.isfinite(hessian(f)(zero)).all(), name
    identity = m.tangent_basis(x)
    moved = torch.stack([jvp(lambda w: m.expmap(x, w), (torch.zeros_like(x),), (e,))[1] for e in identity])
    torch.testing.assert_close(moved, identity, rtol=1e-12, atol=1e-12)
    moved = torch.stack([jvp(lambda z: m.logmap(x, z), (x,), (e,))[1] for e in identity])
    torch.testing.assert_close(moved, identity, rtol=1e-12, atol=1e-12)


SECOND_MAPS = {
    "inner": lambda m, x, y, u: m.inner(x, u, y),
    "dist": lambda m, x, y, u: m.dist(x, y),
    "norm": lambda m, x, y, u: m.norm(x, u),
    "expmap": lambda m, x, y, u: m.expmap(x, u),
    "expmap far": lambda m, x, y, u: m.expmap(x, 6 * u),
    "logmap": lambda m, x, y, u: m.logmap(x, y),
    "shoot": lambda m, x, y, u: torch.stack(m.shoot(x, u, torch.full_like(x[0, 0], 0.4))),
    "geodesic": lambda m, x, y, u: torch.stack(m.geodesic(x, y, torch.full_like(x[0, 0], 0.4))),
    "transp": lambda m, x, y, u: m.transp(x, y, u),
    "embed": lambda m, x, y, u: m.embed(x),
    "tangent_basis": lambda m, x, y, u: m.tangent_basis(x),
    "log_volume_derivative": lambda m, x, y, u: m.log_volume_derivative(x, u),
    "log_det_expmap": lambda m, x, y, u: m.log_det_expmap(x, u),
    "embed twice": lambda m, x, y, u: m.embed(x) * m.embed(y),
}


def second_derivatives(f, z, v, w):
    """The second derivative along v and w, in the four orders of forward and reverse mode."""
    live = z.clone().requires_grad_()
    once = torch.autograd.grad(f(live), live, create_graph=True)[0]

    def along(z):
        return jvp(f, (z,), (v,))[1]

    return {
        "reverse over reverse": (torch.autograd.grad((once * v).sum(), live)[0] * w).sum(),
        "forward over reverse": (jvp(grad(f), (z,), (v,))[1] * w).sum(),
        "reverse over forward": (grad(along)(z) * w).sum(),
        "forward over forward": jvp(along, (z,), (w,))[1],
    }


@pytest.mark.parametrize("m", SPACES[:2], ids=str)
@pytest.mark.parametrize("place", ["generic", "repeated", "identity", "coincident"])
@pytest.mark.parametrize("name", SECOND_MAPS)
def test_second_derivatives_are_differences_of_first_ones(name, place, m):
    if (name, place) == ("dist", "coincident") or (name, m) == ("log_det_expmap", SPACES[1]):
        pytest.skip("no derivative there, or the constant zero")
    eigenvalues = {"generic": (1.0, 3.0, 0.2), "identity": (1.0, 1.0, 1.0)}.get(place, (2.0, 2.0, 0.5))
    q = torch.linalg.qr(randn(3, 3, seed=8)).Q
    x = symmetrise((q * torch.tensor(eigenvalues, dtype=q.dtype)) @ q.mT)
    z = torch.stack([x, x if place == "coincident" else points(m, seed=4), 0.5 * symmetrise(randn(3, 3, seed=3))])
    v, w = symmetrise(randn(2, 3, 3, 3, seed=6))
    weights = randn(*SECOND_MAPS[name](m, *z).shape, 1, seed=2)[..., 0]

    def f(z):
        return (weights * SECOND_MAPS[name](m, *map(symmetrise, z))).sum()

    h = 1e-4
    ahead, near, back, behind = (grad(f)(z + k * h * v) for k in (2, 1, -1, -2))
    expected = ((8 * (near - back) - (ahead - behind)) / (12 * h) * w).sum()
    for order, value in second_derivatives(f, z, v, w).items():
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-6, msg=lambda text, o=order: f"{o}: {text}")


@pytest.mark.parametrize("f", [symmetric_exp, symmetric_log, log_det_sinhc, log_det_sinhc_gradient])
def test_third_derivatives_are_not_silently_zero(f):
    x, u = torch.diag(torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)), symmetrise(randn(3, 3))
    third = jvp(lambda a: jvp(lambda b: jvp(f, (b,), (u,))[1], (a,), (u,))[1], (x,), (u,))[1]
    assert not torch.isfinite(third).any()


@each_space
def test_gradient_of_squared_distance_is_minus_two_log(m):
    x, y = points(m), points(m, seed=4)
    gradient = grad(lambda x: m.dist(m.projx(x), y) ** 2)(x)
    for e in m.tangent_basis(x):
        torch.testing.assert_close((gradient * e).sum(), -2 * m.inner(x, m.logmap(x, y), e), rtol=1e-9, atol=1e-9)
