"""Kernel mixtures: normalisation, the pruned sums against plain ones, EM, published figures."""

import itertools
import math
import statistics
from pathlib import Path

import pytest
import torch
from torch import Tensor

from manifolds import Euclidean, FlatTorus, Manifold, Sphere
from rfm.datasets import load, raw_split
from rfm.metrics import negative_log_likelihood
from rfm.sources import KernelMixture, Uniform, WrappedNormal, default_source

MANIFOLDS = [Sphere(1), Sphere(2), Sphere(3), FlatTorus(1), FlatTorus(2), Euclidean(2)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def clustered_points(manifold: Manifold, n: int, seed: int = 0) -> Tensor:
    """Return points near five places at several scales, a third of them repeats of each other."""
    draw = generator(seed)
    if manifold.volume is None:
        places = 3 * torch.randn(5, *manifold.event_shape, generator=draw, dtype=torch.float64)
    else:
        places = manifold.random_uniform(5, generator=draw, dtype=torch.float64)
    centre = places[torch.randint(5, (n,), generator=draw)]
    scale = 10 ** (-4 * torch.rand(n, 1, generator=draw, dtype=torch.float64))
    noise = torch.randn(centre.shape, generator=draw, dtype=torch.float64)
    points = manifold.expmap(centre, manifold.proju(centre, scale * noise))
    points[: n // 3] = points[n // 3 : 2 * (n // 3)]
    return points


def plain_log_prob(density: KernelMixture, x: Tensor, shares: Tensor) -> Tensor:
    """Return the components' log-densities by their definition, with every term."""
    m = density.manifold
    squared = (m.embed(x)[:, None] - m.embed(density.points)).square().sum(-1)
    columns = []
    for k in density.concentrations:
        log_z = m.kernel.log_normaliser(k)
        assert log_z is not None
        columns.append(torch.logsumexp(shares.log() - k * squared / 2, dim=-1) - log_z)
    return torch.stack([*columns, density.background.log_prob(x)], dim=-1)


# Quadratures: points (m, *event_shape) and weights (m,) of a rule for the Riemannian volume.


def gauss_legendre(n: int) -> tuple[Tensor, Tensor]:
    """Return nodes in [-1, 1] and weights, from the eigenvectors of the Jacobi matrix."""
    i = torch.arange(1, n, dtype=torch.float64)
    off = i / torch.sqrt(4 * i * i - 1)
    nodes, vectors = torch.linalg.eigh(torch.diag(off, 1) + torch.diag(off, -1))
    return nodes, 2 * vectors[0] ** 2


def sphere_rule(n: int, order: int) -> tuple[Tensor, Tensor]:
    """Return a rule for S^n: equal steps on the circle, Gauss-Legendre in each polar angle above it."""
    if n == 1:
        angle = torch.arange(2 * order, dtype=torch.float64) * math.pi / order
        return torch.stack([angle.cos(), angle.sin()], dim=-1), torch.full_like(angle, math.pi / order)
    nodes, weights = gauss_legendre(order)
    polar = math.pi * (1 + nodes) / 2
    inner, inner_weights = sphere_rule(n - 1, order)
    weights = weights * math.pi / 2 * polar.sin() ** (n - 1)
    points = torch.cat(
        [polar.cos()[:, None, None].expand(-1, len(inner), 1), polar.sin()[:, None, None] * inner], dim=-1
    )
    return points.flatten(0, 1), (weights[:, None] * inner_weights).flatten()


def grid_rule(n: int, half_width: float, order: int) -> tuple[Tensor, Tensor]:
    """Return equal steps over a box, right to all digits for smooth periodic or decaying functions."""
    line = half_width * (2 * torch.arange(order, dtype=torch.float64) / order - 1)
    points = torch.cartesian_prod(*[line] * n).reshape(-1, n)
    return points, torch.full((len(points),), (2 * half_width / order) ** n, dtype=torch.float64)


def rule(manifold: Manifold) -> tuple[Tensor, Tensor]:
    if isinstance(manifold, Sphere):
        return sphere_rule(manifold.n, {1: 200, 2: 80, 3: 36}[manifold.n])
    if isinstance(manifold, FlatTorus):
        return grid_rule(manifold.n, math.pi, 150)
    return grid_rule(2, 24.0, 290)


# Densities.


@pytest.mark.parametrize("weighted", [False, True], ids=["equal", "weighted"])
@pytest.mark.parametrize("manifold", MANIFOLDS, ids=str)
def test_densities_integrate_to_one(manifold: Manifold, weighted: bool) -> None:
    points = clustered_points(manifold, 40)
    shares = torch.rand(40, generator=generator(1), dtype=torch.float64) if weighted else None
    background = default_source(manifold, points)
    weights = torch.tensor([0.3, 0.2, 0.4, 0.1])
    density = KernelMixture(manifold, points, torch.tensor([40.0, 3.0, 20.0]), weights, background, shares)
    x, volume = rule(manifold)
    torch.testing.assert_close(volume @ density.component_log_prob(x).exp(), torch.ones(4).double(), rtol=0, atol=1e-6)
    assert float(volume @ density.log_prob(x).exp()) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("manifold", [Sphere(2), Sphere(3), FlatTorus(2)], ids=str)
def test_narrow_kernels_integrate_to_one(manifold: Manifold) -> None:
    """Importance sampling from a wrapped normal of the kernel's own width, in the tangent space at its centre."""
    centre, k = clustered_points(manifold, 1)[0], torch.tensor([1e8], dtype=torch.float64)
    density = KernelMixture(manifold, centre[None], k, torch.tensor([1.0, 0.0]), Uniform(manifold))
    coefficients = torch.randn(20_000, manifold.dim, generator=generator(), dtype=torch.float64) * 1.2e-4
    u = torch.tensordot(coefficients, manifold.tangent_basis(centre), dims=1)
    proposal = torch.distributions.Normal(torch.zeros(()).double(), 1.2e-4).log_prob(coefficients).sum(-1)
    ratio = (density.log_prob(manifold.expmap(centre, u)) - proposal).exp()
    standard_error = float(ratio.std()) / math.sqrt(len(ratio))
    assert abs(float(ratio.mean()) - 1) < 5 * standard_error < 0.05


@pytest.mark.parametrize("weighted", [False, True], ids=["equal", "weighted"])
@pytest.mark.parametrize("manifold", MANIFOLDS, ids=str)
def test_pruned_sums_equal_plain_ones(manifold: Manifold, weighted: bool) -> None:
    points, x = clustered_points(manifold, 400), clustered_points(manifold, 150, seed=1)
    x[:50] = points[:50]
    shares = torch.ones(400, dtype=torch.float64)
    if weighted:
        shares = 10 ** (-6 * torch.rand(400, generator=generator(2), dtype=torch.float64))
    shares /= shares.sum()
    k = torch.logspace(8, 0, 20, dtype=torch.float64)
    weights = torch.full((21,), 1 / 21, dtype=torch.float64)
    background = default_source(manifold, points)
    density = KernelMixture(manifold, points, k, weights, background, shares if weighted else None)
    expected = plain_log_prob(density, x, shares)
    actual = density.component_log_prob(x)
    # Far from every centre the logarithm itself is of order -1e8, and has no more than 16 digits.
    assert float(((actual - expected).abs() / expected.abs().clamp(min=1)).max()) < 1e-12
    near = expected.abs() < 1e3
    assert float((actual - expected)[near].abs().max()) < 1e-10
    torch.testing.assert_close(density.log_prob(x), torch.logsumexp(expected + weights.log(), -1), rtol=0, atol=1e-10)


def test_weights_act_as_repetition() -> None:
    sphere, x = Sphere(2), clustered_points(Sphere(2), 30, seed=1)
    points = clustered_points(sphere, 20)
    times = torch.randint(0, 4, (20,), generator=generator())
    k, weights, background = torch.tensor([10.0, 1e6]), torch.tensor([0.5, 0.4, 0.1]), Uniform(sphere)
    repeated = KernelMixture(sphere, points.repeat_interleave(times, 0), k, weights, background)
    weighted = KernelMixture(sphere, points, k, weights, background, times)
    torch.testing.assert_close(weighted.log_prob(x), repeated.log_prob(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_shapes_and_dtypes(dtype: torch.dtype) -> None:
    torus = FlatTorus(2)
    points = clustered_points(torus, 60).to(dtype)
    density = KernelMixture.mixture(torus, points[:40], points[40:], steps=3)
    flat = density.log_prob(points)
    assert flat.dtype == dtype
    assert torch.equal(density.log_prob(points.reshape(3, 20, 2)), flat.reshape(3, 20))
    assert torch.equal(density.log_prob(points[7]), flat[7])
    assert density.log_prob(points[:0]).shape == (0,)
    assert density.component_log_prob(points.reshape(3, 20, 2)).shape == (3, 20, 31)
    assert not density.component_log_prob(points.requires_grad_()).requires_grad


def test_memory_of_complete_sums_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The background sees how many rows are scored at a time: not so many that their distances fill 4 MiB."""
    monkeypatch.setattr("rfm.sources.kernel_components._TRUNCATED_PAIRS", 2**62)
    sizes = []

    class Recording(Uniform):
        def log_prob(self, x: Tensor) -> Tensor:
            sizes.append(len(x))
            return super().log_prob(x)

    sphere = Sphere(2)
    points = sphere.random_uniform(2000, generator=generator(), dtype=torch.float64)
    density = KernelMixture(sphere, points, torch.tensor([1e6]), torch.tensor([0.9, 0.1]), Recording(sphere))
    rows = sphere.random_uniform(1000, generator=generator(1), dtype=torch.float64)
    whole = density.log_prob(rows)
    assert sum(sizes) == 1000
    assert max(sizes) * 2000 * 8 <= 2**22
    assert torch.equal(whole[[3, 998]], density.log_prob(rows[[3, 998]]))


# Fits.


@pytest.mark.parametrize("manifold", [Sphere(2), FlatTorus(2), Euclidean(2)], ids=str)
def test_each_step_makes_validation_likelier(manifold: Manifold) -> None:
    points = clustered_points(manifold, 300)
    train, validation = points[:200], points[200:]
    weights = torch.rand(100, generator=generator(1), dtype=torch.float64)
    shares = weights / weights.sum()
    scores = [
        float(
            shares
            @ KernelMixture.mixture(manifold, train, validation, validation_weights=weights, steps=s).log_prob(
                validation
            )
        )
        for s in range(12)
    ]
    assert all(b > a for a, b in itertools.pairwise(scores)), scores


def test_mixture_stops_at_the_best_weights() -> None:
    """At the optimum the mean responsibility ratio p_j / p is 1 for components in use and at most 1 for others."""
    sphere, points = Sphere(2), clustered_points(Sphere(2), 600)
    k = torch.tensor([10.0, 1e3, 1e6])
    density = KernelMixture.mixture(sphere, points[:300], points[300:], concentrations=k, steps=2000)
    x = points[300:]
    ratio = (density.component_log_prob(x) - density.log_prob(x)[:, None]).exp().mean(0)
    assert float(density.weights.sum()) == pytest.approx(1, abs=1e-12)
    assert bool((ratio < 1 + 1e-3).all())
    torch.testing.assert_close(
        ratio[density.weights > 1e-3], torch.ones_like(ratio[density.weights > 1e-3]), rtol=0, atol=1e-3
    )


@pytest.mark.parametrize("manifold", [Sphere(2), Euclidean(2)], ids=str)
def test_one_bandwidth_is_the_best_of_all(manifold: Manifold) -> None:
    points = clustered_points(manifold, 200)
    train, validation = points[:120], points[120:]
    spread = (train - train.mean(0)).square().sum(-1).mean() if manifold.volume is None else 1.0
    candidates = torch.logspace(1, 8, 40, dtype=torch.float64) / spread
    density = KernelMixture.one_bandwidth(manifold, train, validation)
    assert density.weights.tolist() == pytest.approx([0.99, 0.01])
    scores = [
        KernelMixture(manifold, train, k[None], density.weights, density.background).log_prob(validation).mean()
        for k in candidates
    ]
    best = int(torch.stack(scores).argmax())
    assert density.concentrations.item() == pytest.approx(float(candidates[best]))
    assert 0 < best < 39


def test_default_concentrations_follow_the_scale_of_unbounded_data() -> None:
    plane, points = Euclidean(2), clustered_points(Euclidean(2), 120)
    a = KernelMixture.mixture(plane, points[:80], points[80:], steps=5)
    b = KernelMixture.mixture(plane, 1000 * points[:80], 1000 * points[80:], steps=5)
    torch.testing.assert_close(a.concentrations, 1e6 * b.concentrations, rtol=1e-9, atol=0)
    torch.testing.assert_close(a.log_prob(points), b.log_prob(1000 * points) + 2 * math.log(1000), rtol=1e-6, atol=1e-6)
    spread = (points[:80] - points[:80].mean(0)).square().sum(-1).mean()
    torch.testing.assert_close(a.concentrations * spread, torch.logspace(1, 8, 30, dtype=torch.float64))


def test_equal_points_on_the_plane_are_no_special_case() -> None:
    points = torch.zeros(4, 2, dtype=torch.float64)
    density = KernelMixture.mixture(Euclidean(2), points, points)
    assert bool(torch.isfinite(density.log_prob(points)).all())


# Bad input.


class NoKernel(Sphere):
    kernel = None  # type: ignore[assignment]


def test_a_manifold_without_a_kernel_is_refused() -> None:
    points = clustered_points(Sphere(2), 20)
    for fit in (KernelMixture.one_bandwidth, KernelMixture.mixture):
        with pytest.raises(ValueError, match=r"NoKernel\(2\) has no smoothing kernel.*return a manifolds.Kernel"):
            fit(NoKernel(2), points, points)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points": torch.zeros(5, 3)}, "points of Sphere"),
        ({"points": torch.full((5, 3), math.nan)}, "not finite"),
        ({"points": torch.eye(3)[0]}, r"points must have shape \(n, 3\)"),
        ({"points": torch.empty(0, 3)}, "n at least 1"),
        ({"concentrations": torch.tensor([1.0, 0.0])}, "concentrations must be positive"),
        ({"concentrations": torch.tensor([1.0, math.inf])}, "concentrations must be positive"),
        ({"concentrations": torch.tensor(1.0)}, "concentrations must be positive"),
        ({"weights": torch.tensor([0.5, 0.5])}, "weights must be 3 numbers"),
        ({"weights": torch.tensor([0.5, 0.7, -0.2])}, "not negative"),
        ({"weights": torch.tensor([0.5, 0.5, 0.5])}, "with sum 1"),
        ({"weights": torch.tensor([0.5, math.nan, 0.5])}, "with sum 1"),
        ({"sample_weights": torch.ones(4)}, "sample_weights must be one finite number for each of the 3 points"),
        ({"sample_weights": torch.zeros(3)}, "not all zero"),
        ({"sample_weights": torch.tensor([1.0, -1.0, 1.0])}, "not negative"),
        ({"sample_weights": torch.tensor([1.0, math.nan, 1.0])}, "finite"),
    ],
    ids=str,
)
def test_bad_arguments(change: dict[str, Tensor], message: str) -> None:
    arguments = {
        "points": torch.eye(3),
        "concentrations": torch.tensor([1.0, 10.0]),
        "weights": torch.tensor([0.5, 0.4, 0.1]),
    }
    with pytest.raises(ValueError, match=message):
        KernelMixture(Sphere(2), background=Uniform(Sphere(2)), **(arguments | change))


def test_bad_validation() -> None:
    points = clustered_points(Sphere(2), 20)
    for fit in (KernelMixture.one_bandwidth, KernelMixture.mixture):
        with pytest.raises(ValueError, match="validation must have shape"):
            fit(Sphere(2), points, points[:0])
        with pytest.raises(ValueError, match="validation_weights must be one finite number for each of the 20"):
            fit(Sphere(2), points, points, validation_weights=torch.ones(3))
        with pytest.raises(ValueError, match="concentrations must be positive"):
            fit(Sphere(2), points, points, concentrations=torch.empty(0))


def test_a_background_may_be_given() -> None:
    plane, points = Euclidean(2), clustered_points(Euclidean(2), 50)
    background = WrappedNormal(plane, torch.zeros(2), scale=9.0)
    density = KernelMixture.one_bandwidth(plane, points[:30], points[30:], background=background)
    assert density.background is background


def test_a_manifold_without_a_default_background_asks_for_one() -> None:
    class Unbounded(Sphere):
        def __init__(self) -> None:
            super().__init__(2)
            self.volume = None

    points = clustered_points(Sphere(2), 20)
    with pytest.raises(ValueError, match=r"no default source.* pass it as background="):
        KernelMixture.mixture(Unbounded(), points, points)


# Published figures: the raw split, five seeds, mean and population standard deviation.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "one", "mixture", "bound"), [("volcano", -8.63, -9.17, 0.1), ("flood", 0.57, 0.42, 0.02)]
)
def test_reference_figures(rfm_data: Path, name: str, one: float, mixture: float, bound: float) -> None:
    sphere, points = Sphere(2), load(name).points
    scores: dict[str, list[float]] = {"one": [], "mixture": []}
    for seed in range(5):
        train, validation, test = (points[rows] for rows in raw_split(len(points), seed))
        for key, fit in (("one", KernelMixture.one_bandwidth), ("mixture", KernelMixture.mixture)):
            scores[key].append(negative_log_likelihood(fit(sphere, train, validation).log_prob(test)).mean)
    assert statistics.fmean(scores["one"]) == pytest.approx(one, abs=bound)
    assert statistics.fmean(scores["mixture"]) == pytest.approx(mixture, abs=bound)
