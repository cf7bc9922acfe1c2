"""The differentials of exp and log: the checker's law over all manifolds, shapes, precision, and closed-form truths."""

import math
from collections.abc import Callable

import mpmath
import pytest
import torch
from manifold_zoo import ZOO
from random_fields import points
from torch import Tensor

from manifolds import SO3, FlatTorus, Manifold, Octahedral, Quotient, Ragged, RightMultiplication, Sphere
from manifolds.testing import check_manifold
from manifolds.testing.differentials import differentials_right

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

OTHERS: list[tuple[str, Callable[[], Manifold]]] = [
    ("SO3/cubic", lambda: Quotient(SO3(), RightMultiplication(Octahedral()))),
]


# Every third one is fast: the checker's own tests go through all.
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(make, id=name, marks=[pytest.mark.slow] if i % 3 else [])
        for i, (name, make) in enumerate((*ZOO, *OTHERS))
    ],
)
def test_the_law_holds_at_few_points(make: Callable[[], Manifold]) -> None:
    check_manifold(make(), laws=[differentials_right], dtypes=(torch.float64,), samples=6).raise_if_failed()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in ZOO[::3]])
def test_shapes_broadcast_and_directions_stack(make: Callable[[], Manifold], dtype: torch.dtype) -> None:
    manifold, generator = make(), torch.Generator().manual_seed(0)
    x = _some(manifold, (5,), generator)
    u = 0.1 * manifold.proju(x, _normal(manifold, (5,), generator))
    y = manifold.expmap(x, u)
    dx, du, dy = (manifold.proju(a, _normal(manifold, (2, 3, 5), generator)) for a in (x, x, y))
    x, u, y, dx, du, dy = (a.to(dtype) for a in (x, u, y, dx, du, dy))
    for one, at, along in (
        (manifold.expmap_jvp, (x, u), (dx, du)),
        (manifold.logmap_jvp, (x, y), (dx, dy)),
    ):
        value, change = one(*at, *along)
        assert value.shape == (5, *manifold.event_shape)
        assert change.shape == (2, 3, 5, *manifold.event_shape)
        assert value.dtype == change.dtype == dtype
        single = one(*(a[2] for a in at), *(d[1, 2, 2] for d in along))[1]
        assert single.dtype == dtype
        if dtype == torch.float32:
            torch.testing.assert_close(single, change[1, 2, 2], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in ZOO])
def test_pulling_back_is_the_inverse_of_the_differential_of_exp(make: Callable[[], Manifold]) -> None:
    manifold, generator = make(), torch.Generator().manual_seed(0)
    x = points(manifold, 3)
    u, du = (0.05 * manifold.proju(x, _normal(manifold, (3,), generator).double()) for _ in range(2))
    y, v = manifold.expmap_jvp(x, u, torch.zeros_like(x), du)
    found = manifold.pull_back(x, u, y, v)
    torch.testing.assert_close(manifold.proju(x, found), found, rtol=0, atol=1e-6)
    torch.testing.assert_close(manifold.proju(x, found), du, rtol=0, atol=1e-6)


