"""Fréchet means, variances and principal geodesics."""

import math
from collections.abc import Callable

import pytest
import torch
from manifold_zoo import ZOO
from torch import Tensor
from zoo_sources import source_of

from manifolds import SO3, SPD, Euclidean, FlatTorus, Manifold, Sphere
from rfm.statistics import frechet_mean, principal_geodesics


def _points(m: Manifold, n: int, seed: int = 0, width: float = 0.3) -> Tensor:
    """Points about one of the manifold's: their mean is unique."""
    g = torch.Generator().manual_seed(seed)
    centre = source_of(m, width).sample((), g, torch.float64)
    noise = torch.randn(n, *m.event_shape, dtype=torch.float64, generator=g)
    u = m.proju(centre.expand_as(noise), noise)
    return m.expmap(centre, width * u / m.norm(centre, u).square().mean().sqrt())


@pytest.mark.parametrize("make", [make for _, make in ZOO], ids=[name for name, _ in ZOO])
def test_no_point_nearby_is_nearer(make: Callable[[], Manifold]) -> None:
    m = make()
    x = _points(m, 30)
    found = frechet_mean(m, x)
    m.check_point(found.point)
    assert found.variance == pytest.approx(float(m.dist(found.point, x).square().mean()), rel=1e-6)
    noise = torch.randn(8, *m.event_shape, dtype=x.dtype, generator=torch.Generator().manual_seed(1))
    nearby = m.expmap(found.point, 0.01 * m.proju(found.point.expand_as(noise), noise))
    others = m.dist(nearby[:, None], x).square().mean(1)
    assert float(others.min()) > found.variance - 1e-9


@pytest.mark.parametrize("make", [make for _, make in ZOO], ids=[name for name, _ in ZOO])
def test_squares_along_the_directions_sum_to_the_variance(make: Callable[[], Manifold]) -> None:
    m = make()
    x = _points(m, 30)
    mean = frechet_mean(m, x)
    found = principal_geodesics(m, x, mean=mean.point)
    assert float(found.standard_deviations.square().sum()) == pytest.approx(mean.variance, rel=1e-6)
    gram = m.inner(mean.point, found.directions[:, None], found.directions)
    torch.testing.assert_close(gram, torch.eye(m.dim, dtype=x.dtype), rtol=0, atol=1e-8)
    assert bool((found.standard_deviations.diff() <= 1e-12).all())
    assert float(found.explained.sum()) == pytest.approx(1)


def test_in_flat_space_they_are_the_mean_and_the_principal_components() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(500, 3, dtype=torch.float64, generator=g) @ torch.randn(3, 3, dtype=torch.float64, generator=g)
    w = torch.rand(500, dtype=torch.float64, generator=g)
    mean = (w[:, None] * x).sum(0) / w.sum()
    torch.testing.assert_close(frechet_mean(Euclidean(3), x, w).point, mean)
    found = principal_geodesics(Euclidean(3), x, w)
    values = torch.linalg.svdvals((w / w.sum()).sqrt()[:, None] * (x - mean))
    torch.testing.assert_close(found.standard_deviations, values)
    along = (x - mean) @ found.directions.T
    covariance = along.T @ ((w / w.sum())[:, None] * along)
    torch.testing.assert_close(covariance, torch.diag(values.square()), rtol=0, atol=1e-10)


def test_on_the_circle_it_is_the_least_of_all_minima() -> None:
    """Brute force over a fine grid; two unequal clusters nearly opposite make several local minima."""
    m = FlatTorus(1)
    for seed in range(10):
        g = torch.Generator().manual_seed(seed)
        clusters = torch.where(torch.rand(80, 1, generator=g) < 0.55, 0.0, 3.0)
        x = m.projx((clusters + 0.5 * torch.randn(80, 1, generator=g)).double())
        found = frechet_mean(m, x)
        grid = torch.linspace(-math.pi, math.pi, 20001, dtype=torch.float64)[:, None]
        least = m.dist(grid[:, None], x).square().mean(1).min()
        assert found.variance <= float(least) + 1e-12
        assert found.runner_up is None or found.runner_up >= found.variance


