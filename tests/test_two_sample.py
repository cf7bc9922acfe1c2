"""Distances between samples: laws over manifolds, cases whose answer is known, and what the intervals cover."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from manifold_zoo import ZOO

import rfm
from manifolds import SE3, SO3, SPD, Euclidean, FlatTorus, Manifold, Power, Product, Sphere
from rfm.metrics import (
    AmbientGaussianKernel,
    Estimate,
    GeodesicGaussianKernel,
    HeatKernel,
    classifier_two_sample,
    coverage,
    maximum_mean_discrepancy,
    median_distance,
    wasserstein_distance,
)
from rfm.sources import Uniform, VonMisesFisher

HEAT = [
    Euclidean(2),
    FlatTorus(2),
    Sphere(1),
    Sphere(2),
    Sphere(4),
    SO3(),
    Power(Sphere(2), 2),
    Product(SO3(), FlatTorus(1), weights=(1.0, 0.25)),
]


def some(manifold: Manifold, n: int, seed: int = 0) -> torch.Tensor:
    """Return points about the projection of random vectors."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, *manifold.event_shape, generator=generator, dtype=torch.float64)
    return manifold.projx(x)


@pytest.mark.parametrize("scale", [0.2, 1.0, 3.0])
@pytest.mark.parametrize("manifold", HEAT, ids=str)
def test_heat_kernel_is_symmetric_and_positive_definite(manifold: Manifold, scale: float) -> None:
    x = some(manifold, 60)
    matrix = HeatKernel(manifold, scale)(x[:, None], x[None])
    torch.testing.assert_close(matrix, matrix.mT)
    assert float(torch.linalg.eigvalsh(matrix)[0]) > -1e-12 * float(matrix.diagonal().sum())
    assert bool((matrix > -1e-12 * matrix.max()).all())


@pytest.mark.parametrize("scale", [0.3, 1.0, 2.5])
def test_heat_kernel_is_a_density_on_the_sphere(scale: float) -> None:
    sphere = Sphere(2)
    nodes, weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(200))
    x = torch.stack([torch.sqrt(1 - nodes**2), torch.zeros(200), nodes], dim=-1)
    values = HeatKernel(sphere, scale)(torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64), x)
    assert float(2 * math.pi * (weights * values).sum()) == pytest.approx(2 * math.pi * scale**2, rel=1e-10)


