"""Stochastic sampling: weak order by quadrature, marginals beside exact draws, the rule about densities."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from manifold_zoo import ZOO
from random_fields import normal, points, wavy_field
from scipy.stats import chi2
from torch import Tensor

from manifolds import SO3, Euclidean, FlatTorus, Hyperboloid, Manifold, PoincareBall, Sphere
from rfm import Flow, GaussianPath, GeodesicPath, divergence, integrate, marginal_velocity
from rfm.integrators import GEODESIC_EULER, RK4, FixedStep, GeodesicWalk, ProjectedWalk, Stochastic, Walk
from rfm.integrators.stochastic.walks import ito_correction
from rfm.likelihood import Hutchinson, score
from rfm.paths import MarginalVelocity
from rfm.paths.conversions import from_velocity
from rfm.paths.schedules import Cosine
from rfm.sources import IsotropicGaussianSO3, Source, Uniform, VonMisesFisher, WrappedNormal

SPACES = [Sphere(2), Sphere(3), SO3(), Hyperboloid(2), FlatTorus(2)]
WALKS = [GeodesicWalk(), ProjectedWalk()]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Weak order, without random numbers.


def gauss_hermite(dim: int, n: int = 9) -> tuple[Tensor, Tensor]:
    """A rule for standard normal variables ``(n^dim, dim)``, exact for polynomials of degree 2 n - 1 in each."""
    nodes, weights = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(n))
    grid = torch.cartesian_prod(*[torch.arange(n)] * dim).reshape(-1, dim)
    return nodes[grid], (weights / weights.sum())[grid].prod(-1)


def function(m: Manifold) -> Callable[[Tensor], Tensor]:
    w = normal(m.embed_dim, seed=2) / 2
    return lambda x: torch.sin(m.embed(x) @ w + 0.3)


def generator_of(m: Manifold, drift: Callable[..., Tensor], noise: float, x: Tensor) -> Tensor:
    """``<b, grad f> + g div grad f``, by automatic differentiation: the rate at which the mean of f changes."""
    f, t = function(m), torch.zeros(len(x), dtype=x.dtype)

    def gradient(y: Tensor, t: Tensor) -> Tensor:
        return m.riemannian_gradient(y, torch.func.grad(lambda z: f(m.projx(z)).sum())(y))

    return torch.func.jvp(f, (x,), (drift(x, t),))[1] + noise * divergence(gradient, m, x, t)[1]


def errors_of_a_step(m: Manifold, walk: Walk, steps: list[float], noise: float = 0.5) -> list[float]:
    """The error of the mean of a function after one step, at the worst of a few points."""
    x, drift, f = points(m, 5, seed=4), wavy_field(m), function(m)
    nodes, weights = gauss_hermite(m.dim)
    rate, move = generator_of(m, drift, noise, x), walk.on(m, x)
    xi = torch.einsum("kd,nd...->kn...", nodes, m.tangent_basis(x)).flatten(0, 1)
    errors = []
    for h in steps:
        w = (h * drift(x, torch.zeros(5, dtype=x.dtype))).repeat(len(nodes), *(1,) * len(m.event_shape))
        many = x.repeat(len(nodes), *(1,) * len(m.event_shape))
        end, _ = move(many, w + math.sqrt(2 * noise * h) * xi, 2 * noise * h)
        mean = (weights[:, None] * f(end).reshape(len(nodes), 5)).sum(0)
        errors.append(float((mean - f(x) - h * rate).abs().max()))
    return errors


@pytest.mark.parametrize("walk", WALKS, ids=lambda w: type(w).__name__)
@pytest.mark.parametrize("m", [*SPACES, PoincareBall(2), Hyperboloid(1)], ids=str)
def test_the_weak_order_is_one(m: Manifold, walk: Walk) -> None:
    """The error of one step falls with the square of its length, that of a solve therefore with its length."""
    steps = [0.02, 0.01, 0.005]
    errors = errors_of_a_step(m, walk, steps)
    slopes = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert min(slopes) > 1.85, (errors, slopes)


class Uncorrected(ProjectedWalk):
    def on(self, manifold: Manifold, x: Tensor) -> Callable[..., tuple[Tensor, None]]:  # type: ignore[override]
        return lambda y, w, variance: (manifold.projx(y + w), None)


class PlaneCorrection(ProjectedWalk):
    """Right on S^2 alone: the drift ``-x`` per unit of variance, in place of ``-d / 2 x``, with geodesic steps."""

    def on(self, manifold: Manifold, x: Tensor) -> Callable[..., tuple[Tensor, None]]:  # type: ignore[override]
        def step(y: Tensor, w: Tensor, variance: float) -> tuple[Tensor, None]:
            # The normal part of E[x'] - x is -d / 2 variance x: what is missing is put in by hand.
            return (1 + (manifold.dim / 2 - 1) * variance) * manifold.expmap(y, w), None

        return step


@pytest.mark.parametrize(
    ("m", "walk"),
    [(Hyperboloid(2), Uncorrected()), (Sphere(3), PlaneCorrection()), (Sphere(4), PlaneCorrection())],
    ids=str,
)
def test_a_wrong_ito_correction_is_found(m: Manifold, walk: Walk) -> None:
    """Its error of one step falls with the length alone: a bias that no number of steps removes."""
    errors = errors_of_a_step(m, walk, [0.02, 0.01, 0.005])
    assert math.log2(errors[-2] / errors[-1]) < 1.3


def test_the_plane_correction_is_right_on_the_plane_sphere() -> None:
    errors = errors_of_a_step(Sphere(2), PlaneCorrection(), [0.02, 0.01, 0.005])
    assert math.log2(errors[-2] / errors[-1]) > 1.85


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in ZOO])
def test_the_ito_correction_is_the_mean_gap_between_geodesics_and_projections(make: Callable[[], Manifold]) -> None:
    """By second differences along an orthonormal basis."""
    m, h = make(), 1e-3
    x = points(m, 2, seed=4)
    gap = torch.zeros_like(x)
    for e in m.tangent_basis(x).unbind(-1 - len(m.event_shape)):
        for s in (h, -h):
            gap = gap + (m.expmap(x, s * e) - m.projx(x + s * e)) / h**2
    torch.testing.assert_close(ito_correction(m, x), m.proju(x, gap / 2), atol=2e-5, rtol=1e-4)


# Marginals.


def source_about(m: Manifold) -> Source:
    """A source whose exact field does not jump: as good as 0 on the data's cut locus, where it is not conjugate."""
    centre = points(m, seed=3)
    if isinstance(m, SO3):
        return IsotropicGaussianSO3(centre, 0.4)
    return Uniform(m) if isinstance(m, Sphere) else WrappedNormal(m, centre, 0.4)


