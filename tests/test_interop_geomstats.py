"""geomstats's manifolds as ours: pytorch backend, float64 inside."""

import math
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import rfm
from manifolds import SPD, Hyperboloid, Manifold, PoincareBall, Sphere
from manifolds.interop.transformable import apply_to_rows
from manifolds.testing import LAWS, check_manifold
from rfm.networks import VelocityField

D = torch.float64

# Raised inside geomstats where it hands a torch tensor to numpy.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)


def _import_geomstats() -> None:
    os.environ.setdefault("GEOMSTATS_BACKEND", "pytorch")
    outside = torch.get_default_dtype()
    with warnings.catch_warnings():
        # Raised by Python's import system: geomstats's loader of backends predates it.
        warnings.filterwarnings("ignore", "BackendImporter", ImportWarning)
        try:
            import geomstats.backend  # noqa: F401
        except (ImportError, AttributeError) as error:
            pytest.skip(f"geomstats cannot be imported: {error}", allow_module_level=True)
        finally:
            torch.set_default_dtype(outside)


_import_geomstats()

from geomstats.geometry.euclidean import Euclidean  # noqa: E402
from geomstats.geometry.full_rank_correlation_matrices import (  # noqa: E402
    EuclideanCholeskyMetric,
    FullRankCorrelationMatrices,
)
from geomstats.geometry.grassmannian import Grassmannian  # noqa: E402
from geomstats.geometry.hyperboloid import Hyperboloid as TheirHyperboloid  # noqa: E402
from geomstats.geometry.hypersphere import Hypersphere  # noqa: E402
from geomstats.geometry.poincare_ball import PoincareBall as TheirPoincareBall  # noqa: E402
from geomstats.geometry.pre_shape import PreShapeSpace  # noqa: E402
from geomstats.geometry.product_manifold import ProductManifold  # noqa: E402
from geomstats.geometry.spd_matrices import SPDMatrices  # noqa: E402
from geomstats.geometry.special_orthogonal import SpecialOrthogonal  # noqa: E402
from geomstats.geometry.stiefel import Stiefel  # noqa: E402
from geomstats.information_geometry.beta import BetaDistributions  # noqa: E402
from geomstats.information_geometry.normal import NormalDistributions  # noqa: E402

from manifolds.interop.geomstats import from_geomstats  # noqa: E402


def _rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _draw(space: Any, n: int = 8) -> Tensor:
    """Points that geomstats draws, with global randomness and its default dtype put back."""
    outside = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        torch.set_default_dtype(D)
        try:
            return space.random_point(n)
        finally:
            torch.set_default_dtype(outside)


def _correlations() -> Any:
    space = FullRankCorrelationMatrices(3, equip=False)
    return space.equip_with_metric(EuclideanCholeskyMetric)


SAME: list[tuple[Callable[[], Any], Manifold]] = [
    (lambda: Hypersphere(2), Sphere(2)),
    (lambda: TheirHyperboloid(2), Hyperboloid(2)),
    (lambda: TheirPoincareBall(2), PoincareBall(2)),
    (lambda: SPDMatrices(2), SPD(2)),
]


@pytest.mark.parametrize(("make", "ours"), [pytest.param(make, ours, id=str(ours)) for make, ours in SAME])
def test_it_agrees_with_ours(make: Callable[[], Any], ours: Manifold) -> None:
    theirs = from_geomstats(make())
    assert (theirs.dim, theirs.event_shape) == (ours.dim, ours.event_shape)
    assert (theirs.injectivity_radius == math.inf) == (ours.injectivity_radius == math.inf)
    x = ours.projx(_draw(theirs.space))
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


