"""Conversions between velocity, score, noise and end point, and their singular ends."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from manifold_zoo import ZOO
from random_fields import normal, points
from schedule_zoo import EVERY_KAPPA, EVERY_SCHEDULE, Mixture
from torch import Tensor

from manifolds import SPD, Euclidean, Manifold, Sphere
from rfm.paths import AffinePath, GeodesicPath
from rfm.paths.conversions import (
    Predictions,
    ddim_step,
    endpoint_from_velocity,
    from_endpoint,
    from_noise,
    from_score,
    from_velocity,
    velocity_from_endpoint,
)
from rfm.paths.schedules import (
    Cosine,
    CosineKappa,
    Kappa,
    Linear,
    Polynomial,
    PolynomialKappa,
    Schedule,
    VarianceExploding,
    VariancePreserving,
)

FROM: dict[str, Callable[..., Predictions]] = {
    "velocity": from_velocity,
    "score": from_score,
    "noise": from_noise,
    "endpoint": from_endpoint,
}


def sample(schedule: Schedule, t: Tensor, *shape: int) -> tuple[Tensor, Predictions]:
    """Return a position and what is to be predicted there, for points of three coordinates."""
    x_1, noise = normal(*shape, 3, seed=1), normal(*shape, 3, seed=2)
    path = AffinePath(Euclidean(3), schedule).sample(schedule.source_scale * noise, x_1, t)
    return path.x_t, Predictions(path.dx_t, -noise / schedule(path.t).sigma[..., None], noise, x_1)


# Laws.


@EVERY_SCHEDULE
@pytest.mark.parametrize("given", FROM)
def test_each_prediction_gives_the_others(schedule: Schedule, given: str) -> None:
    t = torch.linspace(0.1, 0.97, 12, dtype=torch.float64)
    x_t, truth = sample(schedule, t, 12)
    for ours, expected in zip(FROM[given](schedule, x_t, t, getattr(truth, given)), truth, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-8, atol=1e-10)


@EVERY_SCHEDULE
@pytest.mark.parametrize("given", FROM)
def test_times_of_every_shape(schedule: Schedule, given: str) -> None:
    for t in (torch.tensor(0.4), torch.full((4,), 0.4)[:, None], torch.full((4, 5), 0.4)):
        x_t, truth = sample(schedule, t.double().expand(4, 5), 4, 5)
        prediction = getattr(truth, given)
        ours = FROM[given](schedule, x_t.float(), t, prediction.float())
        for part, expected in zip(ours, truth, strict=True):
            assert part.dtype == torch.float32
            torch.testing.assert_close(part.double(), expected, rtol=1e-3, atol=1e-3)


@EVERY_SCHEDULE
@pytest.mark.parametrize("t", [0.15, 0.5, 0.9])
def test_conversions_hold_for_the_marginals_of_a_mixture(schedule: Schedule, t: float) -> None:
    """The score is the derivative of the log-density, the others are means given the position."""
    mixture = Mixture(schedule, t)
    x = mixture.grid()[0][1000:3001:100].requires_grad_()
    (score,) = torch.autograd.grad(mixture.log_prob(x).sum(), x)
    x = x.detach()
    at = schedule(mixture.t)
    noise = mixture.mean(x, (x[:, None] - at.alpha * mixture.centres) / at.sigma)
    truth = Predictions(mixture.velocity(x), score, noise, mixture.mean(x, mixture.centres))
    for given, convert in FROM.items():
        ours = convert(schedule, x, mixture.t, getattr(truth, given))
        for part, expected in zip(ours, truth, strict=True):
            torch.testing.assert_close(part, expected, rtol=1e-7, atol=1e-8)


# The ends.


@pytest.mark.parametrize(
    ("schedule", "t", "given", "lost"),
    [
        (Linear(), 0.0, "velocity", ""),
        (Linear(), 1.0, "velocity", "score"),
        (Linear(), 0.0, "score", "velocity endpoint"),
        (Linear(), 1.0, "score", ""),
        (Linear(), 0.0, "noise", "velocity endpoint"),
        (Linear(), 1.0, "noise", "score"),
        (Linear(), 0.0, "endpoint", ""),
        (Linear(), 1.0, "endpoint", "velocity score noise"),
        (Cosine(), 1.0, "velocity", "score"),
        (Polynomial(2), 0.0, "velocity", "score noise endpoint"),
        (VariancePreserving(), 0.0, "noise", ""),
        (VariancePreserving(), 1.0, "velocity", "score noise endpoint"),
        (VariancePreserving(), 1.0, "score", ""),
        (VariancePreserving(), 1.0, "noise", "velocity score"),
        (VarianceExploding(), 0.0, "noise", ""),
        (VarianceExploding(), 1.0, "endpoint", ""),
    ],
    ids=str,
)
def test_where_a_conversion_is_singular_it_is_nan(schedule: Schedule, t: float, given: str, lost: str) -> None:
    x_t, prediction = normal(4, 3, seed=1), normal(4, 3, seed=2)
    ours = FROM[given](schedule, x_t, torch.tensor(t, dtype=torch.float64), prediction)
    for name, part in ours._asdict().items():
        expected = name in lost.split()
        assert bool(part.isnan().all()) == bool(part.isnan().any()) == expected, name
        assert expected or bool(part.isfinite().all()), name


def test_a_singular_time_leaves_the_derivatives_of_the_others_alone() -> None:
    x_t, t = normal(3, 2, seed=1), torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    for convert in FROM.values():
        prediction = normal(3, 2, seed=2).requires_grad_()
        (slope,) = torch.autograd.grad(sum(part[1].sum() for part in convert(Linear(), x_t, t, prediction)), prediction)
        assert bool(slope[1].isfinite().all())


def test_precision_near_the_ends() -> None:
    """The velocity of a straight line gives both of its ends at every time, in single precision too."""
    for schedule in (Linear(), Cosine()):
        for t in (1e-6, 1e-3, 1 - 1e-3, 1 - 1e-6):
            time = torch.full((50,), t, dtype=torch.float32)
            x_0, x_1 = normal(50, 3, seed=1, dtype=torch.float32), normal(50, 3, seed=2, dtype=torch.float32)
            s = AffinePath(Euclidean(3), schedule).sample(x_0, x_1, time)
            ours = from_velocity(schedule, s.x_t, time, s.dx_t)
            torch.testing.assert_close(ours.endpoint, x_1, rtol=0, atol=4e-6)
            torch.testing.assert_close(ours.noise, x_0, rtol=0, atol=4e-6)


def test_the_score_of_the_data_gives_the_velocity_at_the_data() -> None:
    x, score = normal(4, 2, seed=1), normal(4, 2, seed=2)
    end = torch.ones((), dtype=torch.float64)
    torch.testing.assert_close(from_score(VariancePreserving(), x, end, score).velocity, 0.05 * (x + score))
    torch.testing.assert_close(from_score(Linear(), x, end, score).velocity, x)


def test_times_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="leading axes of the points, or none, got \\(5,\\) for points \\(4, 5, 3\\)"):
        from_noise(Linear(), normal(4, 5, 3), torch.rand(5), normal(4, 5, 3))
    with pytest.raises(ValueError, match="expand them"):
        from_noise(Linear(), normal(3), torch.rand(3, 1), normal(3))


# Sampling by predictions.


@EVERY_SCHEDULE
@pytest.mark.parametrize("given", FROM)
def test_ddim_is_eulers_method_in_signal_and_noise(schedule: Schedule, given: str) -> None:
    """d(x / alpha) / d(sigma / alpha) = noise."""
    t, s = torch.tensor(0.3, dtype=torch.float64), torch.tensor(0.45, dtype=torch.float64)
    x_t = normal(6, 3, seed=1)
    predictions = FROM[given](schedule, x_t, t, normal(6, 3, seed=2))
    now, then = schedule(t), schedule(s)
    step = then.sigma / then.alpha - now.sigma / now.alpha
    euler = then.alpha * (x_t / now.alpha + step * predictions.noise)
    torch.testing.assert_close(ddim_step(schedule, s, predictions), euler, rtol=1e-10, atol=1e-10)


def test_ddim_is_eulers_method_in_time_for_the_linear_schedule_alone() -> None:
    t, s = torch.tensor(0.3, dtype=torch.float64), torch.tensor(0.45, dtype=torch.float64)
    x_t, noise = normal(6, 3, seed=1), normal(6, 3, seed=2)
    for schedule in (Linear(), Polynomial(1), Cosine(), VariancePreserving(), VarianceExploding()):
        predictions = from_noise(schedule, x_t, t, noise)
        euler = x_t + (s - t) * predictions.velocity
        same = torch.allclose(ddim_step(schedule, s, predictions), euler, rtol=1e-10, atol=1e-10)
        assert same == (schedule in (Linear(), Polynomial(1))), schedule


@pytest.mark.parametrize("schedule", [Linear(), Cosine(), VariancePreserving()], ids=repr)
def test_ddim_steps_go_to_the_data(schedule: Schedule) -> None:
    """Data N(2, 0.5^2): the exact velocity carries the point of one quantile to that of the same quantile."""
    z = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    ts = torch.linspace(0, 1, 401, dtype=torch.float64)
    first = schedule(ts[0])
    x = 2 * first.alpha + torch.sqrt(first.alpha**2 / 4 + first.sigma**2) * z
    for t, s in itertools.pairwise(ts):
        at = schedule(t)
        endpoint = 2 + at.alpha / 4 / (at.alpha**2 / 4 + at.sigma**2) * (x - 2 * at.alpha)
        x = ddim_step(schedule, s, from_endpoint(schedule, x, t, endpoint))
    torch.testing.assert_close(x, 2 + z / 2, rtol=0, atol=0.01)


# Manifolds.


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in ZOO])
@pytest.mark.parametrize("kappa", [None, PolynomialKappa(2)], ids=repr)
def test_endpoint_and_velocity_on_manifolds(make: Callable[[], Manifold], kappa: Kappa | None) -> None:
    m = make()
    path = GeodesicPath(m, kappa)
    x_0, x_1 = points(m, 6), points(m, 6, seed=50)
    t = torch.linspace(0.05, 0.9, 6, dtype=torch.float64)
    s = path.sample(x_0, x_1, t)
    velocity = velocity_from_endpoint(path, s.x_t, t, x_1)
    torch.testing.assert_close(velocity, s.dx_t, rtol=1e-6, atol=1e-7)
    endpoint = endpoint_from_velocity(path, s.x_t, t, s.dx_t)
    assert float(m.dist(endpoint, x_1).max()) < 1e-7


@EVERY_KAPPA
def test_flat_space_agrees_with_the_affine_path(kappa: Kappa) -> None:
    """A geodesic path is affine with ``alpha = 1 - kappa, sigma = kappa`` there."""
    m, path = Euclidean(3), GeodesicPath(Euclidean(3), kappa)
    t = torch.linspace(0.1, 0.9, 8, dtype=torch.float64)
    x_0, x_1 = normal(8, 3, seed=1), normal(8, 3, seed=2)
    value, derivative = (m.lift(part) for part in kappa(t))
    s = path.sample(x_0, x_1, t)
    torch.testing.assert_close(s.x_t, (1 - value) * x_1 + value * x_0)
    torch.testing.assert_close(s.dx_t, derivative * (x_0 - x_1))
    torch.testing.assert_close(endpoint_from_velocity(path, s.x_t, t, s.dx_t), x_1)


@pytest.mark.parametrize("m", [Sphere(2), SPD(2), Euclidean(2)], ids=str)
def test_the_ends_on_manifolds(m: Manifold) -> None:
    x, y = points(m, 2), points(m, 2, seed=50)
    t = torch.tensor([0.0, 1.0], dtype=torch.float64)
    u = m.logmap(x, y)
    velocity = velocity_from_endpoint(GeodesicPath(m), x, t, y)
    torch.testing.assert_close(velocity[0], u[0])
    assert bool(velocity[1].isnan().all())
    endpoint = endpoint_from_velocity(GeodesicPath(m), x, t, u)
    torch.testing.assert_close(endpoint[0], y[0])
    torch.testing.assert_close(endpoint[1], x[1])
    # A path that stands still at its start says nothing about its end, and at its end it is there.
    standing = endpoint_from_velocity(GeodesicPath(m, CosineKappa()), x, t, 0 * u)
    assert bool(standing[0].isnan().all())
    torch.testing.assert_close(standing[1], x[1])
    assert math.isfinite(float(standing[1].sum()))