def exact(m: Manifold) -> MarginalVelocity:
    data, centre = points(m, 4, seed=5), points(m, seed=3)
    if not isinstance(m, Sphere):
        towards = m.logmap(centre, data)
        data = m.expmap(centre, towards / m.lift(m.norm(centre, towards)))
    return marginal_velocity(GeodesicPath(m), data, source_about(m))


def two_sample(m: Manifold, x: Tensor, y: Tensor) -> float:
    """The p-value of equal means of 20 waves of the points' coordinates (Hotelling's test)."""
    w, phase = normal(m.embed_dim, 20, seed=8), 3 * normal(20, seed=9)
    a, b = (torch.sin(m.embed(z.double()) @ w + phase) for z in (x, y))
    gap = a.mean(0) - b.mean(0)
    spread = a.T.cov() / len(a) + b.T.cov() / len(b)
    return float(chi2.sf(float(gap @ torch.linalg.solve(spread, gap)), 20))


@pytest.mark.parametrize("walk", WALKS, ids=lambda w: type(w).__name__)
@pytest.mark.parametrize(
    "m",
    [Sphere(2), Sphere(3), FlatTorus(2), *(pytest.param(m, marks=pytest.mark.slow) for m in (SO3(), Hyperboloid(2)))],
    ids=str,
)
def test_noise_keeps_the_marginals(m: Manifold, walk: Walk) -> None:
    field, n = exact(m), 1500
    flow = Flow(m, field, field.source)
    solver = Stochastic(lambda t: 0.6 * (1 - t), field.score, steps=25, walk=walk, generator=seeded(1))
    x = flow.sample(n, time=0.5, generator=seeded(2), solver=solver)
    m.check_point(x)
    assert two_sample(m, x, field.sample((20000,), 0.5, seeded(3))) > 1e-3
    # Without the drift along the score, noise spreads them; which the test sees.
    without = Stochastic(0.6, lambda x, t: torch.zeros_like(x), steps=25, walk=walk, generator=seeded(1))
    wrong = flow.sample(n, time=0.5, generator=seeded(2), solver=without)
    assert two_sample(m, wrong, field.sample((20000,), 0.5, seeded(3))) < 1e-6


# Isometries carry a density along unchanged, so that its score costs no solve: a test with many points can be paid.

Moved = Callable[[Tensor, Tensor], Tensor]
"""From points, or tangent vectors, ``(n, *event_shape)`` and a time to where an isometry takes them."""