SPACES: list[tuple[str, Callable[[], Any]]] = [
    ("Euclidean", lambda: Euclidean(2)),
    ("Hypersphere", lambda: Hypersphere(2)),
    ("PoincareBall", lambda: TheirPoincareBall(2)),
    ("SpecialOrthogonal", lambda: SpecialOrthogonal(3)),
    ("SPDMatrices", lambda: SPDMatrices(2)),
    ("Stiefel", lambda: Stiefel(4, 2)),
    ("Grassmannian", lambda: Grassmannian(3, 1)),
    ("PreShapeSpace", lambda: PreShapeSpace(3, 2)),
    ("correlation matrices", _correlations),
    ("NormalDistributions", lambda: NormalDistributions(1)),
    ("ProductManifold, stacked", lambda: ProductManifold([Hypersphere(2), TheirHyperboloid(2)])),
    ("ProductManifold", lambda: ProductManifold([Hypersphere(2), TheirPoincareBall(2)])),
]


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in SPACES])
def test_its_spaces_keep_the_contract(make: Callable[[], Any]) -> None:
    space = make()
    m = from_geomstats(space)
    x = _draw(space)
    y = m.expmap(x, m.proju(x, 0.1 * torch.randn(x.shape, generator=_rng(), dtype=D)))
    u = m.logmap(x, y)
    m.check_point(x, 1e-9)
    m.check_tangent(x, u, 1e-9)
    torch.testing.assert_close(m.expmap(x, u), y, atol=1e-6, rtol=1e-6)
    names = ("geodesics have constant speed", "Gauss's lemma", "tangent_basis is orthonormal")
    laws = [law for law in LAWS if law.name in names]
    check_manifold(m, points=x, dtypes=(D,), laws=laws).raise_if_failed()
    # Two batch axes, none, and no points; float32 in and out.
    assert m.geodesic(x.reshape(2, 4, *x.shape[1:]), y[0], torch.rand(2, 1, generator=_rng(), dtype=D))[1].shape[
        :2
    ] == (2, 4)
    assert m.inner(x[0], u[0], u[0]).shape == ()
    assert m.dist(x[:0], y[:0]).shape == (0,)
    assert m.expmap(x.float(), 0.1 * u.float()).dtype == torch.float32


def test_the_default_dtype_outside_does_not_matter() -> None:
    assert torch.get_default_dtype() == torch.float32
    m = from_geomstats(SPDMatrices(2))
    m.expmap(_draw(m.space), torch.eye(2, dtype=D))
    assert torch.get_default_dtype() == torch.float32


def test_a_point_that_is_none_is_refused_with_a_sentence() -> None:
    m = from_geomstats(SPDMatrices(2))
    with pytest.raises(ValueError, match="the one at index 1 is not finite"):
        m.check_point(torch.stack([torch.eye(2), torch.full((2, 2), math.nan)]))


def test_global_randomness_is_untouched() -> None:
    before = torch.get_rng_state()
    from_geomstats(Hypersphere(2))
    assert torch.equal(before, torch.get_rng_state())


