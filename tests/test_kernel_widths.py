"""Widths that follow the local density, mixtures of kernels with a width for each centre, and their weights."""

import math
from collections.abc import Callable

import pytest
import torch
from manifold_zoo import ZOO
from random_fields import points
from scipy import optimize
from test_sources_kernel_mixture import MANIFOLDS, clustered_points, generator, rule
from torch import Tensor

from manifolds import SO3, Antipodal, Euclidean, FlatTorus, Manifold, Octahedral, Quotient, RightMultiplication, Sphere
from rfm.sources import KernelMixture, Uniform, default_source, kernel_concentrations, likeliest_weights
from rfm.sources.kernel_widths import neighbour_distances

F64 = torch.float64
WITH_KERNEL = [(name, make) for name, make in ZOO if make().kernel is not None]
AXES = Quotient(Sphere(2), Antipodal(2))
CUBIC = Quotient(SO3(), RightMultiplication(Octahedral()))
zoo = pytest.mark.parametrize(("name", "make"), WITH_KERNEL, ids=[name for name, _ in WITH_KERNEL])


def smeared(m: Manifold, n: int = 60, seed: int = 0) -> Tensor:
    """Return draws around four places, a quarter of them repeats."""
    assert m.kernel is not None
    k = 10 ** (1 + 3 * torch.rand(n, generator=generator(seed), dtype=F64))
    x = m.kernel.sample(points(m, 4)[torch.randint(4, (n,), generator=generator(seed))], k, generator(seed))
    x[: n // 4] = x[n // 4 : 2 * (n // 4)]
    return x


def widths(count: int, n: int, seed: int = 3) -> Tensor:
    return 10 ** (0.3 + 2 * torch.rand(count, n, generator=generator(seed), dtype=F64))


def varying(m: Manifold, x: Tensor, k: Tensor, shares: Tensor | None = None) -> KernelMixture:
    weights = torch.arange(1.0, len(k) + 2, dtype=F64)
    background = Uniform(m) if m.volume is not None else default_source(m, x)
    return KernelMixture(m, x, k, weights / weights.sum(), background, shares)


# A width for each centre.


@pytest.mark.parametrize("weighted", [False, True], ids=["equal", "weighted"])
@pytest.mark.parametrize("m", MANIFOLDS, ids=str)
def test_densities_integrate_to_one(m: Manifold, weighted: bool) -> None:
    k = 3 + 40 * torch.rand(3, 40, generator=generator(), dtype=F64)
    shares = torch.rand(40, generator=generator(1), dtype=F64) if weighted else None
    density = varying(m, clustered_points(m, 40), k, shares)
    x, volume = rule(m)
    torch.testing.assert_close(
        volume @ density.component_log_prob(x).exp(), torch.ones(4, dtype=F64), rtol=0, atol=1e-6
    )
    assert float(volume @ density.log_prob(x).exp()) == pytest.approx(1, abs=1e-6)


@zoo
def test_a_component_is_the_mean_of_its_kernels(name: str, make: Callable[[], Manifold]) -> None:
    """Against mixtures of one centre each, with the width of that centre."""
    m = make()
    x, y = smeared(m, 12), smeared(m, 9, seed=5)
    k, shares = widths(2, 12), torch.rand(12, generator=generator(1), dtype=F64)
    density = varying(m, x, k, shares)
    for j in range(2):
        each = torch.stack([varying(m, x[i : i + 1], k[j, i : i + 1]).component_log_prob(y)[:, 0] for i in range(12)])
        expected = torch.logsumexp(each + (shares / shares.sum()).log()[:, None], 0)
        torch.testing.assert_close(density.component_log_prob(y)[:, j], expected, rtol=1e-10, atol=1e-10)


@zoo
def test_draws_have_the_density(name: str, make: Callable[[], Manifold]) -> None:
    """The mean over draws of q / p is 1, q another density: here that of the same kernels with other shares."""
    m = make()
    x, k = points(m, 5), 4 + 8 * torch.rand(2, 5, generator=generator(), dtype=F64)
    density = varying(m, x, k, torch.tensor([1.0, 2.0, 3.0, 2.0, 1.0]))
    other = varying(m, x, k, torch.tensor([2.0, 1.0, 1.0, 1.0, 2.0]))
    draws = density.sample(6000, generator(2), F64)
    ratio = (other.log_prob(draws) - density.log_prob(draws)).exp()
    error = float(ratio.std()) / math.sqrt(len(ratio))
    assert abs(float(ratio.mean()) - 1) < 4.5 * error < 0.1
    backwards = (density.log_prob(drawn := other.sample(6000, generator(3), F64)) - other.log_prob(drawn)).exp()
    error = float(backwards.std()) / math.sqrt(len(backwards))
    assert abs(float(backwards.mean()) - 1) < 4.5 * error < 0.1


def test_draws_take_the_width_of_their_centre() -> None:
    m, far = Euclidean(2), torch.tensor([[0.0, 0.0], [1e3, 0.0]], dtype=F64)
    k = torch.tensor([[1.0, 100.0], [1e4, 1e6]], dtype=F64)
    background = default_source(m, far)
    density = KernelMixture(m, far, k, torch.tensor([0.25, 0.75, 0.0]), background)
    draws = density.sample(20_000, generator(), F64)
    for i, (expected, y) in enumerate(zip(k.T, far, strict=True)):
        squares = (draws[(draws - y).norm(dim=-1) < 500] - y).square().sum(-1) / 2
        spread = float(0.25 / expected[0] + 0.75 / expected[1])
        assert float(squares.mean()) == pytest.approx(spread, rel=0.08), i


@zoo
@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=str)
def test_one_width_may_be_given_for_each_centre(name: str, make: Callable[[], Manifold], dtype: torch.dtype) -> None:
    m = make()
    x, y = smeared(m).to(dtype), smeared(m, 20, seed=4).to(dtype)
    k = torch.tensor([0.7, 30.0, 2e4], dtype=F64)
    shared, each = varying(m, x, k), varying(m, x, k[:, None].expand(-1, len(x)))
    assert torch.equal(shared.component_log_prob(y), each.component_log_prob(y))
    assert each.log_prob(y).dtype == dtype
    assert torch.equal(shared.sample(50, generator()), each.sample(50, generator()))


