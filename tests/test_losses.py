"""The losses: what they measure, what they are minimised by, how times and weights enter."""

from collections.abc import Callable

import pytest
import torch
from manifold_zoo import ZOO
from random_fields import normal, points, tangents, wavy_field
from schedule_zoo import EVERY_SCHEDULE, Mixture
from torch import Tensor

from manifolds import Euclidean, FlatTorus, Manifold, PoincareBall, Product, Sphere
from rfm.objectives.regression import endpoint_loss, flow_matching_loss
from rfm.paths import AffinePath, ConditionalPath, GaussianPath, GeodesicPath
from rfm.paths.conversions import velocity_from_endpoint
from rfm.paths.schedules import PolynomialKappa, Schedule
from rfm.paths.times import BetaTimes, LogitNormalTimes, StratifiedTimes, UniformAndLateTimes

EVERY = pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in ZOO])


def times(*shape: int, seed: int = 7) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Velocity.


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


# Times and weights.


def test_times_come_from_the_sampler() -> None:
    m, drawn = Euclidean(1), []

    def field(x: Tensor, t: Tensor) -> Tensor:
        drawn.append(t)
        return torch.zeros_like(x)

    x = torch.zeros(40, 5, 1)
    for sampler in (LogitNormalTimes(1.0, 0.5), StratifiedTimes(), UniformAndLateTimes()):
        flow_matching_loss(field, GeodesicPath(m), x, x, times=sampler, generator=torch.Generator().manual_seed(3))
        expected = sampler.sample((40, 5), generator=torch.Generator().manual_seed(3), dtype=x.dtype)
        assert torch.equal(drawn.pop(), expected)
    for loss in (flow_matching_loss, endpoint_loss):
        with pytest.raises(ValueError, match=f"{loss.__name__}: got both t and times"):
            loss(field, GeodesicPath(m), x, x, torch.tensor(0.5), times=StratifiedTimes())


def test_weights_multiply_each_loss() -> None:
    m = Sphere(2)
    path, field = GeodesicPath(m), wavy_field(m)
    x_0, x_1, t = points(m, 4, 5), points(m, 4, 5, seed=50), times(4, 5)
    for loss, network in ((flow_matching_loss, field), (endpoint_loss, lambda x, t: m.expmap(x, field(x, t)))):
        each = loss(network, path, x_0, x_1, t, reduction="none")
        for reduction, expected in (
            ("none", t**2 * each),
            ("mean", (t**2 * each).mean()),
            ("sum", (t**2 * each).sum()),
        ):
            ours = loss(network, path, x_0, x_1, t, reduction, weight=lambda s: s**2)
            torch.testing.assert_close(ours, expected)


def test_importance_weights_give_the_loss_of_uniform_times() -> None:
    """A field at rest against pairs of known lengths under a kappa whose squared speed has mean 9/5."""
    m = Euclidean(1)
    path = GeodesicPath(m, PolynomialKappa(3))
    x_0, x_1 = torch.zeros(100_000, 1, dtype=torch.float64), torch.ones(100_000, 1, dtype=torch.float64)
    for sampler in (UniformAndLateTimes(), BetaTimes(0.7, 1.2)):
        weighted = [
            flow_matching_loss(
                lambda x, t: torch.zeros_like(x),
                path,
                x_0,
                x_1,
                reduction="none",
                times=sampler,
                weight=weight,
                generator=torch.Generator().manual_seed(4),
            )
            for weight in (sampler.importance_weight, None)
        ]
        error = float(weighted[0].std()) / 100_000**0.5
        assert abs(float(weighted[0].mean()) - 9 / 5) < 4 * error
        assert abs(float(weighted[1].mean()) - 9 / 5) > 20 * error


# End points.


@EVERY
def test_endpoint_loss_is_the_velocity_loss_reweighted(make: Callable[[], Manifold]) -> None:
    m = make()
    kappa = PolynomialKappa(2)
    path = GeodesicPath(m, kappa)
    x_0, x_1, t = points(m, 6), points(m, 6, seed=50), 0.05 + 0.8 * times(6)
    field = wavy_field(m, size=0.2)

    def predictor(x: Tensor, s: Tensor) -> Tensor:
        return m.expmap(x, field(x, s))

    def implied(x: Tensor, s: Tensor) -> Tensor:
        return velocity_from_endpoint(path, x, s, predictor(x, s))

    ours = endpoint_loss(predictor, path, x_0, x_1, t, reduction="none")
    value, derivative = kappa(t)
    velocity = flow_matching_loss(implied, path, x_0, x_1, t, reduction="none")
    torch.testing.assert_close(ours, (value / derivative) ** 2 * velocity, rtol=1e-6, atol=1e-8)


def test_endpoint_loss_in_flat_space_is_the_squared_error() -> None:
    m, x_0, x_1 = Euclidean(3), normal(5, 3, seed=1), normal(5, 3, seed=2)
    guess = normal(5, 3, seed=3)
    path: ConditionalPath
    for path in (GeodesicPath(m), AffinePath(m)):
        ours = endpoint_loss(lambda x, t: guess, path, x_0, x_1, times(5), reduction="none")
        torch.testing.assert_close(ours, (guess - x_1).square().sum(-1))


@EVERY
def test_endpoint_loss_of_the_truth_is_zero(make: Callable[[], Manifold]) -> None:
    m = make()
    x_0, x_1 = points(m, 6), points(m, 6, seed=50)
    loss = endpoint_loss(lambda x, t: x_1, GeodesicPath(m), x_0, x_1, times(6))
    assert float(loss) == 0


# Conditional and marginal regression.


@EVERY_SCHEDULE
@pytest.mark.parametrize("t", [0.2, 0.6, 0.9])
def test_the_conditional_loss_has_the_gradient_of_the_marginal_loss(schedule: Schedule, t: float) -> None:
    """On a mixture, both expectations by quadrature: over pairs, and over the marginal with its known velocity."""
    mixture = Mixture(schedule, t)
    theta = torch.tensor([0.3, -0.7, 1.1, 0.2], dtype=torch.float64, requires_grad=True)

    def field(x: Tensor, s: Tensor) -> Tensor:
        return torch.cat([torch.ones_like(x), x, torch.sin(2 * x), torch.cos(x)], -1) @ theta[:, None]

    x_0, x_1, share = mixture.pairs()
    paths: list[ConditionalPath] = [AffinePath(Euclidean(1), schedule), GaussianPath(Euclidean(1), schedule)]
    x, density = mixture.grid()
    gap = (field(x, mixture.t) - mixture.velocity(x)).square()[:, 0]
    (marginal,) = torch.autograd.grad((density * gap).sum(), theta)
    for path in paths:
        each = flow_matching_loss(field, path, x_0, x_1, mixture.t, reduction="none")
        (conditional,) = torch.autograd.grad((share * each).sum(), theta)
        torch.testing.assert_close(conditional, marginal, rtol=1e-8, atol=1e-8)
        # The losses themselves differ: by the variance of the velocity given the position.
        assert t != 0.6 or bool((share * each).sum() > (density * gap).sum() + 1e-3)
