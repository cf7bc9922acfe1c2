"""Low precision: geometry, sources and solves in float32 or more, under autocast and from half inputs."""

import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from manifold_zoo import ZOO
from random_fields import normal, points, tangents, wavy_field
from torch import Tensor, nn
from zoo_sources import source_of

import rfm
from manifolds import SO3, SPD, Manifold, Quotient, Sphere
from manifolds.composed import finite_group
from manifolds.level_sets.ellipsoid import Ellipsoid
from manifolds.numerics.precision import in_full_precision
from manifolds.rotations import rotation_group
from rfm.couplings import OptimalTransport, Sinkhorn
from rfm.metrics import AmbientGaussianKernel, maximum_mean_discrepancy, wasserstein_distance
from rfm.paths import ConditionalFlowPath, GeodesicPath

Results = tuple[Tensor, ...]
LOW = [torch.bfloat16, torch.float16]


class Cylinder(Manifold):
    """A user's own: a circle times a line in R^3, with a matrix product in every map."""

    def __init__(self) -> None:
        super().__init__(2, (3,))
        turn = torch.linalg.matrix_exp(torch.tensor([[0.0, -1.0, 0.5], [1.0, 0.0, -0.3], [-0.5, 0.3, 0.0]]).double())
        self.register_buffer("turn", turn)

    turn: Tensor

    def _in(self, x: Tensor) -> Tensor:
        return x @ self.turn.to(x)

    def _out(self, x: Tensor) -> Tensor:
        return x @ self.turn.to(x).mT

    def projx(self, x: Tensor) -> Tensor:
        a = self._in(x)
        return self._out(torch.cat([nn.functional.normalize(a[..., :2], dim=-1), a[..., 2:]], dim=-1))

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        a, b = torch.broadcast_tensors(self._in(x), self._in(u))
        along = (a[..., :2] * b[..., :2]).sum(-1, keepdim=True)
        return self._out(torch.cat([b[..., :2] - along * a[..., :2], b[..., 2:]], dim=-1))

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        a, b = self._in(x), self._in(u)
        angle = a[..., :1] * b[..., 1:2] - a[..., 1:2] * b[..., :1]
        c, s = torch.cos(angle), torch.sin(angle)
        turned = [c * a[..., :1] - s * a[..., 1:2], s * a[..., :1] + c * a[..., 1:2], a[..., 2:] + b[..., 2:]]
        return self._out(torch.cat(turned, dim=-1))

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        a, b = self._in(x), self._in(y)
        sine = a[..., :1] * b[..., 1:2] - a[..., 1:2] * b[..., :1]
        angle = torch.atan2(sine, (a[..., :2] * b[..., :2]).sum(-1, keepdim=True))
        return self._out(torch.cat([-angle * a[..., 1:2], angle * a[..., :1], b[..., 2:] - a[..., 2:]], dim=-1))


MORE: list[tuple[str, Callable[[], Manifold]]] = [
    ("Ellipsoid", lambda: Ellipsoid([1.0, 1.5, 2.0])),
    ("a crystal's rotations", lambda: Quotient(SO3(), finite_group.RightMultiplication(rotation_group.Octahedral()))),
    ("a user's own", Cylinder),
]
EVERY = pytest.mark.parametrize("make", [m for _, m in ZOO + MORE], ids=[name for name, _ in ZOO + MORE])


def maps(m: Manifold, x: Tensor, y: Tensor, u: Tensor, t: Tensor) -> Iterator[tuple[str, Callable[..., Any], Results]]:
    """Yield each map's name, the map, and what it is given."""
    w = normal(*m.batch_shape(x), m.field_dim, seed=4).to(x)
    noise = torch.stack([u, u], dim=len(m.batch_shape(x)))
    yield from (
        ("projx", m.projx, (x,)),
        ("proju", m.proju, (x, u)),
        ("expmap", m.expmap, (x, u)),
        ("logmap", m.logmap, (x, y)),
        ("inner", m.inner, (x, u, u)),
        ("norm", m.norm, (x, u)),
        ("dist", m.dist, (x, y)),
        ("shoot", m.shoot, (x, u, t)),
        ("geodesic", m.geodesic, (x, y, t)),
        ("transp", m.transp, (x, y, u)),
        ("tangent_basis", m.tangent_basis, (x,)),
        ("divergence_frame", m.divergence_frame, (x,)),
        ("divergence_probes", m.divergence_probes, (x, noise)),
        ("log_volume_derivative", m.log_volume_derivative, (x, u)),
        ("log_det_expmap", m.log_det_expmap, (x, u)),
        ("embed", m.embed, (x,)),
        ("embed_jvp", m.coordinates.embed_jvp, (x, u[None])),
        ("tangent_from_vector", m.tangent_from_vector, (x, w)),
        ("tangent_from_vector_jvp", m.coordinates.tangent_from_vector_jvp, (x, w, u[None], w[None])),
    )
    if (kernel := m.kernel) is not None:
        yield "kernel.embed", kernel.embed, (x,)
        yield "kernel.centres", kernel.centres, (x,)
    if (group := m.lie_group) is not None:
        a = group.to_algebra(x, u)
        yield "to_algebra", group.to_algebra, (x, u)
        yield "from_algebra", group.from_algebra, (x, a)
        yield "translate", group.translate, (x, a)
        yield "bracket", group.bracket, (a, a.flip(0))


