"""Every source: its density integrates to one and is that of its samples, at every width; what it refuses."""

import copy
import math
import pickle
from collections.abc import Callable
from pathlib import Path

import mpmath as mp
import numpy as np
import pytest
import torch
from random_fields import points
from scipy import stats
from torch import Tensor

import rfm
from manifolds import (
    SE3,
    SO3,
    SPD,
    CentredPoses,
    Euclidean,
    FlatTorus,
    Hyperboloid,
    LogEuclideanSPD,
    Manifold,
    PoincareBall,
    Power,
    Product,
    Sphere,
)
from rfm.networks import VelocityField
from rfm.sources import (
    CentredPoseSource,
    IsotropicGaussianSO3,
    KernelMixture,
    PowerSource,
    ProductSource,
    RigidMotionSource,
    Source,
    Uniform,
    VonMisesFisher,
    WrappedNormal,
    default_source,
    wrapped_log_density,
)
from rfm.sources.isotropic_gaussian_so3 import _log_sum_of_characters, _log_sum_over_images, log_heat_kernel

F64 = torch.float64


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def a_point(manifold: Manifold, seed: int = 1) -> Tensor:
    return manifold.random_uniform(generator=generator(seed), dtype=F64)


def on_torus(n: int, scale: float) -> WrappedNormal:
    return WrappedNormal(FlatTorus(n), a_point(FlatTorus(n)), scale)


def on_sphere(n: int, concentration: float) -> VonMisesFisher:
    return VonMisesFisher(Sphere(n), a_point(Sphere(n)), concentration)


def on_rotations(scale: float) -> IsotropicGaussianSO3:
    return IsotropicGaussianSO3(a_point(SO3()), scale)


def on_poses(length: float = 2.0) -> RigidMotionSource:
    return RigidMotionSource(SE3(length), on_rotations(0.6), 3.0, torch.tensor([1.0, -2.0, 0.5]))


def on_weighted_product() -> ProductSource:
    manifold = Product(Sphere(2), FlatTorus(1), SO3(), weights=(4.0, 0.5, 0.25))
    return ProductSource(manifold, [on_sphere(2, 1.5), on_torus(1, 0.9), on_rotations(1.2)])


def on_open_product() -> ProductSource:
    manifold = Product(Euclidean(2), Sphere(1), weights=(0.25, 9.0))
    return ProductSource(manifold, [WrappedNormal(Euclidean(2), torch.tensor([1.0, -1.0]), 0.5), Uniform(Sphere(1))])


def kernels(manifold: Manifold, width: float = 0.4, background: Source | None = None) -> KernelMixture:
    """Return a mixture of two widths about four points, one of them of weight zero."""
    centres = points(manifold, 4, seed=8)
    shares, weights = torch.tensor([0.5, 0.2, 0.0, 0.3]), torch.tensor([0.5, 0.3, 0.2])
    k = torch.tensor([1.0, 4.0]) / width**2
    return KernelMixture(manifold, centres, k, weights, background or default_source(manifold, centres), shares)


COMPACT: list[Callable[[], Source]] = [
    lambda: Uniform(Sphere(2)),
    lambda: on_torus(2, 0.8),
    lambda: on_torus(2, 2.5),
    lambda: on_sphere(1, 2.0),
    lambda: on_sphere(2, 3.0),
    lambda: on_sphere(2, 0.0),
    lambda: on_sphere(4, 2.0),
    lambda: on_rotations(0.7),
    lambda: on_rotations(1.5),
    lambda: on_weighted_product(),
    lambda: PowerSource(Power(Sphere(2), 3), on_sphere(2, 1.0)),
    lambda: kernels(Sphere(2)),
    lambda: kernels(Sphere(4), 0.6),
    lambda: kernels(FlatTorus(2)),
    lambda: kernels(SO3(), 1.0),
    lambda: kernels(Product(Sphere(1), SO3(), weights=(0.25, 2.0)), 1.2),
    lambda: kernels(Power(Sphere(2), 2), 0.7),
]
EUCLIDEAN_POINT = torch.tensor([0.5, -1.0, 2.0], dtype=F64)
OPEN: list[Callable[[], Source]] = [
    lambda: WrappedNormal(Euclidean(3), EUCLIDEAN_POINT, 0.5),
    lambda: WrappedNormal(Hyperboloid(2), Hyperboloid(2).projx(torch.ones(3, dtype=F64)), 0.5),
    lambda: WrappedNormal(PoincareBall(2), torch.tensor([0.1, 0.5], dtype=F64), 0.5),
    lambda: WrappedNormal(SPD(2), torch.eye(2, dtype=F64), 0.5),
    lambda: on_poses(),
    lambda: on_open_product(),
    lambda: PowerSource(Power(SE3(2.0), 2), on_poses()),
    lambda: kernels(Euclidean(3)),
    lambda: kernels(LogEuclideanSPD(2), background=WrappedNormal(LogEuclideanSPD(2), torch.eye(2), 1.0)),
    lambda: kernels(SE3(2.0), background=on_poses()),
]