@pytest.mark.parametrize("m", [Sphere(2), AXES, CUBIC], ids=str)
def test_order_of_centres_and_repeats_change_nothing(m: Manifold) -> None:
    x, y = smeared(m), smeared(m, 30, seed=4)
    k, order = widths(3, len(x)), torch.randperm(len(x), generator=generator())
    once = varying(m, x, k).component_log_prob(y)
    torch.testing.assert_close(varying(m, x[order], k[:, order]).component_log_prob(y), once, rtol=1e-11, atol=1e-11)
    times = torch.randint(1, 4, (len(x),), generator=generator(2))
    repeated = varying(m, x.repeat_interleave(times, 0), k.repeat_interleave(times, 1))
    weighted = varying(m, x, k, times)
    torch.testing.assert_close(repeated.component_log_prob(y), weighted.component_log_prob(y), rtol=1e-11, atol=1e-11)


def test_centres_of_weight_zero_are_as_if_left_out() -> None:
    m, shares = Sphere(2), torch.tensor([1.0, 0.0, 2.0] * 20)
    x, y, k = smeared(m), smeared(m, 30, seed=4), widths(2, 60)
    some = varying(m, x[shares > 0], k[:, shares > 0], shares[shares > 0])
    torch.testing.assert_close(varying(m, x, k, shares).log_prob(y), some.log_prob(y), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("m", [Sphere(2), FlatTorus(2), CUBIC], ids=str)
def test_the_gradient_is_that_of_differences(m: Manifold) -> None:
    density, x = varying(m, smeared(m), widths(2, 60)), smeared(m, 8, seed=6)
    u = m.proju(x, torch.randn(x.shape, generator=generator(), dtype=F64))
    y = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(density.log_prob(y).sum(), y)
    along = (gradient * u).flatten(1).sum(-1)
    h = 1e-5
    difference = (density.log_prob(m.expmap(x, h * u)) - density.log_prob(m.expmap(x, -h * u))) / (2 * h)
    torch.testing.assert_close(along, difference, rtol=1e-5, atol=1e-5)


def test_it_is_saved_and_moves_in_float64(tmp_path: object) -> None:
    import rfm
    from rfm.networks import VelocityField

    m, path = Sphere(2), str(tmp_path)
    density = varying(m, smeared(m), widths(2, 60))
    density.to(torch.float32)
    assert density.concentrations.dtype == F64
    rfm.Flow(m, VelocityField(m, width=8, depth=1, features=4, max_frequency=2.0), density).save(path)
    loaded = rfm.Flow.load(path).source
    assert isinstance(loaded, KernelMixture)
    assert torch.equal(loaded.concentrations, density.concentrations)
    x = smeared(m, 10, seed=4)
    assert torch.equal(loaded.log_prob(x), density.log_prob(x))


@pytest.mark.parametrize("shape", [(2, 59), (59, 2), (1, 2, 60), (0, 60)])
def test_concentrations_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    m = Sphere(2)
    with pytest.raises(ValueError, match=r"shape \(K,\) or, one for each centre, \(K, 60\)"):
        KernelMixture(m, smeared(m), torch.ones(shape), torch.tensor([0.5, 0.25, 0.25]), Uniform(m))


# Widths that follow the density.


def brute_distances(m: Manifold, x: Tensor, count: int) -> Tensor:
    """Return the distance to the count-th place other than one's own, from all pairs."""
    kernel = m.kernel
    assert kernel is not None
    images = kernel.embed(kernel.centres(x))
    d = (kernel.embed(x)[:, None, None] - images[None]).norm(dim=-1).amin(-1)
    rows = []
    for row in d:
        others = row[row > 1e-7]
        places = [float(v) for v in others.sort().values]
        # Repeats are at equal distances.
        distinct = [v for i, v in enumerate(places) if i == 0 or v - places[i - 1] > 1e-9]
        rows.append(distinct[min(count, len(distinct)) - 1])
    return torch.tensor(rows, dtype=F64)


@zoo
def test_neighbours_are_other_places(name: str, make: Callable[[], Manifold]) -> None:
    m = make()
    x = smeared(m)
    found = neighbour_distances(m, x, (1, 2, 7, 500))
    assert found is not None
    for row, count in zip(found, (1, 2, 7, 500), strict=True):
        torch.testing.assert_close(row, brute_distances(m, x, count), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("m", [AXES, CUBIC], ids=str)
def test_classes_are_neighbours_by_their_nearest_representative(m: Quotient) -> None:
    x = smeared(m)
    found = neighbour_distances(m, x, (1, 5, 20))
    assert found is not None
    for row, count in zip(found, (1, 5, 20), strict=True):
        torch.testing.assert_close(row, brute_distances(m, x, count), rtol=1e-9, atol=1e-9)
    # The same classes, written otherwise.
    orbit = m.group.orbit(x)
    other = orbit[torch.arange(len(x)), torch.randint(orbit.shape[1], (len(x),), generator=generator())]
    torch.testing.assert_close(neighbour_distances(m, torch.cat([x, other]), (1, 5, 20)), found.repeat(1, 2))


def test_an_angle_written_in_two_ways_is_one_place() -> None:
    x = torch.tensor([[math.pi], [-math.pi], [3.0], [1.0]], dtype=F64)
    found = neighbour_distances(FlatTorus(1), x, (1,))
    expected = 2 * torch.sin(torch.tensor([math.pi - 3, math.pi - 3, math.pi - 3, 2.0], dtype=F64) / 2)
    torch.testing.assert_close(found, expected[None])


@zoo
def test_the_family(name: str, make: Callable[[], Manifold]) -> None:
    """Bounds, order, and the law dim c / d_m^2 between them; repeats and the order of points change nothing."""
    m = make()
    x = smeared(m)
    k = kernel_concentrations(m, x)
    assert k.shape == (24 + 4 * 10, 60)
    assert k.dtype == F64
    low, high = float(k[0, 0]), float(k[23, 0])
    assert high / low == pytest.approx(1e7)
    assert float(k.min()) >= low * (1 - 1e-12)
    assert float(k.max()) <= high * (1 + 1e-12)
    assert bool((k[:24] == k[:24, :1]).all())
    distances = neighbour_distances(m, x, (2, 6, 20, 60))
    assert distances is not None
    c = torch.logspace(math.log10(0.05), math.log10(50), 10, dtype=F64)
    free = (m.dim * c[:, None] / distances[:, None] ** 2).flatten(0, 1)
    inside = (free > low) & (free < high) & (distances**2 * high > 1).repeat_interleave(10, 0)
    torch.testing.assert_close(k[24:][inside], free[inside])
    order = torch.randperm(60, generator=generator())
    torch.testing.assert_close(kernel_concentrations(m, x[order]), k[:, order], rtol=1e-9, atol=0)
    torch.testing.assert_close(
        kernel_concentrations(m, x.repeat(2, *[1] * (x.ndim - 1))), k.repeat(1, 2), rtol=1e-6, atol=0
    )


def test_the_family_follows_the_scale_of_unbounded_data() -> None:
    m = Euclidean(2)
    x = smeared(m)
    torch.testing.assert_close(kernel_concentrations(m, 1000 * x) * 1e6, kernel_concentrations(m, x), rtol=1e-6, atol=0)


def test_points_at_one_place_have_the_shared_widths_alone() -> None:
    m, x = Sphere(2), torch.tensor([[0.0, 0.0, 1.0]]).repeat(5, 1)
    assert kernel_concentrations(m, x).shape == (24, 5)
    density = KernelMixture.adaptive(m, x, x)
    assert bool(density.log_prob(x).isfinite().all())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cap": 10.0}, "cap must be above 10"),
        ({"absolute": 0}, "absolute"),
        ({"ratios": 0}, "ratios"),
        ({"neighbours": (2, 0)}, "neighbours"),
    ],
)
def test_bad_families_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kernel_concentrations(Sphere(2), smeared(Sphere(2)), **change)  # type: ignore[arg-type]


