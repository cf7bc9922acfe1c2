"""Flows on sets with a border: they stay inside, one to one, with densities that integrate to one."""

import math
from pathlib import Path

import pytest
import torch
from bounded_zoo import BOUNDED, ISLES, drawn
from random_fields import wavy_field

import rfm
from manifolds import (
    Bounded,
    Box,
    Cap,
    Euclidean,
    FlatTorus,
    JointLimits,
    PlanarPolygon,
    Power,
    Product,
    Scaled,
    Sphere,
)
from manifolds.testing import check_manifold
from rfm.integrators import Adaptive, FixedStep
from rfm.paths import BoundedPath, GeodesicPath, default_path
from rfm.sources import PiecewiseUniform, Truncated, Uniform, WrappedNormal, default_source
from rfm.sources.truncated import share_inside

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
EACH = pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in BOUNDED])
LOOSE = Adaptive(atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "make",
    [pytest.param(make, id=name, marks=() if name == "interval" else pytest.mark.slow) for name, make in BOUNDED],
)
def test_laws_of_manifolds(make: type) -> None:
    m = make()
    # Ways round are not geodesics: where a set is not convex, those of the full manifold are what is stated.
    check_manifold(m, dtypes=(torch.float64,), compile=False, samples=16).raise_if_failed()


@EACH
def test_flows_stay_inside_and_come_back(make: type) -> None:
    """By steps of any kind; and the way back leads to where it began."""
    m = make()
    field = wavy_field(m, size=1.5 * float(torch.as_tensor(m.constraint.layer).min()))
    x = drawn(m, 60)
    y = rfm.integrate(field, m, x, (0.0, 1.0)).final
    assert m.constraint.contains(y).all()
    assert (m.dist(x, y) > 1e-3).double().mean() > 0.5
    torch.testing.assert_close(rfm.integrate(field, m, y, (1.0, 0.0)).final, x, atol=2e-3, rtol=1e-3)
    coarse = rfm.integrate(field, m, x, (0.0, 1.0), FixedStep(steps=20)).final
    assert m.constraint.contains(coarse).all()
    torch.testing.assert_close(coarse, y, atol=1e-3, rtol=1e-3)


_SLOW_DENSITIES = ("ball", "polytope", "cap of S^3", "arc", "room", "disc", "pole", "ocean")


@pytest.mark.parametrize(
    "make",
    [pytest.param(make, id=name, marks=pytest.mark.slow if name in _SLOW_DENSITIES else ()) for name, make in BOUNDED],
)
def test_densities_integrate_to_one_and_are_those_of_the_samples(make: type) -> None:
    m = make()
    flow = rfm.Flow(m, wavy_field(m, size=1.5 * float(torch.as_tensor(m.constraint.layer).min())))
    generator = torch.Generator().manual_seed(5)
    x, log_p = flow.sample(20, generator=generator, solver=LOOSE, return_log_prob=True)
    assert m.constraint.contains(x).all()
    torch.testing.assert_close(flow.log_prob(x, solver=LOOSE), log_p, atol=5e-2, rtol=1e-2)
    u = drawn(m, 150, seed=1)
    ratio = flow.log_prob(u, solver=LOOSE).double().exp() * m.volume
    assert abs(float(ratio.mean()) - 1) < 4.5 * float(ratio.std()) / math.sqrt(len(u)) + 1e-3


def test_densities_are_zero_outside() -> None:
    m = Bounded(Sphere(2), Cap([0.0, 0.0, 1.0], 0.5))
    flow = rfm.Flow(m, wavy_field(m))
    x = torch.tensor([[[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]], [[0.0, 0.0, -1.0], [0.0, 0.0, 1.0]]])
    log_p = flow.log_prob(x)
    assert log_p.isneginf().tolist() == [[False, True], [True, False]]
    assert float(log_p[0, 0]) == pytest.approx(float(flow.log_prob(x[0, 0])), abs=1e-6)
    assert flow.log_prob(x[0, 1]).isneginf()
    assert flow.log_prob(x[:, :1][1:]).isneginf().all()
    estimate = flow.log_prob(x, estimator=rfm.likelihood.Hutchinson(2, torch.Generator().manual_seed(0)))
    assert estimate.log_prob.isneginf().tolist() == log_p.isneginf().tolist()
    with pytest.raises(ValueError, match="off it by"):
        flow.log_prob(2 * x)
    with pytest.raises(ValueError, match=r"outside by .* \(2 of 4 are\)"):
        m.check_point(x)


def test_what_is_made_of_bounded_sets_excludes_too() -> None:
    one = Bounded(Euclidean(1), Box([0.0], [1.0]))
    x = torch.tensor([[0.5, 0.5], [0.5, 2.0], [-1.0, 0.5]])
    for m, points in ((Product(one, one), x), (Power(one, 2), x[..., None]), (Product(one, FlatTorus(1)), x)):
        assert m.excludes(points).tolist() == [False, m.excludes(points)[1].item(), True]
        assert m.excludes(points)[1] == isinstance(m, Power) or m.dim == 2
    assert Scaled(one, 2.0).excludes(x[:, :1]).tolist() == [False, False, True]
    assert Product(one, one).volume == 1.0
    assert Sphere(2).excludes(torch.eye(3)) is None