def name_of(make: Callable[[], Source]) -> str:
    source = make()
    return f"{type(source).__name__}-{source.manifold}"


# Normalisation.


@pytest.mark.parametrize("make", COMPACT, ids=name_of)
def test_density_integrates_to_one_over_uniform_points(make: Callable[[], Source]) -> None:
    source = make()
    x = source.manifold.random_uniform(40_000, generator=generator(), dtype=F64)
    ratio = source.log_prob(x).exp() * source.manifold.volume
    error = float(ratio.std()) / math.sqrt(len(ratio))
    assert abs(float(ratio.mean()) - 1) < 4 * error + 1e-12
    assert error < 0.03


def legendre(upper: float, count: int = 400) -> tuple[Tensor, Tensor]:
    nodes, weights = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(count))
    return upper * (1 + nodes) / 2, upper / 2 * weights


@pytest.mark.parametrize("concentration", [0.0, 1e-12, 0.1, 1.0, 40.0, 1e4, 1e8])
@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_von_mises_fisher_integrates_to_one(n: int, concentration: float) -> None:
    source = on_sphere(n, concentration)
    manifold = source.manifold
    angle, weight = legendre(math.pi if concentration == 0 else min(math.pi, 10 * math.sqrt(n / concentration)))
    u = manifold.tangent_basis(source.mean)[0]
    ring = 2 * math.pi ** (n / 2) / math.gamma(n / 2) * torch.sin(angle) ** (n - 1)
    p = source.log_prob(manifold.expmap(source.mean, angle[:, None] * u)).exp()
    assert float((weight * ring * p).sum()) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("scale", [1e-3, 0.03, 0.4, 1.0, 1.499, 1.5, 3.0, 10.0])
def test_isotropic_gaussian_integrates_to_one(scale: float) -> None:
    source = on_rotations(scale)
    angle, weight = legendre(min(math.pi, 10 * scale))
    u = source.manifold.tangent_basis(source.mean)[1]
    p = source.log_prob(source.manifold.expmap(source.mean, angle[:, None, None] * u)).exp()
    assert float((weight * 16 * math.pi * torch.sin(angle / 2) ** 2 * p).sum()) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("scale", [1e-3, 0.05, 0.7, 1.999, 2.0, 4.0, 10.0])
def test_normal_on_the_circle_integrates_to_one(scale: float) -> None:
    source = on_torus(1, scale)
    angle, weight = legendre(min(math.pi, 12 * scale))
    both = torch.cat([angle, -angle])[:, None]
    p = source.log_prob(source.manifold.expmap(source.mean, both)).exp()
    assert float((torch.cat([weight, weight]) * p).sum()) == pytest.approx(1, abs=1e-10)


def test_density_of_poses_is_with_respect_to_rotations_and_positions_in_units_of_length() -> None:
    source, length = on_poses(2.0), 2.0
    rotation = SO3().random_uniform(200_000, generator=generator(), dtype=F64)
    position = 5 * torch.randn(200_000, 3, generator=generator(1), dtype=F64)
    x = torch.eye(4, dtype=F64).repeat(len(rotation), 1, 1)
    x[:, :3, :3], x[:, :3, 3] = rotation, position
    proposal = -(position**2).sum(-1) / 50 - 3 * math.log(5 * math.sqrt(2 * math.pi)) - math.log(8 * math.pi**2)
    # The volume is dR dp / length^3, so that the proposal's density in it is length^3 larger.
    ratio = (source.log_prob(x) - proposal - 3 * math.log(length)).exp()
    assert float(ratio.mean()) == pytest.approx(1, abs=4 * float(ratio.std()) / math.sqrt(len(ratio)))
    assert float(ratio.std()) / math.sqrt(len(ratio)) < 0.02


def test_density_of_a_weighted_product_is_with_respect_to_its_own_volume() -> None:
    source = on_open_product()
    a = 2 * torch.randn(100_000, 2, generator=generator(), dtype=F64)
    b = Sphere(1).random_uniform(100_000, generator=generator(1), dtype=F64)
    proposal = -(a**2).sum(-1) / 8 - math.log(8 * math.pi) - math.log(2 * math.pi)
    # Weight w multiplies the volume by w^(d/2): here 0.25 for the plane and 3 for the circle.
    ratio = (source.log_prob(source.manifold.join(a, b)) - proposal + math.log(0.25 * 3)).exp()
    assert float(ratio.mean()) == pytest.approx(1, abs=4 * float(ratio.std()) / math.sqrt(len(ratio)))


