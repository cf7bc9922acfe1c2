"""The exact field of a path to data points: conditional expectation, density, score, flow, Euclidean truths."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from manifold_zoo import ZOO
from random_fields import normal, points, tangents, wavy_field
from test_likelihood_normalisation import Rule, circle_rule, product_rule, rotation_rule, sphere_rule
from torch import Tensor
from zoo_sources import source_of

from experiments import exact_fields
from manifolds import SO3, Euclidean, FlatTorus, Hyperboloid, Manifold, PoincareBall, Sphere, Stiefel
from rfm import AffinePath, ConditionalFlowPath, Flow, GaussianPath, GeodesicPath, divergence, marginal_velocity
from rfm.integrators import RK4, Adaptive, FixedStep, Method
from rfm.paths import ConditionalPath, MarginalVelocity
from rfm.paths.schedules import Cosine, CosineKappa, Linear, VariancePreserving
from rfm.sources import IsotropicGaussianSO3, Source, Uniform, WrappedNormal

CLOSED = [pytest.param(make, id=name) for name, make in ZOO if make().logmap_radius == math.inf]
CONTINUOUS = [Sphere(2), Sphere(4), Hyperboloid(2), PoincareBall(2), Euclidean(2)]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def times(n: int, t: float) -> Tensor:
    return torch.full((n,), t, dtype=torch.float64)


def exact(m: Manifold, n: int = 4, kappa: CosineKappa | None = None) -> MarginalVelocity:
    return marginal_velocity(GeodesicPath(m, kappa), points(m, n, seed=5), source_of(m))


# What it is: the conditional expectation.


@pytest.mark.parametrize("make", CLOSED)
@pytest.mark.parametrize("t", [0.0, 0.3, 0.7])
def test_no_field_correlates_with_what_is_left_of_the_target(make: Callable[[], Manifold], t: float) -> None:
    """The minimum of the regression: the mean of ``<dx_t - v(x_t), f(x_t)>`` is 0 for every field ``f``."""
    m = make()
    path = GeodesicPath(m, CosineKappa())
    data, source, n = points(m, 4, seed=5), source_of(m), 1500
    weights = torch.tensor([0.05, 0.05, 0.1, 0.8])
    x_0 = source.sample((n,), generator=seeded(), dtype=torch.float64)
    x_1 = data[torch.multinomial(weights, n, replacement=True, generator=seeded(1))]
    made = path.sample(x_0, x_1, times(n, t))
    v = marginal_velocity(path, data, source, weights=weights)(made.x_t, made.t)
    m.check_tangent(made.x_t, v)
    for seed in (3, 7):
        product = m.inner(made.x_t, made.dx_t - v, wavy_field(m, seed)(made.x_t, made.t))
        assert abs(float(product.mean())) < 4.5 * float(product.std()) / math.sqrt(n) + 1e-9
    wrong = marginal_velocity(path, data, source, weights=weights.flip(0))(made.x_t, made.t)
    away = m.inner(made.x_t, made.dx_t - wrong, v - wrong)
    if t == 0.3:
        assert float(away.mean()) > 3 * float(away.std()) / math.sqrt(n)


def rule_of(m: Manifold) -> Rule:
    if isinstance(m, FlatTorus):
        return circle_rule(4000) if m.dim == 1 else product_rule(lambda *x: torch.cat(x, -1), *[circle_rule(160)] * 2)
    return rotation_rule(24) if isinstance(m, SO3) else sphere_rule(m.dim, 2000 if m.dim == 1 else 60)


@pytest.mark.parametrize("m", [Sphere(1), Sphere(2), FlatTorus(1), FlatTorus(2), SO3()], ids=str)
def test_densities_integrate_to_one_and_obey_the_continuity_equation(m: Manifold) -> None:
    """``d/dt`` of the mean of a function is the mean of its derivative along the field, jumps and all."""
    x, weight = rule_of(m)
    field = exact(m)
    w = normal(m.embed_dim, seed=2)

    def function(y: Tensor) -> Tensor:
        return torch.sin(m.embed(y) @ w)

    def mean(t: float, values: Tensor) -> float:
        p = field.log_prob(x, times(len(x), t)).exp()
        return float((weight * p * torch.where(p > 0, values, 0.0)).sum())

    t, h = 0.4, 0.05
    rough = 5e-3 if m.dim > 1 else 2e-3  # of the quadrature, across jumps
    assert mean(t, torch.ones(len(x))) == pytest.approx(1, abs=rough)
    along = torch.func.jvp(function, (x,), (field(x, times(len(x), t)),))[1]
    change = (mean(t + h, function(x)) - mean(t - h, function(x))) / (2 * h)
    assert mean(t, along) == pytest.approx(change, abs=5 * rough)
    assert abs(change) > 0.03


@pytest.mark.parametrize("m", CONTINUOUS, ids=str)
def test_the_divergence_knows_the_density(m: Manifold) -> None:
    """``d/dt log p + <v, score> + div v = 0``, by three ways of differentiating."""
    field, t, h = exact(m), 0.4, 1e-4
    x = field.sample((20,), t, seeded())
    v, div = divergence(field, m, x, times(20, t))
    change = (field.log_prob(x, times(20, t + h)) - field.log_prob(x, times(20, t - h))) / (2 * h)
    torch.testing.assert_close(change + m.inner(x, v, field.score(x, times(20, t))), -div, atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize(
    ("m", "solver"),
    [
        (Sphere(4), FixedStep(RK4, 16)),
        (Euclidean(2), FixedStep(RK4, 16)),
        pytest.param(Hyperboloid(2), FixedStep(RK4, 16), marks=pytest.mark.slow),
        # Where paths to a data point set in, the field of the plane sphere has a kink.
        pytest.param(Sphere(2), Adaptive(atol=1e-5, rtol=1e-5), marks=pytest.mark.slow),
        pytest.param(PoincareBall(2), Adaptive(atol=1e-5, rtol=1e-5), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_its_flow_has_its_density(m: Manifold, solver: Method) -> None:
    """The divergence integrated along the path, against the sum over data points."""
    field = exact(m, 3)
    x = field.sample((6,), 0.5, seeded())
    log_p = Flow(m, field, field.source).log_prob(x, time=0.5, solver=solver)
    torch.testing.assert_close(log_p, field.log_prob(x, times(6, 0.5)), atol=1e-2, rtol=0)


@pytest.mark.parametrize("m", [*CONTINUOUS, SO3(), FlatTorus(2)], ids=str)
def test_its_flow_ends_at_the_data(m: Manifold) -> None:
    field = exact(m, 3)
    solver = FixedStep(RK4, 30, grading=1.5)
    ends = Flow(m, field, field.source).sample(40, time=0.98, generator=seeded(2), solver=solver)
    gaps = m.dist(ends[:, None].double(), field.data)
    assert float(gaps.amin(1).max()) < 0.1
    assert len(gaps.argmin(1).unique()) == 3


def test_data_are_reached_in_proportion_to_their_weights() -> None:
    m, shares = SO3(), torch.tensor([0.5, 0.3, 0.2])
    field = marginal_velocity(GeodesicPath(m), points(m, 3, seed=5), Uniform(m), weights=2 * shares)
    ends = Flow(m, field).sample(600, time=0.9, generator=seeded(), solver=FixedStep(RK4, 30))
    found = m.dist(ends[:, None].double(), field.data).argmin(1).bincount(minlength=3) / 600
    assert float((found - shares).abs().max()) < 4 * 0.5 / math.sqrt(600)


# Density and score.


@pytest.mark.parametrize("make", CLOSED)
def test_the_score_is_the_gradient_of_the_density(make: Callable[[], Manifold]) -> None:
    m = make()
    field, h = exact(m, kappa=CosineKappa()), 1e-4
    x = field.sample((6,), 0.5, seeded(4))
    t, u = times(6, 0.5), tangents(m, x)
    ahead, behind = (field.log_prob(m.expmap(x, s * u), t) for s in (h, -h))
    s = field.score(x, t)
    m.check_tangent(x, s)
    torch.testing.assert_close(m.inner(x, s, u), (ahead - behind) / (2 * h), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("make", CLOSED)
def test_draws_follow_the_density(make: Callable[[], Manifold]) -> None:
    """The mean over draws of another density over this one is 1: that of another time."""
    m = make()
    field, n = exact(m), 1500
    t, wide = times(n, 0.1), times(n, 0.0)
    # At time 0 the support is everywhere.
    x = field.sample((n,), 0.0, seeded(3))
    ratio = (field.log_prob(x, t) - field.log_prob(x, wide)).exp()
    error = float(ratio.std()) / math.sqrt(n)
    assert abs(float(ratio.mean()) - 1) < 4 * error
    assert error > 1e-4


# Euclidean truths.


def mixture(x: Tensor, data: Tensor, sigma: float) -> Tensor:
    """The log-density of equal normal distributions about points, by torch's own classes."""
    parts = torch.distributions.Independent(torch.distributions.Normal(data, torch.full_like(data, sigma)), 1)
    shares = torch.distributions.Categorical(torch.ones(len(data), dtype=torch.float64))
    return torch.distributions.MixtureSameFamily(shares, parts).log_prob(x)


