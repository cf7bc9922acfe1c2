"""Networks that predict score, noise or end point: their velocity, densities, losses, and DDIM."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from random_fields import normal, points, tangents
from scipy.integrate import quad
from torch import Tensor, nn

import rfm
from experiments import predictions
from manifolds import SO3, Euclidean, Hyperboloid, Manifold, Sphere
from rfm.integrators import FixedStep
from rfm.integrators.runge_kutta.tableaux import EULER
from rfm.networks import PredictedVelocity, Prediction, VelocityField
from rfm.objectives import prediction_loss
from rfm.paths import DDIM, AffinePath, ConditionalFlowPath, GaussianPath, GeodesicPath
from rfm.paths.conversions import from_endpoint, from_noise, from_score, velocity_from_endpoint
from rfm.paths.schedules import (
    Cosine,
    FunctionSchedule,
    Linear,
    Polynomial,
    PolynomialKappa,
    Schedule,
    VarianceExploding,
    VariancePreserving,
)

PLANE = Euclidean(2)
SCHEDULES: list[Schedule] = [Linear(), Cosine(), Polynomial(2), VariancePreserving(), VarianceExploding(0.05, 3.0)]
FROM: dict[Prediction, Callable[..., Any]] = {"score": from_score, "noise": from_noise, "end point": from_endpoint}
EACH_SCHEDULE = pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
EACH_PREDICTION = pytest.mark.parametrize("predicts", list(FROM))


def network(manifold: Manifold, **options: Any) -> VelocityField:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        field = VelocityField(manifold, width=16, depth=1, features=8, max_frequency=4.0, **options)
        nn.init.normal_(field.last.weight, std=0.3)
        return field.double()


@EACH_SCHEDULE
@EACH_PREDICTION
def test_the_velocity_is_that_of_the_conversions(schedule: Schedule, predicts: Prediction) -> None:
    inner = network(PLANE)
    field = PredictedVelocity(inner, GaussianPath(PLANE, schedule), predicts)
    x, t = normal(20, 2), torch.linspace(0.05, 0.95, 20, dtype=torch.float64)
    known = FROM[predicts](schedule, x, t, inner(x, t))
    torch.testing.assert_close(field(x, t), known.velocity, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(field.endpoint(x, t), known.endpoint, rtol=1e-10, atol=1e-10)


@EACH_SCHEDULE
@EACH_PREDICTION
def test_the_velocity_is_finite_at_both_ends(schedule: Schedule, predicts: Prediction) -> None:
    field = PredictedVelocity(network(PLANE), GaussianPath(PLANE, schedule), predicts)
    for t in (0.0, 1.0):
        assert bool(field(normal(5, 2), torch.full((5,), t, dtype=torch.float64)).isfinite().all())


@EACH_SCHEDULE
@EACH_PREDICTION
def test_its_divergence_is_that_of_automatic_differentiation(schedule: Schedule, predicts: Prediction) -> None:
    field = PredictedVelocity(network(PLANE), GaussianPath(PLANE, schedule), predicts)
    x, t = normal(6, 2), torch.linspace(0.1, 0.9, 6, dtype=torch.float64)
    for times in (t, t[2]):
        u, found = rfm.divergence(field, PLANE, x, times)
        expected_u, expected = rfm.divergence(lambda y, s: field(y, s), PLANE, x, times)
        torch.testing.assert_close(u, expected_u)
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("manifold", [Sphere(2), Hyperboloid(2), SO3()], ids=repr)
@pytest.mark.parametrize("kappa", [None, PolynomialKappa(2)])
def test_end_points_on_manifolds(manifold: Manifold, kappa: PolynomialKappa | None) -> None:
    path = GeodesicPath(manifold, kappa)
    field = PredictedVelocity(lambda x, t: 0.3 * tangents(manifold, x), path, "end point")
    x, t = points(manifold, 9), torch.linspace(0.1, 0.9, 9, dtype=torch.float64)
    manifold.check_point(field.endpoint(x, t))
    expected = velocity_from_endpoint(path, x, t, field.endpoint(x, t))
    torch.testing.assert_close(field(x, t), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("manifold", [Sphere(2), Hyperboloid(2), SO3()], ids=repr)
def test_weights_turn_the_loss_of_end_points_into_that_of_velocities(manifold: Manifold) -> None:
    path, x_0, x_1 = GeodesicPath(manifold), points(manifold, 30, seed=1), points(manifold, 30, seed=2)
    t = torch.linspace(0.05, 0.95, 30, dtype=torch.float64)
    field = PredictedVelocity(lambda x, s: 0.3 * tangents(manifold, x), path, "end point")
    velocity = rfm.flow_matching_loss(field, path, x_0, x_1, t, "none")
    weighted = prediction_loss(field, x_0, x_1, t, "none", weight=lambda s: (1 - s) ** -2.0)
    torch.testing.assert_close(weighted, velocity, rtol=1e-7, atol=1e-9)


@EACH_PREDICTION
def test_losses_in_flat_space_differ_by_factors_of_time(predicts: Prediction) -> None:
    schedule = VariancePreserving()
    field = PredictedVelocity(network(PLANE), GaussianPath(PLANE, schedule), predicts)
    x_0, x_1, t = normal(30, 2, seed=1), normal(30, 2, seed=2), torch.linspace(0.05, 0.95, 30, dtype=torch.float64)
    velocity = rfm.flow_matching_loss(field, field.path, x_0, x_1, t, "none")
    at, (f, h) = schedule(t), schedule.probability_flow(t)
    # The velocity is f x + h score, its error h times that of the score.
    factor = {"score": h / at.sigma, "noise": h / at.sigma, "end point": h * at.alpha / at.sigma**2}[predicts]
    torch.testing.assert_close(prediction_loss(field, x_0, x_1, t, "none") * factor**2, velocity, rtol=1e-7, atol=1e-9)
    assert bool(f.isfinite().all())


def test_the_geodesic_distance_bends_on_curved_spaces_alone() -> None:
    signs = {}
    for manifold in (Euclidean(2), Sphere(2), Hyperboloid(2)):
        path, x_0, x_1 = GeodesicPath(manifold), points(manifold, 50, seed=1), points(manifold, 50, seed=2)
        t = torch.full((50,), 0.2, dtype=torch.float64)
        field = PredictedVelocity(lambda x, s, m=manifold: 0.8 * tangents(m, x, 5), path, "end point")
        tangent, geodesic = (prediction_loss(field, x_0, x_1, t, distance=d) for d in ("tangent", "geodesic"))
        signs[manifold] = float(geodesic / tangent)
    flat, sphere, plane = signs.values()
    assert flat == pytest.approx(1, abs=1e-9)
    # Geodesics from one point come together on a sphere and part in the hyperbolic plane (Toponogov).
    assert sphere < 0.99
    assert plane > 1.01


def test_the_minimiser_of_the_geodesic_distance_is_no_mean_of_logarithms() -> None:
    sphere = Sphere(2)
    x = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    ends = sphere.expmap(x.expand(3, 3), torch.tensor([[1.5, 0, 0], [0, 1.5, 0], [0, 0.1, 0]], dtype=torch.float64))
    mean_log = sphere.logmap(x.expand(3, 3), ends).mean(0)
    u = mean_log.clone()
    for _ in range(200):
        y = sphere.expmap(x, u)
        y = sphere.expmap(y, sphere.logmap(y.expand(3, 3), ends).mean(0))
        u = sphere.logmap(x, y)
    assert float((u - mean_log).norm()) > 0.01


class Exact(nn.Module):
    """The exact noise of N(mean, spread^2) data, as a network."""

    def __init__(self, schedule: Schedule, mean: float, spread: float) -> None:
        super().__init__()
        self.schedule, self.mean, self.spread = schedule, mean, spread

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        at = self.schedule(t)
        lift = PLANE.lift
        variance = (at.alpha * self.spread) ** 2 + at.sigma**2
        return lift(at.sigma / variance) * (x - lift(at.alpha) * self.mean)


def test_a_diffusion_model_with_the_exact_noise_has_the_exact_density() -> None:
    schedule, spread = VariancePreserving(), 0.5
    path = GaussianPath(PLANE, schedule)
    field = PredictedVelocity(Exact(schedule, 0.3, spread), path, "noise")
    flow = rfm.Flow(PLANE, field, path.source)
    x = 0.3 + spread * normal(20, 2)
    expected = -((x - 0.3) ** 2).sum(-1) / (2 * spread**2) - math.log(2 * math.pi * spread**2)
    # The path starts from N(alpha x_1, sigma^2) with alpha(0) = 0.0066, and time is held 1e-3 from the data.
    torch.testing.assert_close(flow.log_prob(x).double(), expected, atol=2e-2, rtol=0)
    drawn = flow.sample(4000, generator=torch.Generator().manual_seed(0), solver=DDIM(schedule, 50))
    assert float(drawn.mean()) == pytest.approx(0.3, abs=0.03)
    assert float(drawn.std()) == pytest.approx(spread, abs=0.03)


@pytest.mark.parametrize("schedule", [VariancePreserving(), Cosine()], ids=repr)
def test_a_ddim_step_is_a_step_of_the_exponential_integrator(schedule: Schedule) -> None:
    """It solves ``x' = a x + b noise`` with the noise held: here by quadrature, not by the schedule's ratio."""
    noise, x, start, end = 0.7, 1.3, 0.3, 0.45

    def coefficients(t: float) -> tuple[float, float]:
        at = [float(c) for c in schedule(torch.tensor(t, dtype=torch.float64))]
        rate = at[2] / at[0]
        return rate, at[3] - at[1] * rate

    def growth(t: float) -> float:
        return math.exp(quad(lambda s: coefficients(s)[0], t, end, epsabs=1e-13)[0])

    expected = growth(start) * x + quad(lambda t: growth(t) * coefficients(t)[1] * noise, start, end, epsabs=1e-12)[0]
    line = Euclidean(1)
    field = PredictedVelocity(lambda y, t: torch.full_like(y, noise), AffinePath(line, schedule), "noise")
    points_ = torch.full((1, 1), x, dtype=torch.float64)
    found = rfm.integrate(field, line, points_, (start, end), DDIM(schedule, 1)).final
    assert float(found) == pytest.approx(expected, abs=1e-9)
    # Held, the noise makes any number of steps one.
    assert float(rfm.integrate(field, line, points_, (start, end), DDIM(schedule, 7)).final) == pytest.approx(expected)


def test_ddim_with_the_linear_schedule_is_the_method_of_euler() -> None:
    inner = network(PLANE)
    x = normal(10, 2)
    found = rfm.integrate(inner, PLANE, x, (0.0, 0.4, 1.0), DDIM(Linear(), 10)).x
    expected = rfm.integrate(inner, PLANE, x, (0.0, 0.4, 1.0), FixedStep(EULER, 10)).x
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_ddim_gives_no_density() -> None:
    flow = rfm.Flow(PLANE, network(PLANE), GaussianPath(PLANE).source)
    with pytest.raises(ValueError, match="DDIM: integrates no divergence"):
        flow.log_prob(normal(3, 2), solver=DDIM(Linear(), 3))


@pytest.mark.parametrize(
    "predicts", ["noise", *(pytest.param(name, marks=pytest.mark.slow) for name in ("score", "end point"))]
)
def test_fit_trains_each_prediction_and_saves_it(tmp_path: Path, predicts: Prediction) -> None:
    x = 0.3 * normal(300, 2, seed=1) + torch.tensor([1.0, -1.0])
    path = GaussianPath(PLANE, VariancePreserving())
    flow = rfm.fit(
        x, PLANE, objective=rfm.FlowMatching(path, predicts=predicts), field=network(PLANE).float(), steps=200,
        batch_size=128, device="cpu", progress=False,
        training=rfm.Training(validations=2),
    )  # fmt: skip
    assert isinstance(flow.field, PredictedVelocity)
    drawn = flow.sample(500, generator=torch.Generator().manual_seed(0), solver=DDIM(path.schedule, 40))
    # The median: after so few steps some tails are far out.
    assert float((drawn.median(0).values - torch.tensor([1.0, -1.0])).norm()) < 0.4
    flow.save(tmp_path)
    again = rfm.Flow.load(tmp_path)
    assert torch.equal(again.log_prob(x[:5]), flow.log_prob(x[:5]))


@pytest.mark.slow
@pytest.mark.parametrize("distance", ["tangent", "geodesic"])
def test_fit_trains_end_points_on_manifolds(distance: Any) -> None:
    manifold = Sphere(2)
    x = points(manifold, 1, seed=1).expand(200, 3)
    x = manifold.expmap(x, 0.2 * tangents(manifold, x))
    flow = rfm.fit(
        x, manifold, objective=rfm.FlowMatching(predicts="end point", distance=distance),
        field=network(manifold).float(), steps=150, batch_size=128, device="cpu", progress=False,
        training=rfm.Training(validations=2),
    )  # fmt: skip
    assert float(flow.log_prob(x).mean()) > -math.log(4 * math.pi) + 0.5


def test_conditions_reach_the_network() -> None:
    inner = network(PLANE, condition_dim=1)
    field = PredictedVelocity(inner, GaussianPath(PLANE, VariancePreserving()), "noise")
    assert field.condition_dim == 1
    assert field.reads_unknown
    x, t, c = normal(4, 2), torch.full((4,), 0.5, dtype=torch.float64), normal(4, 1, seed=5)
    free, held = field.without_and_with(x, t, c)
    torch.testing.assert_close(free, field(x, t))
    torch.testing.assert_close(held, field(x, t, condition=c))
    velocity, own = field.encoded(c)
    torch.testing.assert_close(velocity(x, t, condition=own), held)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rfm.FlowMatching(predicts="noise"), "pass path=GaussianPath"),
        (lambda: rfm.FlowMatching(predicts="speed"), "needs a path that says"),
        (lambda: rfm.FlowMatching(GeodesicPath(PLANE), predicts="noise"), "does not say the velocity"),
        (lambda: rfm.FlowMatching(AffinePath(PLANE), predicts="score"), "noise is Gaussian"),
        (lambda: rfm.FlowMatching(GaussianPath(PLANE), predicts="speed"), "predicts must be one of"),
        (lambda: rfm.FlowMatching(distance="geodesic"), 'pass predicts="end point"'),
        (lambda: rfm.FlowMatching(predicts="end point", distance="far"), '"tangent" or "geodesic"'),
        (
            lambda: rfm.FlowMatching(ConditionalFlowPath(PLANE, lambda a, b, t: a), predicts="end point"),
            "does not say the velocity",
        ),
        (
            lambda: PredictedVelocity(lambda x, t: x, GaussianPath(PLANE, FunctionSchedule(torch.sin, torch.cos)), "v"),
            "predicts must be one of",
        ),
    ],
)
def test_what_does_not_say_the_velocity_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.slow
def test_the_comparison_on_curved_spaces_runs(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    predictions.main(["--quick", "--out", str(page)])
    rows = [line for line in page.read_text().splitlines() if line.startswith(("| S^2", "| H^2", "| SO(3)"))]
    assert len(rows) == 3 * len(predictions.ROWS)
    assert all(float(row.split("|")[3]) > -0.05 for row in rows)