@pytest.mark.parametrize("make", OPEN[1:3], ids=name_of)
def test_wrapped_normal_on_the_hyperbolic_plane_integrates_to_one(make: Callable[[], Source]) -> None:
    source = make()
    manifold = source.manifold
    origin = manifold.projx(torch.zeros(manifold.event_shape, dtype=F64))
    # Polar coordinates about the origin, which is not the mean: the area is sinh(r) dr dtheta.
    r, weight = legendre(8.0, 300)
    theta = torch.linspace(-math.pi, math.pi, 401, dtype=F64)[:-1, None, None]
    e, f = manifold.tangent_basis(origin)
    x = manifold.expmap(origin, r[:, None] * (torch.cos(theta) * e + torch.sin(theta) * f))
    p = source.log_prob(x).exp()
    assert float((p * weight * torch.sinh(r)).sum() * 2 * math.pi / 400) == pytest.approx(1, abs=1e-6)


def test_wrapped_normal_on_positive_definite_matrices_integrates_to_one() -> None:
    source = WrappedNormal(SPD(2), torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=F64), 0.5)
    # x = R' diag(e^a, e^b) R: its coordinates x_11, x_22, x_12 have volume sqrt(2) det(x)^(-3/2) dx_11 dx_22 dx_12.
    normal = torch.randn(20_000, 3, generator=generator(), dtype=F64)
    a, b, c = normal.unbind(-1)
    root = torch.zeros(len(normal), 2, 2, dtype=F64)
    root[:, 0, 0], root[:, 1, 1], root[:, 1, 0] = torch.exp(0.6 * a + 0.3), torch.exp(0.6 * b), 0.9 * c + 0.3
    x = root @ root.mT
    # dx = 4 l_11^2 l_22 dl for the Cholesky factor l, and dl_11 = 0.6 l_11 da.
    l_11, l_22 = root[:, 0, 0], root[:, 1, 1]
    log_volume = torch.log(math.sqrt(2) * 4 * l_11**3 * l_22**2 * 0.6**2 * 0.9) - 3 * torch.log(l_11 * l_22)
    log_proposal = -(normal**2).sum(-1) / 2 - 1.5 * math.log(2 * math.pi)
    ratio = (source.log_prob(x) + log_volume - log_proposal).exp()
    error = float(ratio.std()) / math.sqrt(len(ratio))
    assert float(ratio.mean()) == pytest.approx(1, abs=4 * error)
    assert error < 0.03


# Samples.


@pytest.mark.parametrize("make", COMPACT, ids=name_of)
def test_samples_have_the_moments_of_the_density(make: Callable[[], Source]) -> None:
    source = make()
    manifold = source.manifold
    x = source.sample((40_000,), generator(2), dtype=F64)
    y = manifold.random_uniform(40_000, generator=generator(3), dtype=F64)
    weight = source.log_prob(y).exp() * manifold.volume
    h_x = torch.cat([manifold.embed(x), manifold.embed(x) ** 2], dim=-1)
    h_y = torch.cat([manifold.embed(y), manifold.embed(y) ** 2], dim=-1) * weight[:, None]
    error = torch.sqrt(h_x.var(0) / len(x) + h_y.var(0) / len(y))
    assert bool(((h_x.mean(0) - h_y.mean(0)).abs() < 4.5 * error + 1e-9).all())


@pytest.mark.parametrize("make", OPEN[:4], ids=name_of)
def test_distances_of_a_wrapped_normal_are_chi(make: Callable[[], Source]) -> None:
    source = make()
    assert isinstance(source, WrappedNormal)
    x = source.sample((4000,), generator(2), dtype=F64)
    source.manifold.check_point(x)
    distance = source.manifold.dist(source.mean, x) / source.scale
    assert stats.kstest(distance.numpy(), stats.chi(source.manifold.dim).cdf).pvalue > 1e-3


def distribution(density: Callable[[Tensor], Tensor], upper: float) -> Callable[[np.ndarray], np.ndarray]:
    """The distribution function of an unnormalised density on [0, upper], by quadrature on a fine grid."""
    nodes, weights = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(6))
    edges = upper * torch.linspace(0, 1, 5001, dtype=F64) ** 2
    width = edges.diff()[:, None]
    inside = edges[:-1, None] + width * (1 + nodes) / 2
    cdf = torch.cat([torch.zeros(1, dtype=F64), (width / 2 * weights * density(inside)).sum(-1).cumsum(0)])
    return lambda s: np.interp(s, edges.numpy(), (cdf / cdf[-1]).numpy())