@pytest.mark.parametrize("schedule", [Linear(), Cosine(), VariancePreserving()], ids=lambda s: type(s).__name__)
def test_on_gaussian_paths_it_is_a_mixture_of_normals(schedule: Linear) -> None:
    m, data, x, t = Euclidean(3), normal(5, 3, seed=1), normal(7, 3, seed=2), times(7, 0.6)
    field = marginal_velocity(GaussianPath(m, schedule), data)
    alpha, sigma, d_alpha, d_sigma = (float(c) for c in schedule(times(1, 0.6)))
    y = x.clone().requires_grad_()
    log_p = mixture(y, alpha * data, sigma)
    (score,) = torch.autograd.grad(log_p.sum(), [y])
    torch.testing.assert_close(field.log_prob(x, t), log_p.detach())
    torch.testing.assert_close(field.score(x, t), score)
    # The velocity from the score: f x + h score.
    rate = d_alpha / alpha
    torch.testing.assert_close(field(x, t), rate * x + sigma * (sigma * rate - d_sigma) * score)


def test_geodesics_and_straight_lines_agree_in_flat_space() -> None:
    m, data, x, t = Euclidean(2), normal(4, 2, seed=1), normal(9, 2, seed=2), torch.linspace(0.1, 0.9, 9).double()
    source = WrappedNormal(m, torch.zeros(2), 1.3)
    fields = [marginal_velocity(path, data, source) for path in (GeodesicPath(m), AffinePath(m))]
    torch.testing.assert_close(fields[0](x, t), fields[1](x, t))
    torch.testing.assert_close(fields[0].log_prob(x, t), fields[1].log_prob(x, t))


