"""Measures of flows and paths: against closed forms, quadrature, and each other."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from manifold_zoo import ZOO
from random_fields import normal, points, wavy_field
from scipy.integrate import quad
from torch import Tensor

import rfm
from manifolds import SO3, Euclidean, FlatTorus, Manifold, Sphere
from rfm.couplings import OptimalTransport, Sinkhorn
from rfm.metrics import flow_measures, path_measures, wasserstein_distance
from rfm.networks import VelocityField
from rfm.paths import GaussianPath, GeodesicPath
from rfm.paths.schedules import Cosine, PolynomialKappa
from rfm.sources import Empirical

SLOW_LOGARITHMS = ("Stiefel",)
EACH = pytest.mark.parametrize(
    "make", [m for n, m in ZOO if not n.startswith(SLOW_LOGARITHMS)], ids=[n for n, _ in ZOO if "Stiefel" not in n]
)


@EACH
def test_geodesics_are_straight_and_their_energy_is_the_squared_distance(make: Callable[[], Manifold]) -> None:
    manifold = make()
    x_0, x_1 = points(manifold, 12, seed=1), points(manifold, 12, seed=2)
    found = path_measures(GeodesicPath(manifold), x_0, x_1)
    assert found.straightness.mean == pytest.approx(0, abs=1e-6)
    assert found.energy.mean == pytest.approx(float(manifold.dist(x_0, x_1).square().mean()), rel=1e-6)
    assert found.length.mean == pytest.approx(float(manifold.dist(x_0, x_1).mean()), rel=1e-6)
    assert found.wasserstein_squared <= found.squared_distance.mean * (1 + 1e-9)


@EACH
def test_a_flow_is_at_least_as_long_as_the_geodesic(make: Callable[[], Manifold]) -> None:
    manifold = make()
    source = Empirical(manifold, points(manifold, 12, seed=1))
    flow = rfm.Flow(manifold, wavy_field(manifold), source)
    found = flow_measures(flow, 12, generator=torch.Generator().manual_seed(0))
    assert found.straightness.mean > -1e-5
    assert found.length.mean**2 <= found.energy.mean * (1 + 1e-9)
    # In single precision.
    assert found.wasserstein_squared <= found.squared_distance.mean * (1 + 1e-6) <= found.energy.mean * (1 + 1e-5)


def test_uneven_speed_costs_energy_and_no_length() -> None:
    sphere = Sphere(2)
    x_0, x_1 = points(sphere, 30, seed=1), points(sphere, 30, seed=2)
    even, uneven = (path_measures(GeodesicPath(sphere, k), x_0, x_1) for k in (None, PolynomialKappa(2)))
    assert uneven.length.mean == pytest.approx(even.length.mean, rel=1e-9)
    # int (2 (1 - t))^2 dt = 4 / 3.
    assert uneven.energy.mean == pytest.approx(even.energy.mean * 4 / 3, rel=1e-9)


def test_a_turn_about_a_point_has_the_measures_of_a_circle() -> None:
    plane = Euclidean(2)
    x = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)

    def turn(y: Tensor, t: Tensor) -> Tensor:
        return torch.stack([-y[..., 1], y[..., 0]], dim=-1)

    class Both(Empirical):
        def sample(self, shape, generator=None, dtype=None, device=None):  # type: ignore[no-untyped-def]
            return self.points.to(dtype)

    found = flow_measures(rfm.Flow(plane, turn, Both(plane, x)), 2)
    assert found.length.mean == pytest.approx(1.5, abs=1e-5)
    assert found.energy.mean == pytest.approx(2.5, abs=1e-4)
    chord = 2 * torch.sin(torch.tensor(0.5)) ** 2 * 2
    assert found.straightness.mean == pytest.approx(2.5 - 2.5 * float(chord), abs=1e-4)


@pytest.mark.parametrize("cosine", [False, True])
def test_the_floor_of_the_loss_between_normal_distributions(cosine: bool) -> None:
    """Jensen's gap by a formula of its own: the variance of dx_t given x_t, integrated by quadrature."""
    line, spread, n = Euclidean(1), 2.0, 20000
    schedule = Cosine() if cosine else rfm.paths.schedules.Linear()
    path = GaussianPath(line, schedule)

    def marginal(x: Tensor, t: Tensor) -> Tensor:
        at = schedule(t)
        slope = (at.alpha * at.d_alpha * spread**2 + at.sigma * at.d_sigma) / ((at.alpha * spread) ** 2 + at.sigma**2)
        return slope[:, None] * x

    def conditional_variance(t: float) -> float:
        at = [float(c) for c in schedule(torch.tensor(t, dtype=torch.float64))]
        x = (at[0] * spread) ** 2 + at[1] ** 2
        both = at[0] * at[2] * spread**2 + at[1] * at[3]
        return (at[2] * spread) ** 2 + at[3] ** 2 - both**2 / x

    x_0, x_1 = normal(n, 1, seed=1), spread * normal(n, 1, seed=2)
    part = slice(0, 800)
    expected = quad(conditional_variance, 0, 1)[0]

    def off(x: Tensor, t: Tensor) -> Tensor:
        return marginal(x, t) + 0.5

    found = path_measures(path, x_0[part], x_1[part], marginal=marginal, field=off)
    assert found.jensen_gap is not None
    assert found.excess_loss is not None
    assert abs(found.jensen_gap.mean - expected) < 4 * found.jensen_gap.standard_error
    assert found.excess_loss.mean == pytest.approx(0.25)
    # What a step reports is the floor and the excess.
    t = torch.rand(n, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    loss = rfm.flow_matching_loss(off, path, x_0, x_1, t, "none")
    assert abs(float(loss.mean()) - expected - 0.25) < 4 * float(loss.std()) / n**0.5


@pytest.mark.parametrize("manifold", [Euclidean(2), FlatTorus(2), Sphere(2), SO3()], ids=repr)
def test_couplings_bring_the_energy_down_to_the_transport_cost(manifold: Manifold) -> None:
    x_0, x_1 = points(manifold, 60, seed=1), points(manifold, 60, seed=2)
    path, generator = GeodesicPath(manifold), torch.Generator().manual_seed(0)
    free = path_measures(path, x_0, x_1)
    blurred = path_measures(path, x_0, x_1, coupling=Sinkhorn(manifold), generator=generator)
    best = path_measures(path, x_0, x_1, coupling=OptimalTransport(manifold))
    assert best.energy.mean < blurred.energy.mean < free.energy.mean
    assert best.squared_distance.mean == pytest.approx(best.wasserstein_squared, rel=1e-9)
    least = wasserstein_distance(manifold, x_0, x_1, blocks=1).mean ** 2
    assert free.wasserstein_squared == pytest.approx(least)


def test_what_cannot_be_measured_is_refused() -> None:
    path, x = GeodesicPath(Euclidean(2)), normal(4, 2)
    with pytest.raises(ValueError, match="as many start points as end points"):
        path_measures(path, x, x[:3])
    with pytest.raises(ValueError, match="pass marginal="):
        path_measures(path, x, x, field=lambda y, t: y)


@pytest.mark.parametrize(
    "manifold", [Euclidean(2), *(pytest.param(m, marks=pytest.mark.slow) for m in (Sphere(2), SO3()))], ids=repr
)
def test_reflow_makes_paths_straighter(manifold: Manifold) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        field = VelocityField(manifold, width=32, depth=1, features=32, max_frequency=4.0)
    centres = points(manifold, 3, seed=4).repeat_interleave(60, 0)
    x = manifold.expmap(centres, manifold.proju(centres, 0.3 * normal(*centres.shape, seed=5)))
    options: dict[str, Any] = {"steps": 200, "batch_size": 128, "device": "cpu", "progress": False}
    options["training"] = rfm.Training(validations=2)
    flow = rfm.fit(x, manifold, field=field, **options)
    weights = {name: value.clone() for name, value in flow.state_dict().items()}
    made = rfm.reflow(flow, 300, **(options | {"steps": 120}))
    before, after = made.measures
    assert after.straightness.mean < 0.5 * before.straightness.mean
    assert after.energy.mean < before.energy.mean
    assert all(torch.equal(value, weights[name]) for name, value in flow.state_dict().items())
    # The density is exact: samples come with the one that log_prob gives.
    drawn, log_p = made.flow.sample(20, generator=torch.Generator().manual_seed(0), return_log_prob=True)
    torch.testing.assert_close(made.flow.log_prob(drawn), log_p, atol=5e-3, rtol=0)


def test_what_reflow_decides_itself_is_refused() -> None:
    flow = rfm.Flow(Sphere(2), VelocityField(Sphere(2), width=8, depth=1, features=4, max_frequency=4.0))
    with pytest.raises(ValueError, match="coupling follows from the flow"):
        rfm.reflow(flow, 10, coupling=OptimalTransport(Sphere(2)))
    with pytest.raises(ValueError, match="once for each"):
        rfm.reflow(flow, 10, rounds=2, out="somewhere")
    with pytest.raises(ValueError, match="must be a torch"):
        rfm.reflow(rfm.Flow(Sphere(2), lambda x, t: 0 * x), 10)
