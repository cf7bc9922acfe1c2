"""Published methods: exact where they are, equal to their formulas in flat space, running on every manifold."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import rfm
from manifolds import SE3, SO3, Euclidean, FlatTorus, Hyperboloid, Manifold, Power, Product, Sphere
from rfm.integrators import FixedStep
from rfm.posterior import (
    OTODE,
    DFlow,
    FlowChef,
    FlowDPS,
    FlowDPSSteps,
    Flower,
    Guided,
    Measurement,
    PnPFlow,
    Sampler,
    gaussian_shell,
    inside,
)
from rfm.posterior.operators import displacement, matrix
from rfm.posterior.tangent_solve import linearised, solve
from rfm.sources import WrappedNormal, default_source
from rfm.steering import EnergyGuidance
from rfm.steering.gradients import riemannian_gradient

PLANE = Euclidean(2)


def normal_flow(coupled: bool = False) -> rfm.Flow:
    """Return the flow from a standard normal to a standard normal: paired independently, or point to itself."""

    def field(x: Tensor, t: Tensor) -> Tensor:
        t = t[..., None]
        return torch.zeros_like(x) if coupled else x * (2 * t - 1) / (t * t + (1 - t) ** 2)

    return rfm.Flow(PLANE, field, WrappedNormal(PLANE, torch.zeros(2), 1.0))


ROWS, Y, NOISE = torch.tensor([[1.0, 0.5]]), torch.tensor([1.0]), 0.5
MEASURED = Measurement(matrix(ROWS), Y, NOISE)


def truth() -> tuple[Tensor, Tensor]:
    """Return mean and covariance of the posterior of a standard normal prior."""
    covariance = torch.linalg.inv(torch.eye(2) + ROWS.T @ ROWS / NOISE**2)
    return covariance @ ROWS.T @ Y / NOISE**2, covariance


def run(method: Sampler, n: int = 2000, flow: rfm.Flow | None = None) -> Tensor:
    flow = normal_flow() if flow is None else flow
    return flow.posterior(MEASURED, n, method=method, generator=torch.Generator().manual_seed(0)).points


def test_flower_with_the_draw_is_exact_for_a_normal_prior() -> None:
    mean, covariance = truth()
    x = run(Flower(steps=20), 4000)
    assert (x.mean(0) - mean).abs().max() < 4.5 / math.sqrt(4000)
    assert (torch.cov(x.T) - covariance).abs().max() < 0.07
    # Without the draw the spread is too small: the published code does not draw from a posterior.
    assert float(torch.cov(run(Flower(steps=20, draw=False)).T).trace()) < 0.7 * float(covariance.trace())


def test_ot_ode_is_exact_for_a_normal_prior_but_for_its_start() -> None:
    mean, covariance = truth()
    x = run(Guided([OTODE(PLANE, MEASURED, start=0.01)], FixedStep(steps=100)))
    assert (x.mean(0) - mean).abs().max() < 0.1
    assert (torch.cov(x.T) - covariance).abs().max() < 0.1


def test_d_flow_finds_the_most_likely_point() -> None:
    # The map from source to data is the identity here, so that it is the posterior's mean.
    x = run(DFlow(rounds=2), 16)
    assert (x - truth()[0]).abs().max() < 1e-3
    z = torch.tensor([[3.0, 4.0]])
    assert float(gaussian_shell(z)) == pytest.approx(12.5 - math.log(5), abs=1e-5)


@pytest.mark.parametrize("method", [Flower(steps=5), PnPFlow(steps=5)], ids=["flower", "pnp"])
def test_fresh_noise_is_refused_where_source_and_data_are_coupled(method: Flower | PnPFlow) -> None:
    flow = normal_flow(coupled=True)
    with pytest.raises(ValueError, match="coupled"):
        run(method, 10, flow)
    draws = flow.posterior(MEASURED, 10, method=replace(method, coupled=True))
    assert "coupled" in draws.warnings[0]
    assert not draws.exact


def test_fresh_noise_keeps_the_marginals_of_independent_pairs() -> None:
    flow, n = normal_flow(), 4000
    generator = torch.Generator().manual_seed(0)
    x_1, x_0 = torch.randn(2, n, 2, generator=generator)
    half = flow.trajectory(x_1, [0.0, 0.5], solver=FixedStep(steps=20))[-1]
    fresh = PLANE.geodesic(x_0, x_1, torch.full((n,), 0.5))[0]
    assert torch.allclose(torch.cov(half.T), torch.cov(fresh.T), atol=0.04)


def test_guiding_fields_are_their_formulas_in_flat_space() -> None:
    flow = normal_flow()
    x, t = torch.randn(5, 2, generator=torch.Generator().manual_seed(0)), torch.full((5,), 0.4)
    rate = (2 * 0.4 - 1) / (0.4**2 + 0.6**2)
    v = flow.field(x, t)
    x_1, jacobian = x + 0.6 * v, 1 + 0.6 * rate
    slope = (Y - x_1 @ ROWS.T) @ ROWS / NOISE**2
    dps = FlowDPS(PLANE, MEASURED).applied_to(flow.field)(x, t)
    assert torch.allclose(dps, v + 1.5 * jacobian * slope, atol=1e-5)
    chef = FlowChef(PLANE, MEASURED, 0.3).applied_to(flow.field)(x, t)
    assert torch.allclose(chef, v + 0.3 * slope, atol=1e-5)
    variance = 0.6**2 / (0.4**2 + 0.6**2)
    inverse = 1 / (variance * ROWS @ ROWS.T + NOISE**2)
    pulled = (Y - x_1 @ ROWS.T) @ inverse @ ROWS
    ot = OTODE(PLANE, MEASURED).applied_to(flow.field)(x, t)
    assert torch.allclose(ot, v + 1.5 * jacobian * pulled, atol=1e-5)
    early = torch.full((5,), 0.01)
    for steering in (FlowDPS(PLANE, MEASURED), OTODE(PLANE, MEASURED)):
        assert torch.equal(steering.applied_to(flow.field)(x, early), flow.field(x, early))


@pytest.mark.parametrize("centre", [torch.zeros(2), None], ids=["mixed", "replaced"])
def test_flow_dps_as_its_code_takes_more_fresh_noise_the_nearer_the_data(centre: Tensor | None) -> None:
    # Where nothing moves and nothing is measured, end point and start are where the point is.
    flow = rfm.Flow(PLANE, lambda x, t: torch.zeros_like(x), WrappedNormal(PLANE, torch.zeros(2), 1.0))
    method = FlowDPSSteps(steps=4, gradient_steps=0, centre=centre, shift=2.0)
    x = run(method, 20_000, flow)
    variance = 1.0
    for left in (2 * 0.75 / 1.75, 2 * 0.5 / 1.5, 2 * 0.25 / 1.25):
        t = 1 - left
        if centre is None:
            variance = t * (t**2 * variance + left**2) + left * variance
        else:
            variance = (t + left * math.sqrt(left)) ** 2 * variance + left**2 * t
    assert torch.cov(x.T).diagonal().tolist() == pytest.approx([variance] * 2, rel=0.04)
    with pytest.raises(ValueError, match="shift"):
        FlowDPSSteps(shift=0.0)


MANIFOLDS = [
    Euclidean(3),
    Sphere(2),
    FlatTorus(2),
    SO3(),
    SE3(),
    Hyperboloid(2),
    Product(Sphere(2), Euclidean(1), weights=[1.0, 4.0]),
    Power(SO3(), 2),
]
everywhere = pytest.mark.parametrize("manifold", MANIFOLDS, ids=str)


def drawn(manifold: Manifold, n: int, seed: int = 0) -> Tensor:
    x = torch.randn(n, *manifold.event_shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return manifold.projx(x)


@everywhere
def test_gradients_are_those_of_the_metric(manifold: Manifold) -> None:
    x = drawn(manifold, 4)
    weights = torch.randn(manifold.event_shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    u = (manifold.tangent_basis(x) * 0.3).sum(1)
    gradient = riemannian_gradient(manifold, x, weights.expand_as(x).clone())
    slope = torch.func.jvp(
        lambda s: (manifold.expmap(x, s * u) * weights).flatten(1).sum(1),
        (torch.zeros((), dtype=torch.float64),),
        (torch.ones((), dtype=torch.float64),),
    )[1]
    assert torch.allclose(manifold.inner(x, gradient, u), slope, atol=1e-8)


@pytest.mark.parametrize("few", [0, 16], ids=["conjugate gradients", "directly"])
@everywhere
def test_the_tangent_solve_is_that_of_a_dense_matrix(
    manifold: Manifold, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = drawn(manifold, 3)
    target = manifold.projx(manifold.expmap(x[0], 0.3 * manifold.tangent_basis(x[0])[0]))
    rows = torch.randn(2, manifold.dim, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    measured = Measurement(displacement(manifold, target, rows), [0.1, -0.2], 0.3)
    p = x[:1]
    problem = linearised(manifold, measured, p)
    basis = manifold.tangent_basis(p)[0]
    dense = torch.stack([problem.forward(e[None])[0] for e in basis], dim=1)
    precision = torch.tensor([2.0], dtype=torch.float64)
    pull, along = (basis[0] - basis[-1])[None], torch.zeros(manifold.dim, dtype=torch.float64)
    along[0], along[-1] = along[0] + 1, along[-1] - 1
    monkeypatch.setattr("rfm.posterior.tangent_solve._FEW", few)
    found = solve(problem, -problem.residual, precision, pull, tol=1e-12)
    eye = torch.eye(manifold.dim, dtype=torch.float64)
    expected = torch.linalg.solve(dense.T @ dense + 2 * eye, along - dense.T @ problem.residual[0])
    assert torch.allclose(found[0], torch.tensordot(expected, basis, dims=1), atol=1e-6)


@everywhere
def test_every_method_gives_points_of_the_manifold_that_fit_better(manifold: Manifold) -> None:
    x = drawn(manifold, 64).float()
    flow = rfm.Flow(manifold, lambda x, t: torch.zeros_like(x), default_source(manifold, x.double()))
    base = manifold.projx(x.double()).float()[0]
    measured = Measurement(displacement(manifold, base), torch.zeros(manifold.dim), 0.7)
    methods: list[Sampler] = [
        Guided([FlowDPS(manifold, measured, start=0.3)], FixedStep(steps=6)),
        Guided([FlowChef(manifold, measured, 1.0)], FixedStep(steps=6)),
        Guided([OTODE(manifold, measured, start=0.3)], FixedStep(steps=6)),
        Guided([EnergyGuidance(manifold, lambda x: manifold.dist(x, base) ** 2, 0.5)], FixedStep(steps=6)),
        Flower(steps=4, coupled=True, iterations=5),
        FlowDPSSteps(steps=4),
        PnPFlow(steps=4, draws=2, coupled=True),
        DFlow(rounds=1, iterations=3, points=2),
    ]
    prior = flow.sample(64, generator=torch.Generator().manual_seed(1), solver=FixedStep(steps=1))
    far = float(manifold.dist(prior, base).square().mean())
    for method in methods:
        draws = flow.posterior(measured, 64, method=method, generator=torch.Generator().manual_seed(0))
        manifold.check_point(draws.points, tol=1e-3)
        assert float(manifold.dist(draws.points, base).square().mean()) < far, draws.method
        assert not draws.exact
        assert draws.evaluations > 0


def test_what_methods_cannot_do_is_refused() -> None:
    flow = normal_flow()
    for method in (Flower(), PnPFlow(), FlowDPSSteps()):
        with pytest.raises(ValueError, match="needs a Measurement"):
            flow.posterior(inside(lambda x: x[..., 0] > 0), 4, method=method)
    with pytest.raises(ValueError, match="between 0 and 1"):
        FlowDPS(PLANE, MEASURED, start=0.0)
    with pytest.raises(ValueError, match="between 0 and 1"):
        OTODE(PLANE, MEASURED, start=1.0)
    with pytest.raises(ValueError, match="start is a time"):
        EnergyGuidance(PLANE, lambda x: x[..., 0], start=1.0)
