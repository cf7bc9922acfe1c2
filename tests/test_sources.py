"""Source distributions: draws match densities, densities integrate to one."""

import math

import pytest
import torch
from random_fields import points
from torch import Tensor

from manifolds import (
    SE3,
    SO3,
    SPD,
    Euclidean,
    FlatTorus,
    Hyperboloid,
    Manifold,
    Octahedral,
    PoincareBall,
    Power,
    Product,
    Quotient,
    RightMultiplication,
    Sphere,
)
from manifolds.matrices.spd import LogEuclideanSPD
from rfm.sources import RigidMotionSource, Source, Uniform, WrappedNormal, default_source

COMPACT = [Sphere(1), Sphere(2), FlatTorus(2), SO3(), Power(Sphere(2), 2), Product(Sphere(2), FlatTorus(1))]
OPEN = [
    Euclidean(2),
    Hyperboloid(2),
    Hyperboloid(3, 0.5),
    PoincareBall(2),
    PoincareBall(2, 2.0),
    SPD(2),
    LogEuclideanSPD(2),
    Product(Euclidean(1), Hyperboloid(2), weights=(2.0, 0.5)),
    Power(PoincareBall(2), 2),
]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def example(m: Manifold) -> Source:
    return Uniform(m) if m.volume is not None else WrappedNormal(m, points(m, seed=3), 0.4)


# Draws.


@pytest.mark.parametrize("m", COMPACT + OPEN, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (0,)], ids=str)
def test_draws_are_points_and_leave_global_randomness_alone(
    m: Manifold, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    source = example(m)
    before = torch.get_rng_state()
    x = source.sample(shape, generator=seeded(), dtype=dtype)
    assert torch.equal(before, torch.get_rng_state())
    assert x.shape == (*shape, *m.event_shape)
    assert x.dtype == dtype
    m.check_point(x)
    assert torch.equal(x, source.sample(shape, generator=seeded(), dtype=dtype))
    log_prob = source.log_prob(x)
    assert log_prob.shape == shape
    assert log_prob.dtype == dtype
    assert bool(torch.isfinite(log_prob).all())
    if x.numel():
        assert not torch.equal(x, source.sample(shape, generator=seeded(1), dtype=dtype))


@pytest.mark.parametrize("m", [Sphere(2), Euclidean(2)], ids=str)
def test_draws_take_the_default_dtype(m: Manifold) -> None:
    assert example(m).sample((2,), generator=seeded()).dtype == torch.get_default_dtype()


# Uniform.


@pytest.mark.parametrize("m", COMPACT, ids=str)
def test_uniform_density_is_one_over_the_volume(m: Manifold) -> None:
    assert m.volume is not None
    log_prob = Uniform(m).log_prob(points(m, 2, 3))
    torch.testing.assert_close(log_prob, torch.full((2, 3), -math.log(m.volume), dtype=torch.float64))


def test_uniform_volumes_are_those_of_the_books() -> None:
    for m, volume in [(Sphere(2), 4 * math.pi), (FlatTorus(2), 4 * math.pi**2), (SO3(), 8 * math.pi**2)]:
        assert float(Uniform(m).log_prob(points(m))) == pytest.approx(-math.log(volume))


def test_uniform_draws_are_uniform() -> None:
    n = 20_000
    sphere = Uniform(Sphere(2)).sample((n,), generator=seeded(), dtype=torch.float64)
    # Archimedes: heights are uniform in [-1, 1].
    assert _largest_gap((sphere[:, 2] + 1) / 2) < 1.95 / math.sqrt(n)
    angle = Uniform(FlatTorus(1)).sample((n,), generator=seeded(), dtype=torch.float64)[:, 0]
    assert _largest_gap((angle + math.pi) / (2 * math.pi)) < 1.95 / math.sqrt(n)
    turn = Uniform(SO3()).sample((n,), generator=seeded(), dtype=torch.float64)
    # The angle of a random rotation has density (1 - cos a) / pi.
    a = SO3().dist(torch.eye(3, dtype=torch.float64), turn)
    assert _largest_gap((a - torch.sin(a)) / math.pi) < 1.95 / math.sqrt(n)


def _largest_gap(u: Tensor) -> float:
    """Return the statistic of Kolmogorov and Smirnov; 1.95 / sqrt(n) is passed with probability 0.001."""
    ordered = u.sort().values
    return float((ordered - torch.linspace(0, 1, len(u), dtype=u.dtype)).abs().max())


# The wrapped normal.


def test_wrapped_normal_is_the_normal_in_flat_space() -> None:
    mean = torch.tensor([1.0, -2.0], dtype=torch.float64)
    x = points(Euclidean(2), 5)
    normal = torch.distributions.Normal(mean, 0.7)
    torch.testing.assert_close(WrappedNormal(Euclidean(2), mean, 0.7).log_prob(x), normal.log_prob(x).sum(-1))


@pytest.mark.parametrize("curvature", [1.0, 2.5])
def test_wrapped_normal_integrates_to_one_over_a_disc(curvature: float) -> None:
    """Quadrature over the Poincare ball, whose volume has density lambda^2."""
    m = PoincareBall(2, curvature)
    source = WrappedNormal(m, torch.tensor([0.3, -0.2], dtype=torch.float64), 0.5)
    n = 400
    grid = (torch.arange(n, dtype=torch.float64) + 0.5) * 2 / n - 1
    x = torch.cartesian_prod(grid, grid) / math.sqrt(curvature)
    inside = (x * x).sum(-1) < 0.9999 / curvature
    x = x[inside]
    volume = (2 / (1 - curvature * (x * x).sum(-1))) ** 2
    total = (source.log_prob(x).exp() * volume).sum() * (2 / n) ** 2 / curvature
    assert float(total) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("m", OPEN, ids=str)
def test_two_wrapped_normals_agree_by_importance(m: Manifold) -> None:
    """The mean of q / p over draws of p is the integral of q, for two different means and widths."""
    centre = points(m, seed=3)
    near = m.expmap(centre, 0.1 * m.tangent_basis(centre).movedim(-1 - len(m.event_shape), 0).sum(0))
    p, q = WrappedNormal(m, centre, 0.6), WrappedNormal(m, near, 0.45)
    x = p.sample((8000,), generator=seeded(), dtype=torch.float64)
    ratio = (q.log_prob(x) - p.log_prob(x)).exp()
    error = float(ratio.std()) / math.sqrt(len(ratio))
    assert error < 0.05
    assert abs(float(ratio.mean()) - 1) < 4 * error
    # An error in the determinant would not show in the ratio: the mean log-density is the entropy, which has one too.
    u = m.logmap(centre, x)
    squared = m.inner(centre, u, u) / 0.36
    assert float(squared.mean()) == pytest.approx(m.dim, rel=0.06)


@pytest.mark.parametrize("curvature", [1.0, 2.5])
def test_hyperboloid_and_ball_give_one_density(curvature: float) -> None:
    h, b = Hyperboloid(2, curvature), PoincareBall(2, curvature)
    mean, x = points(h, seed=3), points(h, 5)
    on_h = WrappedNormal(h, mean, 0.5).log_prob(x)
    torch.testing.assert_close(on_h, WrappedNormal(b, h.to_poincare(mean), 0.5).log_prob(h.to_poincare(x)))


def test_wrapped_normal_keeps_its_centre() -> None:
    """The centre stays as exact as it was given, whatever precision the flow is cast to."""
    mean = torch.tensor([0.1, 1 / 3], dtype=torch.float64)
    source = WrappedNormal(Euclidean(2), mean).float()
    assert torch.equal(source.mean, mean)
    assert float(source.log_prob(mean)) == pytest.approx(-math.log(2 * math.pi))


# Refusals.


@pytest.mark.parametrize("m", [Euclidean(2), Hyperboloid(2), SE3()], ids=str)
def test_uniform_is_refused_where_the_volume_is_infinite(m: Manifold) -> None:
    with pytest.raises(ValueError, match="no finite volume; use another source"):
        Uniform(m)


@pytest.mark.parametrize("m", [Sphere(2), SO3(), SE3(), Power(Sphere(2), 2)], ids=str)
def test_wrapped_normal_is_refused_where_densities_would_wrap(m: Manifold) -> None:
    with pytest.raises(ValueError, match=r"use .*Source|use .*Uniform"):
        WrappedNormal(m, points(m))


def test_wrapped_normal_refuses_bad_arguments() -> None:
    m = Hyperboloid(2)
    for scale in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="scale must be positive"):
            WrappedNormal(m, points(m), scale)
    with pytest.raises(ValueError, match="projx"):
        WrappedNormal(m, torch.tensor([5.0, 0.0, 0.0]))
    with pytest.raises(ValueError, match="one point"):
        WrappedNormal(m, points(m, 3))
    with pytest.raises(ValueError, match="one point"):
        WrappedNormal(m, torch.tensor([1.0, 0.0]))
    with pytest.raises(ValueError, match="not finite"):
        WrappedNormal(m, torch.tensor([1.0, math.nan, 0.0]))


