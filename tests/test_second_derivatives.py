"""Second derivatives, in forward and reverse mode over either, of manifolds whose maps are solved for.

Those of the manifolds of the zoo are held by the checker's law of that name, as these are.
"""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.func import grad, hessian, jacfwd, jacrev

from manifolds import Ellipsoid, FlatTorus, Grassmann, Hyperboloid, LevelSet, Manifold, Power, Product, Sphere, Stiefel
from manifolds.numerics.linear_algebra import log_abs_det, orthonormal_rows, solve
from manifolds.testing import check_manifold
from manifolds.testing.second_derivatives import second_derivatives_right

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")


class ByRequiredMethods(Manifold):
    """The hyperboloid with the defaults for all that is free; its projection to the tangent space is oblique."""

    injectivity_radius = math.inf

    def __init__(self) -> None:
        super().__init__(2, (3,))
        self.m = Hyperboloid(2)
        for name in ("projx", "proju", "expmap", "logmap"):
            setattr(self, name, getattr(self.m, name))

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return self.m.inner(x, u, v)


def torus(x: Tensor) -> Tensor:
    return (torch.sqrt(x[..., 0] ** 2 + x[..., 1] ** 2) - 2) ** 2 + x[..., 2] ** 2 - 1


def two_circles(x: Tensor) -> Tensor:
    return torch.stack([x[..., :2].square().sum(-1) - 1, x[..., 2:].square().sum(-1) - 1], dim=-1)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


SOLVED: list[tuple[str, Callable[[], Manifold], bool]] = [
    ("Stiefel(4, 2)", lambda: Stiefel(4, 2), False),
    ("Stiefel(3, 2)", lambda: Stiefel(3, 2), True),
    ("Stiefel(3, 1)", lambda: Stiefel(3, 1), True),
    ("Stiefel(5, 3)", lambda: Stiefel(5, 3), True),
    ("Grassmann(3, 1)", lambda: Grassmann(3, 1), True),
    ("Grassmann(3, 2)", lambda: Grassmann(3, 2), False),
    ("Grassmann(7, 3)", lambda: Grassmann(7, 3), True),
    ("Power(Stiefel(4, 2), 2)", lambda: Power(Stiefel(4, 2), 2), True),
    ("ByRequiredMethods", ByRequiredMethods, False),
    ("Ellipsoid", lambda: Ellipsoid((1.0, 1.2, 0.8), steps=6, nodes=8, rounds=6), True),
    ("LevelSet(torus)", lambda: LevelSet(torus, 3, radius=3.1, curvature=1.0, volume=8 * math.pi**2, steps=6), True),
    ("LevelSet(two_circles)", lambda: LevelSet(two_circles, 4, radius=1.5, curvature=1.0, steps=6, nodes=8), True),
]


@pytest.mark.parametrize(
    "make", [pytest.param(make, id=name, marks=[pytest.mark.slow] if slow else []) for name, make, slow in SOLVED]
)
def test_second_derivatives_are_right(make: Callable[[], Manifold]) -> None:
    report = check_manifold(make(), dtypes=(torch.float64,), samples=6, laws=[second_derivatives_right])
    report.raise_if_failed()
    assert report.held == (second_derivatives_right.name,)


NESTED = {
    "forward over forward": lambda f: jacfwd(jacfwd(f)),
    "reverse over forward": lambda f: jacrev(jacfwd(f)),
    "forward over reverse": lambda f: jacfwd(jacrev(f)),
    "reverse over reverse": lambda f: jacrev(jacrev(f)),
}