def test_heat_kernel_on_rotations_is_the_isotropic_gaussian() -> None:
    rotations = SO3()
    x = some(rotations, 30)
    eye = torch.eye(3, dtype=torch.float64)
    for scale in (0.3, 0.8, 2.0):
        density = rfm.sources.IsotropicGaussianSO3(eye, scale).log_prob(x).exp()
        ours = HeatKernel(rotations, scale)(x, eye) / (scale * math.sqrt(2 * math.pi)) ** 3
        torch.testing.assert_close(ours, density, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("scale", [0.05, 0.5, 1.99, 2.01, 4.0])
def test_heat_kernel_on_the_circle_by_images_and_by_frequencies(scale: float) -> None:
    angle = torch.linspace(-math.pi, math.pi, 101, dtype=torch.float64)[:-1, None]
    values = HeatKernel(FlatTorus(1), scale)(angle, torch.zeros(1, dtype=torch.float64))
    images = sum(torch.exp(-((angle[:, 0] + 2 * math.pi * k) ** 2) / (2 * scale**2)) for k in range(-12, 13))
    torch.testing.assert_close(values, images, rtol=1e-12, atol=1e-14)


def test_gaussian_of_the_geodesic_distance_is_not_positive_definite() -> None:
    circle = Sphere(1)
    angle = torch.linspace(0, 2 * math.pi, 9, dtype=torch.float64)[:-1]
    x = torch.stack([torch.cos(angle), torch.sin(angle)], dim=-1)
    assert float(torch.linalg.eigvalsh(GeodesicGaussianKernel(circle, 2.0)(x[:, None], x[None]))[0]) < -1e-3
    assert float(torch.linalg.eigvalsh(AmbientGaussianKernel(circle, 2.0)(x[:, None], x[None]))[0]) > -1e-12


def test_heat_kernel_says_where_it_is_not_known() -> None:
    with pytest.raises(ValueError, match=r"SPD\(2\).*AmbientGaussianKernel.*register"):
        HeatKernel(SPD(2), 1.0)(torch.eye(2), torch.eye(2))


def test_discrepancy_is_the_double_sum() -> None:
    x, y = some(Sphere(2), 7), some(Sphere(2), 7, seed=1)
    k = HeatKernel(Sphere(2), 0.7)
    pairs = [(i, j) for i in range(7) for j in range(7) if i != j]
    terms = [float(k(x[i], x[j]) + k(y[i], y[j]) - k(x[i], y[j]) - k(x[j], y[i])) for i, j in pairs]
    left_out = [float(np.mean([t for t, p in zip(terms, pairs, strict=True) if i not in p])) for i in range(7)]
    estimate = maximum_mean_discrepancy(x, y, k)
    assert estimate.mean == pytest.approx(np.mean(terms), rel=1e-12)
    assert estimate.standard_error == pytest.approx(math.sqrt(6 / 7 * np.sum((left_out - np.mean(left_out)) ** 2)))


def test_discrepancy_of_equal_distributions_is_zero_within_its_error() -> None:
    sphere, generator = Sphere(2), torch.Generator().manual_seed(0)
    kernel = AmbientGaussianKernel(sphere, 0.5)
    draws = [maximum_mean_discrepancy(*sphere.random_uniform(2, 150, generator=generator), kernel) for _ in range(60)]
    means = torch.tensor([d.mean for d in draws])
    assert abs(float(means.mean())) < 4 * float(means.std()) / math.sqrt(60)
    assert np.mean([d.interval_95[0] <= 0 <= d.interval_95[1] for d in draws]) >= 0.9
    # Too large under equality, as the docstring says, and not by much.
    assert 1 < np.mean([d.standard_error for d in draws]) / float(means.std()) < 2


def test_discrepancy_tells_distributions_apart() -> None:
    sphere, generator = Sphere(2), torch.Generator().manual_seed(0)
    a = sphere.random_uniform(400, generator=generator)
    b = VonMisesFisher(sphere, torch.tensor([0.0, 0.0, 1.0]), 1.0).sample((400,), generator=generator)
    for kernel in (AmbientGaussianKernel(sphere, 0.5), HeatKernel(sphere, 0.5)):
        assert maximum_mean_discrepancy(a, b, kernel).interval_95[0] > 0


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in ZOO])
def test_distances_vanish_between_a_sample_and_itself(make: Callable[[], Manifold]) -> None:
    manifold = make()
    x = some(manifold, 24)
    assert wasserstein_distance(manifold, x, x.flip(0), blocks=1).mean < 1e-6
    assert coverage(manifold, x, x).mean == 1
    assert median_distance(manifold, x, x) >= 0


@pytest.mark.parametrize("order", [1, 2])
def test_wasserstein_distance_on_the_circle_is_known(order: int) -> None:
    # A rotation of equally spaced points by less than half their distance is optimal.
    torus = FlatTorus(1)
    x = torus.projx(torch.linspace(0, 2 * math.pi, 41, dtype=torch.float64)[:-1, None])
    estimate = wasserstein_distance(torus, x, torus.projx(x + 0.05), order, blocks=1)
    assert estimate.mean == pytest.approx(0.05)
    assert math.isnan(estimate.standard_error)


def test_wasserstein_blocks_give_an_error() -> None:
    plane, generator = Euclidean(2), torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 800, 2, generator=generator)
    estimate = wasserstein_distance(plane, x, y + 3.0, blocks=8)
    assert estimate.count == 8
    assert abs(estimate.mean - 3 * math.sqrt(2)) < 6 * estimate.standard_error + 0.1


