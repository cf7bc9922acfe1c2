"""Objectives of flow maps: zero for maps that are known, finite differences elsewhere, and where a gradient leads."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from known_flow_maps import KnownMap, clock, contraction, near, spiral
from manifold_zoo import ZOO
from random_fields import normal, points, wavy_field
from torch import Tensor, nn
from zoo_sources import source_of

from manifolds import SO3, Euclidean, FlatTorus, Hyperboloid, LogEuclideanSPD, Manifold, PoincareBall, Sphere
from rfm import FlowMap
from rfm.objectives import (
    AlignYourFlow,
    Eulerian,
    FlowMapObjective,
    Lagrangian,
    MeanFlow,
    PlainMeanFlow,
    RiemannianConsistency,
    Semigroup,
    TrajectoryRegression,
)
from rfm.objectives.flow_maps.jump_batch import JumpBatch
from rfm.paths import AffinePath, GeodesicPath
from rfm.paths.schedules import Linear
from rfm.paths.time_pairs import TimePairs
from rfm.paths.times import UniformTimes
from rfm.sources import Uniform, WrappedNormal

EVERY = pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in ZOO])
SOME = pytest.mark.parametrize(
    "m", [Euclidean(3), FlatTorus(2), Sphere(2), SO3(), Hyperboloid(2), PoincareBall(2)], ids=str
)
EXACT = (Semigroup(), Lagrangian(), Eulerian(), MeanFlow(), AlignYourFlow(), RiemannianConsistency())
INEXACT = (PlainMeanFlow(), RiemannianConsistency(simplified=True))
S = torch.tensor([0.0, 0.2, 0.7, 0.9], dtype=torch.float64)
T = torch.tensor([1.0, 0.6, 0.1, 0.95], dtype=torch.float64)
"""Jumps ahead, and one back."""


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def loss_of(own: FlowMapObjective, known: Any, velocity: Callable[..., Tensor], x: Tensor) -> Tensor:
    return own.jump_loss(JumpBatch(known, velocity, x, S, T), generator())


class Wavy(nn.Module, FlowMap):
    """An average velocity of no flow in particular, with one weight."""

    def __init__(self, m: Manifold, weight: float = 1.0) -> None:
        super().__init__()
        self.manifold = m
        self.weight = nn.Parameter(torch.tensor(weight, dtype=torch.float64))
        self.waves = wavy_field(m, seed=3), wavy_field(m, seed=6)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.average_velocity(x, t, t)

    def average_velocity(self, x: Tensor, s: Tensor, t: Tensor, **condition: Any) -> Tensor:
        first, second = (wave(x, s + 0.7 * t) for wave in self.waves)
        return 0.6 * (first + self.weight * self.manifold.lift(t - s) * second)


# The map of a flow.


@EVERY
def test_the_map_of_a_flow_makes_them_zero(make: Callable[[], Manifold]) -> None:
    m = make()
    known, x = spiral(m), near(m, 4)
    for own in EXACT:
        assert float(loss_of(own, known, known.velocity, x).max()) < 1e-25, own


@EVERY
def test_forms_for_flat_space_are_zero_there_and_along_geodesics(make: Callable[[], Manifold]) -> None:
    m = make()
    bent, straight, x = spiral(m), contraction(m), near(m, 4)
    for own in INEXACT:
        assert float(loss_of(own, straight, straight.velocity, x).max()) < 1e-25, own
    found = float(loss_of(PlainMeanFlow(), bent, bent.velocity, x).max())
    assert found < 1e-25 if _is_flat(m) else found > 1e-16


class Globe(Manifold):
    """A sphere of a user's own, with no more than the contract asks for."""

    def __init__(self) -> None:
        super().__init__(2, (3,))

    def projx(self, x: Tensor) -> Tensor:
        return x / x.norm(dim=-1, keepdim=True)

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        return u - (x * u).sum(-1, keepdim=True) * x

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        angle = u.norm(dim=-1, keepdim=True)
        return torch.cos(angle) * x + torch.sinc(angle / torch.pi) * u

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        ahead = self.proju(x, y)
        sine, cosine = ahead.norm(dim=-1, keepdim=True), (x * y).sum(-1, keepdim=True)
        return torch.atan2(sine, cosine) / sine * ahead