@pytest.mark.parametrize("nesting", NESTED)
@pytest.mark.parametrize(
    "make",
    [
        lambda: Stiefel(4, 2),
        lambda: Grassmann(5, 2),
        lambda: Ellipsoid((1.0, 1.2, 0.8), steps=2, nodes=4, rounds=1),
        lambda: LevelSet(torus, 3, radius=3.1, curvature=1.0, volume=8 * math.pi**2, steps=2),
    ],
    ids=["Stiefel(4, 2)", "Grassmann(5, 2)", "Ellipsoid", "LevelSet"],
)
def test_hessian_of_log_det_expmap(make: Callable[[], Manifold], nesting: str) -> None:
    m = make()
    x = m.random_uniform(generator=seeded(), dtype=torch.float64)
    e, d = (m.proju(x, torch.randn(*m.event_shape, generator=seeded(), dtype=x.dtype) * a) for a in (0.4, x))

    def along(s: Tensor) -> Tensor:
        return m.log_det_expmap(x, e + s * d)

    h, zero = 1e-3, x.new_zeros(())
    expected = (grad(along)(zero + h) - grad(along)(zero - h)) / (2 * h)
    torch.testing.assert_close(NESTED[nesting](along)(zero), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("nesting", NESTED)
@pytest.mark.parametrize(
    ("function", "same"),
    [
        (lambda a: solve(a, a[..., 0] + 1), lambda a: torch.linalg.inv(a) @ (a[..., 0] + 1)),
        (log_abs_det, lambda a: torch.linalg.svdvals(a).log().sum(-1)),
        (lambda a: orthonormal_rows(a[:2]).mT @ orthonormal_rows(a[:2]), lambda a: torch.linalg.pinv(a[:2]) @ a[:2]),
    ],
    ids=["solve", "log_abs_det", "orthonormal_rows"],
)
def test_linear_algebra(function: Callable[[Tensor], Tensor], same: Callable[[Tensor], Tensor], nesting: str) -> None:
    a = torch.randn(3, 3, generator=seeded(), dtype=torch.float64)
    # Orthonormal, as far as the last of them asks.
    a = torch.linalg.qr(a).Q if nesting and function(a).ndim == 2 else a
    nested = NESTED[nesting]
    torch.testing.assert_close(nested(function)(a), hessian(same)(a), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("angles", [(0.3, 0.9), (0.0, 1.1), (0.7, 0.7), (0.0, 0.0), (1.5, 1.4), (2.0, 2.9)])
@pytest.mark.parametrize(("n", "p"), [(5, 2), (3, 2), (4, 3)])
def test_volume_of_grassmann_at_vanishing_and_equal_angles(n: int, p: int, angles: tuple[float, float]) -> None:
    m, count = Grassmann(n, p), min(p, n - p)
    x = torch.eye(n, p, dtype=torch.float64)
    u = torch.zeros_like(x)
    u[p : p + count, :count] = torch.diag(torch.tensor(angles[:count], dtype=x.dtype))
    d = 0.3 * m.proju(x, torch.randn(n, p, generator=seeded(), dtype=x.dtype))

    def along(s: Tensor) -> Tensor:
        return m.log_det_expmap(x, u + s[..., None, None] * d)

    h = 0.01
    stencil = torch.tensor([1 / 90, -3 / 20, 3 / 2, -49 / 18, 3 / 2, -3 / 20, 1 / 90], dtype=x.dtype)
    expected = (stencil * along(h * torch.arange(-3.0, 4.0, dtype=x.dtype))).sum() / h**2
    found = torch.stack([nested(along)(x.new_zeros(())) for nested in NESTED.values()])
    torch.testing.assert_close(found, expected.expand(4), rtol=1e-6, atol=1e-6)


def test_product_with_a_solved_factor() -> None:
    m = Product(Sphere(2), Grassmann(3, 1))
    report = check_manifold(m, dtypes=(torch.float64,), samples=6, laws=[second_derivatives_right])
    report.raise_if_failed()


@pytest.mark.parametrize("nesting", NESTED)
def test_distance_where_one_factor_coincides(nesting: str) -> None:
    m = Product(Sphere(2), Power(FlatTorus(1), 2))
    x = torch.tensor([0.0, 0.0, 1.0, 0.4, -0.3], dtype=torch.float64)

    def along(s: Tensor) -> Tensor:
        y = torch.stack([torch.sin(0.3 * s), 0.0 * s, torch.cos(0.3 * s), 1.4 + 0.0 * s, -0.3 + 0.2 * s])
        return m.dist(x, y)

    # The root of 1 + (0.3^2 + 0.2^2) s^2.
    assert float(NESTED[nesting](along)(x.new_zeros(()))) == pytest.approx(0.13, abs=1e-12)
    assert float(along(x.new_zeros(()))) == pytest.approx(1.0, abs=1e-15)


def test_squared_distance_has_curvature_at_zero() -> None:
    x = torch.tensor([0.0, 0.6, 0.8], dtype=torch.float64)
    found = hessian(lambda y: Sphere(2).squared_dist(x, Sphere(2).projx(y)))(x)
    torch.testing.assert_close(found, 2 * (torch.eye(3, dtype=x.dtype) - torch.outer(x, x)))
