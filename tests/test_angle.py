"""Angles between tangent vectors, over all manifolds: against 50 digits, near 0 and pi too."""

import math
from collections.abc import Callable

import mpmath
import pytest
import torch
from manifold_zoo import ZOO
from random_fields import points, tangents
from torch import Tensor

from manifolds import Euclidean, Hyperboloid, Manifold, Sphere

EACH = pytest.mark.parametrize("make", [make for _, make in ZOO], ids=[name for name, _ in ZOO])


def truth(manifold: Manifold, x: Tensor, u: Tensor, w: Tensor, sign: float) -> list[float]:
    """The angle between u and sign * u + w, from inner products alone, by 50 digits: no unit vectors."""
    pairs = ((u, u), (u, w), (w, w))
    uu, uw, ww = (manifold.inner(x, a, b).tolist() for a, b in pairs)
    angles = []
    with mpmath.workdps(50):
        for a, b, c in zip(uu, uw, ww, strict=True):
            area = mpmath.sqrt(max(mpmath.mpf(a) * c - mpmath.mpf(b) ** 2, mpmath.mpf(0)))
            angles.append(float(mpmath.atan2(area, sign * mpmath.mpf(a) + b)))
    return angles


@EACH
@pytest.mark.parametrize("size", [1.0, 1e-3, 1e-7])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_angles_agree_with_50_digits(make: Callable[[], Manifold], size: float, sign: float) -> None:
    manifold = make()
    if manifold.dim == 1:
        pytest.skip("there are two directions only")
    x = points(manifold, 20, seed=0)
    u, w = tangents(manifold, x, 1), size * tangents(manifold, x, 2)
    found, expected = manifold.angle(x, u, sign * u + w), x.new_tensor(truth(manifold, x, u, w, sign))
    # What u + w is rounded by turns it by a unit of rounding, more where the metric stretches.
    assert float((found - expected).abs().max()) < 1e-13


@EACH
def test_the_angle_does_not_depend_on_lengths(make: Callable[[], Manifold]) -> None:
    manifold = make()
    x = points(manifold, 8, seed=0)
    u, v = (tangents(manifold, x, seed).float() for seed in (1, 2))
    x = x.float()
    plain = manifold.angle(x, u, v)
    assert plain.dtype == torch.float32
    assert plain.shape == (8,)
    torch.testing.assert_close(manifold.angle(x, 2.0**80 * u, 2.0**-80 * v), plain, atol=1e-6, rtol=0)
    torch.testing.assert_close(manifold.angle(x, v, u), plain, atol=1e-6, rtol=0)
    torch.testing.assert_close(manifold.angle(x, u, -v), math.pi - plain, atol=2e-6, rtol=0)
    assert bool((manifold.angle(x, u, 3 * u).abs() < 1e-6).all())


@EACH
def test_coordinates_of_an_orthonormal_basis_have_the_same_angle(make: Callable[[], Manifold]) -> None:
    manifold = make()
    x = points(manifold, 1, seed=0)[0]
    coefficients = torch.randn(2, manifold.dim, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    u, v = torch.tensordot(coefficients, manifold.tangent_basis(x), dims=1)
    expected = Euclidean(manifold.dim).angle(torch.zeros(manifold.dim).double(), *coefficients)
    assert float(manifold.angle(x, u, v)) == pytest.approx(float(expected), abs=1e-10)


def test_a_zero_vector_has_no_direction() -> None:
    x = torch.tensor([0.0, 0.0, 1.0])
    assert bool(Sphere(2).angle(x, torch.zeros(3), torch.tensor([1.0, 0.0, 0.0])).isnan())


def test_an_arc_cosine_would_lose_small_angles() -> None:
    x, u = torch.zeros(2), torch.tensor([1.0, 0.0])
    v = torch.tensor([1.0, 1e-5])
    assert float(torch.acos((u @ v) / (u.norm() * v.norm()))) == 0.0
    assert float(Euclidean(2).angle(x, u, v)) == pytest.approx(1e-5, rel=1e-6)


def test_derivatives_are_finite_at_both_ends() -> None:
    plane = Hyperboloid(2)
    x = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    u = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
    for v in (u.clone(), -u):
        v.requires_grad_()
        (gradient,) = torch.autograd.grad(plane.angle(x, u, v), v)
        assert bool(gradient.isfinite().all())
