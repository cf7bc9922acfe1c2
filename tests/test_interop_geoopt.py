"""geoopt's manifolds as ours, and ours as geoopt's."""

import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from manifold_zoo import ZOO
from torch import Tensor

import rfm
from manifolds import SE3, SO3, SPD, Hyperboloid, Manifold, PoincareBall, Power, Product, Sphere
from manifolds.testing import LAWS, check_manifold
from manifolds.testing.probe import choose_points
from rfm.networks import VelocityField

geoopt = pytest.importorskip("geoopt", reason="geoopt is not installed")

from manifolds.interop.geoopt import FromGeoopt, adapt, from_geoopt, to_geoopt  # noqa: E402

D = torch.float64


def _rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _points(m: Manifold, n: int = 8) -> Tensor:
    """Points near one point: everywhere well-conditioned."""
    centre = m.projx(0.4 * torch.randn(*m.event_shape, generator=_rng(1), dtype=D) + _offset(m))
    u = m.proju(centre, 0.3 * torch.randn(n, *m.event_shape, generator=_rng(2), dtype=D))
    return m.projx(m.expmap(centre, u)).detach()


def _offset(m: Manifold) -> Tensor:
    shape = m.event_shape
    return 3 * torch.eye(shape[0], dtype=D) if len(shape) == 2 and shape[0] == shape[1] else torch.zeros(shape, dtype=D)


def _law(*names: str) -> list[Any]:
    laws = [law for law in LAWS if law.name in names]
    assert len(laws) == len(names)
    return laws


_GEOMETRY = (
    "geodesics have constant speed",
    "Gauss's lemma",
    "tangent_basis is orthonormal",
    "proju is a linear projection",
)

SAME: list[tuple[str, Callable[[], Manifold], Manifold]] = [
    ("Sphere", lambda: from_geoopt(geoopt.Sphere(), (3,)), Sphere(2)),
    ("PoincareBall", lambda: from_geoopt(geoopt.PoincareBall(c=0.5).to(D), (2,)), PoincareBall(2, 0.5)),
    ("Lorentz", lambda: from_geoopt(geoopt.Lorentz(), (4,)), Hyperboloid(3)),
    ("SPD", lambda: from_geoopt(geoopt.SymmetricPositiveDefinite(), (2, 2)), SPD(2)),
    (
        "ProductManifold",
        lambda: from_geoopt(geoopt.ProductManifold((geoopt.Sphere(), 3), (geoopt.PoincareBall(), 2)), (5,)),
        Product(Sphere(2), PoincareBall(2)),
    ),
    ("copies", lambda: from_geoopt(geoopt.Sphere(), (2, 3)), Power(Sphere(2), 2)),
    ("Scaled", lambda: from_geoopt(geoopt.Scaled(geoopt.Sphere(), 2.0), (3,)), Product(Sphere(2), weights=(4.0,))),
]


@pytest.mark.parametrize(("make", "ours"), [pytest.param(make, ours, id=name) for name, make, ours in SAME])
def test_it_agrees_with_ours(make: Callable[[], Manifold], ours: Manifold) -> None:
    theirs = make()
    assert (theirs.dim, theirs.event_shape, theirs.injectivity_radius) == (
        ours.dim,
        ours.event_shape,
        ours.injectivity_radius,
    )
    assert (theirs.volume or 0) == pytest.approx(ours.volume or 0)
    x = _points(ours)
    y, t = x.roll(1, 0), torch.rand(8, generator=_rng(), dtype=D)
    u, v = ours.logmap(x, y), ours.logmap(x, x.roll(2, 0))
    for a, b in (
        (theirs.logmap(x, y), u),
        (theirs.expmap(x, u), y),
        (theirs.inner(x, u, v), ours.inner(x, u, v)),
        (theirs.dist(x, y), ours.dist(x, y)),
        (torch.cat(theirs.geodesic(x, y, t)), torch.cat(ours.geodesic(x, y, t))),
        (theirs.log_det_expmap(x, u), ours.log_det_expmap(x, u)),
    ):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)

    def field(x: Tensor, t: Tensor) -> Tensor:
        return ours.proju(x, torch.sin(3 * x) + x.roll(1, -1))

    expected = rfm.divergence(field, ours, x, t)[1]
    torch.testing.assert_close(rfm.divergence(field, theirs, x, t)[1], expected, atol=1e-6, rtol=1e-6)