def given(m: Manifold, dtype: torch.dtype = torch.float32) -> Results:
    x, y = points(m, 4), points(m, 4, seed=3)
    u = 0.3 * tangents(m, x)
    t = torch.tensor([0.0, 0.3, 0.999, 1.0])
    return tuple(a.to(dtype) for a in (x, y, u, t))


def each(result: Any) -> Results:
    return (result,) if isinstance(result, Tensor) else tuple(result)


@contextmanager
def low() -> Iterator[None]:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        yield


# The laws of geometry.


@EVERY
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_maps_are_the_same_under_autocast(make: Callable[[], Manifold], dtype: torch.dtype) -> None:
    m = make()
    for name, function, arguments in maps(m, *given(m, dtype)):
        plain = each(function(*arguments))
        with low():
            found = each(function(*arguments))
        for a, b in zip(found, plain, strict=True):
            assert a.dtype == b.dtype == dtype, name
            assert torch.equal(a.nan_to_num(), b.nan_to_num()), name


@EVERY
@pytest.mark.parametrize("dtype", LOW, ids=str)
def test_half_inputs_give_the_rounded_results_of_float32(make: Callable[[], Manifold], dtype: torch.dtype) -> None:
    m = make()
    arguments_of = {name: arguments for name, _, arguments in maps(m, *given(m, dtype))}
    for name, function, _ in maps(m, *given(m, dtype)):
        arguments = arguments_of[name]
        expected = each(function(*(a.float() for a in arguments)))
        for a, b in zip(each(function(*arguments)), expected, strict=True):
            assert a.dtype == dtype, name
            assert torch.equal(a.nan_to_num(), b.to(dtype).nan_to_num()), name
            # A logarithm that is solved for does not find points that are off their manifold.
            assert bool(a.isfinite().all()) or math.isfinite(m.logmap_radius), name


@EVERY
@pytest.mark.parametrize("dtype", LOW, ids=str)
def test_half_points_pass_the_checks_of_their_precision(make: Callable[[], Manifold], dtype: torch.dtype) -> None:
    m = make()
    x, _, u, _ = given(m, dtype)
    with low():
        m.check_point(x)
        m.check_tangent(x, m.proju(x, u))


@EVERY
def test_a_vector_of_a_low_network_is_made_tangent_in_the_precision_of_its_point(make: Callable[[], Manifold]) -> None:
    m = make()
    x, y, _, _ = given(m)
    w = normal(4, m.field_dim).bfloat16()
    for autocast in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            u = m.tangent_from_vector(x, w)
            # As keywords too.
            v = m.proju(x=x, u=w.reshape(x.shape)) if m.field_dim == x[0].numel() else u
        assert u.dtype == v.dtype == torch.float32
        m.check_tangent(x, u)
    assert m.dist(x, y.bfloat16()).dtype == torch.float32


@EVERY
def test_derivatives_are_the_same_under_autocast(make: Callable[[], Manifold]) -> None:
    m = make()
    x, y, u, _ = given(m)
    for function in (lambda a: m.dist(a, y), lambda a: m.expmap(a, u), m.embed):
        plain = torch.func.jvp(function, (x,), (u,))
        with low():
            found = torch.func.jvp(function, (x,), (u,))
        assert all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(found, plain, strict=True))
    a = x.clone().requires_grad_()
    slopes = []
    for autocast in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            value = m.inner(x, u, m.logmap(x, m.expmap(a, u))).nan_to_num().sum()
        slopes += torch.autograd.grad(value, a)
    assert torch.equal(slopes[0].nan_to_num(), slopes[1].nan_to_num())


@EVERY
@pytest.mark.parametrize("dtype", LOW, ids=str)
def test_sources_draw_and_score_in_float32(make: Callable[[], Manifold], dtype: torch.dtype) -> None:
    m = make()
    if (
        m.volume is None
        and not math.isinf(m.injectivity_radius or 0)
        and "SE3" not in repr(m)
        and "Centred" not in repr(m)
    ):
        pytest.skip("no source of its own")
    source = source_of(m)

    def draw(dtype: torch.dtype) -> Tensor:
        return source.sample((5,), generator=torch.Generator().manual_seed(0), dtype=dtype)

    x = draw(torch.float32)
    plain = source.log_prob(x)
    with low():
        assert torch.equal(draw(torch.float32), x)
        assert torch.equal(source.log_prob(x), plain)
    assert torch.equal(draw(dtype), x.to(dtype))
    assert torch.equal(source.log_prob(x.to(dtype)), source.log_prob(x.to(dtype).float()).to(dtype))