def test_points_without_a_centre_say_so() -> None:
    m = Sphere(2)
    x = torch.eye(3, dtype=torch.float64).repeat(2, 1)
    x[3:] *= -1  # an octahedron
    found = frechet_mean(m, x)
    assert found.runner_up == pytest.approx(found.variance, rel=1e-6)
    uniform = frechet_mean(m, m.random_uniform(5000, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    # The mean of the squared angle to a uniform point: (pi^2 - 4) / 2.
    assert uniform.variance == pytest.approx((math.pi**2 - 4) / 2, rel=0.02)
    assert frechet_mean(m, _points(m, 100)).runner_up is None


def test_moving_the_points_moves_the_mean() -> None:
    m = Sphere(2)
    x, turn = _points(m, 200), SO3().random_uniform(generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    torch.testing.assert_close(frechet_mean(m, x @ turn.T).point, turn @ frechet_mean(m, x).point, rtol=0, atol=1e-8)


def test_on_positive_definite_matrices_it_agrees_with_their_own_mean() -> None:
    m = SPD(3)
    x = _points(m, 50, width=0.8)
    torch.testing.assert_close(frechet_mean(m, x).point, m.frechet_mean(x), rtol=1e-6, atol=1e-8)


def test_weights_count_like_repeats() -> None:
    m, x = Sphere(2), _points(Sphere(2), 30)
    counts = torch.randint(0, 4, (30,), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        frechet_mean(m, x, counts).point, frechet_mean(m, x.repeat_interleave(counts, 0)).point, rtol=0, atol=1e-8
    )


def test_a_great_circle_is_found() -> None:
    """Points along an arc: one direction explains all, and its geodesic goes through them."""
    m = Sphere(2)
    angle = torch.linspace(-1, 1, 41, dtype=torch.float64)
    x = torch.stack([angle.cos(), angle.sin(), torch.zeros_like(angle)], -1)
    found = principal_geodesics(m, x)
    torch.testing.assert_close(found.mean, torch.tensor([1.0, 0, 0], dtype=torch.float64), rtol=0, atol=1e-9)
    assert float(found.explained[0]) == pytest.approx(1, abs=1e-12)
    torch.testing.assert_close(found.geodesic(0, angle), x, rtol=0, atol=1e-8)


def test_many_points_in_any_order() -> None:
    m = Sphere(2)
    x = _points(m, 20_000)
    ordered = x[x[:, 0].argsort()]
    torch.testing.assert_close(frechet_mean(m, x).point, frechet_mean(m, ordered).point, rtol=0, atol=1e-8)


def test_one_point_and_equal_points() -> None:
    m = SO3()
    x = m.random_uniform(1, generator=torch.Generator().manual_seed(0))
    for points in (x, x.repeat(5, 1, 1)):
        found = frechet_mean(m, points)
        assert found.point.dtype == torch.float32
        torch.testing.assert_close(found.point, x[0])
        assert found.variance == pytest.approx(0, abs=1e-12)
        assert found.runner_up is None
        assert bool(principal_geodesics(m, points).explained.isfinite().all())


@pytest.mark.parametrize(
    ("points", "weights", "message"),
    [
        (torch.zeros(0, 3), None, r"shape \(n, 3\) with n at least 1"),
        (torch.zeros(4, 2), None, "frechet_mean: "),
        (2 * torch.eye(3), None, "the points are none of Sphere"),
        (torch.eye(3), torch.tensor([1.0, -1.0, 1.0]), "weights must be 3 finite numbers"),
        (torch.eye(3), torch.zeros(3), "weights must be 3 finite numbers"),
        (torch.eye(3), torch.ones(2), "weights must be 3 finite numbers"),
    ],
)
def test_bad_input_is_one_sentence(points: Tensor, weights: Tensor | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        frechet_mean(Sphere(2), points, weights)