def isometries(m: Manifold) -> tuple[Source, Callable[..., Tensor], Moved, Moved]:
    """Return a source, the velocity of isometries ``phi_t``, ``phi_t`` itself and what it does to tangent vectors."""
    shift = torch.tensor([0.7, -1.1])

    def shifted(x: Tensor, t: Tensor) -> Tensor:
        return m.projx(x + t * shift.to(x))

    if isinstance(m, FlatTorus):
        source: Source = WrappedNormal(m, torch.zeros(2), 0.7)
        return source, lambda x, t: shift.to(x).expand_as(x), shifted, lambda v, t: v
    size = m.event_shape[0]
    # Rotations of a sphere, products from the right of a group, boosts of a hyperboloid.
    spin = normal(size, size, seed=6).tril(-1) / 2
    metric = torch.eye(size, dtype=spin.dtype)
    if isinstance(m, Hyperboloid):
        metric[0, 0] = -1
    spin = (spin - spin.T) @ metric
    centre = points(m, seed=3)
    if isinstance(m, Sphere):
        source = VonMisesFisher(m, centre, 2.0)
    else:
        source = IsotropicGaussianSO3(centre, 0.7) if isinstance(m, SO3) else WrappedNormal(m, centre, 0.7)

    def carried(x: Tensor, t: Tensor) -> Tensor:
        turn: Tensor = torch.linalg.matrix_exp(t * spin).to(x)
        return x @ turn if isinstance(m, SO3) else x @ turn.T

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        return x @ (spin if isinstance(m, SO3) else spin.T).to(x)

    return source, velocity, carried, carried


