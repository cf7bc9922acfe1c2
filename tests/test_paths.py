"""Conditional paths: positions, velocities, ends, marginals; and training on them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from manifold_zoo import ZOO
from random_fields import normal, points
from schedule_zoo import EVERY_KAPPA, EVERY_SCHEDULE, Mixture
from torch import Tensor, nn

import rfm
from manifolds import Euclidean, FlatTorus, Manifold, Product, Sphere
from rfm.paths import AffinePath, ConditionalFlowPath, ConditionalPath, GaussianPath, GeodesicPath
from rfm.paths.schedules import (
    Cosine,
    CosineKappa,
    FunctionKappa,
    Kappa,
    Linear,
    Polynomial,
    PolynomialKappa,
    Schedule,
    VarianceExploding,
    VariancePreserving,
)
from rfm.paths.times import StratifiedTimes, TimeSampler, UniformAndLateTimes
from rfm.records.descriptions import SavedFlowError

EVERY = pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in ZOO])


def times(*shape: int, seed: int = 7) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Geodesic paths.


@EVERY
def test_geodesic_path_joins_its_ends_at_constant_speed(make: Callable[[], Manifold]) -> None:
    m = make()
    path = GeodesicPath(m)
    x_0, x_1, t = points(m, 6), points(m, 6, seed=50), times(6)
    ends = [path.sample(x_0, x_1, torch.full((6,), s, dtype=torch.float64)).x_t for s in (0.0, 1.0)]
    assert float(m.dist(ends[0], x_0).max()) < 1e-9
    assert float(m.dist(ends[1], x_1).max()) < 1e-9
    sample = path.sample(x_0, x_1, t)
    m.check_point(sample.x_t)
    m.check_tangent(sample.x_t, sample.dx_t, tol=1e-9)
    torch.testing.assert_close(m.dist(x_0, sample.x_t), t * m.dist(x_0, x_1), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(m.norm(sample.x_t, sample.dx_t), m.dist(x_0, x_1), rtol=1e-7, atol=1e-9)


@EVERY
def test_velocity_is_the_derivative_of_position(make: Callable[[], Manifold]) -> None:
    m = make()
    path, h = GeodesicPath(m), 1e-5
    # Short of the ends, so that a difference does not step across the cut of a circle.
    x_0, x_1, t = points(m, 6), points(m, 6, seed=50), 0.1 + 0.8 * times(6)
    sample = path.sample(x_0, x_1, t)
    after, before = path.sample(x_0, x_1, t + h).x_t, path.sample(x_0, x_1, t - h).x_t
    # By the logarithm, which also holds where coordinates jump.
    central = (m.logmap(sample.x_t, after) - m.logmap(sample.x_t, before)) / (2 * h)
    torch.testing.assert_close(sample.dx_t, central, rtol=1e-5, atol=1e-6)


def test_the_path_goes_the_short_way_round_the_torus() -> None:
    x_0, x_1 = torch.tensor([[3.0]]), torch.tensor([[-3.0]])
    sample = GeodesicPath(FlatTorus(1)).sample(x_0, x_1, torch.tensor([0.5]))
    assert float(sample.dx_t) == pytest.approx(2 * torch.pi - 6, abs=1e-5)
    assert abs(float(sample.x_t)) == pytest.approx(torch.pi, abs=1e-5)


@pytest.mark.parametrize("shape", [(), (1,), (5,), (4, 5), (4, 1)], ids=str)
def test_times_broadcast_against_points(shape: tuple[int, ...]) -> None:
    m = Sphere(2)
    x_0, x_1, t = points(m, 4, 5), points(m, 4, 5, seed=50), times(*shape)
    sample = GeodesicPath(m).sample(x_0, x_1, t)
    full = GeodesicPath(m).sample(x_0, x_1, t.expand(4, 5))
    assert sample.t.shape == (4, 5)
    assert torch.equal(sample.x_t, full.x_t)
    assert torch.equal(sample.dx_t, full.dx_t)
    assert sample.x_0 is x_0
    assert sample.x_1 is x_1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_path_keeps_the_dtype_and_needs_no_batch(dtype: torch.dtype) -> None:
    m = Sphere(2)
    sample = GeodesicPath(m).sample(
        points(m, dtype=dtype), points(m, seed=50, dtype=dtype), torch.tensor(0.3).to(dtype)
    )
    assert sample.x_t.shape == sample.dx_t.shape == (3,)
    assert sample.x_t.dtype == sample.dx_t.dtype == sample.t.dtype == dtype


@EVERY
def test_kappa_moves_along_the_same_geodesic(make: Callable[[], Manifold]) -> None:
    m = make()
    x_0, x_1, t = points(m, 6), points(m, 6, seed=50), times(6)
    value, derivative = CosineKappa()(t)
    constant = GeodesicPath(m).sample(x_0, x_1, 1 - value)
    sample = GeodesicPath(m, CosineKappa()).sample(x_0, x_1, t)
    torch.testing.assert_close(sample.x_t, constant.x_t)
    torch.testing.assert_close(sample.dx_t, m.lift(-derivative) * constant.dx_t)
    assert sample.t is not constant.t
    assert torch.equal(sample.t, t)


@EVERY_KAPPA
@pytest.mark.parametrize("m", [Sphere(2), Product(Sphere(2), FlatTorus(1))], ids=["sphere", "product"])
def test_velocity_under_kappa_is_the_derivative_of_position(kappa: Kappa, m: Manifold) -> None:
    x_0, x_1, t = points(m, 6), points(m, 6, seed=50), 0.1 + 0.8 * times(6)
    path = GeodesicPath(m, kappa)
    sample = path.sample(x_0, x_1, t)
    moved = ConditionalFlowPath(m, lambda a, b, s: path.sample(a, b, s).x_t).sample(x_0, x_1, t)
    torch.testing.assert_close(moved.dx_t, sample.dx_t, rtol=1e-9, atol=1e-11)
    path.check_ends(x_0, x_1, tol=1e-9)


def test_a_kappa_that_misses_an_end_says_so() -> None:
    m = Sphere(2)
    assert GeodesicPath(m).starts_at_source
    assert GeodesicPath(m).ends_at_data
    late = GeodesicPath(m, FunctionKappa(lambda t: torch.exp(-10 * t)))
    assert late.starts_at_source
    assert not late.ends_at_data
    late.check_ends(points(m, 5), points(m, 5, seed=50))


# Affine and Gaussian paths.


@EVERY_SCHEDULE
def test_velocity_of_an_affine_path_is_the_derivative_of_position(schedule: Schedule) -> None:
    m = Euclidean(3)
    x_0, x_1, t = normal(6, 3, seed=1), normal(6, 3, seed=2), 0.01 + 0.98 * times(6)
    path = AffinePath(m, schedule)
    sample = path.sample(x_0, x_1, t)
    moved = ConditionalFlowPath(m, lambda a, b, s: path.sample(a, b, s).x_t).sample(x_0, x_1, t)
    torch.testing.assert_close(moved.dx_t, sample.dx_t, rtol=1e-8, atol=1e-10)


def test_the_linear_affine_path_is_the_geodesic_path() -> None:
    m = Euclidean(3)
    x_0, x_1, t = normal(6, 3, seed=1), normal(6, 3, seed=2), times(6)
    for ours, geodesic in zip(AffinePath(m).sample(x_0, x_1, t), GeodesicPath(m).sample(x_0, x_1, t), strict=True):
        torch.testing.assert_close(ours, geodesic)


@pytest.mark.parametrize(
    ("schedule", "starts", "ends"),
    [
        (Linear(), True, True),
        (Cosine(), True, True),
        (Polynomial(3), True, True),
        (VariancePreserving(), False, True),
        (VarianceExploding(), False, False),
    ],
    ids=repr,
)
def test_affine_paths_say_whether_they_reach_their_ends(schedule: Schedule, starts: bool, ends: bool) -> None:
    m = Euclidean(2)
    path = AffinePath(m, schedule)
    assert (path.starts_at_source, path.ends_at_data) == (starts, ends)
    x_0, x_1 = schedule.source_scale * normal(5, 2, seed=1), normal(5, 2, seed=2)
    gaps = [
        m.dist(path.sample(x_0, x_1, torch.full((5,), t, dtype=torch.float64)).x_t, x)
        for t, x in ((0.0, x_0), (1.0, x_1))
    ]
    assert [bool((gap < 1e-12).all()) for gap in gaps] == [starts, ends]
    path.check_ends(x_0, x_1, tol=1e-12)


def test_the_exploding_path_starts_from_its_source() -> None:
    """At time 0 it is the source's draw moved by the data, not ``sigma_max`` times it."""
    path = GaussianPath(Euclidean(2), VarianceExploding(0.01, 50.0))
    x_0 = path.source.sample((20_000,), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert float(x_0.std()) == pytest.approx(50, rel=0.02)
    x_1 = normal(20_000, 2)
    torch.testing.assert_close(path.sample(x_0, x_1, torch.zeros((), dtype=torch.float64)).x_t, x_1 + x_0)


@EVERY_SCHEDULE
def test_gaussian_paths_given_the_data(schedule: Schedule) -> None:
    """Density, score and velocity given the data agree with each other and with the draws."""
    m = Euclidean(3)
    path = GaussianPath(m, schedule)
    x_0, x_1, t = schedule.source_scale * normal(6, 3, seed=1), normal(6, 3, seed=2), 0.05 + 0.9 * times(6)
    sample = path.sample(x_0, x_1, t)
    torch.testing.assert_close(path.velocity(sample.x_t, x_1, t), sample.dx_t, rtol=1e-8, atol=1e-9)
    at = schedule(t)
    normal_density = torch.distributions.Normal(at.alpha[:, None] * x_1, at.sigma[:, None])
    torch.testing.assert_close(path.log_prob(sample.x_t, x_1, t), normal_density.log_prob(sample.x_t).sum(-1))
    x = sample.x_t.clone().requires_grad_()
    (slope,) = torch.autograd.grad(path.log_prob(x, x_1, t).sum(), x)
    torch.testing.assert_close(path.score(sample.x_t, x_1, t), slope)


def test_given_the_data_all_is_nan_where_the_density_has_no_width() -> None:
    path, x = GaussianPath(Euclidean(2)), normal(3, 2)
    end = torch.ones(3, dtype=torch.float64)
    for value in (path.log_prob(x, x, end), path.score(x, x, end), path.velocity(x, x, end)):
        assert bool(value.isnan().all())


@EVERY_SCHEDULE
@pytest.mark.parametrize("t", [0.1, 0.5, 0.95])
def test_affine_flows_and_gaussian_paths_have_the_same_marginals(schedule: Schedule, t: float) -> None:
    """Of position, and of velocity given position: expectations of test functions, by quadrature on either side."""
    mixture = Mixture(schedule, t)
    x_0, x_1, share = mixture.pairs()
    draws = AffinePath(Euclidean(1), schedule).sample(x_0, x_1, mixture.t)
    x, density = mixture.grid()
    for test in (torch.ones_like, lambda y: y, torch.square, torch.sin, lambda y: torch.cos(3 * y), torch.tanh):
        flow, marginal = (share * test(draws.x_t)[:, 0]).sum(), (density * test(x)[:, 0]).sum()
        torch.testing.assert_close(flow, marginal, rtol=1e-8, atol=1e-9)
        flow = (share * (draws.dx_t * test(draws.x_t))[:, 0]).sum()
        marginal = (density * (mixture.velocity(x) * test(x))[:, 0]).sum()
        torch.testing.assert_close(flow, marginal, rtol=1e-8, atol=1e-8)


@EVERY_SCHEDULE
def test_the_marginal_velocity_moves_the_marginal_density(schedule: Schedule) -> None:
    """The continuity equation: d log p / dt = -div u - u d log p / dx."""
    mixture = Mixture(schedule, 0.6)
    x = mixture.grid()[0][1000:3001:50]
    rate = torch.func.jvp(lambda s: mixture.log_prob(x, s), (mixture.t,), (torch.ones_like(mixture.t),))[1]
    one = torch.ones_like(x)
    u, divergence = torch.func.jvp(mixture.velocity, (x,), (one,))
    slope = torch.func.jvp(mixture.log_prob, (x,), (one,))[1]
    torch.testing.assert_close(rate, -(divergence + u * slope[:, None])[:, 0], rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("path", [AffinePath, GaussianPath])
def test_affine_paths_need_a_vector_space(path: type[AffinePath]) -> None:
    for name, make in ZOO:
        m = make()
        if isinstance(m, Euclidean):
            assert path(m).manifold is m
        else:
            with pytest.raises(ValueError, match="needs a vector space such as Euclidean") as error:
                path(m)
            assert str(m) in str(error.value), name
    plane_and_line = Product(Euclidean(2), Euclidean(1), weights=(1.0, 0.25))
    sample = path(plane_and_line, Cosine()).sample(normal(4, 3), normal(4, 3, seed=1), times(4))
    plane_and_line.check_tangent(sample.x_t, sample.dx_t)


@EVERY_SCHEDULE
@pytest.mark.parametrize("shape", [(), (1,), (5,), (4, 5), (4, 1)], ids=str)
def test_times_broadcast_in_flat_space(schedule: Schedule, shape: tuple[int, ...]) -> None:
    path = AffinePath(Euclidean(2), schedule)
    x_0, x_1, t = normal(4, 5, 2, dtype=torch.float32), normal(5, 2, seed=1, dtype=torch.float32), times(*shape).float()
    sample, full = path.sample(x_0, x_1, t), path.sample(x_0, x_1, t.expand(4, 5))
    assert sample.t.shape == (4, 5)
    assert sample.dx_t.shape == sample.x_t.shape == (4, 5, 2)
    assert sample.x_t.dtype == sample.dx_t.dtype == torch.float32
    assert torch.equal(sample.x_t, full.x_t)
    assert torch.equal(sample.dx_t, full.dx_t)


# Conditional flows of the user.


class Helix(Manifold):
    """A manifold with the four required methods alone: a unit circle times a line."""

    def __init__(self) -> None:
        super().__init__(2, (3,))

    def projx(self, x: Tensor) -> Tensor:
        return torch.cat([nn.functional.normalize(x[..., :2], dim=-1), x[..., 2:]], -1)

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        x, u = torch.broadcast_tensors(x, u)
        across = torch.stack([-x[..., 1], x[..., 0], torch.zeros_like(x[..., 0])], -1)
        return across * (across * u).sum(-1, keepdim=True) + torch.cat([torch.zeros_like(u[..., :2]), u[..., 2:]], -1)

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        angle = x[..., 0] * u[..., 1] - x[..., 1] * u[..., 0]
        c, s = torch.cos(angle), torch.sin(angle)
        return torch.stack([c * x[..., 0] - s * x[..., 1], s * x[..., 0] + c * x[..., 1], x[..., 2] + u[..., 2]], -1)

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        across = x[..., 0] * y[..., 1] - x[..., 1] * y[..., 0]
        angle = torch.atan2(across, (x[..., :2] * y[..., :2]).sum(-1))
        return torch.stack([-angle * x[..., 1], angle * x[..., 0], y[..., 2] - x[..., 2]], -1)


@EVERY
def test_a_flow_of_the_users_own_reproduces_the_geodesic_path(make: Callable[[], Manifold]) -> None:
    m = make()
    x_0, x_1, t = points(m, 6), points(m, 6, seed=50), times(6)
    path = ConditionalFlowPath(m, lambda a, b, s: m.geodesic(a, b, s)[0])
    for ours, closed in zip(path.sample(x_0, x_1, t), GeodesicPath(m).sample(x_0, x_1, t), strict=True):
        torch.testing.assert_close(ours, closed, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(), (1,), (5,), (4, 5), (4, 1)], ids=str)
def test_a_flow_of_the_users_own_on_a_manifold_of_the_users_own(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    m = Helix()

    def chord(x_0: Tensor, x_1: Tensor, t: Tensor) -> Tensor:
        return m.projx(torch.lerp(x_0, x_1, m.lift(t**2)))

    x_0, x_1 = points(m, 4, 5, dtype=dtype), points(m, 5, seed=50, dtype=dtype)
    t = times(*shape).to(dtype)
    for path in (ConditionalFlowPath(m, chord), GeodesicPath(m), GeodesicPath(m, PolynomialKappa(2))):
        sample = path.sample(x_0, x_1, t)
        assert sample.t.shape == (4, 5)
        assert sample.x_t.shape == sample.dx_t.shape == (4, 5, 3)
        assert sample.x_t.dtype == sample.dx_t.dtype == dtype
        m.check_point(sample.x_t)
        m.check_tangent(sample.x_t, sample.dx_t)
        path.check_ends(x_0, x_1.expand(4, 5, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_single_points_keep_their_dtype(dtype: torch.dtype) -> None:
    m = Euclidean(2)
    x_0, x_1, t = normal(2, dtype=dtype), normal(2, seed=1, dtype=dtype), torch.tensor(0.3, dtype=dtype)
    paths: list[ConditionalPath] = [
        ConditionalFlowPath(m, lambda a, b, s: (1 - s**2 / 3.0) * a + torch.sin(s / 2.0) * b),
        AffinePath(m, Cosine()),
        GeodesicPath(m, FunctionKappa(lambda s: 1 - torch.sin(s / 2.0))),
    ]
    for path in paths:
        sample = path.sample(x_0, x_1, t)
        assert sample.x_t.dtype == sample.dx_t.dtype == sample.t.dtype == dtype
        assert sample.x_t.shape == sample.dx_t.shape == (2,)


def test_a_reversed_flow_is_told() -> None:
    m = Sphere(2)
    x_0, x_1 = points(m, 5), points(m, 5, seed=50)
    reversed_path = ConditionalFlowPath(m, lambda a, b, s: m.geodesic(b, a, s)[0])
    with pytest.raises(ValueError, match=r"at time 0 the path is .* from x_0.*time runs from 0, the source, to 1"):
        reversed_path.check_ends(x_0, x_1)
    half = ConditionalFlowPath(m, lambda a, b, s: m.geodesic(a, b, s / 2)[0])
    with pytest.raises(ValueError, match=r"at time 1 the path is .* from x_1"):
        half.check_ends(x_0, x_1)
    ConditionalFlowPath(m, half.flow, ends_at_data=False).check_ends(x_0, x_1)


def test_paths_work_under_vmap_and_compile() -> None:
    m = Sphere(2)
    x_0, x_1, t = points(m, 4), points(m, 4, seed=50), times(4)
    paths: list[ConditionalPath] = [
        GeodesicPath(m, CosineKappa()),
        ConditionalFlowPath(m, lambda a, b, s: m.projx((1 - m.lift(s)) * a + m.lift(s) * b)),
    ]
    for path in paths:
        ours = torch.func.vmap(lambda a, b, s, path=path: path.sample(a, b, s).dx_t)(x_0, x_1, t)
        torch.testing.assert_close(ours, path.sample(x_0, x_1, t).dx_t)
        torch._dynamo.reset()
        compiled = torch.compile(lambda a, b, s, path=path: path.sample(a, b, s).dx_t, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(x_0, x_1, t), ours)


# In fit.


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.layer(torch.cat([x, t.expand(x.shape[:-1])[..., None]], -1))


def brief(path: ConditionalPath | None = None, times: TimeSampler | None = None, **options: object) -> rfm.Flow:
    torch.manual_seed(0)
    objective = rfm.FlowMatching(path, times)
    settings = {"steps": 3, "batch_size": 8, "field": Small(), "progress": False, "device": "cpu"} | options
    return rfm.fit(normal(60, 2, dtype=torch.float32), Euclidean(2), objective=objective, **settings)  # type: ignore[arg-type]


def test_fit_regresses_on_the_path() -> None:
    flows = [brief(path) for path in (None, GeodesicPath(Euclidean(2)), AffinePath(Euclidean(2), Cosine()))]
    weights = [flow.field.layer.weight for flow in flows]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_fit_takes_the_source_of_the_path() -> None:
    flow = brief(GaussianPath(Euclidean(2), VarianceExploding(0.01, 8.0)))
    assert isinstance(flow.source, rfm.sources.WrappedNormal)
    assert flow.source.scale == 8.0
    own = rfm.sources.WrappedNormal(Euclidean(2), torch.zeros(2), 3.0)
    assert brief(AffinePath(Euclidean(2)), source=own).source is own


def test_fit_draws_the_given_times() -> None:
    default, named, other = (brief(times=times) for times in (None, UniformAndLateTimes(), StratifiedTimes()))
    assert torch.equal(default.field.layer.weight, named.field.layer.weight)
    assert not torch.equal(default.field.layer.weight, other.field.layer.weight)


def test_fit_refuses_a_path_that_does_not_fit() -> None:
    with pytest.raises(
        ValueError, match=r"FlowMatching: path lives on Euclidean\(3\), where Euclidean\(2\) is required"
    ):
        brief(GeodesicPath(Euclidean(3)))
    with pytest.raises(ValueError, match="time runs from 0, the source"):
        brief(ConditionalFlowPath(Euclidean(2), lambda a, b, t: a * t[..., None] + b * (1 - t[..., None])))


def test_fit_refuses_a_source_that_the_path_does_not_start_from() -> None:
    m, schedule = Euclidean(2), VarianceExploding(0.01, 8.0)
    other, same = (rfm.sources.WrappedNormal(m, torch.zeros(2), scale) for scale in (3.0, 8.0))
    for source in (None, other):
        with pytest.raises(ValueError, match=r"starts from noise of scale 8, which .* use GaussianPath"):
            brief(AffinePath(m, schedule), source=source)
    with pytest.raises(
        ValueError,
        match=r"starts from WrappedNormal\( scale=8 .* source is WrappedNormal\( scale=3 .*; leave source out",
    ):
        brief(GaussianPath(m, schedule), source=other)
    assert brief(GaussianPath(m, schedule), source=same).source is same


def test_path_and_times_are_settings_of_a_run(tmp_path: Path) -> None:
    m = Euclidean(2)
    made = {"path": AffinePath(m, Polynomial(2)), "times": UniformAndLateTimes(0.01), "out": tmp_path / "run"}
    brief(**made)
    again = made | {"path": AffinePath(Euclidean(2), Polynomial(2)), "times": UniformAndLateTimes(0.01)}
    brief(**again, resume=True)
    for other in ({"path": AffinePath(m, Polynomial(3))}, {"times": UniformAndLateTimes(0.02)}, {"path": None}):
        with pytest.raises(SavedFlowError, match="other settings"):
            brief(**(made | other), resume=True)
