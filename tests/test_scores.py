"""Densities, samples and scores of a flow at any time."""

import math
from collections.abc import Callable

import pytest
import torch
from manifold_zoo import ZOO
from random_fields import normal, points, tangents, wavy_field
from torch import Tensor, nn
from zoo_sources import source_of

from manifolds import SO3, Euclidean, Hyperboloid, Manifold, Sphere
from rfm import Flow
from rfm.flow import Refinement
from rfm.integrators import RK4, Adaptive, FixedStep
from rfm.likelihood import Hutchinson
from rfm.networks import VelocityField
from rfm.sources import Uniform, WrappedNormal

STEPS = FixedStep(RK4, 3)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def check_gradient(flow: Flow, x: Tensor, time: float, solver: FixedStep | Adaptive, atol: float = 1e-5) -> None:
    """The score beside central differences of the log-density along geodesics."""
    m, h = flow.manifold, 2e-3
    u = tangents(m, x)
    u = u / m.lift(m.norm(x, u))

    def along(s: float) -> Tensor:
        return flow.log_prob(m.expmap(x, s * u), time=time, solver=solver)

    difference = (8 * (along(h) - along(-h)) - (along(2 * h) - along(-2 * h))) / (12 * h)
    score = flow.score(x, time, solver=solver)
    m.check_tangent(x, score)
    torch.testing.assert_close(m.inner(x, score, u), difference, atol=atol, rtol=1e-4)
    assert float(difference.abs().max()) > 1e-2


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in ZOO])
def test_the_score_is_the_gradient_in_the_metric(make: Callable[[], Manifold]) -> None:
    m = make()
    source = source_of(m)
    x = source.sample((3,), generator=seeded(), dtype=torch.float64)
    check_gradient(Flow(m, wavy_field(m, size=0.5), source), m.projx(x), 0.6, STEPS)


@pytest.mark.parametrize("m", [Sphere(2), Euclidean(2)], ids=str)
def test_adaptive_solves_are_differentiated_too(m: Manifold) -> None:
    source = source_of(m)
    x = source.sample((4,), generator=seeded(), dtype=torch.float64)
    check_gradient(Flow(m, wavy_field(m), source), x, 1.0, Adaptive(atol=1e-7, rtol=1e-7))


@pytest.mark.parametrize("m", [Sphere(2), Hyperboloid(2)], ids=str)
def test_the_score_of_a_network(m: Manifold) -> None:
    field = VelocityField(m, width=12, depth=1, features=6, max_frequency=2.0, condition_dim=2).double()
    for parameter in field.parameters():
        nn.init.normal_(parameter, std=0.3, generator=seeded())
    flow, condition = Flow(m, field, source_of(m)), normal(4, 2)
    x = points(m, 4)
    score = flow.score(x, 0.7, condition=condition, solver=STEPS, batch_size=3)
    assert score.shape == x.shape
    assert not score.requires_grad
    alone = torch.cat([flow.score(a, 0.7, condition=c, solver=STEPS) for a, c in zip(x, condition, strict=True)])
    torch.testing.assert_close(score, alone.reshape(x.shape))


def test_scores_have_mean_zero() -> None:
    m = Sphere(2)
    flow = Flow(m, wavy_field(m, size=0.4))
    x = flow.sample(1500, time=0.8, generator=seeded(), solver=STEPS)
    # The mean of <score, f> is minus that of the divergence of f; a rotation has none.
    turn = torch.stack([-x[:, 1], x[:, 0], 0 * x[:, 2]], -1)
    product = m.inner(x, flow.score(x, 0.8, solver=STEPS), turn)
    assert abs(float(product.mean())) < 4 * float(product.std()) / math.sqrt(1500)
    assert float(product.std()) > 0.1


def test_the_score_of_a_normal_distribution_is_known() -> None:
    """A linear field in flat space: ``x_t = exp(t / 2) x_0``."""
    m = Euclidean(3)
    flow = Flow(m, lambda x, t: x / 2, WrappedNormal(m, torch.zeros(3)))
    x, variance = normal(5, 3), math.exp(0.6)
    torch.testing.assert_close(flow.score(x, 0.6), -x / variance, atol=1e-5, rtol=0)
    expected = -(x * x).sum(-1) / variance / 2 - 1.5 * math.log(2 * math.pi * variance)
    torch.testing.assert_close(flow.log_prob(x, time=0.6), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("start", [0.0, 0.25])
def test_densities_and_samples_at_a_time(start: float) -> None:
    m = SO3()
    flow = Flow(m, wavy_field(m), start=start)
    x, log_p = flow.sample(4, time=0.5, generator=seeded(), solver=STEPS, return_log_prob=True)
    torch.testing.assert_close(flow.log_prob(x, time=0.5, solver=FixedStep(RK4, 10)), log_p, atol=1e-3, rtol=0)
    later = flow.trajectory(x, (0.5, 1.0), solver=FixedStep(RK4, 10))[-1]
    torch.testing.assert_close(flow.sample(4, generator=seeded(), solver=FixedStep(RK4, 10)), later, atol=1e-3, rtol=0)
    estimate = flow.log_prob(x, time=0.5, solver=STEPS, estimator=Hutchinson(400, seeded()))
    assert float(((estimate.log_prob - log_p) / estimate.standard_error).abs().max()) < 4


@pytest.mark.parametrize("start", [0.0, 0.25])
def test_the_source_is_where_it_stands(start: float) -> None:
    m = Hyperboloid(2)
    flow = Flow(m, wavy_field(m), WrappedNormal(m, points(m), 0.5), start=start)
    x, log_p = flow.sample(5, time=start, generator=seeded(), return_log_prob=True)
    assert torch.equal(x, flow.source.sample((5,), generator=seeded()))
    assert torch.equal(log_p, flow.source.log_prob(x))
    torch.testing.assert_close(flow.log_prob(x, time=start), log_p, atol=1e-5, rtol=0)
    _, estimate = flow.sample(5, time=start, generator=seeded(), return_log_prob=True, estimator=Hutchinson())
    assert torch.equal(estimate.log_prob, log_p)
    assert bool((estimate.standard_error == 0).all())
    check_gradient(flow, points(m, 3, seed=2), start, STEPS)


def test_bad_times_get_one_sentence() -> None:
    m = Sphere(2)
    flow, x = Flow(m, wavy_field(m), start=0.25), points(m, 2)
    calls = {"sample": lambda t: flow.sample(2, time=t), "log_prob": lambda t: flow.log_prob(x, time=t)}
    for name, call in (calls | {"score": lambda t: flow.score(x, t)}).items():
        for time in (0.2, 1.5, math.nan):
            with pytest.raises(ValueError, match=rf"Flow.{name}: time must be from 0.25, the source, to 1, the data"):
                call(time)
        with pytest.raises(ValueError, match=f"Flow.{name}: time must be a number"):
            call("late")


def test_a_refined_flow_has_a_density_and_a_score_at_the_end() -> None:
    m = Sphere(2)
    refinement = Refinement([0.5, 0.0], [Uniform(m), Uniform(m)], torch.tensor([0.4, 0.6]))
    flow = Flow(m, wavy_field(m), refinement=refinement)
    check_gradient(flow, points(m, 3), 1.0, STEPS)
    with pytest.raises(ValueError, match=r"density at time 1 alone; use flow\.base\.log_prob"):
        flow.log_prob(points(m, 2), time=0.5)
    assert flow.base.log_prob(points(m, 2), time=0.5, solver=STEPS).shape == (2,)