@pytest.mark.parametrize("concentration", [0.0, 1e-9, 0.5, 20.0, 1e8])
@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_von_mises_fisher_samples(n: int, concentration: float) -> None:
    source = on_sphere(n, concentration)
    x = source.sample((20_000,), generator(4), dtype=F64)
    source.manifold.check_point(x)
    angle = source.manifold.dist(source.mean, x)
    upper = math.pi if concentration == 0 else min(math.pi, 12 * math.sqrt(n / concentration))
    cdf = distribution(lambda a: torch.exp(-2 * concentration * torch.sin(a / 2) ** 2) * torch.sin(a) ** (n - 1), upper)
    assert stats.kstest(angle.numpy(), cdf).pvalue > 1e-3
    # The direction is uniform: its components along the tangent basis have mean 0 and the same variance 1 / n.
    u = source.manifold.logmap(source.mean, x) / angle[:, None]
    components = u @ source.manifold.tangent_basis(source.mean).mT
    assert float(components.mean(0).abs().max()) < 4.5 / math.sqrt(len(x) * n)
    covariance = components.mT @ components / len(x)
    assert float((covariance - torch.eye(n, dtype=F64) / n).abs().max()) < 4.5 / math.sqrt(len(x) * n)


@pytest.mark.parametrize("scale", [1e-3, 0.2, 1.0, 1.499, 1.5, 5.0])
def test_isotropic_gaussian_samples(scale: float) -> None:
    source = on_rotations(scale)
    x = source.sample((20_000,), generator(5), dtype=F64)
    source.manifold.check_point(x)
    angle = source.manifold.dist(source.mean, x)
    cdf = distribution(
        lambda a: torch.sin(a / 2) ** 2 * torch.exp(log_heat_kernel(a, scale)) * scale**3, min(math.pi, 10 * scale)
    )
    assert stats.kstest(angle.numpy(), cdf).pvalue > 1e-3
    u = source.manifold.logmap(source.mean, x) / angle[:, None, None]
    components = torch.einsum("nij,kij->nk", u, source.manifold.tangent_basis(source.mean)) / 2
    for k in range(3):
        # Archimedes: a coordinate of a uniform direction in space is uniform.
        assert stats.kstest(components[:, k].numpy(), stats.uniform(-1, 2).cdf).pvalue > 1e-3


def test_quantiles_of_the_angle_are_inverted_to_high_accuracy() -> None:
    for scale in (1e-4, 0.3, 1.2, 2.0):
        source = on_rotations(scale)
        u = torch.tensor([0.0, 1e-6, 1e-3, 0.1, 0.5, 0.9, 0.999], dtype=F64)
        angle = source._angle_of_quantile(u)
        for quantile, value in zip(u.tolist(), angle.tolist(), strict=True):
            nodes, weight = legendre(value, 200)
            density = 16 * math.pi * torch.sin(nodes / 2) ** 2 * torch.exp(log_heat_kernel(nodes, scale))
            assert float((weight * density).sum()) == pytest.approx(quantile, abs=1e-10)
        assert float(source._angle_of_quantile(torch.tensor([1.0], dtype=F64))) <= math.pi


@pytest.mark.parametrize("scale", [0.3, 1.9, 3.0])
def test_samples_on_the_circle(scale: float) -> None:
    source = on_torus(1, scale)
    u = source.manifold.logmap(source.mean, source.sample((20_000,), generator(6), dtype=F64))[:, 0]
    cdf = distribution(lambda a: source.log_prob((source.mean + a - math.pi)[..., None]).exp(), 2 * math.pi)
    assert stats.kstest(u.numpy() + math.pi, cdf).pvalue > 1e-3


def test_poses_have_independent_rotations_and_translations() -> None:
    source = on_poses()
    x = source.sample((20_000,), generator(7), dtype=F64)
    position = (x[:, :3, 3] - torch.tensor([1.0, -2.0, 0.5])) / 3
    assert stats.kstest(position[:, 1].numpy(), stats.norm.cdf).pvalue > 1e-3
    angle = SO3().dist(source.rotation.mean, x[:, :3, :3])
    assert abs(float(torch.corrcoef(torch.stack([angle, position.square().sum(-1)]))[0, 1])) < 0.03


# Limits.


@pytest.mark.parametrize("n", [1, 2, 5])
def test_concentration_zero_is_uniform(n: int) -> None:
    x = Sphere(n).random_uniform(9, generator=generator(), dtype=F64)
    expected = Uniform(Sphere(n)).log_prob(x)
    torch.testing.assert_close(on_sphere(n, 0.0).log_prob(x), expected)
    torch.testing.assert_close(on_sphere(n, 1e-13).log_prob(x), expected)