def test_on_a_manifold_of_ones_own() -> None:
    m, own = Sphere(2), Globe()
    known = KnownMap(own, spiral(m).carried)
    x = near(m, 4)
    for objective in EXACT:
        # Not at a distance of 0, which this manifold has no derivative at.
        assert float(loss_of(objective, known, spiral(m).velocity, x).max()) < 1e-20, objective


def _is_flat(m: Manifold) -> bool:
    """Return whether going round a small geodesic triangle closes as in flat space."""
    x = near(m, 3, radius=0.1)[:, None]
    a, b = m.logmap(x[0], x[1]), m.logmap(x[0], x[2])
    squared = m.inner(x[0], a - b, a - b)
    return bool(torch.allclose(squared, m.squared_dist(x[1], x[2]), rtol=1e-9))


def test_a_rotation_of_the_sphere() -> None:
    # A truth that knows nothing of exponential and logarithm.
    m, x = Sphere(2), points(Sphere(2), 4)
    axis = normal(3, seed=5)
    turn = torch.linalg.cross(torch.eye(3, dtype=torch.float64), axis.expand(3, 3))

    def carried(y: Tensor, s: Tensor, t: Tensor) -> Tensor:
        return (torch.linalg.matrix_exp((clock(t) - clock(s))[..., None, None] * turn) @ y[..., None])[..., 0]

    def velocity(y: Tensor, t: Tensor) -> Tensor:
        return (1 + t)[..., None] * (turn @ y[..., None])[..., 0]

    known = KnownMap(m, carried)
    torch.testing.assert_close(known(x, S), velocity(x, S), rtol=1e-9, atol=1e-9)
    for own in EXACT:
        assert float(loss_of(own, known, velocity, x).max()) < 1e-20, own
    # The mean velocity is not where to jump: along circles that are not great ones it is shorter.
    assert float(loss_of(PlainMeanFlow(), known, velocity, x).max()) > 1e-2


def test_from_a_gaussian_to_another() -> None:
    """The whole loss of the marginal map, with the velocity of the paths between them, is the spread of its target."""
    m, mean, width = Euclidean(2), torch.tensor([1.0, -2.0], dtype=torch.float64), 0.3

    def deviation(t: Tensor) -> Tensor:
        return ((1 - t).square() + (width * t).square()).sqrt()

    def carried(x: Tensor, s: Tensor, t: Tensor) -> Tensor:
        return mean * t[..., None] + (deviation(t) / deviation(s))[..., None] * (x - mean * s[..., None])

    known = KnownMap(m, carried)
    source = WrappedNormal(m, torch.zeros(2, dtype=torch.float64), 1.0)
    draws = generator()
    x_0 = source.sample((20_000,), generator=draws, dtype=torch.float64)
    x_1 = mean + width * normal(20_000, 2, seed=9)
    t = UniformTimes().sample((20_000,), draws, torch.float64)
    # Of x_1 - x_0 given x_t: the variance of both, less what x_t explains, in two dimensions.
    explained = (width**2 * t - (1 - t)) ** 2 / deviation(t) ** 2
    expected = 2 * (1 + width**2 - explained).mean()
    for own in EXACT[:-1]:
        found = own(known, source, x_0, x_1, t, generator=generator())
        torch.testing.assert_close(found, expected, rtol=0.03, atol=0)
    for own in EXACT:
        distilled = type(own)(velocity=known.velocity)
        assert float(distilled(known, source, x_0, x_1, t, generator=generator())) < 1e-20
        assert float(distilled.validation_loss(known, source, x_0[:99], x_1[:99], t[:99])) < 1e-4