def _normal(manifold: Manifold, batch: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(*batch, *manifold.event_shape, generator=generator)


def _some(manifold: Manifold, batch: tuple[int, ...], generator: torch.Generator) -> Tensor:
    shape = manifold.event_shape
    centre = torch.eye(*shape[-2:]).expand(shape) if len(shape) > 1 else torch.full(shape, 0.4)
    return manifold.projx(centre + 0.1 * _normal(manifold, batch, generator))


def test_along_a_geodesic_of_the_sphere_they_are_jacobi_fields() -> None:
    """A field across a great circle of speed a grows as sin(a t) / a, or as cos(a t): do Carmo 1992, chapter 5."""
    sphere, angle = Sphere(2), 1.3
    x, u = torch.tensor([1.0, 0, 0]).double(), torch.tensor([0, angle, 0]).double()
    across, zero = torch.tensor([0, 0, 1.0]).double(), torch.zeros(3).double()
    y, (turned, shifted) = sphere.expmap_jvp(x, u, torch.stack([zero, across]), torch.stack([across, zero]))
    torch.testing.assert_close(turned, across * math.sin(angle) / angle)
    torch.testing.assert_close(shifted, across * math.cos(angle))
    _, (to_y, to_x) = sphere.logmap_jvp(x, y, torch.stack([zero, across]), torch.stack([across, zero]))
    torch.testing.assert_close(to_y, across * angle / math.sin(angle))
    torch.testing.assert_close(to_x, -across * angle / math.tan(angle))


def test_on_rotations_they_are_the_derivatives_of_matrix_exponentials() -> None:
    so3, generator = SO3(), torch.Generator().manual_seed(1)
    x = so3.random_uniform(generator=generator, dtype=torch.float64)
    omega, change = torch.randn(2, 3, generator=generator, dtype=torch.float64)

    def hat(a: Tensor) -> Tensor:
        return so3.lie_group.from_algebra(torch.eye(3, dtype=torch.float64), a)

    def truth(s: mpmath.mpf) -> mpmath.matrix:
        exponent = mpmath.matrix((hat(omega)).tolist()) + s * mpmath.matrix(hat(change).tolist())
        return mpmath.matrix(x.tolist()) * mpmath.expm(exponent)

    with mpmath.workdps(50):
        h = mpmath.mpf(10) ** -15
        slope = (truth(h) - truth(-h)) / (2 * h)
    _, dy = so3.expmap_jvp(x, x @ hat(omega), torch.zeros_like(x), x @ hat(change))
    torch.testing.assert_close(dy, torch.tensor(slope.tolist(), dtype=torch.float64), rtol=0, atol=1e-13)


def test_a_quotient_pushes_what_moves_another_representative() -> None:
    quotient = Quotient(SO3(), RightMultiplication(Octahedral()))
    generator = torch.Generator().manual_seed(2)
    x, y = quotient.random_uniform(2, 20, generator=generator, dtype=torch.float64)
    dx, dy = (quotient.proju(a, torch.randn(3, 20, 3, 3, generator=generator, dtype=torch.float64)) for a in (x, y))
    u, du = quotient.logmap_jvp(x, y, dx, dy)
    h = 1e-5
    ahead, back = (quotient.logmap(quotient.projx(x + s * dx), quotient.projx(y + s * dy)) for s in (h, -h))
    torch.testing.assert_close((ahead - back) / (2 * h), du, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(u, quotient.logmap(x, y))


def test_padding_does_not_move() -> None:
    ragged = Ragged(Sphere(2), FlatTorus(1), 3)
    generator = torch.Generator().manual_seed(3)
    x = ragged.pack(
        Sphere(2).random_uniform(4, generator=generator),
        FlatTorus(1).random_uniform(4, 3, generator=generator),
        torch.tensor([[True, True, False]]).expand(4, 3),
    )
    a, b = torch.randn(2, *x.shape, generator=generator)
    y, dy = ragged.expmap_jvp(x, ragged.proju(x, a), ragged.proju(x, b), ragged.proju(x, a))
    torch.testing.assert_close(ragged.proju(y, dy), dy)
    torch.testing.assert_close(y, ragged.expmap(x, ragged.proju(x, a)))


def test_they_compile_and_train() -> None:
    sphere, generator = Sphere(2), torch.Generator().manual_seed(4)
    x = sphere.random_uniform(6, generator=generator)
    u, dx, du = (sphere.proju(x, a) for a in torch.randn(3, 6, 3, generator=generator))
    scale = torch.ones((), requires_grad=True)
    y, dy = sphere.expmap_jvp(x, scale * u, dx, scale * du)
    (y.sum() + dy.square().sum()).backward()
    assert scale.grad is not None
    assert 0 < float(scale.grad.abs()) < math.inf
    compiled = torch.compile(sphere.expmap_jvp, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x, u, dx, du), sphere.expmap_jvp(x, u, dx, du))