def test_large_scales_are_uniform() -> None:
    x = SO3().random_uniform(9, generator=generator(), dtype=F64)
    torch.testing.assert_close(on_rotations(10.0).log_prob(x), Uniform(SO3()).log_prob(x))
    y = FlatTorus(2).random_uniform(9, generator=generator(), dtype=F64)
    torch.testing.assert_close(on_torus(2, 10.0).log_prob(y), Uniform(FlatTorus(2)).log_prob(y))


@pytest.mark.parametrize(
    "source",
    [on_torus(3, 1e-3), on_sphere(3, 1e6), on_rotations(1e-3)],
    ids=["torus", "sphere", "rotations"],
)
def test_small_scales_are_normal_in_the_tangent_space(source: WrappedNormal) -> None:
    manifold = source.manifold
    z = torch.randn(50, 3, generator=generator(), dtype=F64)
    x = manifold.expmap(source.mean, torch.tensordot(1e-3 * z, manifold.tangent_basis(source.mean), dims=1))
    normal = -(z**2).sum(-1) / 2 - 3 * math.log(1e-3 * math.sqrt(2 * math.pi))
    torch.testing.assert_close(source.log_prob(x), normal, atol=3e-5, rtol=0)


# Accuracy, against 50 digits.


def assert_close_to_truth(value: Tensor, truth: mp.mpf, units: float) -> None:
    # An angle stored in float64 determines a log-density only to rounding relative to its size.
    assert abs(mp.mpf(float(value)) - truth) <= units * 2.2e-16 * max(1, abs(truth)), (float(value), truth)


@pytest.mark.parametrize("scale", [1e-3, 0.1, 1.0, 1.9999, 2.0, 3.0, 10.0])
def test_wrapped_normal_on_the_circle_is_exact(scale: float) -> None:
    source = WrappedNormal(FlatTorus(1), torch.zeros(1, dtype=F64), scale)
    with mp.workdps(50):
        for angle in (0.0, 1e-5, 0.3, 1.5, 3.0, math.pi - 1e-7, -math.pi):
            images = [mp.exp(-(((angle + 2 * mp.pi * k) / scale) ** 2) / 2) for k in range(-40, 41)]
            truth = mp.log(mp.fsum(images) / (scale * mp.sqrt(2 * mp.pi)))
            assert_close_to_truth(source.log_prob(torch.tensor([angle], dtype=F64)), truth, 8)


@pytest.mark.parametrize("concentration", [1e-8, 0.3, 5.0, 300.0, 1e4, 1e8])
@pytest.mark.parametrize("n", [1, 2, 3, 6, 200])
def test_von_mises_fisher_is_exact(n: int, concentration: float) -> None:
    mean = torch.eye(n + 1, dtype=F64)[0]
    source = VonMisesFisher(Sphere(n), mean, concentration)
    with mp.workdps(50):
        k, order = mp.mpf(concentration), mp.mpf(n - 1) / 2
        # By definition of the Bessel function, Mardia and Jupp (2000), equation 9.3.4.
        log_normaliser = mp.log((2 * mp.pi) ** (order + 1) * mp.besseli(order, k) / k**order)
        for angle in (0.0, 1e-5, 1e-3, 0.5, 2.0, 3.1):
            x = torch.zeros(n + 1, dtype=F64)
            x[0], x[1] = math.cos(angle), math.sin(angle)
            s = ((mp.mpf(float(x[0])) - 1) ** 2 + mp.mpf(float(x[1])) ** 2) / 2
            assert_close_to_truth(source.log_prob(x), k * (1 - s) - log_normaliser, 20)


def heat_kernel(angle: float, scale: float) -> mp.mpf:
    """The series of characters, in enough digits to survive its cancellation."""
    digits = int(40 + 13 / scale**2)
    with mp.workdps(digits):
        a, s = mp.mpf(angle), mp.mpf(scale)
        total = character = mp.mpf(1)
        previous, wave = mp.mpf(2), 2 * mp.cos(a)
        for degree in range(1, int(math.sqrt(5 * digits) / scale) + 5):
            character += wave
            total += (2 * degree + 1) * mp.exp(-degree * (degree + 1) * s**2 / 2) * character
            previous, wave = wave, 2 * mp.cos(a) * wave - previous
        return mp.log(total / (8 * mp.pi**2))