def test_compiled_and_mapped_maps_know_of_autocast() -> None:
    m = SPD(2)
    x, y, _, _ = given(m)
    plain = m.dist(x, y)
    with low():
        assert torch.equal(torch.func.vmap(m.dist)(x, y), plain)
        compiled = torch.compile(lambda a: m.inner(x, a, a), fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(y), m.inner(x, y, y))


def test_a_geometry_keeps_its_numbers_when_a_model_is_cast() -> None:
    m = Cylinder()
    x, y, _, _ = given(m)
    before = m.dist(x, y)
    model = nn.ModuleList([m, nn.Linear(2, 2)]).to(torch.bfloat16)
    assert m.turn.dtype == torch.float64
    assert torch.equal(m.dist(x, y), before)
    assert next(model[1].parameters()).dtype == torch.bfloat16
    assert m.to(torch.float32).half().turn.dtype == torch.float32


def test_names_and_signatures_of_maps_stay() -> None:
    assert list(inspect.signature(Sphere.expmap).parameters) == ["self", "x", "u"]
    assert "geodesic" in (Sphere.expmap.__doc__ or Manifold.expmap.__doc__ or "")
    assert Sphere(2).metric_is_induced
    assert not SPD(2).metric_is_induced


# What stands on it.


def test_couplings_and_metrics_are_the_same_under_autocast() -> None:
    m = SO3()
    x, y = points(m, 40, dtype=torch.float32), points(m, 40, seed=1, dtype=torch.float32)
    condition = normal(40, 2, dtype=torch.float32)
    kernel = AmbientGaussianKernel(m, 0.7)
    functions: list[Callable[[], Any]] = [
        lambda: OptimalTransport(m).indices(x, y).tolist(),
        lambda: OptimalTransport(m, 2.0).indices(x, y, condition=condition).tolist(),
        lambda: Sinkhorn(m).plan(x, y).tolist(),
        lambda: maximum_mean_discrepancy(x, y, kernel),
        lambda: wasserstein_distance(m, x, y),
        lambda: GeodesicPath(m).sample(x, y, torch.linspace(0, 1, 40)).dx_t.tolist(),
    ]
    for function in functions:
        plain = function()
        with low():
            assert function() == plain
    assert (
        OptimalTransport(m).indices(x.half(), y.half()).tolist()
        == OptimalTransport(m).indices(x.half().float(), y.half().float()).tolist()
    )
    assert bool(Sinkhorn(m).plan(x.half(), y.half()).isfinite().all())


@pytest.mark.parametrize("dtype", LOW, ids=str)
def test_paths_and_losses_keep_times_near_the_end(dtype: torch.dtype) -> None:
    m = Sphere(2)
    x_0, x_1 = points(m, 3, dtype=torch.float32).to(dtype), points(m, 3, seed=1, dtype=torch.float32).to(dtype)
    t = torch.full((3,), 0.9995)
    seen = []

    def field(x: Tensor, time: Tensor) -> Tensor:
        seen.append((x.dtype, time))
        return torch.zeros_like(x)

    def straight(a: Tensor, b: Tensor, s: Tensor) -> Tensor:
        return m.projx(torch.einsum("b,bi->bi", 1 - s, a) + torch.einsum("b,bi->bi", s, b))

    for path in (GeodesicPath(m), ConditionalFlowPath(m, straight)):
        with low():
            loss = rfm.flow_matching_loss(field, path, x_0, x_1, t)
        torch.testing.assert_close(
            loss, rfm.flow_matching_loss(field, path, x_0.float(), x_1.float(), t), rtol=1e-5, atol=0
        )
        assert loss.dtype == torch.float32
        rfm.flow_matching_loss(field, path, x_0, x_1, generator=torch.Generator().manual_seed(0))
    assert {point for point, _ in seen} == {torch.float32}
    assert {time.dtype for _, time in seen} == {torch.float32}
    assert float(seen[0][1][0]) == pytest.approx(0.9995, abs=1e-7)


def test_solves_are_the_same_under_autocast_and_from_half_points() -> None:
    m = SO3()
    field = in_full_precision(wavy_field(m))
    x = points(m, 4, dtype=torch.float32)
    plain = rfm.likelihood.transport(field, m, x, 0.0, 1.0)
    with low():
        found = rfm.likelihood.transport(field, m, x, 0.0, 1.0)
    assert plain.integral is not None
    assert found.integral is not None
    assert torch.equal(plain.final, found.final)
    assert torch.equal(plain.integral, found.integral)
    half = rfm.integrate(field, m, x.half(), (0.0, 1.0))
    assert torch.equal(half.final, rfm.integrate(field, m, x.half().float(), (0.0, 1.0)).final)
    u, div = rfm.divergence(field, m, x.half(), torch.tensor(0.9995))
    assert u.dtype == div.dtype == torch.float32
