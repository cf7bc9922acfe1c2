"""Twisted particles: exact posteriors under every steering, on flat space and manifolds, and what they refuse."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

import rfm
from experiments.inverse.problems import Mixture, mixture_problem
from manifolds import SE3, SO3, Euclidean, FlatTorus, Manifold, Power, Product, Sphere
from rfm.integrators import FixedStep
from rfm.paths.conversions import from_velocity
from rfm.paths.schedules import Linear
from rfm.posterior import OTODE, FlowChef, FlowDPS, Measurement, PosteriorDraws, Twisted, inside, score_of_normal_noise
from rfm.posterior.draws import clustered_size
from rfm.posterior.operators import displacement, matrix
from rfm.sources import Uniform, WrappedNormal, default_source
from rfm.steering import Steering

PLANE = Euclidean(2)
NORMAL = WrappedNormal(PLANE, torch.zeros(2), 1.0)
MEASURED = Measurement(matrix(torch.tensor([[1.0, 0.5]])), [1.0], 0.5)
STEERINGS: dict[str, Sequence[Steering] | None] = {
    "twisted": None,
    "unled": [],
    "ot-ode": [OTODE(PLANE, MEASURED, start=0.02)],
    "flowdps": [FlowDPS(PLANE, MEASURED)],
    "flowchef": [FlowChef(PLANE, MEASURED, 0.1)],
}


def normal_field(x: Tensor, t: Tensor) -> Tensor:
    """Return the velocity from a standard normal to a standard normal, paired independently."""
    t = t[..., None]
    return x * (2 * t - 1) / (t * t + (1 - t) ** 2)


def check_moments(draws: PosteriorDraws, mean: Tensor, spread: Tensor, features: Tensor) -> None:
    error = spread / math.sqrt(draws.effective_sample_size)
    assert draws.exact
    assert ((features.double().mean(0) - mean).abs() < 4.5 * error + 0.01).all()
    assert (features.double().std(0) / spread - 1).abs().max() < 4.5 / math.sqrt(draws.effective_sample_size) + 0.05


CASES = [
    # Conjugate gradients in every step.
    pytest.param(steering, id=name, marks=[pytest.mark.slow] if name == "ot-ode" else [])
    for name, steering in STEERINGS.items()
]


@pytest.mark.parametrize("steering", CASES)
def test_every_steering_is_corrected_to_the_normal_posterior(steering: Sequence[Steering] | None) -> None:
    flow = rfm.Flow(PLANE, normal_field, NORMAL)
    method = Twisted(steering, score_of_normal_noise(NORMAL), steps=40, particles=1500)
    draws = flow.posterior(MEASURED, 1500, method=method, generator=torch.Generator().manual_seed(0))
    rows = torch.tensor([[1.0, 0.5]], dtype=torch.float64)
    covariance = torch.linalg.inv(torch.eye(2) + rows.T @ rows / 0.25)
    assert draws.effective_sample_size > 50
    check_moments(draws, (covariance @ rows.T / 0.25)[:, 0], covariance.diagonal().sqrt(), draws.points)
    variance = 1.25 + 0.25
    assert draws.log_evidence == pytest.approx(-1 / 2 / variance - math.log(2 * math.pi * variance) / 2, abs=0.15)


def test_separate_modes_have_their_shares_and_the_covariance_makes_weights_equal() -> None:
    mixture = Mixture(torch.tensor([[-2.0, 1.5], [2.0, 1.5], [0.0, -2.0]]), 0.4)
    problem = mixture_problem(mixture, torch.tensor([[0.2, 1.0]]), torch.tensor([0.8]), 0.5)
    weights, means, covariance = mixture.posterior(torch.tensor([[0.2, 1.0]]), torch.tensor([0.8]), 0.5)
    method = Twisted(None, problem.score, steps=60, particles=2000)
    draws = problem.flow.posterior(problem.measurement, 2000, method=method, generator=torch.Generator().manual_seed(0))
    # A covariance that the field does not know, as of OT-ODE, leaves tens.
    assert draws.effective_sample_size > 1000
    mean = weights @ means
    spread = (weights @ (means - mean).square() + covariance.diagonal()).sqrt()
    check_moments(draws, mean, spread, draws.points)


@pytest.mark.parametrize("steered", [False, True], ids=["twisted", "ot-ode"])
def test_on_the_sphere_the_walk_is_corrected_to_the_density_times_the_likelihood(steered: bool) -> None:
    # The uniform distribution stays: its score is zero, and the sampler a Brownian motion.
    sphere = Sphere(2)
    flow = rfm.Flow(sphere, lambda x, t: torch.zeros_like(x))
    measured = Measurement(lambda x: x[..., 2], 0.5, 0.15)
    steering = [OTODE(sphere, measured, start=0.1)] if steered else None
    method = Twisted(steering, noise=lambda t: 1 - t, steps=20, particles=1000, solver=FixedStep(steps=1))
    draws = flow.posterior(measured, 1000, method=method, generator=torch.Generator().manual_seed(0))
    z = torch.linspace(-1, 1, 4001, dtype=torch.float64)
    density = (-((z - 0.5) ** 2) / 2 / 0.15**2).exp()
    shares = density / density.sum()
    mean = shares @ z
    spread = (shares @ (z - mean).square()).sqrt()
    check_moments(draws, mean[None], spread[None], draws.points[:, 2:])
    sphere.check_point(draws.points, tol=1e-4)
    constant = math.log(0.15 * math.sqrt(2 * math.pi))
    assert draws.log_evidence == pytest.approx(float(density.mean().log()) - constant, abs=0.15)


def test_the_score_of_the_density_serves_where_no_other_is_known() -> None:
    circle = FlatTorus(1)
    flow = rfm.Flow(circle, lambda x, t: 0.8 * x.sin(), Uniform(circle))
    measured = Measurement(lambda x: x.cos(), [-0.3], 0.4)
    solver = FixedStep(steps=4)
    method = Twisted(None, noise=lambda t: 1 - t, steps=15, particles=600, solver=solver)
    draws = flow.posterior(measured, 600, method=method, generator=torch.Generator().manual_seed(0))
    grid = (torch.arange(720, dtype=torch.float64) + 0.5)[:, None] * 2 * math.pi / 720 - math.pi
    log_p = flow.log_prob(grid, solver=solver) + measured(grid)
    shares = torch.softmax(log_p, 0)
    features = circle.embed(grid)
    mean = shares @ features
    check_moments(draws, mean, (shares @ (features - mean).square()).sqrt(), circle.embed(draws.points))
    assert draws.log_evidence == pytest.approx(float(log_p.exp().mean().log()) + math.log(2 * math.pi), abs=0.15)


@pytest.mark.parametrize(
    "manifold",
    [Sphere(2), SO3(), SE3(), Power(SO3(), 2), Product(Sphere(2), Euclidean(1), weights=[1.0, 4.0])],
    ids=str,
)
def test_particles_stay_on_every_manifold_and_fit(manifold: Manifold) -> None:
    x = manifold.projx(torch.randn(32, *manifold.event_shape, generator=torch.Generator().manual_seed(0)).double())
    flow = rfm.Flow(manifold, lambda x, t: torch.zeros_like(x), default_source(manifold, x))
    base = x[0].float()
    measured = Measurement(displacement(manifold, base), torch.zeros(manifold.dim), 0.7)
    method = Twisted(noise=lambda t: (1 - t) / 2, steps=6, particles=64, solver=FixedStep(steps=1))
    draws = flow.posterior(measured, 64, method=method, generator=torch.Generator().manual_seed(0))
    prior = flow.sample(64, generator=torch.Generator().manual_seed(1), solver=FixedStep(steps=1))
    manifold.check_point(draws.points, tol=1e-3)
    assert manifold.dist(draws.points, base).mean() < manifold.dist(prior, base).mean()


def test_the_score_of_normal_noise_is_that_of_the_linear_path() -> None:
    x, v = torch.randn(2, 5, 2, generator=torch.Generator().manual_seed(0))
    t = torch.full((5,), 0.3)
    assert torch.allclose(score_of_normal_noise(NORMAL)(x, t, v), from_velocity(Linear(), x, t, v).score)
    # A shift and a change of scale of the noise shift and scale what is normal.
    wide = WrappedNormal(PLANE, torch.tensor([1.0, 2.0]), 3.0)
    scaled = score_of_normal_noise(wide)(3 * x + 0.7 * wide.mean.float(), t, 3 * v - wide.mean.float())
    assert torch.allclose(3 * scaled, from_velocity(Linear(), x, t, v).score, atol=1e-5)
    with pytest.raises(ValueError, match="leave score_from_velocity out"):
        score_of_normal_noise(Uniform(Sphere(2)))


def test_few_families_are_worth_their_number() -> None:
    values = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
    even = torch.zeros(400, dtype=torch.float64)
    assert clustered_size(values, torch.zeros(400, dtype=torch.long), even) == 1
    assert clustered_size(values, torch.arange(400) % 5, even) == 5
    assert clustered_size(values, torch.arange(400), even) == pytest.approx(400)
    # Of draws that are all alike but for their weights these decide.
    uneven = torch.tensor([0.0] * 300 + [-50.0] * 100, dtype=torch.float64)
    assert clustered_size(values, torch.arange(400), uneven) == pytest.approx(300, rel=1e-6)


def test_what_twisted_cannot_do_is_refused() -> None:
    flow = rfm.Flow(PLANE, normal_field, NORMAL)
    with pytest.raises(ValueError, match="needs a Measurement"):
        flow.posterior(inside(lambda x: x[..., 0] > 0), 4, method=Twisted())
    with pytest.raises(ValueError, match="noise must be positive"):
        flow.posterior(MEASURED, 4, method=Twisted(noise=lambda t: 0 * t, particles=8))
    bad = Twisted(score_from_velocity=lambda x, t, v: x * math.nan, particles=8)
    with pytest.raises(ValueError, match="no particle has a weight"):
        flow.posterior(MEASURED, 4, method=bad)
    with pytest.raises(ValueError, match="share"):
        Twisted(share=1.0)
    with pytest.raises(ValueError, match="steps"):
        Twisted(steps=0)