ALL: list[tuple[str, Callable[[], Any], tuple[int, ...], int]] = [
    ("Euclidean", lambda: geoopt.Euclidean(ndim=1), (3,), 3),
    ("Euclidean by entries", lambda: geoopt.Euclidean(), (2, 2), 4),
    ("Sphere", lambda: geoopt.Sphere(), (3,), 2),
    ("SphereExact", lambda: geoopt.SphereExact(), (3,), 2),
    ("Sphere in a plane", lambda: geoopt.Sphere(intersection=torch.eye(4, 3, dtype=D)), (4,), 2),
    ("Stiefel", lambda: geoopt.Stiefel(), (4, 2), 5),
    ("EuclideanStiefel", lambda: geoopt.EuclideanStiefel(), (4, 2), 5),
    ("EuclideanStiefelExact", lambda: geoopt.EuclideanStiefelExact(), (4, 2), 5),
    ("PoincareBall", lambda: geoopt.PoincareBall(), (3,), 3),
    ("PoincareBallExact", lambda: geoopt.PoincareBallExact(), (3,), 3),
    ("Stereographic, learnable", lambda: geoopt.Stereographic(-0.7, learnable=True), (2,), 2),
    ("SphereProjection", lambda: geoopt.SphereProjection(0.5), (2,), 2),
    ("SphereProjectionExact", lambda: geoopt.SphereProjectionExact(0.5), (2,), 2),
    ("Lorentz", lambda: geoopt.Lorentz(2.0), (4,), 3),
    ("SymmetricPositiveDefinite", lambda: geoopt.SymmetricPositiveDefinite(), (3, 3), 6),
    (
        "StereographicProductManifold",
        lambda: geoopt.StereographicProductManifold((geoopt.PoincareBall(), 2), (geoopt.SphereProjection(), 1)),
        (3,),
        3,
    ),
    ("Scaled", lambda: geoopt.Scaled(geoopt.Stiefel(), 0.5), (3, 2), 3),
]


@pytest.mark.parametrize(
    ("make", "shape", "dim"), [pytest.param(make, shape, dim, id=name) for name, make, shape, dim in ALL]
)
def test_every_class_keeps_the_contract(make: Callable[[], Any], shape: tuple[int, ...], dim: int) -> None:
    m = from_geoopt(make().to(D), shape)
    assert m.dim == dim
    assert m.event_shape == shape
    x = _points(m)
    m.check_point(x, 1e-9)
    u = m.logmap(x, x.roll(1, 0)).detach()
    m.check_tangent(x, u, 1e-9)
    torch.testing.assert_close(m.expmap(x, u), x.roll(1, 0), atol=1e-6, rtol=1e-6)
    check_manifold(m, points=x, dtypes=(D,), laws=_law(*_GEOMETRY)).raise_if_failed()
    # Empty batches, and a point against several.
    assert m.dist(x[:0], x[:0]).shape == (0,)
    assert m.transp(x[0], x[:3], u[0]).shape == (3, *shape)
    assert torch.equal(m.dist(x, x) < 1e-6, torch.ones(8, dtype=torch.bool))


def test_volumes_of_homogeneous_spaces() -> None:
    # St(3, 2) with the canonical metric is SO(3) with <U, V> = tr(U' V) / 2.
    assert from_geoopt(geoopt.Stiefel(), (3, 2)).volume == pytest.approx(SO3().volume)
    assert from_geoopt(geoopt.EuclideanStiefel(), (4, 1)).volume == pytest.approx(Sphere(3).volume)
    assert from_geoopt(geoopt.SphereProjection(0.25), (2,)).volume == pytest.approx(16 * math.pi)
    assert from_geoopt(geoopt.Stiefel(), (3, 3)).volume is None
    for m in (from_geoopt(geoopt.SphereProjection(0.5).to(D), (2,)), from_geoopt(geoopt.Sphere(), (3,))):
        check_manifold(
            m, dtypes=(D,), laws=_law("random_uniform is uniform", "random draws are points")
        ).raise_if_failed()


