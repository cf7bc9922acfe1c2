"""A manifold in other units: what changes, by how much, and what does not. Its laws are tested with the zoo's."""

import math
from pathlib import Path

import pytest
import torch
from random_fields import points, tangents, wavy_field

import rfm
from manifolds import (
    SE3,
    SO3,
    SPD,
    Antipodal,
    FlatTorus,
    Hyperboloid,
    LogEuclideanSPD,
    Manifold,
    Power,
    Product,
    Quotient,
    Scaled,
    Sphere,
)
from manifolds.identity import same
from rfm.integrators import RK4, FixedStep
from rfm.records.descriptions import build, describe
from rfm.sources import KernelMixture, ScaledSource, Uniform, default_source

F64 = torch.float64
BASES = [
    *(Sphere(2), FlatTorus(2), SO3(), SE3(2.0), SPD(2), LogEuclideanSPD(2), Hyperboloid(2, 0.5)),
    *(Power(Sphere(2), 2), Quotient(Sphere(2), Antipodal(2)), Product(Sphere(2), FlatTorus(1), weights=(1.0, 0.5))),
]


@pytest.mark.parametrize("m", BASES, ids=str)
def test_lengths_are_multiplied_and_nothing_else_changes(m: Manifold) -> None:
    scaled, f = Scaled(m, 1.7), 1.7
    x, y = points(m, 6), points(m, 6, seed=50)
    u, v = tangents(m, x), tangents(m, x, seed=2)
    t = torch.linspace(0, 1, 6, dtype=F64)
    equal = torch.testing.assert_close
    equal(scaled.dist(x, y), f * m.dist(x, y))
    equal(scaled.squared_dist(x, y), f**2 * m.squared_dist(x, y))
    equal(scaled.norm(x, u), f * m.norm(x, u))
    equal(scaled.inner(x, u, v), f**2 * m.inner(x, u, v))
    equal(scaled.norm(x, scaled.tangent_basis(x)[:, 0]), torch.ones(6, dtype=F64))
    for name, arguments in {
        "projx": (x,),
        "proju": (x, u),
        "expmap": (x, u),
        "logmap": (x, y),
        "shoot": (x, u, t),
        "geodesic": (x, y, t),
        "transp": (x, y, u),
        "embed": (x,),
        "log_det_expmap": (x, u),
        "divergence_frame": (x,),
        "log_volume_derivative": (x, u),
    }.items():
        assert all(map(torch.equal, *(_results(getattr(a, name)(*arguments)) for a in (scaled, m)))), name
    assert scaled.dim == m.dim
    assert scaled.points_are_classes == m.points_are_classes
    assert (scaled.volume is None) == (m.volume is None)
    if m.volume is not None:
        assert scaled.volume == pytest.approx(f**m.dim * m.volume)
    if m.injectivity_radius is not None:
        assert scaled.injectivity_radius == f * m.injectivity_radius
    assert (scaled.lie_group is None) == (m.lie_group is None)


def _results(result: torch.Tensor | tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.parametrize("m", BASES, ids=str)
def test_it_is_the_product_of_one_factor_with_a_weight(m: Manifold) -> None:
    scaled, weighted = Scaled(m, 0.6), Product(m, weights=(0.36,))
    x, y = points(m, 5), points(m, 5, seed=50)
    u = tangents(m, x)
    equal = torch.testing.assert_close
    flat = [weighted.join(a) for a in (x, y, u)]
    equal(scaled.dist(x, y), weighted.dist(*flat[:2]))
    equal(scaled.norm(x, u), weighted.norm(flat[0], flat[2]))
    assert scaled.volume == (weighted.volume and pytest.approx(weighted.volume))
    if weighted.kernel is not None and scaled.kernel is not None:
        k = torch.tensor([3.0, 50.0], dtype=F64)
        equal(scaled.kernel.log_normaliser(k), weighted.kernel.log_normaliser(k))
        equal(scaled.kernel.embed(x), weighted.kernel.embed(flat[0]))
    field = wavy_field(m)
    equal(rfm.divergence(field, scaled, x, x.new_tensor(0.3))[1], rfm.divergence(field, m, x, x.new_tensor(0.3))[1])


def test_a_kernel_mixture_in_kilometres_integrates_to_one() -> None:
    earth = Scaled(Sphere(2), 6371.0)
    centres = points(earth, 5)
    weights = torch.tensor([0.7, 0.3], dtype=F64)
    density = KernelMixture(earth, centres, torch.tensor([8.0]), weights, Uniform(earth))
    x = earth.random_uniform(40_000, generator=torch.Generator().manual_seed(0), dtype=F64)
    ratio = density.log_prob(x).exp() * 4 * math.pi * 6371.0**2
    assert abs(float(ratio.mean()) - 1) < 4 * float(ratio.std()) / math.sqrt(len(x)) < 0.05
    earth.check_point(density.sample((50,), torch.Generator().manual_seed(0), F64))


@pytest.mark.parametrize("m", [SE3(2.0), Hyperboloid(2), Power(SE3(), 2), SPD(2)], ids=str)
def test_the_default_source_is_that_of_the_manifold_per_its_volume(m: Manifold) -> None:
    scaled, x = Scaled(m, 3.0), points(m, 30)
    own, source = default_source(m, x), default_source(scaled, x)
    assert isinstance(source, ScaledSource)
    torch.testing.assert_close(source.log_prob(x), own.log_prob(x) - m.dim * math.log(3.0))
    draws = [s.sample(5, torch.Generator().manual_seed(0), F64) for s in (own, source)]
    assert torch.equal(*draws)
    assert same(build(describe(source), "here"), source)


def test_a_scaled_source_is_on_a_scaled_manifold() -> None:
    with pytest.raises(ValueError, match="lives on a Scaled manifold"):
        ScaledSource(Sphere(2), Uniform(Sphere(2)))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"Sphere\(2\) is required"):
        ScaledSource(Scaled(Sphere(2), 2.0), Uniform(Scaled(Sphere(2), 2.0)))


def test_a_flow_on_it_is_saved(tmp_path: Path) -> None:
    m = Scaled(Sphere(2), 2.0)
    flow = rfm.Flow(m, rfm.networks.VelocityField(m, width=8, depth=1), Uniform(m))
    flow.save(tmp_path)
    again = rfm.Flow.load(tmp_path)
    assert m.same_as(again.manifold)
    x = points(m, 4, dtype=torch.float32)
    solver = FixedStep(RK4, 4)
    assert torch.equal(flow.log_prob(x, solver=solver), again.log_prob(x, solver=solver))


@pytest.mark.parametrize("factor", [0.0, -1.0, math.inf, math.nan, "two"])
def test_bad_factors_are_refused(factor: object) -> None:
    with pytest.raises(ValueError, match="Scaled: factor must be"):
        Scaled(Sphere(2), factor)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Scaled: m must be an object of Manifold"):
        Scaled(Sphere, 2.0)  # type: ignore[arg-type]


def test_volumes_beyond_a_double_are_not_stated() -> None:
    assert Scaled(Sphere(200), 1e10).volume is None
    assert Scaled(Sphere(200), 1e-10).volume is None