# Finite differences.

STEP = 1e-5


@SOME
def test_values_are_those_of_finite_differences(m: Manifold) -> None:
    known, x = Wavy(m), near(m, 4)
    velocity = wavy_field(m, seed=9, size=0.7)
    v = velocity(x, S)
    span = m.lift(T - S)

    def difference(function: Callable[[float], Tensor]) -> Tensor:
        return (function(STEP) - function(-STEP)) / (2 * STEP)

    def along(h: float) -> Tensor:
        return m.expmap(x, h * v)

    with torch.no_grad():
        y = known.jump(x, S, T)
        arriving = difference(lambda h: known.jump(x, S, T + h))
        leaving = difference(lambda h: known.jump(along(h), S + h, T))
        bracket = difference(
            lambda h: m.lift(T - S - h) * known.average_velocity(along(h), S + h, T) - m.logmap(along(h), y)
        )
        residual = arriving - velocity(y, T)
        share = torch.rand(4, generator=generator(), dtype=torch.float64)
        half = S + share * (T - S)
        twice = known.jump(known.jump(x, S, half), half, T)
        expected = {
            Lagrangian(): m.inner(y, residual, residual),
            Eulerian(): m.inner(y, leaving, leaving),
            AlignYourFlow(): m.inner(y, leaving, leaving),
            MeanFlow(): m.inner(x, bracket, bracket),
            Semigroup(): m.squared_dist(y, twice) / (T - S) ** 2,
        }
    for own, value in expected.items():
        found = loss_of(own, known, velocity, x)
        torch.testing.assert_close(found, value, rtol=1e-6, atol=1e-9, msg=lambda text, own=own: f"{own}: {text}")
    # The two Eulerian forms are one, seen from the end and from the start of the jump.
    pushed = torch.func.jvp(lambda u: m.expmap(x, u), (span * known.average_velocity(x, S, T),), (bracket,))[1]
    torch.testing.assert_close(pushed, leaving, rtol=1e-6, atol=1e-8)


@SOME
def test_gradients_are_those_of_what_is_not_held(m: Manifold) -> None:
    x, velocity = near(m, 4), wavy_field(m, seed=9, size=0.7)
    known = Wavy(m)
    span = m.lift(T - S)

    def at(weight: float, quantity: Callable[[FlowMap], Tensor]) -> Tensor:
        return quantity(Wavy(m, weight))

    def derivative(quantity: Callable[[FlowMap], Tensor]) -> Tensor:
        return ((at(1 + STEP, quantity) - at(1 - STEP, quantity)) / (2 * STEP)).detach()

    def jumped(own: FlowMap) -> Tensor:
        return own.jump(x, S, T)

    def moved(own: FlowMap) -> Tensor:
        return torch.func.jvp(lambda t: own.jump(x, S, t), (T,), (torch.ones_like(T),))[1]

    def departed(own: FlowMap) -> Tensor:
        return torch.func.jvp(lambda s: own.jump(x, s, T), (S,), (torch.ones_like(S),))[1]

    def average(own: FlowMap) -> Tensor:
        return own.average_velocity(x, S, T)

    with torch.no_grad():
        y, v, u = jumped(known), velocity(x, S), average(known)
        leaving = torch.func.jvp(lambda z, s: known.jump(z, s, T), (x, S), (v, torch.ones_like(S)))[1]
        bracket = torch.func.jvp(
            lambda z, s: m.lift(T - s) * known.average_velocity(z, s, T) - m.logmap(z, y),
            (x, S),
            (v, torch.ones_like(S)),
        )[1]
        share = torch.rand(4, generator=generator(), dtype=torch.float64)
        half = S + share * (T - S)
        target = known.jump(known.jump(x, S, half), half, T)
    expected = {
        Lagrangian(): 2 * m.inner(y, m.proju(y, derivative(moved)), moved(known) - velocity(y, T)),
        Eulerian(): 2 * m.inner(y, m.proju(y, derivative(departed)), leaving),
        AlignYourFlow(): -2 * m.inner(y, m.proju(y, derivative(jumped)), leaving) / (T - S),
        MeanFlow(): 2 * m.inner(x, derivative(average), -bracket),
        Semigroup(): -2 * m.inner(y, m.proju(y, derivative(jumped)), m.logmap(y, target)) / (T - S) ** 2,
    }
    assert float(m.norm(x, span * u).max()) < 2
    for own, value in expected.items():
        (found,) = torch.autograd.grad(loss_of(own, known, velocity, x).sum(), [known.weight])
        torch.testing.assert_close(
            found, value.sum().detach(), rtol=1e-6, atol=1e-9, msg=lambda text, own=own: f"{own}: {text}"
        )