def test_shooting_finds_connecting_geodesics_anywhere() -> None:
    for theirs in (geoopt.Stiefel(), geoopt.EuclideanStiefel()):
        m = from_geoopt(theirs, (4, 2))
        x = m.random_uniform(60, generator=_rng(), dtype=D)
        u = m.logmap(x, x.roll(1, 0))
        found = u.isfinite().flatten(1).all(1)
        assert found.double().mean() >= 0.95
        torch.testing.assert_close(m.expmap(x, u)[found], x.roll(1, 0)[found], atol=1e-7, rtol=0)
        near = m.expmap(x, u / m.lift(m.norm(x, u)))[found]
        back = m.logmap(x[found], near)
        torch.testing.assert_close(m.norm(x[found], back), torch.ones(len(back), dtype=D), atol=1e-7, rtol=0)


@pytest.mark.parametrize(
    ("make", "shape", "isometric"),
    [
        (lambda: geoopt.Euclidean(1), (3,), True),
        (lambda: geoopt.PoincareBall(c=0.5), (3,), True),
        (lambda: geoopt.Stereographic(k=1.0), (2,), True),
        (lambda: geoopt.Stereographic(k=-0.5, learnable=True), (2,), True),
        (lambda: geoopt.Lorentz(k=2.0), (3,), True),
        (lambda: geoopt.SymmetricPositiveDefinite(), (2, 2), True),
        (lambda: geoopt.Scaled(geoopt.PoincareBall(), 2.0), (2,), True),
        (lambda: geoopt.Sphere(), (3,), False),
        (lambda: geoopt.Stiefel(), (3, 2), False),
        (lambda: geoopt.Stiefel(canonical=False), (3, 2), False),
    ],
)
def test_transports_that_keep_inner_products_are_known(
    make: Callable[[], Any], shape: tuple[int, ...], isometric: bool
) -> None:
    m = from_geoopt(make().to(D), shape)
    x = _points(m)
    y = x.roll(1, 0)
    u, v = (m.proju(x, torch.randn(*x.shape, generator=_rng(seed), dtype=D)) for seed in (3, 4))
    change = m.inner(y, m.transp(x, y, u), m.transp(x, y, v)) - m.inner(x, u, v)
    assert m.transp_is_isometric == isometric == bool(change.abs().max() < 1e-12)


def test_a_scaled_manifold_is_as_accurate_as_its_base() -> None:
    class Solved(geoopt.Sphere):
        pass

    class AsOurs(FromGeoopt):
        solver_accuracy = 1e-7

    adapt.register(Solved)(lambda manifold, shape, dim: AsOurs(manifold, shape, dim))
    assert from_geoopt(geoopt.Scaled(Solved(), 2.0), (3,)).solver_accuracy == 1e-7


def test_second_derivatives_of_logarithms_found_by_shooting() -> None:
    m = from_geoopt(geoopt.EuclideanStiefel(), (4, 2))
    noise = [torch.randn(3, 4, 2, generator=_rng(seed), dtype=D) for seed in range(5)]
    x = m.projx(noise[0])
    # At equal points, too, where the search has nothing to do.
    y = m.expmap(x, 0.4 * m.proju(x, noise[1]) * torch.tensor([1.0, 1.0, 0.0], dtype=D)[:, None, None])
    a, b = 0.3 * m.proju(x, noise[2]), 0.3 * m.proju(y, noise[3])

    def along(s: Tensor) -> Tensor:
        lifted = s[:, None, None]
        return (noise[4] * m.logmap(m.expmap(x, lifted * a), m.expmap(y, lifted * b))).sum((-1, -2))

    def slope(s: Tensor) -> Tensor:
        return torch.func.jvp(along, (s,), (torch.ones_like(s),))[1]

    zero, h = torch.zeros(3, dtype=D), 1e-2
    weights = (1 / 90, -3 / 20, 3 / 2, -49 / 18, 3 / 2, -3 / 20, 1 / 90)
    expected = sum(w * along(zero + k * h) for k, w in zip(range(-3, 4), weights, strict=True)) / h**2
    for found in (
        torch.func.grad(lambda s: slope(s).sum())(zero),
        torch.func.jvp(slope, (zero,), (torch.ones_like(zero),))[1],
    ):
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)