def _kendall() -> Any:
    return PreShapeSpace(4, 2).equip_with_group_action("rotations").equip_with_quotient()


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (_kendall, "are classes"),
        (BetaDistributions, "no geodesics to offer"),
        (lambda: Hypersphere(2, equip=False), "equip_with_metric"),
        (lambda: Sphere(2), "takes an instance of a geomstats manifold"),
    ],
)
def test_refusals(make: Callable[[], Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        from_geomstats(make())


def test_another_backend_is_refused() -> None:
    program = (
        "from geomstats.geometry.hypersphere import Hypersphere\n"
        "from manifolds.interop.geomstats import from_geomstats\n"
        "try:\n    from_geomstats(Hypersphere(2))\n"
        "except ValueError as error:\n    print(error)"
    )
    environment = os.environ | {"GEOMSTATS_BACKEND": "numpy"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    assert "its numpy backend, pytorch is required; set os.environ" in done.stdout


# The device that makes it work under torch.func.


def _branching(x: Tensor, y: Tensor) -> Tensor:
    return x**2 * y if bool((x > 0).all()) else x * y


def test_functions_that_branch_work_under_every_transform() -> None:
    x, y = (1 + torch.rand(5, 3, generator=_rng(seed), dtype=D) for seed in (0, 1))

    def wrapped(x: Tensor, y: Tensor) -> Tensor:
        return apply_to_rows(_branching, x, y)

    def plain(x: Tensor, y: Tensor) -> Tensor:
        return x**2 * y

    f = torch.func
    for transform in (
        lambda g: f.vmap(g, (None, 0))(x, torch.stack([y, 2 * y])),
        lambda g: f.vmap(lambda a: f.jvp(g, (x, y), (a, y))[1])(torch.stack([x, y])),
        lambda g: f.jvp(lambda a: f.jvp(lambda b: g(b, y), (a,), (y,))[1], (x,), (y,))[1],
        lambda g: f.grad(lambda a: g(a, y).sin().sum())(x),
        lambda g: f.vmap(f.grad(lambda a: g(a, y).sin().sum()))(torch.stack([x, y])),
        lambda g: f.jvp(f.grad(lambda a: g(a, y).sin().sum()), (x,), (y,))[1],
        lambda g: f.grad(lambda a: f.jvp(lambda b: g(b, y), (a,), (y,))[1].sin().sum())(x),
    ):
        torch.testing.assert_close(transform(wrapped), transform(plain))
    assert torch.autograd.gradcheck(wrapped, (x.requires_grad_(), y.requires_grad_()))
    assert torch.autograd.gradgradcheck(wrapped, (x, y))


# Flows.


def test_a_flow_trains_on_a_space_of_geomstats() -> None:
    # Triangles in the plane, without position and size: the pre-shape space is a 3-sphere.
    m = from_geomstats(PreShapeSpace(3, 2), volume=2 * math.pi**2)
    triangle = torch.tensor([[0.0, 1.0], [1.0, 0.0], [-1.0, -0.5]])
    data = m.projx(triangle + 0.1 * torch.randn(100, 3, 2, generator=_rng()))
    field = VelocityField(m, width=16, depth=1, features=16, max_frequency=2.0)
    source, path, generator = rfm.sources.Uniform(m), rfm.GeodesicPath(m), _rng()
    optimiser = torch.optim.Adam(field.parameters(), lr=2e-2)
    for _ in range(60):
        optimiser.zero_grad()
        loss = rfm.flow_matching_loss(
            field, path, source.sample((100,), generator=generator), data, generator=generator
        )
        loss.backward()
        optimiser.step()
    flow = rfm.Flow(m, field, source)
    m.check_point(flow.sample(5, generator=_rng()), 1e-4)
    score = flow.log_prob(data[:3])
    assert score.mean() > source.log_prob(data[:3]).mean() + 0.5


@pytest.mark.slow
def test_fit_takes_a_space_of_geomstats() -> None:
    m = from_geomstats(Hypersphere(2), volume=4 * math.pi)
    data = m.projx(torch.tensor([1.0, 2.0, -1.0]) + 0.2 * torch.randn(60, 3, generator=_rng()))
    field = VelocityField(m, width=16, depth=1, features=16, max_frequency=2.0)
    flow = rfm.fit(data, m, field=field, steps=5, batch_size=32, progress=False)
    ours = rfm.Flow(Sphere(2), flow.field, rfm.sources.Uniform(Sphere(2)))
    torch.testing.assert_close(ours.log_prob(data[:4]), flow.log_prob(data[:4]), atol=1e-3, rtol=1e-3)


def test_the_default_source_where_geodesics_never_meet() -> None:
    m = from_geomstats(SPDMatrices(2))
    source = rfm.sources.default_source(m, _draw(m.space, 20))
    x = source.sample((5,), generator=_rng(), dtype=D)
    ours = rfm.sources.WrappedNormal(SPD(2), source.mean, source.scale)
    torch.testing.assert_close(source.log_prob(x), ours.log_prob(x), atol=1e-7, rtol=1e-7)