def test_a_covariant_derivative_is_the_projection_in_the_space_around() -> None:
    # By normal coordinates, since the metric is no ambient one; Minkowski space projects to it all the same.
    m = Hyperboloid(2)
    known, x, v = Wavy(m), near(m, 4), wavy_field(m, seed=9)(near(m, 4), S)
    u, found = JumpBatch(known, known, x, S, T).covariant_derivative(v)
    ambient = torch.func.jvp(lambda y, s: known.average_velocity(y, s, T), (x, S), (v, torch.ones_like(S)))[1]
    torch.testing.assert_close(u, known.average_velocity(x, S, T))
    lengths = torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(found, ambient + (x * lengths * ambient).sum(-1, keepdim=True) * x)


@pytest.mark.parametrize("own", [*EXACT, *INEXACT, PlainMeanFlow(resolve_conflicts=True)], ids=str)
def test_a_gradient_step_leads_back_to_the_map(own: FlowMapObjective) -> None:
    m = LogEuclideanSPD(2) if own in INEXACT else Sphere(2)
    true, x = contraction(m), near(m, 4)

    class Off(nn.Module, FlowMap):
        """The true map, with jumps that are too long by a share."""

        def __init__(self) -> None:
            super().__init__()
            self.manifold = m
            self.share = nn.Parameter(torch.tensor(0.1, dtype=torch.float64))

        def average_velocity(self, y: Tensor, s: Tensor, t: Tensor, **condition: Any) -> Tensor:
            return (1 + m.lift((t - s) * self.share)) * true.average_velocity(y, s, t)

    off = Off()
    for share in (0.1, -0.1):
        off.share.data.fill_(share)
        (slope,) = torch.autograd.grad(loss_of(own, off, true.velocity, x).mean(), [off.share])
        assert float(slope) * share > 0


# Conflicts.


def test_conflicts_are_resolved_by_taking_each_gradient_off_the_other() -> None:
    m, x, velocity = Sphere(2), near(Sphere(2), 4), wavy_field(Sphere(2), seed=9)

    class Two(Wavy):
        def __init__(self) -> None:
            super().__init__(m)
            self.scale = nn.Parameter(torch.tensor(0.8, dtype=torch.float64))

        def average_velocity(self, y: Tensor, s: Tensor, t: Tensor, **condition: Any) -> Tensor:
            return self.scale * super().average_velocity(y, s, t)

    known = Two()
    weights = list(known.parameters())

    def gradient(loss: Tensor) -> Tensor:
        return torch.stack(torch.autograd.grad(loss.mean(), weights, retain_graph=True))

    plain = loss_of(PlainMeanFlow(), known, velocity, x)
    resolved = loss_of(PlainMeanFlow(resolve_conflicts=True), known, velocity, x)
    torch.testing.assert_close(resolved, plain)
    u = known.average_velocity(x, S, T)
    first = gradient(m.inner(x, u - velocity(x, S), u - velocity(x, S)))
    second = gradient(plain) - first
    dot = first @ second
    expected = first + second
    if dot < 0:
        expected = expected - dot / (second @ second) * second - dot / (first @ first) * first
    torch.testing.assert_close(gradient(resolved), expected)
    # Reversed, the terms conflict the other way round: one of the two cases has been tested each time.
    assert dot != 0