@EACH
def test_paths_stay_inside_and_are_as_fast_as_stated(make: type) -> None:
    m = make()
    x_0, x_1 = drawn(m, 80), drawn(m, 80, seed=1)
    t = torch.rand(80, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    at, later, end, start = (
        BoundedPath(m, nodes=80).sample(x_0, x_1, s) for s in (t, t + 1e-7, torch.ones_like(t), torch.zeros_like(t))
    )
    assert m.constraint.contains(at.x_t).all()
    torch.testing.assert_close(end.x_t, x_1, atol=1e-9, rtol=0)
    torch.testing.assert_close(start.x_t, at.x_0, atol=1e-9, rtol=0)
    torch.testing.assert_close(m.m.logmap(at.x_t, later.x_t) / 1e-7, at.dx_t, atol=1e-4, rtol=1e-4)
    again = BoundedPath(m, nodes=80).sample(x_0, x_1, t)
    assert torch.equal(again.x_t, at.x_t)


def test_default_paths() -> None:
    assert isinstance(default_path(Sphere(2)), GeodesicPath)
    assert isinstance(default_path(Bounded(Euclidean(1), Box([0.0], [1.0]))), BoundedPath)
    with pytest.raises(ValueError, match="manifold must be an object of Bounded"):
        BoundedPath(Sphere(2))


def test_components_keep_the_shares_of_the_data() -> None:
    """No flow crosses the water, so the source has the shares, and paths keep to their island."""
    m = Bounded(Euclidean(2), PlanarPolygon(ISLES))
    x = m.constraint.random_in(torch.tensor([1] * 100 + [2] * 300), torch.Generator().manual_seed(0))
    assert m.constraint.components(x).tolist() == [1] * 100 + [2] * 300
    source = default_source(m, x)
    assert isinstance(source, PiecewiseUniform)
    draws = source.sample(4000, torch.Generator().manual_seed(1), torch.float64)
    assert float((m.constraint.components(draws) == 2).double().mean()) == pytest.approx(0.75, abs=0.03)
    torch.testing.assert_close(
        source.log_prob(x[[0, -1]]), torch.log(torch.tensor([0.25 / 16, 0.75 / 2])).double(), atol=0.01, rtol=0
    )
    assert source.log_prob(torch.tensor([[5.0, 1.0]])).isneginf().all()
    path = BoundedPath(m, nodes=60).sample(draws[:400], x, torch.full((400,), 0.5).double())
    assert torch.equal(m.constraint.components(path.x_t), m.constraint.components(x))
    with pytest.raises(ValueError, match="is connected; use Uniform"):
        PiecewiseUniform(Bounded(Euclidean(1), Box([0.0], [1.0])), torch.ones(1))
    with pytest.raises(ValueError, match="must be 3 finite numbers"):
        PiecewiseUniform(m, torch.ones(2))


def test_truncated_sources() -> None:
    m = Bounded(Euclidean(2), Box([0.0, -math.inf], [math.inf, math.inf]))
    normal = WrappedNormal(m.m, torch.zeros(2), 1.0)
    source = Truncated(m, normal)
    assert source.mass == pytest.approx(0.5, abs=0.005)
    assert source.mass == share_inside(normal, m)
    x = source.sample(200, torch.Generator().manual_seed(0))
    assert m.constraint.contains(x).all()
    torch.testing.assert_close(Truncated(m, normal, 0.5).log_prob(x), normal.log_prob(x) + math.log(2))
    assert source.log_prob(torch.tensor([-1.0, 0.0])).isneginf()
    assert isinstance(default_source(m, torch.rand(50, 2)), Truncated)
    with pytest.raises(ValueError, match="too little to draw from"):
        Truncated(Bounded(Euclidean(2), Box([50.0, 50.0], [51.0, 51.0])), normal)
    with pytest.raises(ValueError, match="lives on a Bounded manifold"):
        Truncated(Euclidean(2), normal)


@pytest.mark.parametrize("name", ["box", "joint limits", "cap", "polytope", "disc", "country"])
def test_saved_flows_are_the_same(name: str, tmp_path: Path) -> None:
    m = dict(BOUNDED)[name]()
    flow = rfm.Flow(m, rfm.networks.VelocityField(m, width=8, depth=1, features=8))
    flow.save(tmp_path)
    loaded = rfm.Flow.load(tmp_path)
    assert loaded.manifold.same_as(m)
    x = drawn(m, 20, dtype=torch.float32)
    torch.testing.assert_close(loaded.log_prob(x), flow.log_prob(x))
    other = Bounded(m.m, m.constraint, layer=0.01)
    assert not other.same_as(m)


def test_fit_and_refusals() -> None:
    m = Bounded(FlatTorus(2), JointLimits([-1.0, None], [1.5, None]))
    x = drawn(m, 300)
    flow = rfm.fit(x, m, steps=3, progress=False)
    assert isinstance(flow.source, Uniform)
    assert m.constraint.contains(flow.sample(500)).all()
    assert flow.log_prob(x).isfinite().all()
    assert "kernel" in flow.refinement_report
    with pytest.raises(ValueError, match="outside by") as caught:
        rfm.fit(torch.cat([x, torch.full((1, 2), 2.0)]), m, steps=3, progress=False)
    assert "leave them out, or widen the set" in str(caught.value)


@pytest.mark.slow
def test_every_sample_of_a_fit_lies_inside() -> None:
    m = dict(BOUNDED)["country"]()
    flow = rfm.fit(drawn(m, 1000), m, steps=30, progress=False)
    x = flow.sample(100_000, solver=Adaptive(atol=1e-3, rtol=1e-3))
    assert m.constraint.contains(x).all()
    assert m.constraint.contains(x.double()).all()