def test_a_manifold_without_a_kernel_is_refused() -> None:
    from manifolds import Hyperboloid

    m = Hyperboloid(2)
    with pytest.raises(ValueError, match="has no smoothing kernel"):
        kernel_concentrations(m, points(m, 5))


# Weights.


def test_weights_maximise_the_likelihood() -> None:
    """Against a general optimiser over the logarithms of the weights."""
    log_p = torch.randn(80, 4, generator=generator(), dtype=F64)
    shares = torch.rand(80, generator=generator(1), dtype=F64)
    found = likeliest_weights(log_p, shares, 5000)

    def loss(a: object) -> float:
        return -float(shares @ torch.logsumexp(log_p + torch.tensor(a).log_softmax(0), -1))

    best = optimize.minimize(
        loss, [0.0] * 4, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 9000}
    )
    assert float(-shares @ torch.logsumexp(log_p + found.log(), -1)) == pytest.approx(best.fun, abs=1e-7)
    assert float(found.sum()) == pytest.approx(1)


def test_impossible_components_and_extreme_densities() -> None:
    log_p = torch.tensor([[-math.inf, 900.0, -1e8], [-math.inf, -1e5, -1e8]], dtype=F64)
    torch.testing.assert_close(likeliest_weights(log_p, steps=50), torch.tensor([0.0, 1.0, 0.0], dtype=F64))
    nowhere = torch.cat([log_p, torch.full((1, 3), -math.inf, dtype=F64)])
    torch.testing.assert_close(
        likeliest_weights(nowhere, torch.tensor([1, 1, 0]), 50), likeliest_weights(log_p, steps=50)
    )
    with pytest.raises(ValueError, match="1 of 3 points have no finite log-density under any component; add one"):
        likeliest_weights(nowhere)