# Times, and arguments.


def test_pairs_of_times() -> None:
    pairs = TimePairs(ends=0.3, backward=0.25)
    s, t = pairs.sample((40_000,), generator(), torch.float64)
    again = pairs.sample((40_000,), generator(), torch.float64)
    torch.testing.assert_close((s, t), again, rtol=0, atol=0)
    low, high = torch.minimum(s, t), torch.maximum(s, t)
    assert bool(((low >= 0) & (high <= 1) & (low < high)).all())
    assert float((s > t).double().mean()) == pytest.approx(0.25, abs=0.01)
    assert float((low == 0).double().mean()) == pytest.approx(0.3, abs=0.01)
    assert float((high == 1).double().mean()) == pytest.approx(0.3, abs=0.01)
    assert float(((low == 0) & (high == 1)).double().mean()) == pytest.approx(0.09, abs=0.01)
    # Two draws in order, however the sampler orders a batch.
    s, t = TimePairs(UniformTimes(), ends=0.0).sample((40_000,), generator(), torch.float64)
    assert float((t - s).mean()) == pytest.approx(1 / 3, abs=0.01)
    assert float((t - s).square().mean()) == pytest.approx(1 / 6, abs=0.01)
    assert TimePairs().sample((2, 3), generator())[0].shape == (2, 3)
    for wrong in ({"ends": 2.0}, {"backward": -0.1}, {"base": 3}):
        with pytest.raises(ValueError, match="TimePairs: "):
            TimePairs(**wrong)