def test_classifier_finds_what_differs_and_nothing_else() -> None:
    torus, generator = FlatTorus(2), torch.Generator().manual_seed(0)
    a, b = (Uniform(torus).sample((300,), generator=generator) for _ in range(2))
    same = classifier_two_sample(torus, a, b)
    other = classifier_two_sample(torus, a, torus.projx(0.5 * b))
    assert abs(same.mean - 0.5) < 4 * same.standard_error
    assert other.interval_95[0] > 0.7
    assert same.count == 600


def test_coverage_of_one_distribution_and_of_half_of_it() -> None:
    sphere, generator = Sphere(2), torch.Generator().manual_seed(0)
    real, fake = sphere.random_uniform(2, 500, generator=generator)
    whole = coverage(sphere, real, fake, neighbours=3)
    assert abs(whole.mean - (1 - 2**-3)) < 5 * whole.standard_error
    half = coverage(sphere, real, torch.cat([fake[:, :2], fake[:, 2:].abs()], dim=-1), neighbours=3)
    assert abs(half.mean - 0.5) < 0.1


def test_chunks_do_not_change_results() -> None:
    sphere = Sphere(2)
    x, y = some(sphere, 50), some(sphere, 50, seed=1)
    kernel = AmbientGaussianKernel(sphere, 0.5)

    def estimates(**options: int) -> list[Estimate]:
        return [
            maximum_mean_discrepancy(x, y, kernel, **options),
            wasserstein_distance(sphere, x, y, **options),
            coverage(sphere, x, y, **options),
        ]

    for a, b in zip(estimates(), estimates(chunk_pairs=120), strict=True):
        assert a.mean == pytest.approx(b.mean, rel=1e-10)
        assert a.standard_error == pytest.approx(b.standard_error, rel=1e-8)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda s, x: maximum_mean_discrepancy(x, x[:5], AmbientGaussianKernel(s, 1.0)), "one size, got 30 and 5"),
        (lambda s, x: maximum_mean_discrepancy(x[:2], x[:2], AmbientGaussianKernel(s, 1.0)), "at least 4"),
        (lambda s, x: wasserstein_distance(s, x, x, 3), "order must be 1 or 2"),
        (lambda s, x: wasserstein_distance(s, x, x, blocks=0), "blocks"),
        (lambda s, x: wasserstein_distance(s, x, 2 * x), "second sample holds no points"),
        (lambda s, x: classifier_two_sample(s, x[:5], x[:5]), "at least 20"),
        (lambda s, x: coverage(s, x, x, neighbours=30), "more than 30"),
        (lambda s, x: coverage(s, x[None], x), "shape"),
        (lambda s, x: AmbientGaussianKernel(s, 0.0), "scale must be positive"),
        (lambda s, x: HeatKernel(s, math.nan), "scale must be positive"),
    ],
)
def test_bad_input_is_named(call: Callable[[Manifold, torch.Tensor], object], words: str) -> None:
    sphere = Sphere(2)
    with pytest.raises(ValueError, match=words):
        call(sphere, some(sphere, 30))


def test_points_of_a_power_of_motions() -> None:
    motions = Power(SE3(), 2)
    x = some(motions, 40)
    assert maximum_mean_discrepancy(x[:20], x[20:], AmbientGaussianKernel(motions, 2.0)).count == 20


def test_repeats_at_a_place_are_counted_once() -> None:
    """Ten repeats of each point say no more than one: neither do the trees know a place that is held out."""
    generator = torch.Generator().manual_seed(0)
    sphere = Sphere(2)
    x, y = sphere.random_uniform(2, 40, generator=generator, dtype=torch.float64)
    thrice = coverage(sphere, x.repeat_interleave(10, 0), y, neighbours=12)
    assert thrice.count == 40
    assert thrice.standard_error > 0.03
    x, y = (part.repeat_interleave(10, 0) for part in (x, y))
    accuracy = classifier_two_sample(sphere, x, y)
    assert accuracy.count == 80
    assert accuracy.interval_95[0] < 0.5 < accuracy.mean + 4 * accuracy.standard_error
