"""Conditional paths and the loss that regresses on their velocity."""

from collections.abc import Callable

import pytest
import torch
from manifold_zoo import ZOO
from random_fields import normal, points, tangents, wavy_field
from torch import Tensor

from manifolds import Euclidean, FlatTorus, Manifold, PoincareBall, Product, Sphere
from rfm.losses import flow_matching_loss
from rfm.paths import GeodesicPath

EVERY = pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in ZOO])


def times(*shape: int, seed: int = 7) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# The path.


@EVERY
def test_geodesic_path_joins_its_ends_at_constant_speed(make: Callable[[], Manifold]) -> None:
    m = make()
    path = GeodesicPath(m)
    x_0, x_1, t = points(m, 6), points(m, 6, seed=50), times(6)
    ends = [path.sample(x_0, x_1, torch.full((6,), s, dtype=torch.float64)).x_t for s in (0.0, 1.0)]
    assert float(m.dist(ends[0], x_0).max()) < 1e-9
    assert float(m.dist(ends[1], x_1).max()) < 1e-9
    sample = path.sample(x_0, x_1, t)
    m.check_point(sample.x_t)
    m.check_tangent(sample.x_t, sample.dx_t, tol=1e-9)
    torch.testing.assert_close(m.dist(x_0, sample.x_t), t * m.dist(x_0, x_1), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(m.norm(sample.x_t, sample.dx_t), m.dist(x_0, x_1), rtol=1e-7, atol=1e-9)


@EVERY
def test_velocity_is_the_derivative_of_position(make: Callable[[], Manifold]) -> None:
    m = make()
    path, h = GeodesicPath(m), 1e-5
    # Short of the ends, so that a difference does not step across the cut of a circle.
    x_0, x_1, t = points(m, 6), points(m, 6, seed=50), 0.1 + 0.8 * times(6)
    sample = path.sample(x_0, x_1, t)
    after, before = path.sample(x_0, x_1, t + h).x_t, path.sample(x_0, x_1, t - h).x_t
    # By the logarithm, which also holds where coordinates jump.
    central = (m.logmap(sample.x_t, after) - m.logmap(sample.x_t, before)) / (2 * h)
    torch.testing.assert_close(sample.dx_t, central, rtol=1e-5, atol=1e-6)


def test_the_path_goes_the_short_way_round_the_torus() -> None:
    x_0, x_1 = torch.tensor([[3.0]]), torch.tensor([[-3.0]])
    sample = GeodesicPath(FlatTorus(1)).sample(x_0, x_1, torch.tensor([0.5]))
    assert float(sample.dx_t) == pytest.approx(2 * torch.pi - 6, abs=1e-5)
    assert abs(float(sample.x_t)) == pytest.approx(torch.pi, abs=1e-5)


@pytest.mark.parametrize("shape", [(), (1,), (5,), (4, 5), (4, 1)], ids=str)
def test_times_broadcast_against_points(shape: tuple[int, ...]) -> None:
    m = Sphere(2)
    x_0, x_1, t = points(m, 4, 5), points(m, 4, 5, seed=50), times(*shape)
    sample = GeodesicPath(m).sample(x_0, x_1, t)
    full = GeodesicPath(m).sample(x_0, x_1, t.expand(4, 5))
    assert sample.t.shape == (4, 5)
    assert torch.equal(sample.x_t, full.x_t)
    assert torch.equal(sample.dx_t, full.dx_t)
    assert sample.x_0 is x_0
    assert sample.x_1 is x_1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_path_keeps_the_dtype_and_needs_no_batch(dtype: torch.dtype) -> None:
    m = Sphere(2)
    sample = GeodesicPath(m).sample(
        points(m, dtype=dtype), points(m, seed=50, dtype=dtype), torch.tensor(0.3).to(dtype)
    )
    assert sample.x_t.shape == sample.dx_t.shape == (3,)
    assert sample.x_t.dtype == sample.dx_t.dtype == sample.t.dtype == dtype


# The loss.


@EVERY
def test_loss_is_the_squared_length_in_the_metric(make: Callable[[], Manifold]) -> None:
    m = make()
    path, field = GeodesicPath(m), wavy_field(m, size=0.4)
    x_0, x_1, t = points(m, 6), points(m, 6, seed=50), times(6)
    sample = path.sample(x_0, x_1, t)
    residual = field(sample.x_t, t) - sample.dx_t
    loss = flow_matching_loss(field, path, x_0, x_1, t, reduction="none")
    torch.testing.assert_close(loss, m.inner(sample.x_t, residual, residual))
    # By coefficients in an orthonormal basis, of which the squares add.
    basis = m.tangent_basis(sample.x_t).movedim(1, 0)
    coefficients = torch.stack([m.inner(sample.x_t, e, residual) for e in basis])
    torch.testing.assert_close(loss, (coefficients**2).sum(0), rtol=1e-7, atol=1e-9)
    ambient = (residual**2).flatten(1).sum(1)
    assert m.metric_is_induced == bool(torch.allclose(loss, ambient)), "the metric is not the ambient one"


def test_loss_uses_weights_and_curvature() -> None:
    def at_rest(x: Tensor, t: Tensor) -> Tensor:
        return torch.zeros_like(x)

    for m in (PoincareBall(2), Product(Sphere(2), FlatTorus(1), weights=(4.0, 0.25))):
        x_0, x_1 = points(m, 6), points(m, 6, seed=50)
        loss = flow_matching_loss(at_rest, GeodesicPath(m), x_0, x_1, times(6), reduction="none")
        torch.testing.assert_close(loss, m.dist(x_0, x_1) ** 2)


def test_reductions() -> None:
    m = Sphere(2)
    path, field = GeodesicPath(m), wavy_field(m)
    x_0, x_1, t = points(m, 4, 5), points(m, 4, 5, seed=50), times(4, 5)
    each = flow_matching_loss(field, path, x_0, x_1, t, reduction="none")
    assert each.shape == (4, 5)
    torch.testing.assert_close(flow_matching_loss(field, path, x_0, x_1, t), each.mean())
    torch.testing.assert_close(flow_matching_loss(field, path, x_0, x_1, t, reduction="sum"), each.sum())
    with pytest.raises(ValueError, match='"mean", "sum" or "none", got \'max\''):
        flow_matching_loss(field, path, x_0, x_1, t, reduction="max")


def test_the_field_gets_one_time_per_point_and_its_condition() -> None:
    m = Sphere(2)

    def field(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        assert t.shape == (4, 5)
        return m.proju(x, label[..., None] * x.flip(-1))

    label = times(4, 5, seed=3)
    for t in (None, torch.tensor(0.5, dtype=torch.float64), times(5), times(4, 5)):
        flow_matching_loss(field, GeodesicPath(m), points(m, 4, 5), points(m, 4, 5, seed=50), t, label=label)


def test_times_are_drawn_uniformly_from_the_generator_alone() -> None:
    m, drawn = Euclidean(1), []

    def field(x: Tensor, t: Tensor) -> Tensor:
        drawn.append(t)
        return torch.zeros_like(x)

    x = torch.zeros(4000, 1, dtype=torch.float64)
    before = torch.get_rng_state()
    for _ in range(2):
        flow_matching_loss(field, GeodesicPath(m), x, x, generator=torch.Generator().manual_seed(3))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(drawn[0], drawn[1])
    assert drawn[0].dtype == torch.float64
    assert 0 <= float(drawn[0].min()) < 0.01
    assert 0.99 < float(drawn[0].max()) < 1
    counts = torch.histc(drawn[0], 10, 0, 1)
    assert float(((counts - 400) ** 2 / 400).sum()) < 40


def test_a_constant_field_of_least_loss_is_the_mean_velocity() -> None:
    """In flat space, where a constant field makes sense, the minimum is where the gradient vanishes."""
    m = Euclidean(2)
    x_0, x_1 = normal(200, 2), normal(200, 2, seed=1) + 3
    constant = (x_1 - x_0).mean(0).requires_grad_()
    loss = flow_matching_loss(lambda x, t: constant.expand_as(x), GeodesicPath(m), x_0, x_1, times(200))
    (slope,) = torch.autograd.grad(loss, constant)
    torch.testing.assert_close(slope, torch.zeros(2, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(loss.detach(), (x_1 - x_0).var(0, correction=0).sum())


@pytest.mark.parametrize("m", [Sphere(2), PoincareBall(2), FlatTorus(2)], ids=str)
def test_the_gradient_is_that_of_the_marginal_regression(m: Manifold) -> None:
    """Conditional and marginal losses differ by what the field has no part in.

    Two pairs of ends whose paths meet in one point at one time: the gradient of the conditional loss there is that of
    the regression on the mean of the two velocities.
    """
    x = points(m, 1).expand(2, *m.event_shape)
    t = torch.full((2,), 0.4, dtype=torch.float64)
    u = 0.3 * tangents(m, x)
    # Ends from the middle: backwards for 0.4, onwards for 0.6.
    x_0, x_1 = m.expmap(x, -0.4 * u), m.expmap(x, 0.6 * u)
    v = m.proju(x[:1], normal(1, *m.event_shape, seed=9)).requires_grad_()
    loss = flow_matching_loss(lambda y, s: v.expand(2, -1), GeodesicPath(m), x_0, x_1, t)
    (conditional,) = torch.autograd.grad(loss, v)
    gap = v - u.mean(0, keepdim=True)
    (marginal,) = torch.autograd.grad(m.inner(x[:1], gap, gap).sum(), v)
    torch.testing.assert_close(conditional, marginal, rtol=1e-7, atol=1e-9)


@EVERY
def test_loss_has_finite_gradients_at_coincident_ends(make: Callable[[], Manifold]) -> None:
    m = make()
    x = points(m, 3)
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    inner = wavy_field(m, size=0.3)
    loss = flow_matching_loss(lambda y, t: scale * inner(y, t), GeodesicPath(m), x, x, times(3))
    (slope,) = torch.autograd.grad(loss, scale)
    assert float(slope) > 0
    torch.testing.assert_close(slope, 2 * loss.detach(), rtol=1e-6, atol=0)