@pytest.mark.parametrize(
    "shares", [torch.ones(3), torch.zeros(2), torch.tensor([1.0, -1.0]), torch.tensor([1, math.nan])]
)
def test_bad_shares_are_refused(shares: Tensor) -> None:
    with pytest.raises(ValueError, match="shares must be one number for each of the 2 points"):
        likeliest_weights(torch.zeros(2, 3), shares)


def test_bad_log_densities_are_refused() -> None:
    for shape in ((0, 3), (3,), (3, 0)):
        with pytest.raises(ValueError, match="log_p must have shape"):
            likeliest_weights(torch.zeros(shape))


# Adaptive kernels.


@pytest.mark.parametrize("m", [Sphere(2), FlatTorus(2), SO3(), AXES], ids=str)
def test_adaptive_kernels_win_where_widths_differ(m: Manifold) -> None:
    """A narrow and a wide cluster, equally likely: no width suits both, and local ones beat thirty."""
    kernel, centres = m.kernel, points(m, 2)
    assert kernel is not None

    def drawn(n: int, seed: int) -> Tensor:
        which = torch.randint(2, (n,), generator=generator(seed))
        return kernel.sample(centres[which], torch.tensor([5.0, 5e5], dtype=F64)[which], generator(seed + 100))

    train, validation, test = drawn(400, 0), drawn(200, 1), drawn(400, 2)
    one, mixture, adaptive = (
        float(fit(m, train, validation).log_prob(test).mean())
        for fit in (KernelMixture.one_bandwidth, KernelMixture.mixture, KernelMixture.adaptive)
    )
    assert adaptive > mixture + 0.02
    assert adaptive > one + 0.5


def test_leaving_out_small_weights_costs_nothing() -> None:
    m = Sphere(2)
    train, validation = smeared(m, 300), smeared(m, 200, seed=1)
    k = kernel_concentrations(m, train)
    full = KernelMixture.mixture(m, train, validation, concentrations=k, steps=500)
    some = KernelMixture.adaptive(m, train, validation)
    assert len(some.concentrations) < len(k) / 2
    assert float(some.weights[:-1].min()) > 1e-4
    assert float(some.log_prob(validation).mean()) > float(full.log_prob(validation).mean()) - 1e-3