# Batches, dtypes, memory.


@pytest.mark.parametrize("m", [Sphere(2), SO3(), Hyperboloid(2)], ids=str)
def test_chunks_batches_and_dtypes_change_nothing(m: Manifold) -> None:
    data, source = points(m, 11, seed=5), source_of(m)
    field = marginal_velocity(GeodesicPath(m), data, source)
    x = field.sample((2, 3), 0.4, seeded())
    t = torch.tensor(0.4, dtype=torch.float64)
    small = marginal_velocity(GeodesicPath(m), data, source, chunk_size=20)
    v = field(x, t)
    for other in (small(x, t.expand(2, 3)), torch.stack([field(y, t) for y in x.flatten(0, 1)]).reshape(v.shape)):
        torch.testing.assert_close(other, v)
    torch.testing.assert_close(small.log_prob(x, t), field.log_prob(x, t))
    single = field(x.float(), t.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), v, atol=2e-3, rtol=2e-3)
    assert field.half().data.dtype == torch.float64


def test_where_no_path_passes_the_density_is_zero_and_the_nearest_data_point_attracts() -> None:
    m = Sphere(2)
    north, east = torch.eye(3, dtype=torch.float64)[[2, 0]]
    field = marginal_velocity(GeodesicPath(m), torch.stack([north, east]), Uniform(m))
    x = m.projx(torch.tensor([[-1.0, 0.0, 0.5]], dtype=torch.float64))
    t = times(1, 0.9)
    assert float(field.log_prob(x, t)) == -math.inf
    assert bool((field.score(x, t) == 0).all())
    torch.testing.assert_close(field(x, t), 10 * m.logmap(x, north[None]))
    assert bool(field(x, times(1, 1.0)).isnan().all())


