"""Premetric paths: what holds for every premetric, and spectral distances against eigenfunctions of their own."""

import math

import numpy as np
import pytest
import torch
from mesh_shapes import bumpy, icosphere
from torch import Tensor

from manifolds import Euclidean, FlatTorus, Hyperboloid, Manifold, Sphere
from rfm.integrators import EULER, FixedStep
from rfm.paths import (
    GeodesicDistance,
    GeodesicPath,
    Premetric,
    PremetricPath,
    SpectralDistance,
)
from rfm.paths.schedules import ExponentialKappa

SPECTRAL = [
    *(Sphere(1), Sphere(2), Sphere(3), FlatTorus(1), FlatTorus(2)),
    bumpy(1, 0.2),
]


def _pairs(manifold: Manifold, n: int = 12, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = manifold.random_uniform(2 * n, generator=generator, dtype=torch.float64)
    return x[:n], x[n:], torch.rand(n, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("manifold", [Sphere(2), FlatTorus(3), Sphere(1)], ids=repr)
def test_with_the_geodesic_distance_it_is_the_geodesic_path(manifold: Manifold) -> None:
    x_0, x_1, t = _pairs(manifold)
    expected = GeodesicPath(manifold).sample(x_0, x_1, t)
    for premetric in (GeodesicDistance(manifold), manifold.dist):
        found = PremetricPath(manifold, premetric).sample(x_0, x_1, t)
        assert manifold.dist(found.x_t, expected.x_t).max() < 1e-12
        torch.testing.assert_close(found.dx_t, expected.dx_t, rtol=0, atol=1e-9)


def test_a_kappa_changes_the_speed_alone() -> None:
    manifold, kappa = Hyperboloid(2), ExponentialKappa(3.0)
    generator = torch.Generator().manual_seed(0)
    x = manifold.projx(torch.randn(8, 3, generator=generator, dtype=torch.float64))
    y = manifold.projx(torch.randn(8, 3, generator=generator, dtype=torch.float64))
    t = torch.rand(8, generator=generator, dtype=torch.float64)
    steps = FixedStep(steps=60)
    found = PremetricPath(manifold, GeodesicDistance(manifold), kappa, steps).sample(x, y, t)
    expected = GeodesicPath(manifold, kappa).sample(x, y, t)
    torch.testing.assert_close(found.x_t, expected.x_t, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.dx_t, expected.dx_t, rtol=1e-4, atol=1e-5)


def test_a_function_of_the_ambient_space_is_a_premetric() -> None:
    """On the sphere chords are a premetric whose path runs along great circles too, at another speed."""
    manifold = Sphere(2)
    x_0, x_1, t = _pairs(manifold)

    def chord(x: Tensor, y: Tensor) -> Tensor:
        return (x - y).norm(dim=-1)

    found = PremetricPath(manifold, chord).sample(x_0, x_1, t)
    torch.testing.assert_close(chord(found.x_t, x_1), (1 - t) * chord(x_0, x_1), rtol=0, atol=1e-10)
    detour = manifold.dist(x_0, found.x_t) + manifold.dist(found.x_t, x_1) - manifold.dist(x_0, x_1)
    assert detour.max() < 1e-9


@pytest.mark.parametrize("kind", ["biharmonic", "diffusion"])
@pytest.mark.parametrize("manifold", SPECTRAL, ids=repr)
def test_the_premetric_decreases_as_kappa_with_the_right_velocity(manifold: Manifold, kind: str) -> None:
    x_0, x_1, t = _pairs(manifold)
    t = 0.1 + 0.8 * t
    distance = SpectralDistance(manifold, kind, 12, time=0.3)  # type: ignore[arg-type]
    path = PremetricPath(manifold, distance, method=FixedStep(steps=20))
    sample = path.sample(x_0, x_1, t)
    start = distance(x_0, x_1)
    off = (distance(sample.x_t, x_1) - (1 - t) * start).abs() / start
    # On a polyhedron, and where eigenfunctions are few, a path may come to rest at another minimum.
    assert off.quantile(0.7) < 1e-6
    squared, slope = distance.squared(sample.x_t, distance.anchor(x_1))
    rate = manifold.inner(sample.x_t, slope, sample.dx_t) / (2 * squared.sqrt())
    right = off < 1e-6
    torch.testing.assert_close(rate[right], -start[right], rtol=1e-4, atol=1e-9)
    manifold.check_tangent(sample.x_t, sample.dx_t, tol=1e-6)


@pytest.mark.parametrize("manifold", SPECTRAL, ids=repr)
def test_paths_start_and_end_where_they_should(manifold: Manifold) -> None:
    x_0, x_1, _ = _pairs(manifold)
    path = PremetricPath(manifold, SpectralDistance(manifold, "biharmonic", 12))
    start = path.sample(x_0, x_1, torch.zeros(12, dtype=torch.float64))
    torch.testing.assert_close(start.x_t, x_0, rtol=0, atol=1e-4 * float(path.manifold.dist(x_0, x_1).max()))
    end = path.sample(x_0, x_1, torch.ones(12, dtype=torch.float64))
    assert torch.equal(end.x_t, x_1)
    assert bool(end.dx_t.isfinite().all())


@pytest.mark.parametrize("manifold", SPECTRAL, ids=repr)
def test_gradients_of_spectral_distances_are_those_of_differences(manifold: Manifold) -> None:
    x, y, _ = _pairs(manifold, seed=1)
    distance = SpectralDistance(manifold, "commute time", 8)
    u = manifold.proju(x, torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64))
    anchor, h = distance.anchor(y), 1e-6
    slope = distance.squared(x, anchor)[1]
    ahead, behind = (distance.squared(manifold.expmap(x, s * h * u), anchor)[0] for s in (1, -1))
    torch.testing.assert_close(manifold.inner(x, slope, u), (ahead - behind) / (2 * h), rtol=1e-5, atol=1e-7)


def test_spheres_agree_with_spherical_harmonics() -> None:
    from scipy.special import sph_harm_y

    x, y, _ = _pairs(Sphere(2))

    def harmonics(z: Tensor) -> np.ndarray:  # type: ignore[type-arg]
        polar, azimuth = np.arccos(z[:, 2].numpy()), np.arctan2(z[:, 1].numpy(), z[:, 0].numpy())
        return np.stack([sph_harm_y(degree, m, polar, azimuth) for degree, m in orders])

    orders = [(degree, m) for degree in range(1, 6) for m in range(-degree, degree + 1)]
    weights = np.array([1 / (degree * (degree + 1)) ** 2 for degree, _ in orders])
    expected = weights @ np.abs(harmonics(x) - harmonics(y)) ** 2
    # 30 would cut through the fifth degree, which is taken as one.
    found = SpectralDistance(Sphere(2), "biharmonic", 30)(x, y) ** 2
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10)


