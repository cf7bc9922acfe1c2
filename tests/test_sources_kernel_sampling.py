"""Draws from kernels, on every manifold that has one, and from mixtures of them; mixtures fitted without validation."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from manifold_zoo import ZOO
from random_fields import points
from scipy import stats
from torch import Tensor

import rfm
from manifolds import SO3, Euclidean, FlatTorus, Kernel, Manifold, Sphere
from manifolds.rotations import rotvec_from_matrix
from rfm.networks import VelocityField
from rfm.sources import KernelMixture, Uniform

F64 = torch.float64
WITH_KERNEL = [(n, make) for n, make in ZOO if make().kernel is not None]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Kernels.


@pytest.mark.parametrize(("name", "make"), WITH_KERNEL, ids=[n for n, _ in WITH_KERNEL])
def test_mean_chord_is_the_derivative_of_the_normaliser(name: str, make: Callable[[], Manifold]) -> None:
    """An exponential family: the mean of |embed(x) - embed(y)|^2 / 2 is -d log Z / dk. Each row has its own k.

    Where several centres share the kernel, it is the mean over them too, each as likely as it is to have made the draw.
    """
    m = make()
    k = torch.tensor([0.3, 5.0, 1e3, 1e8], dtype=F64)
    x = points(m, 4)
    y = m.kernel.sample(x.expand(3000, *x.shape), k, seeded())
    assert y.shape == (3000, 4, *m.event_shape)
    m.check_point(y, tol=1e-10)
    half_chords = (m.kernel.embed(y)[:, :, None] - m.kernel.embed(m.kernel.centres(x))).square().sum(-1) / 2
    half_chord = (torch.softmax(-k[:, None] * half_chords, dim=-1) * half_chords).sum(-1)
    log_z = torch.func.grad(lambda s: m.kernel.log_normaliser(s).sum())
    error = half_chord.std(0) / math.sqrt(3000)
    assert bool(((half_chord.mean(0) + log_z(k)).abs() < 4.5 * error).all())


@pytest.mark.parametrize(("name", "make"), WITH_KERNEL, ids=[n for n, _ in WITH_KERNEL])
def test_shapes_dtypes_and_randomness(name: str, make: Callable[[], Manifold]) -> None:
    m = make()
    before = torch.get_rng_state()
    for dtype in (torch.float32, F64):
        x, k = points(m, 2, 1, dtype=dtype), torch.tensor([1.0, 10.0, 100.0], dtype=dtype)
        y = m.kernel.sample(x, k, seeded())
        assert y.shape == (2, 3, *m.event_shape)
        assert y.dtype == dtype
        m.check_point(y)
        assert torch.equal(y, m.kernel.sample(x, k, seeded()))
        assert m.kernel.sample(x[0, 0], k[0], seeded()).shape == m.event_shape
        assert m.kernel.sample(x[:0], k, seeded()).shape == (0, 3, *m.event_shape)
    assert torch.equal(torch.get_rng_state(), before)


def distribution_of_angles(density: Callable[[Tensor], Tensor], upper: float) -> Callable[..., Tensor]:
    edges = torch.linspace(0, upper, 40_001, dtype=F64)
    mass = torch.cumulative_trapezoid(density(edges), edges)
    cdf = torch.cat([torch.zeros(1, dtype=F64), mass / mass[-1]])
    return lambda a: cdf[(torch.as_tensor(a) / upper * 40_000).round().long().clamp(max=40_000)].numpy()


@pytest.mark.parametrize("k", [1e-3, 0.5, 0.6, 30.0, 1e8])
def test_angles_of_rotations(k: float) -> None:
    """On both sides of the switch between two forms of the envelope, at rate 2, and far from it."""
    m, x = SO3(), points(SO3())
    y = m.kernel.sample(x, torch.full((8000,), k, dtype=F64), seeded(1))
    upper = min(math.pi, 12 / math.sqrt(2 * k))
    cdf = distribution_of_angles(lambda a: torch.sin(a / 2) ** 2 * torch.exp(-4 * k * torch.sin(a / 2) ** 2), upper)
    assert stats.kstest(m.dist(x, y).numpy(), cdf).pvalue > 1e-3
    # The axes have no preferred direction, in the frame of the centre.
    axis = torch.nn.functional.normalize(rotvec_from_matrix(x.mT @ y), dim=-1)
    assert float(axis.mean(0).abs().max()) < 4.5 / math.sqrt(3 * 8000)


@pytest.mark.parametrize("k", [0.2, 4.0, 1e8])
def test_angles_on_the_torus(k: float) -> None:
    m, x = FlatTorus(2), torch.tensor([3.0, -1.0], dtype=F64)
    u = m.logmap(x, m.kernel.sample(x, torch.full((8000,), k, dtype=F64), seeded(2)))
    upper = min(math.pi, 12 / math.sqrt(k))
    cdf = distribution_of_angles(lambda a: torch.exp(-2 * k * torch.sin(a / 2) ** 2), upper)
    for i in (0, 1):
        assert stats.kstest(u[:, i].abs().numpy(), cdf).pvalue > 1e-3
    signs = u.sign()
    assert float(signs.mean(0).abs().max()) < 4.5 / math.sqrt(8000)
    assert abs(float((signs[:, 0] * signs[:, 1]).mean())) < 4.5 / math.sqrt(8000)


class Scored(Kernel):
    def log_normaliser(self, concentration: Tensor) -> Tensor:
        return Sphere(2).kernel.log_normaliser(concentration)


def test_a_kernel_without_a_sampler_says_what_to_write() -> None:
    with pytest.raises(ValueError, match=r"Scored.*no draws on Sphere\(2.*its sample.*start from another source"):
        Scored(Sphere(2)).sample(points(Sphere(2)), torch.ones(()))


# Mixtures.


def test_components_and_centres_are_drawn_by_weight() -> None:
    """Narrow kernels about far points: each draw tells which component and centre it came from."""
    m = Sphere(2)
    centres, shares = torch.eye(3, dtype=F64), torch.tensor([1.0, 0.0, 3.0])
    mixture = KernelMixture(m, centres, torch.tensor([1e8, 1e4]), torch.tensor([0.2, 0.5, 0.3]), Uniform(m), shares)
    x = mixture.sample((20_000,), seeded(), dtype=F64)
    distance, centre = m.dist(x[:, None], centres).min(-1)
    near = distance < 0.06
    narrow = distance < 1e-3
    expected = {0.7 * 0.25: near & (centre == 0), 0.7 * 0.75: near & (centre == 2), 0.2: narrow & near}
    for share, found in expected.items():
        assert float(found.double().mean()) == pytest.approx(share, abs=4.5 * 0.5 / math.sqrt(20_000) + 2e-3)
    # Only the background, 0.3 of the draws, comes near the centre of weight zero.
    assert float((near & (centre == 1)).double().mean()) < 1e-3


def test_mean_log_density_of_draws_is_the_entropy() -> None:
    """Two estimates of the entropy agree: over draws of the mixture, and over uniform points by importance."""
    m = Sphere(2)
    mixture = KernelMixture(m, points(m, 30), torch.tensor([5.0, 60.0]), torch.tensor([0.4, 0.5, 0.1]), Uniform(m))
    own = -mixture.log_prob(mixture.sample((20_000,), seeded(), dtype=F64))
    log_p = mixture.log_prob(m.random_uniform(20_000, generator=seeded(1), dtype=F64))
    other = -log_p * log_p.exp() * 4 * math.pi
    error = math.sqrt((float(own.var()) + float(other.var())) / 20_000)
    assert abs(float(own.mean() - other.mean())) < 4.5 * error


def clustered(m: Manifold, n: int, seed: int = 0) -> Tensor:
    x = points(m, 4)[torch.randint(4, (n,), generator=seeded(seed))]
    return m.kernel.sample(x, torch.full((n,), 200.0, dtype=F64), seeded(seed + 1))


def test_fit_finds_the_width_without_validation_points() -> None:
    """Data from kernels of concentration 200 about four places: test likelihood near that of the truth."""
    m = Sphere(2)
    data, test = clustered(m, 400), clustered(m, 400, seed=7)
    fitted = KernelMixture.fit(m, data)
    validated = KernelMixture.mixture(m, data[:300], data[300:])
    truth = KernelMixture(m, points(m, 4), torch.tensor([200.0]), torch.tensor([1.0, 0.0]), Uniform(m))
    scores = [float(-d.log_prob(test).mean()) for d in (truth, fitted, validated)]
    assert scores[0] < scores[1] < scores[2] + 0.02
    assert scores[1] < scores[0] + 0.15


def test_repeats_do_not_make_fit_choose_the_narrowest_kernel() -> None:
    m = Sphere(2)
    once = clustered(m, 150)
    fitted = KernelMixture.fit(m, once.repeat(3, 1))
    single = KernelMixture.fit(m, once)
    assert float(fitted.weights[25:30].sum()) < 0.01
    test = clustered(m, 300, seed=7)
    assert float(fitted.log_prob(test).mean()) == pytest.approx(float(single.log_prob(test).mean()), abs=0.1)


def test_weights_of_points_act_as_repetition_in_fit() -> None:
    m = Sphere(2)
    data = clustered(m, 80)
    times = torch.randint(0, 4, (80,), generator=seeded(3))
    used = data[times > 0]
    weighted = KernelMixture.fit(m, used, sample_weights=times[times > 0], steps=20)
    repeated = KernelMixture.fit(m, used.repeat_interleave(times[times > 0], 0), steps=20)
    torch.testing.assert_close(weighted.weights, repeated.weights, rtol=1e-9, atol=1e-12)


def test_fit_leaves_the_background_the_weight_of_one_point() -> None:
    m = Sphere(2)
    fitted = KernelMixture.fit(m, clustered(m, 99), concentrations=torch.tensor([0.1, 200.0]))
    assert float(fitted.weights.sum()) == pytest.approx(1)
    assert 0.01 <= float(fitted.weights[-1]) < 0.05


def test_fit_needs_two_places() -> None:
    m = Euclidean(2)
    with pytest.raises(ValueError, match="two different points"):
        KernelMixture.fit(m, torch.ones(5, 2))
    with pytest.raises(ValueError, match="at least two folds"):
        KernelMixture.fit(m, torch.randn(5, 2, generator=seeded()), folds=1)
    assert bool(KernelMixture.fit(m, torch.tensor([[0.0, 0.0], [1.0, 0.0]])).weights.isfinite().all())


# In flows.


def small_field(m: Manifold) -> VelocityField:
    return VelocityField(m, width=8, depth=1, features=4, max_frequency=2.0)


def test_a_flow_starts_from_it_and_comes_back(tmp_path: Path) -> None:
    """The centres travel as tensors beside the weights, not as text."""
    m = Sphere(2)
    data = clustered(m, 300)
    flow = rfm.fit(data, m, source=KernelMixture.fit, field=small_field(m), steps=3, progress=False, out=tmp_path)
    assert isinstance(flow.source, KernelMixture)
    # It saw the training points only.
    assert len(flow.source.points) == 270
    assert (tmp_path / "flow.json").stat().st_size < 20_000
    loaded = rfm.Flow.load(tmp_path)
    assert torch.equal(loaded.source.points, flow.source.points)
    torch.testing.assert_close(loaded.log_prob(data[:20]), flow.log_prob(data[:20]), rtol=0, atol=0)
    assert set(flow.state_dict()) == set(flow.field.state_dict(prefix="field."))


def test_likelihood_of_a_flow_that_starts_from_it_is_exact() -> None:
    """A field that turns the sphere carries the density of the mixture along."""
    m = Sphere(2)
    mixture = KernelMixture.fit(m, clustered(m, 200))
    axis = torch.tensor([0.3, -0.5, 1.0], dtype=F64)
    flow = rfm.Flow(m, lambda x, t: torch.linalg.cross(axis.expand_as(x), x), mixture)
    x = mixture.sample((20,), seeded(), dtype=F64)
    hat = torch.linalg.cross(axis.expand(3, 3), torch.eye(3, dtype=F64)).T
    turned = x @ torch.linalg.matrix_exp(hat).T
    torch.testing.assert_close(flow.log_prob(turned), mixture.log_prob(x), rtol=0, atol=1e-3)