# The default.


def test_default_source_is_uniform_where_it_can_be() -> None:
    assert isinstance(default_source(Sphere(2), points(Sphere(2), 5)), Uniform)


def test_default_source_fits_the_points_elsewhere() -> None:
    m = Hyperboloid(2)
    truth = WrappedNormal(m, points(m, seed=3), 0.3)
    source = default_source(m, truth.sample((4000,), generator=seeded(), dtype=torch.float64))
    assert isinstance(source, WrappedNormal)
    assert source.scale == pytest.approx(0.3, rel=0.05)
    assert float(m.dist(source.mean, truth.mean)) < 0.03
    assert default_source(m, points(m, 1)).scale == 1.0


def test_default_source_of_poses_has_their_positions_spread() -> None:
    m = SE3(2.0)
    truth = RigidMotionSource(m, Uniform(SO3()), 0.3, torch.tensor([5.0, -2.0, 1.0]))
    source = default_source(m, truth.sample((4000,), seeded(), torch.float64))
    assert isinstance(source, RigidMotionSource)
    assert source.translation_scale == pytest.approx(0.3, rel=0.03)
    torch.testing.assert_close(source.translation_mean, truth.translation_mean.double(), rtol=0, atol=0.02)


_BODIES = Quotient(SE3(), RightMultiplication(Octahedral(), 4))


@pytest.mark.parametrize("m", [_BODIES, Product(_BODIES, Euclidean(1))], ids=str)
def test_default_source_says_what_to_supply(m: Manifold) -> None:
    with pytest.raises(ValueError, match="pass source="):
        default_source(m, points(m, 5))


def test_wrapped_normal_fits_across_the_seam_of_a_torus() -> None:
    torus = FlatTorus(2)
    truth = WrappedNormal(torus, torch.tensor([3.1, -3.0]), 0.4)
    fitted = WrappedNormal.fit(torus, truth.sample((5000,), seeded(), torch.float64))
    assert float(torus.dist(fitted.mean, truth.mean)) < 0.03
    assert fitted.scale == pytest.approx(0.4, abs=0.02)