@pytest.mark.parametrize("scale", [0.2, 0.4, 1.0, 1.4999, 1.5, 3.0, 10.0])
def test_heat_kernel_is_exact(scale: float) -> None:
    for angle in (0.0, 1e-8, 0.5, 2.0, math.pi):
        assert_close_to_truth(log_heat_kernel(torch.tensor(angle, dtype=F64), scale), heat_kernel(angle, scale), 8)


def test_heat_kernel_is_the_literatures() -> None:
    """Leach et al. (2022), equation 5: epsilon = scale / sqrt(2), density with respect to the angle."""
    angle, epsilon = torch.linspace(0.1, 3.1, 7, dtype=F64), 0.6
    degree = torch.arange(40, dtype=F64)[:, None]
    terms = (2 * degree + 1) * torch.exp(-degree * (degree + 1) * epsilon**2) * torch.sin((degree + 0.5) * angle)
    literature = (1 - torch.cos(angle)) / math.pi * terms.sum(0) / torch.sin(angle / 2)
    ours = log_heat_kernel(angle, math.sqrt(2) * epsilon).exp() * 8 * math.pi**2 * (1 - torch.cos(angle)) / math.pi
    torch.testing.assert_close(ours, literature, rtol=1e-12, atol=0)


def test_heat_kernel_is_positive_where_the_series_of_characters_is_not() -> None:
    angle = torch.linspace(0.02, math.pi, 500, dtype=F64)
    degree = torch.arange(2000, dtype=F64)[:, None]
    for scale in (0.05, 0.2, 0.35):
        terms = (2 * degree + 1) * torch.exp(-degree * (degree + 1) * scale**2 / 2) * torch.sin((degree + 0.5) * angle)
        series = terms.sum(0) / torch.sin(angle / 2)
        assert float(series.min()) < 0
        log_density = log_heat_kernel(angle, scale)
        assert bool(log_density.isfinite().all())
        assert bool((log_density.diff() < 0).all()), "the heat kernel decreases with the angle"


def test_both_series_agree_around_the_switch() -> None:
    angle = torch.linspace(0, math.pi, 50, dtype=F64)
    for scale in (1.3, 1.5, 1.7):
        torch.testing.assert_close(
            _log_sum_of_characters(angle, scale), _log_sum_over_images(angle, scale), rtol=0, atol=1e-14
        )


@pytest.mark.parametrize("make", [*COMPACT, *OPEN], ids=name_of)
def test_gradient_of_log_prob(make: Callable[[], Source]) -> None:
    source = make()
    manifold = source.manifold
    x = source.sample((4,), generator(8), dtype=F64)
    u = manifold.proju(x, torch.randn(x.shape, generator=generator(9), dtype=F64))
    x.requires_grad_()
    with torch.enable_grad():
        value = source.log_prob(x)
    if not value.requires_grad:
        return
    (gradient,) = torch.autograd.grad(value.sum(), x)
    h = 1e-5
    step = source.log_prob(manifold.expmap(x, h * u)) - source.log_prob(manifold.expmap(x, -h * u))
    along = (gradient * u).flatten(1).sum(-1)
    torch.testing.assert_close(along, (step / (2 * h)).detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "source", [on_torus(2, 0.01), on_sphere(2, 1e4), on_rotations(0.1)], ids=["torus", "sphere", "rotations"]
)
def test_gradient_is_finite_at_the_mean_and_opposite_to_it(source: WrappedNormal) -> None:
    manifold = source.manifold
    direction = manifold.tangent_basis(source.mean)[0]
    for distance in (0.0, 1e-12, 1e-4, math.pi - 1e-9, math.pi):
        x = manifold.expmap(source.mean, distance * direction).requires_grad_()
        (gradient,) = torch.autograd.grad(source.log_prob(x), x)
        assert bool(gradient.isfinite().all())


# Randomness, dtypes, shapes.


@pytest.mark.parametrize("make", [*COMPACT, *OPEN], ids=name_of)
def test_generator_dtype_and_shapes(make: Callable[[], Source]) -> None:
    source = make()
    before = torch.get_rng_state()
    for dtype in (torch.float32, F64):
        for shape in ((), (3,), (2, 3), (0,)):
            x = source.sample(shape, generator(3), dtype=dtype)
            assert x.shape == (*shape, *source.manifold.event_shape)
            assert x.dtype == dtype
            assert source.log_prob(x).shape == shape
            assert source.log_prob(x).dtype == dtype
            source.manifold.check_point(x)
            torch.testing.assert_close(x, source.sample(shape, generator(3), dtype=dtype), rtol=0, atol=0)
    assert source.sample((2,), generator(3)).dtype == torch.get_default_dtype()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("make", [*COMPACT, *OPEN], ids=name_of)