@pytest.mark.parametrize("own", [*EXACT, *INEXACT, PlainMeanFlow(resolve_conflicts=True)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_losses_are_finite_in_the_dtype_of_the_points(own: FlowMapObjective, dtype: torch.dtype) -> None:
    m = Sphere(2)
    known, source = Wavy(m).to(dtype), Uniform(m)
    x_0, x_1 = (source.sample((32,), generator=generator(), dtype=dtype) for _ in range(2))
    x_1 = x_1.flip(0)
    t = own.draw_times((32,), generator=generator(), dtype=dtype)
    loss = own(known, source, x_0, x_1, t, generator=generator())
    assert (loss.dtype, loss.shape) == (dtype, ())
    assert bool(loss.isfinite())
    assert all(bool(g.isfinite()) for g in torch.autograd.grad(loss, list(known.parameters())))


def test_weight_and_path_and_times_count() -> None:
    m = Euclidean(2)
    known, source = Wavy(m), WrappedNormal(m, torch.zeros(2, dtype=torch.float64), 1.0)
    x_0, x_1, t = normal(16, 2), normal(16, 2, seed=1), torch.linspace(0.1, 0.9, 16, dtype=torch.float64)

    def found(**options: Any) -> float:
        return float(Semigroup(**options)(known, source, x_0, x_1, t, generator=generator()).detach())

    jumps = found(weight=2.0) - found(weight=1.0)
    assert jumps > 0
    assert found(weight=3.0) == pytest.approx(found(weight=1.0) + 2 * jumps)
    assert found(path=AffinePath(m, Linear())) == pytest.approx(found(path=GeodesicPath(m)))
    assert bool((Semigroup(times=UniformTimes()).draw_times((64,), generator=generator()) > 0).all())


def test_bad_arguments() -> None:
    for wrong, words in (
        ({"weight": 0.0}, "weight must be a number above 0"),
        ({"spans": 3}, "spans must be"),
        ({"path": 3}, "path must be"),
        ({"times": 3}, "times must be"),
        ({"velocity": 3}, "velocity must be"),
    ):
        with pytest.raises(ValueError, match=f"Semigroup: {words}"):
            Semigroup(**wrong)  # type: ignore[arg-type]
    m = Sphere(2)
    x, t = points(m, 4), torch.full((4,), 0.5, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"Lagrangian: jumps need a field with a second time.*got function field"):
        Lagrangian()(wavy_field(m), Uniform(m), x, x, t)
    with pytest.raises(ValueError, match="Semigroup: path"):
        Semigroup(path=GeodesicPath(Sphere(3))).check_source(m, Uniform(m))


# Regression on trajectories.


@EVERY
def test_regression_is_zero_for_the_map_of_a_flow_whose_trajectories_are_known(make: Callable[[], Manifold]) -> None:
    m = make()
    known, x = spiral(m), near(m, 4, radius=0.2)
    zero, own = torch.zeros(4, dtype=torch.float64), TrajectoryRegression(invertibility=1.0)
    points = torch.stack([known.carried(x, zero, zero + time) for time in own.noted])
    given = own.distilling(known.velocity, points, None)
    assert float(given(known, source_of(m), x, x, S, generator=generator())) < 1e-20


@SOME
def test_regression_is_zero_for_the_map_of_a_flow_that_is_solved_for(m: Manifold) -> None:
    known, x = spiral(m), near(m, 4)
    losses = TrajectoryRegression(invertibility=1.0).losses(JumpBatch(known, known.velocity, x, S, T))
    assert float(losses.max()) < 1e-9


def test_regression_on_known_trajectories_is_of_jumps_between_their_points() -> None:
    """The loss against the distances of all jumps there are, by brute force."""
    m, rows = Sphere(2), 3
    network, velocity = Wavy(m), wavy_field(m, seed=9, size=0.7)
    points = near(m, 4 * rows).reshape(4, rows, 3)
    own = TrajectoryRegression(knots=4, weight=2.0, invertibility=0.5, spans=TimePairs(base=UniformTimes(), ends=1.0))
    given = own.distilling(velocity, points, None)
    assert given.noted == pytest.approx([0, 1 / 3, 2 / 3, 1])
    zero = torch.zeros(rows, dtype=torch.float64)
    ahead = m.squared_dist(network.jump(points[0], zero, zero + 1), points[3])
    back = m.squared_dist(network.jump(points[3], zero + 1, zero), points[0])
    # Of as many draws as make the mean that over the rows, and flow matching without a remainder.
    t = torch.zeros(20_000, dtype=torch.float64)
    x = points[0, :1].expand(len(t), 3)
    whole = given(network, Uniform(m), x, x, t, generator=generator())
    matching = given._matching(network, GeodesicPath(m), x, x, t).mean()
    torch.testing.assert_close(whole - matching, (2.0 * ahead + 0.5 * back).mean(), rtol=0.02, atol=0)


def test_conditions_go_with_their_trajectories() -> None:
    m = Euclidean(1)

    class Shift(nn.Module, FlowMap):
        """Moves by the condition in a unit of time."""

        manifold = m

        def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
            return condition

        def average_velocity(self, x: Tensor, s: Tensor, t: Tensor, *, condition: Tensor, **_: Any) -> Tensor:
            return condition

    def velocity(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        return condition

    condition = normal(5, 1, seed=1)
    own = TrajectoryRegression(knots=3)
    points = torch.stack([normal(5, 1, seed=2) + time * condition for time in own.noted])
    given, x, t = own.distilling(velocity, points, condition), normal(4, 1, seed=3), S
    source = WrappedNormal(m, torch.zeros(1, dtype=torch.float64), 1.0)
    assert float(given(Shift(), source, x, x, t, generator=generator(), condition=x)) < 1e-25


def test_regression_on_trajectories_refuses_what_it_cannot_use() -> None:
    with pytest.raises(ValueError, match="knots"):
        TrajectoryRegression(knots=1)
    with pytest.raises(ValueError, match="solver"):
        TrajectoryRegression(solver="Adams")  # type: ignore[arg-type]