@pytest.mark.parametrize("m", SPACES, ids=str)
def test_isometries_are_solutions_of_their_velocity(m: Manifold) -> None:
    source, velocity, carried, _ = isometries(m)
    x = source.sample((4,), seeded(), dtype=torch.float64)
    y = integrate(velocity, m, x, (0.0, 1.0), FixedStep(RK4, 40)).final
    torch.testing.assert_close(carried(x, torch.ones(())), y, atol=1e-6, rtol=0)
    torch.testing.assert_close(m.dist(y[:1], y[1:]), m.dist(x[:1], x[1:]), atol=1e-6, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("walk", WALKS, ids=lambda w: type(w).__name__)
@pytest.mark.parametrize("m", SPACES, ids=str)
def test_a_hundred_thousand_points_with_noise_and_without(m: Manifold, walk: Walk) -> None:
    source, velocity, carried, pushed = isometries(m)
    flow, n = Flow(m, velocity, source), 100_000

    def score_of(x: Tensor, t: Tensor) -> Tensor:
        return pushed(score(source.log_prob, m, carried(x, -t[0])), t[0])

    # The walks' bias is of first order in the step; on the hyperboloid so many points see that of 64.
    steps = 128 if isinstance(m, Hyperboloid) else 64

    def drawn(scale: float) -> Tensor:
        solver = Stochastic(0.25, lambda x, t: scale * score_of(x, t), steps=steps, walk=walk, generator=seeded(1))
        return flow.sample(n, generator=seeded(2), solver=solver)

    x = drawn(1.0)
    m.check_point(x)
    y = flow.sample(n, generator=seeded(3), solver=FixedStep(RK4, 10))
    assert two_sample(m, x, y) > 1e-3
    # So many points see a score that is off by a tenth.
    assert two_sample(m, drawn(0.9), y) < 1e-3


@pytest.mark.slow
def test_the_score_of_the_flow_itself_is_the_reference() -> None:
    m = Sphere(2)
    flow = Flow(m, wavy_field(m, size=0.8))
    own = FixedStep(RK4, 4)
    solver = Stochastic(
        0.3, lambda x, t: flow.score(x, float(t[0]), solver=own), steps=30, generator=seeded(1), walk=ProjectedWalk()
    )
    x = flow.sample(3000, generator=seeded(2), solver=solver)
    y = flow.sample(100_000, generator=seeded(3), solver=FixedStep(RK4, 10))
    assert two_sample(m, x, y) > 1e-3
    assert two_sample(m, m.random_uniform(3000, generator=seeded(4)), y) < 1e-6


@pytest.mark.parametrize("schedule", [Cosine(), None], ids=["cosine", "linear"])
def test_on_affine_paths_the_score_comes_from_the_velocity(schedule: Cosine | None) -> None:
    m = Euclidean(2)
    path = GaussianPath(m) if schedule is None else GaussianPath(m, schedule)
    field = marginal_velocity(path, normal(3, 2, seed=1))
    flow = Flow(m, field, path.source)

    def drawn(**score: Callable[..., Tensor]) -> Tensor:
        return flow.sample(
            3000,
            time=0.8,
            generator=seeded(2),
            solver=Stochastic(lambda t: 1 - t, steps=40, generator=seeded(1), **score),
        )

    x = drawn(score_from_velocity=lambda x, t, v: from_velocity(path.schedule, x, t, v).score)
    torch.testing.assert_close(x, drawn(score=field.score), atol=1e-5, rtol=0)
    assert two_sample(m, x, field.sample((50_000,), 0.8, seeded(3))) > 1e-3


def test_a_lower_temperature_concentrates() -> None:
    m = Euclidean(2)
    path = GaussianPath(m)
    field = marginal_velocity(path, normal(1, 2, seed=1))
    flow = Flow(m, field, path.source)

    def spread(temperature: float) -> float:
        solver = Stochastic(
            lambda t: 1 / (t + 0.01), field.score, temperature=temperature, steps=200, generator=seeded(1)
        )
        return float(flow.sample(2000, time=0.6, generator=seeded(2), solver=solver).std(0).mean())

    assert spread(1.0) == pytest.approx(0.4, rel=0.1)
    assert spread(0.4) < 0.32


# As a solver.


@pytest.mark.parametrize("m", SPACES, ids=str)
def test_without_noise_it_is_eulers_method(m: Manifold) -> None:
    x, field = points(m, 4), wavy_field(m)
    solver = Stochastic(0.0, lambda x, t: x, steps=6, grading=1.5)
    made = integrate(field, m, x, (0.1, 0.4, 0.9), solver)
    torch.testing.assert_close(made.x, integrate(field, m, x, (0.1, 0.4, 0.9), FixedStep(GEODESIC_EULER, 6, 1.5)).x)
    assert made.evaluations.tolist() == [6] * 4


def test_draws_repeat_with_their_generator_and_leave_global_randomness_alone() -> None:
    m = Sphere(2)
    flow = Flow(m, wavy_field(m))

    def drawn(seed: int) -> Tensor:
        solver = Stochastic(0.3, lambda x, t: torch.zeros_like(x), steps=4, generator=seeded(seed))
        return flow.sample(5, generator=seeded(), solver=solver)

    before = torch.get_rng_state()
    one, again, other = drawn(1), drawn(1), drawn(2)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_spans_of_any_length_have_their_own_noise() -> None:
    """Brownian motion on a line over a span of 4: the variance is 2 g times 4; times and conditions are passed on."""
    m, seen = Euclidean(1), []

    def score(x: Tensor, t: Tensor, shift: Tensor) -> Tensor:
        seen.append((t[0].item(), shift.shape))
        return torch.zeros_like(x)

    start = torch.zeros(4000, 1, dtype=torch.float64)
    solver = Stochastic(lambda t: 0.5 + 0 * t, score, steps=4, generator=seeded())
    made = integrate(lambda x, t, shift: 0 * x, m, start, (1.0, 5.0), solver, shift=torch.zeros(4000))
    assert float(made.final.var()) == pytest.approx(4, rel=0.1)
    assert seen == [(t, (4000,)) for t in (1.0, 2.0, 3.0, 4.0)]


def test_what_is_drawn_has_no_density() -> None:
    m = Sphere(2)
    flow, solver = Flow(m, wavy_field(m)), Stochastic(0.1, lambda x, t: torch.zeros_like(x), steps=2)
    with pytest.raises(ValueError, match="drawn with noise has no log-density; leave out return_log_prob"):
        flow.sample(2, solver=solver, return_log_prob=True)
    with pytest.raises(ValueError, match="no log-density"):
        flow.sample(2, solver=solver, return_log_prob=True, estimator=Hutchinson())
    with pytest.raises(ValueError, match="cannot be followed backwards in time, and what it draws has no log-density"):
        flow.log_prob(points(m, 2), solver=solver)


def still(x: Tensor, t: Tensor) -> Tensor:
    return torch.zeros_like(x)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Stochastic(1.0), "takes either score or score_from_velocity"),
        (lambda: Stochastic(1.0, still, lambda x, t, v: v), "takes either score or score_from_velocity"),
        (lambda: Stochastic(1.0, still, temperature=0.0), "temperature must be positive"),
        (lambda: Stochastic(1.0, still, steps=0), "steps must be at least 1"),
        (lambda: Stochastic(1.0, 3), "score must be"),  # type: ignore[arg-type]
    ],
)
def test_bad_arguments_get_one_sentence(make: Callable[[], Stochastic], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as refused:
        make()
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("solver", "sentence"),
    [
        (Stochastic(lambda t: 1 / t, still), "noise must be one finite number for each time.*bound it"),
        (Stochastic(-1.0, still), "not negative"),
        (Stochastic(lambda t: t[:1], still), r"found shape \(1,\)"),
        (Stochastic(1.0, lambda x, t: x[:, :2]), r"Stochastic: score: the field returned shape \(2, 2\)"),
    ],
)
def test_bad_noise_and_scores_get_one_sentence(solver: Stochastic, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as refused:
        Flow(Sphere(2), wavy_field(Sphere(2))).sample(2, solver=solver)
    assert "\n" not in str(refused.value)