def test_tori_agree_with_sines_and_cosines() -> None:
    x, y, _ = _pairs(FlatTorus(2))
    waves = [(a, b) for a in range(-3, 4) for b in range(-3, 4) if 0 < a * a + b * b <= 4]
    expected = sum(
        math.exp(-0.4 * (a * a + b * b)) * 2 * (1 - torch.cos((x - y) @ torch.tensor([a, b]).double()))
        for a, b in waves
    )
    found = SpectralDistance(FlatTorus(2), "diffusion", len(waves), time=0.2)(x, y) ** 2
    torch.testing.assert_close(found, expected / (2 * math.pi) ** 2, rtol=1e-10, atol=1e-12)


def test_a_fine_polyhedron_is_near_its_sphere() -> None:
    mesh, sphere = icosphere(3), Sphere(2)
    x, y, _ = _pairs(mesh)
    found = SpectralDistance(mesh, "biharmonic", 48)(x, y)
    expected = SpectralDistance(sphere, "biharmonic", 48)(sphere.projx(x), sphere.projx(y))
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0)


def test_dtypes_and_batches_are_kept() -> None:
    path = PremetricPath(Sphere(2), SpectralDistance(Sphere(2), "biharmonic", 8), method=FixedStep(EULER, steps=5))
    x = Sphere(2).random_uniform(2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    sample = path.sample(x, x.flip(0), torch.full((2, 3), 0.5))
    assert sample.x_t.shape == sample.dx_t.shape == (2, 3, 3)
    assert sample.x_t.dtype == torch.float32
    assert sample.t.shape == (2, 3)


def test_what_has_no_spectrum_or_no_such_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="eigenfunctions of Euclidean"):
        SpectralDistance(Euclidean(2))
    with pytest.raises(ValueError, match="kind must be"):
        SpectralDistance(Sphere(2), "heat")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="k must be"):
        SpectralDistance(Sphere(2), k=0)
    with pytest.raises(ValueError, match="premetric"):
        PremetricPath(Sphere(2), 3)  # type: ignore[arg-type]
    assert issubclass(SpectralDistance, Premetric)