def test_casting_a_source_keeps_its_accuracy(make: Callable[[], Source]) -> None:
    source = make()
    x = source.sample((5,), generator(), dtype=F64)
    cast = copy.deepcopy(source).to(torch.float32)
    torch.testing.assert_close(cast.log_prob(x), source.log_prob(x), rtol=0, atol=0)
    torch.testing.assert_close(pickle.loads(pickle.dumps(source)).log_prob(x), source.log_prob(x), rtol=0, atol=0)
    single = source.log_prob(x.float())
    torch.testing.assert_close(single.double(), source.log_prob(x.float().double()), rtol=1e-5, atol=2e-5)


# In flows.


def small_field(manifold: Manifold) -> VelocityField:
    return VelocityField(manifold, width=8, depth=1, features=4, max_frequency=2.0)


@pytest.mark.parametrize("make", [*COMPACT, *OPEN], ids=name_of)
def test_flow_keeps_its_source_when_saved(make: Callable[[], Source], tmp_path: Path) -> None:
    source = make()
    flow = rfm.Flow(source.manifold, small_field(source.manifold), source)
    flow.save(tmp_path)
    loaded = rfm.Flow.load(tmp_path)
    assert type(loaded.source) is type(source)
    x = source.sample((4,), generator(), dtype=F64)
    torch.testing.assert_close(loaded.source.log_prob(x), source.log_prob(x), rtol=0, atol=0)
    torch.testing.assert_close(loaded.source.sample((4,), generator(), dtype=F64), x, rtol=0, atol=0)


@pytest.mark.parametrize("make", [COMPACT[2], COMPACT[5], COMPACT[7], OPEN[1], OPEN[5], OPEN[6]], ids=name_of)
def test_fit_starts_from_it(make: Callable[[], Source]) -> None:
    source = make()
    manifold = source.manifold
    points = source.sample((40,), generator(11))
    flow = rfm.fit(points, manifold, source=source, field=small_field(manifold), steps=2, batch_size=8, progress=False)
    x = flow.sample(3, generator=generator(12))
    manifold.check_point(x, tol=1e-4)
    assert bool(flow.log_prob(x).isfinite().all())


# Defaults.


def test_default_of_a_product_is_the_product_of_the_defaults() -> None:
    manifold = Product(Sphere(2), Euclidean(1), weights=(1.0, 4.0))
    x = Sphere(2).random_uniform(500, generator=generator(), dtype=F64)
    y = 5 + 3 * torch.randn(500, 1, generator=generator(1), dtype=F64)
    source = default_source(manifold, manifold.join(x, y))
    assert isinstance(source, ProductSource)
    assert isinstance(source.sources[0], Uniform)
    normal = source.sources[1]
    assert isinstance(normal, WrappedNormal)
    assert float(normal.mean) == pytest.approx(5, abs=0.5)
    assert normal.scale == pytest.approx(3, abs=0.3)


def test_default_of_a_power_pools_the_copies() -> None:
    points = torch.randn(100, 4, 2, generator=generator(), dtype=F64) + 7
    source = default_source(Power(Euclidean(2), 4), points)
    assert isinstance(source, PowerSource)
    torch.testing.assert_close(source.source.mean, points.flatten(0, 1).mean(0))


def test_default_of_an_enormous_power_is_uniform() -> None:
    manifold = Power(Sphere(2), 1000)
    assert manifold.volume is None
    source = default_source(manifold, manifold.random_uniform(2, generator=generator()))
    assert isinstance(source, PowerSource)
    assert isinstance(source.source, Uniform)


def test_defaults_of_single_manifolds() -> None:
    assert isinstance(default_source(FlatTorus(2), torch.zeros(3, 2)), Uniform)
    assert isinstance(default_source(SPD(2), torch.eye(2).expand(3, 2, 2)), WrappedNormal)
    both_finite = Product(Sphere(2), FlatTorus(1))
    assert isinstance(default_source(both_finite, both_finite.random_uniform(3, generator=generator())), Uniform)


def test_a_users_manifold_may_register_its_own() -> None:
    class Line(Euclidean):
        pass

    def uniform_on_line(manifold: Line, points: Tensor) -> Source:
        return WrappedNormal(manifold, torch.zeros(1), 42.0)

    default_source.register(Line)(uniform_on_line)
    source = default_source(Line(1), torch.zeros(3, 1))
    assert isinstance(source, WrappedNormal)
    assert source.scale == 42.0
    wrapped_log_density.register(Line)(lambda manifold: lambda mean, scale, x: x[..., 0] * 0 + scale)
    assert float(source.log_prob(torch.zeros(1))) == 42.0


# Refusals.