# Bad input.


class Unknown(Source):
    def sample(self, shape: tuple[int, ...], *args: object, **more: object) -> Tensor:
        return torch.zeros(*shape, 2)

    def log_prob(self, x: Tensor) -> Tensor:
        return x[..., 0]


@pytest.mark.parametrize(
    ("path", "data", "more", "sentence"),
    [
        (GeodesicPath(Sphere(2)), points(Sphere(2), 3), {}, "GeodesicPath starts from any source; pass the one"),
        (GaussianPath(Euclidean(2)), normal(2), {}, r"data must be points of shape \(n, 2\)"),
        (GaussianPath(Euclidean(2)), normal(0, 2), {}, "at least one"),
        (GaussianPath(Euclidean(2)), normal(3, 2), {"weights": [1.0, 2.0]}, "one number for each of the 3 data points"),
        (GaussianPath(Euclidean(2)), normal(3, 2), {"weights": [1.0, -1.0, 1.0]}, "not negative and not all 0"),
        (GaussianPath(Euclidean(2)), normal(3, 2), {"chunk_size": 0}, "chunk_size must be at least 1"),
        (GaussianPath(Euclidean(2)), normal(3, 2), {"source": Unknown(Sphere(2))}, "lives on Sphere"),
        (GeodesicPath(Sphere(2)), normal(3, 3), {"source": Uniform(Sphere(2))}, "off it by"),
        (
            GeodesicPath(Stiefel(4, 2)),
            points(Stiefel(4, 2), 2),
            {"source": Uniform(Stiefel(4, 2))},
            "found by a solver",
        ),
        (
            ConditionalFlowPath(Euclidean(2), lambda x_0, x_1, t: x_0),
            normal(3, 2),
            {"source": Unknown(Euclidean(2))},
            "no closed form is known",
        ),
    ],
)
def test_bad_input_gets_one_sentence(
    path: ConditionalPath, data: Tensor, more: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence) as refused:
        marginal_velocity(path, data, **more)  # type: ignore[arg-type]
    assert "\n" not in str(refused.value)


@pytest.mark.slow
def test_other_sources_serve_where_they_have_a_density() -> None:
    """A source on SO(3) that reaches no data point's cut locus: nothing jumps there."""
    m = SO3()
    mean = points(m)
    source = IsotropicGaussianSO3(mean, 0.3)
    # Within a radian of the mean: the cut loci, at angle pi from them, are seven standard deviations away from it.
    to_data = m.logmap(mean, points(m, 3, seed=5))
    data = m.expmap(mean, to_data / m.lift(m.norm(mean, to_data).clamp(min=1)))
    field = marginal_velocity(GeodesicPath(m), data, source)
    x = field.sample((10,), 0.5, seeded())
    log_p = Flow(m, field, source).log_prob(x, time=0.5, solver=Adaptive(atol=1e-5, rtol=1e-5))
    torch.testing.assert_close(log_p, field.log_prob(x, times(10, 0.5)), atol=1e-3, rtol=0)


# The study.


def test_the_study_of_departures_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, figure = tmp_path / "page.md", tmp_path / "figure.png"
    exact_fields.main(["--quick", "--out", str(out), "--figure", str(figure)])
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines()[2:]]
    assert [float(row[0]) for row in rows] == list(exact_fields.TIMES)
    # In the end the exact field knows where paths to its own points lead, and nothing of the others.
    assert float(rows[-1][1]) < 1e-3 < float(rows[-1][4])
    assert figure.stat().st_size > 10_000
    assert "from time 0." in out.read_text(encoding="utf-8")