def test_the_checker_names_what_geoopt_loses() -> None:
    laws = _law("logmap keeps its digits near the point", "logmap reaches the cut locus")
    report = check_manifold(from_geoopt(geoopt.Sphere(), (3,)), dtypes=(D,), laws=laws)
    assert {finding.law for finding in report.findings} == {law.name for law in laws}
    assert check_manifold(Sphere(2), dtypes=(D,), laws=laws).passed


@pytest.mark.parametrize(
    ("make", "shape", "match"),
    [
        (lambda: geoopt.BirkhoffPolytope(), (3, 3), "retraction; subclass FromGeoopt"),
        (lambda: geoopt.UpperHalf(), (2, 2), "complex; use geomstats"),
        (lambda: geoopt.BoundedDomain(), (2, 2), "no expmap"),
        (lambda: geoopt.Stiefel(), (2, 4), "cannot have event_shape"),
        (lambda: geoopt.Sphere(), (), "it is empty"),
        (lambda: Sphere(2), (3,), "takes an instance of a geoopt manifold"),
        (lambda: geoopt.Sphere, (3,), "takes an instance of a geoopt manifold"),
    ],
)
def test_refusals(make: Callable[[], Any], shape: tuple[int, ...], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        from_geoopt(make(), shape)


def test_a_metric_that_only_dist_knows_is_refused() -> None:
    with pytest.warns(UserWarning, match="LEM"):
        manifold = geoopt.SymmetricPositiveDefinite("LEM")
    with pytest.raises(ValueError, match="LogEuclideanSPD"):
        from_geoopt(manifold, (2, 2))


def test_dtypes_follow_the_input() -> None:
    m = from_geoopt(geoopt.Sphere(), (3,))
    x = m.random_uniform(5, generator=_rng())
    assert m.geodesic(x, x.roll(1, 0), torch.rand(5, generator=_rng()))[1].dtype == torch.float32


# Ours as geoopt's.


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in ZOO])
def test_gradients_are_those_of_the_metric(make: Callable[[], Manifold]) -> None:
    m = make()
    x = choose_points(m, 6, _rng())
    if m.points_are_classes:
        pytest.skip("gradients of functions of classes alone are tangent")
    a = torch.randn(x.shape, generator=_rng(), dtype=D)
    v = m.proju(x, torch.randn(x.shape, generator=_rng(3), dtype=D))
    gradient = to_geoopt(m).egrad2rgrad(x, a)
    m.check_tangent(x, gradient, 1e-9)
    torch.testing.assert_close(m.inner(x, gradient, v), (a * v).flatten(1).sum(1), atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize(
    "m", [Sphere(2), SO3(), SPD(2), Hyperboloid(2), SE3(2.0), Product(Sphere(2), Hyperboloid(2))], ids=str
)
@pytest.mark.parametrize("name", ["RiemannianAdam", "RiemannianSGD"])
def test_its_optimisers_train_a_parameter_on_ours(m: Manifold, name: str) -> None:
    x = _points(m, 3)
    target = x[:2]
    parameter = geoopt.ManifoldParameter(x[2].expand_as(target).clone(), manifold=to_geoopt(m))
    optimiser = getattr(geoopt.optim, name)([parameter], lr=0.1, stabilize=20)
    first = None
    for _ in range(60):
        optimiser.zero_grad()
        loss = (m.dist(parameter, target) ** 2).sum()
        loss.backward()
        optimiser.step()
        first = loss.item() if first is None else first
    assert first is not None
    assert loss.item() < 0.05 * first
    m.check_point(parameter.detach(), 1e-9)


def test_the_interface_is_geoopts() -> None:
    m = to_geoopt(SO3())
    x = m.random(4, 3, 3, dtype=D, generator=_rng())
    assert isinstance(x, geoopt.ManifoldTensor)
    x = x.as_subclass(torch.Tensor)
    y, u = x.roll(1, 0), SO3().logmap(x, x.roll(1, 0))
    assert m.inner(x, u).shape == m.norm(x, u).shape == m.dist(x, y).shape == (4,)
    assert m.inner(x, u, u, keepdim=True).shape == m.dist(x, y, keepdim=True).shape == (4, 1, 1)
    assert m.component_inner(x, u).shape == (4, 1, 1)
    torch.testing.assert_close(m.dist2(x, y), m.inner(x, u))
    for pair in (m.retr_transp(x, u, u), m.expmap_transp(x, u, u)):
        torch.testing.assert_close(pair[0], y)
        torch.testing.assert_close(m.norm(y, pair[1]), m.norm(x, u))
    torch.testing.assert_close(m.logmap(x, y), u)
    assert m.check_point_on_manifold(x)
    assert m.check_vector_on_tangent(x, u)
    assert m.check_point_on_manifold(2 * x, explain=True)[1].startswith("points of SO3()")
    assert not m.check_vector_on_tangent(x, x)
    with pytest.raises(ValueError, match="should end with"):
        geoopt.ManifoldParameter(torch.eye(2), manifold=m)
    twice = geoopt.Scaled(m, 2.0)
    torch.testing.assert_close(twice.dist(x, y), 2 * m.dist(x, y))


def test_there_and_back_is_the_same_manifold() -> None:
    ours, theirs = Sphere(2), geoopt.Sphere()
    assert from_geoopt(to_geoopt(ours), (3,)) is ours
    lorentz = geoopt.Lorentz()
    assert to_geoopt(from_geoopt(lorentz, (3,))) is lorentz
    assert isinstance(from_geoopt(theirs, (3,)), FromGeoopt)
    with pytest.raises(ValueError, match=r"takes an instance of manifolds\.Manifold"):
        to_geoopt(theirs)


# Flows.


def test_a_flow_trains_on_a_manifold_of_geoopt() -> None:
    m = from_geoopt(geoopt.Sphere(), (3,))
    data = m.projx(torch.tensor([1.0, 2.0, -1.0]) + 0.2 * torch.randn(200, 3, generator=_rng()))
    field = VelocityField(m, width=24, depth=1, features=24, max_frequency=4.0)
    flow = rfm.fit(
        data, m, field=field, steps=40, batch_size=64, training=rfm.Training(learning_rate=2e-2), progress=False
    )
    score = flow.log_prob(data[:10])
    assert score.mean() > -math.log(4 * math.pi) + 0.5
    # The same field has the same density on our sphere.
    ours = rfm.Flow(Sphere(2), flow.field, rfm.sources.Uniform(Sphere(2)))
    torch.testing.assert_close(ours.log_prob(data[:10]), score, atol=1e-3, rtol=1e-3)


class _NotAGeodesic(FromGeoopt):
    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        return self.projx(x + u)


def test_fit_refuses_a_retraction() -> None:
    m = _NotAGeodesic(geoopt.Sphere(), (3,), volume=4 * math.pi)
    with pytest.raises(ValueError, match="breaks its contract"):
        rfm.fit(m.random_uniform(50, generator=_rng()), m, steps=1, progress=False)


def test_importing_us_imports_none_of_them() -> None:
    program = (
        "import sys, manifolds, manifolds.interop, manifolds.interop.pytorch3d, rfm; "
        "assert not {'geoopt', 'geomstats', 'pytorch3d'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
