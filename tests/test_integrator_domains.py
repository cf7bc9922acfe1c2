"""Steps that leave the domain, groups, and integrators under transformations of functions."""

import math
from collections.abc import Callable

import pytest
import torch
from manifold_zoo import ZOO
from random_fields import normal, points, wavy_field
from torch import Tensor

from manifolds import SE3, SO3, SPD, Euclidean, FlatTorus, Manifold, PoincareBall, Power, Product, Quotient, Sphere
from rfm.integrators import (
    DORMAND_PRINCE,
    EULER,
    GEODESIC_MIDPOINT,
    RK4,
    Adaptive,
    FixedStep,
    MuntheKaas,
    NormalCoordinates,
    Projected,
    Scheme,
    integrate,
)

# The contract of `outside`.


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in ZOO])
def test_points_are_inside(make: Callable[[], Manifold]) -> None:
    m = make()
    outside = m.outside(points(m, 2, 3))
    assert outside is None or (outside.shape == (2, 3) and not bool(outside.any()))


def test_what_projection_only_repairs_is_outside() -> None:
    ball, cone = PoincareBall(2, 4.0), SPD(2)
    x = torch.tensor([[0.3, 0.0], [0.6, 0.0], [math.nan, 0.0]])
    assert ball.outside(x).tolist() == [False, True, True]
    s = torch.stack([torch.eye(2), torch.tensor([[1.0, 2.0], [2.0, 1.0]])])
    assert cone.outside(s).tolist() == [False, True]
    both = Product(Sphere(2), ball, cone)
    sphere = torch.tensor([0.0, 0.0, 2.0]).expand(3, 3)
    z = both.join(sphere, torch.tensor([[0.3, 0.0], [0.6, 0.0], [0.3, 0.0]]), s[[0, 0, 1]])
    assert both.outside(z).tolist() == [False, True, True]
    assert Power(cone, 2).outside(s[torch.tensor([[0, 0], [0, 1]])]).tolist() == [False, True]
    assert Product(Sphere(2), SO3()).outside(torch.zeros(12)) is None


def shrinking(x: Tensor, t: Tensor) -> Tensor:
    """A field on the cone only, which long projected steps leave."""
    assert bool((torch.linalg.eigvalsh(x) > 0).all())
    return -8 * x


@pytest.mark.parametrize("wrap", [Projected, NormalCoordinates])
def test_adaptive_steps_that_leave_are_made_again(wrap: type[Projected]) -> None:
    m = SPD(2)
    x = points(m, 3)
    solution = integrate(shrinking, m, x, (0.0, 1.0), Adaptive(wrap(DORMAND_PRINCE), 1e-6, 1e-6))
    torch.testing.assert_close(solution.final, math.exp(-8) * x, rtol=1e-3, atol=1e-7)


def test_fixed_steps_that_leave_fail_and_say_so() -> None:
    m = SPD(2)
    x = torch.stack([torch.eye(2), 2 * torch.eye(2), torch.diag(torch.tensor([1.0, 1e-3]))]).double()
    push = -0.05 * torch.eye(2, dtype=torch.float64)

    def field(y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        assert bool((torch.linalg.eigvalsh(y) > 0).all())
        return push.expand_as(y), torch.ones_like(t)

    for method in (FixedStep(EULER, 4), FixedStep(RK4, 4)):
        solution = integrate(field, m, x, (0.0, 0.01, 0.5, 1.0), method, with_integral=True, raise_on_failure=False)
        assert solution.success.tolist() == [True, True, False]
        assert "left the manifold" in solution.describe_failure()
        assert solution.integral is not None
        for values in (solution.x.sum((-2, -1)), solution.integral):
            assert torch.isnan(values[:, 2]).tolist() == [False, False, True, True]
        torch.testing.assert_close(solution.final[:2], x[:2] + push)
    adaptive = integrate(field, m, x, (0.0, 1.0), Adaptive(max_steps=100), with_integral=True, raise_on_failure=False)
    assert adaptive.success.tolist() == [True, True, False]
    assert "1 of 3 samples (numbers 2)" in adaptive.describe_failure()


def test_normal_coordinates_stay_in_the_ball_where_projection_leaves_it() -> None:
    m = PoincareBall(2)
    x = torch.tensor([[0.9, 0.0], [0.0, -0.5]], dtype=torch.float64)

    def outward(y: Tensor, t: Tensor) -> Tensor:
        """Run from the origin at speed 4 in the metric."""
        return 2 * (1 - (y * y).sum(-1, keepdim=True)) * y / y.norm(dim=-1, keepdim=True)

    origin = torch.zeros(2, dtype=torch.float64)
    projected = integrate(outward, m, x, (0.0, 1.0), FixedStep(Projected(EULER), 2), raise_on_failure=False)
    assert not bool(projected.success.any())
    normal_steps = integrate(outward, m, x, (0.0, 1.0), FixedStep(NormalCoordinates(RK4), 2))
    torch.testing.assert_close(m.dist(origin, normal_steps.final), m.dist(origin, x) + 4)


def test_steps_beyond_the_injectivity_radius_fail_in_normal_coordinates() -> None:
    m = Sphere(2)
    x = points(m, 2)

    def fast(y: Tensor, t: Tensor, speed: Tensor) -> Tensor:
        turn = torch.stack([-y[..., 1], y[..., 0], 0 * y[..., 2]], dim=-1)
        return speed[..., None] * turn / turn.norm(dim=-1, keepdim=True)

    method = FixedStep(NormalCoordinates(RK4), 1)
    speed = torch.tensor([0.5, 7.0], dtype=torch.float64)
    solution = integrate(fast, m, x, (0.0, 1.0), method, raise_on_failure=False, speed=speed)
    assert solution.success.tolist() == [True, False]


# Groups.


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in ZOO])
def test_laws_of_groups(make: Callable[[], Manifold]) -> None:
    m = make()
    group = m.lie_group
    if group is None:
        assert not isinstance(m, Euclidean | FlatTorus | SO3 | SE3)
        return
    x, a, b, c = points(m, 5), normal(5, m.dim, seed=1), normal(5, m.dim, seed=2), normal(5, m.dim, seed=3)
    u = group.from_algebra(x, a)
    m.check_tangent(x, u)
    torch.testing.assert_close(group.to_algebra(x, u), a)
    y = group.translate(x, a)
    m.check_point(y)
    # One-parameter subgroups, and their velocity.
    half = group.translate(group.translate(x, a / 2), a / 2)
    assert float(m.dist(half, y).max()) < 1e-13
    velocity = torch.func.jvp(
        lambda s: group.translate(x, s * a), (torch.ones(5, 1).double(),), (torch.ones(5, 1).double(),)
    )
    torch.testing.assert_close(velocity[1], group.from_algebra(y, a))
    # The bracket is that of the group: Exp(a) Exp(b) = Exp(b) Exp(a) Exp([a, b]) up to third order.
    bracket = group.bracket
    torch.testing.assert_close(bracket(a, b), -bracket(b, a))
    jacobi = bracket(a, bracket(b, c)) + bracket(b, bracket(c, a)) + bracket(c, bracket(a, b))
    torch.testing.assert_close(jacobi, torch.zeros_like(a), rtol=0, atol=1e-13)
    s = 1e-3
    one = group.translate(group.translate(x, s * a), s * b)
    other = group.translate(group.translate(group.translate(x, s * b), s * a), s * s * bracket(a, b))
    assert float(m.dist(one, other).max()) < 40 * s**3
    assert group.commutative == (float(bracket(a, b).abs().max()) == 0)