EYE = torch.eye(3)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: WrappedNormal(Sphere(2), EYE[0]), "VonMisesFisher"),
        (lambda: WrappedNormal(SO3(), EYE), "IsotropicGaussianSO3"),
        (lambda: WrappedNormal(SE3(), torch.eye(4)), "RigidMotionSource"),
        (lambda: WrappedNormal(Product(Sphere(2), Euclidean(1)), torch.ones(4)), "ProductSource"),
        (lambda: WrappedNormal(Power(Sphere(2), 2), EYE[:2]), "PowerSource"),
        (lambda: WrappedNormal(Euclidean(2), torch.zeros(3)), "mean must be one point"),
        (lambda: WrappedNormal(Euclidean(2), torch.zeros(2), 0.0), "scale must be positive"),
        (lambda: WrappedNormal(Euclidean(2), torch.zeros(2), math.nan), "scale must be positive"),
        (lambda: WrappedNormal(FlatTorus(1), torch.tensor([4.0])), "mean is no point"),
        (lambda: VonMisesFisher(SO3(), EYE, 1.0), "IsotropicGaussianSO3"),  # type: ignore[arg-type]
        (lambda: VonMisesFisher(Sphere(2), EYE[0], -1.0), "antipode"),
        (lambda: VonMisesFisher(Sphere(2), EYE[0], math.inf), "finite"),
        (lambda: VonMisesFisher(Sphere(2), torch.ones(3), 1.0), "project them with Sphere.projx"),
        (lambda: IsotropicGaussianSO3(EYE, -1.0), "scale must be positive"),
        (lambda: IsotropicGaussianSO3(2 * EYE, 1.0), "project them with SO3.projx"),
        (lambda: IsotropicGaussianSO3(EYE[0], 1.0), r"of shape \(3, 3\)"),
        (lambda: ProductSource(Sphere(2), [Uniform(Sphere(2))]), "lives on a Product"),  # type: ignore[arg-type]
        (lambda: ProductSource(Product(Sphere(2), SO3()), [Uniform(Sphere(2))]), "one source per factor"),
        (lambda: ProductSource(Product(Sphere(2)), [Uniform(Sphere(3))]), r"source 0 lives on Sphere\(3\)"),
        (lambda: ProductSource(Product(Sphere(2)), [EYE]), "must be a source"),  # type: ignore[list-item]
        (lambda: PowerSource(Sphere(2), Uniform(Sphere(2))), "lives on a Power"),  # type: ignore[arg-type]
        (lambda: PowerSource(Power(Sphere(2), 3), Uniform(SO3())), r"Sphere\(2\) is required"),
        (lambda: RigidMotionSource(SO3(), Uniform(SO3())), "lives on SE3"),  # type: ignore[arg-type]
        (lambda: RigidMotionSource(SE3(), Uniform(Sphere(3))), r"SO3\(\) is required"),
        (lambda: RigidMotionSource(SE3(), Uniform(SO3()), 0.0), "translation_scale must be positive"),
        (lambda: RigidMotionSource(SE3(), Uniform(SO3()), 1.0, torch.ones(4)), "translation_mean"),
        (lambda: Uniform(Euclidean(2)), "WrappedNormal"),
    ],
)
def test_bad_arguments_are_refused_with_the_remedy(make: Callable[[], Source], says: str) -> None:
    with pytest.raises(ValueError, match=says) as error:
        make()
    assert "\n" not in str(error.value)


def test_default_sources_of_poses_spread_as_the_data_do() -> None:
    generator = torch.Generator().manual_seed(0)
    like = RigidMotionSource(SE3(2.0), Uniform(SO3()), 3.0, torch.tensor([1.0, -2.0, 0.5]))
    one = default_source(SE3(2.0), like.sample((4000,), generator))
    assert isinstance(one, RigidMotionSource)
    assert one.translation_scale == pytest.approx(3.0, rel=0.05)
    torch.testing.assert_close(one.translation_mean, like.translation_mean.double(), atol=0.2, rtol=0.0)
    assert isinstance(default_source(Power(SE3(), 2), torch.eye(4).expand(3, 2, 4, 4)), PowerSource)
    centred = CentredPoseSource(CentredPoses(3, 2.0), translation_scale=3.0)
    fitted = default_source(centred.manifold, centred.sample((4000,), generator))
    assert isinstance(fitted, CentredPoseSource)
    assert fitted.translation_scale == pytest.approx(3.0, rel=0.05)
    at_rest = default_source(SE3(2.0), torch.eye(4).expand(2, 4, 4))
    assert isinstance(at_rest, RigidMotionSource)
    assert at_rest.translation_scale == 2.0