def test_quotients_take_the_group_of_their_cover() -> None:
    for name, make in ZOO:
        m = make()
        if isinstance(m, Quotient):
            assert (m.lie_group is None) == (m.m.lie_group is None), name


# Under transformations of functions.

SCHEMES = [
    (Sphere(2), Projected(RK4)),
    (Sphere(2), GEODESIC_MIDPOINT),
    (Sphere(2), NormalCoordinates(RK4)),
    (SO3(), MuntheKaas(RK4)),
    (SPD(2), NormalCoordinates(RK4)),
    (SPD(2), Projected(RK4)),
]
IDS = [f"{m}-{type(scheme).__name__}" for m, scheme in SCHEMES]


def heights(m: Manifold, scheme: Scheme) -> Callable[[Tensor, Tensor], Tensor]:
    field, direction = wavy_field(m), normal(*m.event_shape, seed=5)

    def height(y: Tensor, scale: Tensor) -> Tensor:
        solution = integrate(
            lambda z, t: scale * field(z, t), m, y, (0.0, 1.0), FixedStep(scheme, 2), raise_on_failure=False
        )
        return (solution.final * direction).sum()

    return height


@pytest.mark.parametrize(("m", "scheme"), SCHEMES, ids=IDS)
def test_fixed_steps_under_vmap_and_grad(m: Manifold, scheme: Scheme) -> None:
    x, height = points(m, 3), heights(m, scheme)
    one = torch.ones((), dtype=torch.float64)
    values = torch.func.vmap(height, in_dims=(0, None))(x, one)
    torch.testing.assert_close(values, torch.stack([height(y, one) for y in x]))
    slope = torch.func.vmap(torch.func.grad(height, argnums=1), in_dims=(0, None))(x, one)
    h = 1e-5
    central = torch.stack([(height(y, one + h) - height(y, one - h)) / (2 * h) for y in x])
    torch.testing.assert_close(slope, central, atol=1e-8, rtol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize(("m", "scheme"), SCHEMES, ids=IDS)
def test_fixed_solves_are_one_graph(m: Manifold, scheme: Scheme) -> None:
    x, field = points(m, 4), wavy_field(m)

    def pair(y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return field(y, t), t

    def solve(y: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
        method = FixedStep(scheme, 3)
        solution = integrate(pair, m, y, (0.0, 0.5, 1.0), method, with_integral=True, raise_on_failure=False)
        return solution.x, solution.integral, solution.status

    torch.compiler.reset()
    found = torch.compile(solve, backend="eager", fullgraph=True)(x)
    for one, other in zip(found, solve(x), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(("m", "scheme"), SCHEMES, ids=IDS)
def test_dtype_and_shapes(m: Manifold, scheme: Scheme) -> None:
    for batch in [(), (0,), (2, 3)]:
        x = points(m, *batch, dtype=torch.float32)
        found = integrate(wavy_field(m), m, x, (1.0, 0.4, 0.0), FixedStep(scheme, 2))
        assert found.x.dtype == torch.float32
        assert found.x.shape == (3, *x.shape)
        m.check_point(found.x)
