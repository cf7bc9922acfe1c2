"""Time samplers: what they draw is what their density says."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import scipy.stats
import torch
from torch import Tensor

from rfm.paths.times import (
    BetaTimes,
    DensityTimes,
    EarlyTimes,
    LogitNormalTimes,
    StratifiedTimes,
    TimeDensity,
    TimeSampler,
    UniformAndLateTimes,
    UniformTimes,
)


def bumpy(t: Tensor) -> Tensor:
    return 1 + torch.sin(9 * t) ** 2 + 3 * t


DENSITIES: list[TimeDensity] = [
    UniformTimes(),
    LogitNormalTimes(),
    LogitNormalTimes(-0.6, 1.4),
    BetaTimes(1.5, 1.0),
    BetaTimes(3.0, 2.0),
    BetaTimes(0.6, 0.8),
    EarlyTimes(),
    EarlyTimes(3.0, 1.0),
    DensityTimes(bumpy),
    DensityTimes(bumpy, nodes=4),
    DensityTimes(lambda t: torch.where(t < 0.5, 0.0, t), nodes=9),
]
SAMPLERS: list[TimeSampler] = [
    *DENSITIES,
    *(StratifiedTimes(base) for base in DENSITIES[:5]),
    UniformAndLateTimes(),
    UniformAndLateTimes(0.1),
]


def _name(sampler: object) -> str:
    return f"DensityTimes({sampler.nodes})" if isinstance(sampler, DensityTimes) else repr(sampler)


EVERY_DENSITY = pytest.mark.parametrize("times", DENSITIES, ids=_name)
EVERY_SAMPLER = pytest.mark.parametrize("times", SAMPLERS, ids=_name)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cumulative(times: TimeSampler) -> tuple[Tensor, Tensor]:
    """Return nodes and the integral of the density up to them, in a variable that resolves both ends."""
    z = torch.linspace(-40, 36, 200_001, dtype=torch.float64)
    t = torch.sigmoid(z)
    rate = times.density(t) * t * (1 - t)
    return t, torch.cat([z[:1] * 0, ((rate[1:] + rate[:-1]) / 2).cumsum(0)]) * float(z[1] - z[0])


# Laws.


@EVERY_SAMPLER
def test_the_density_integrates_to_one(times: TimeSampler) -> None:
    assert float(cumulative(times)[1][-1]) == pytest.approx(1, abs=2e-4)


@EVERY_SAMPLER
def test_draws_have_the_density(times: TimeSampler) -> None:
    """By the largest difference of the distribution functions, whose 1e-4 quantile is 2.2 / sqrt(n)."""
    t = times.sample((20_000,), generator=seeded(), dtype=torch.float64).sort().values
    nodes, integral = cumulative(times)
    cell = torch.searchsorted(nodes, t).clamp(1, len(nodes) - 1)
    expected = (integral[cell - 1] + integral[cell]) / 2
    empirical = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    assert float((expected - empirical).abs().max()) < 2.2 / math.sqrt(20_000)


@EVERY_SAMPLER
def test_draws_come_from_the_generator_alone(times: TimeSampler) -> None:
    before = torch.get_rng_state()
    first, second, third = (times.sample((7, 3), generator=seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


@EVERY_SAMPLER
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(), (1,), (0,), (5,), (2, 3)], ids=str)
def test_shapes_dtypes_and_range(times: TimeSampler, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    t = times.sample(shape, generator=seeded(), dtype=dtype)
    assert t.shape == shape
    assert t.dtype == times.density(t).dtype == times.importance_weight(t).dtype == dtype
    assert bool(((t > 0) & (t < 1)).all())


@EVERY_DENSITY
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_draw_is_at_an_end(times: TimeDensity, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever torch draws: from 0 to the number below 1."""
    extremes = torch.tensor([0.0, 1 - torch.finfo(dtype).eps / 2], dtype=dtype)
    monkeypatch.setattr(torch, "rand", lambda shape, **_: extremes)
    t = times.sample((2,), generator=seeded())
    assert bool(((t > 0) & (t < 1)).all())
    assert bool(times.density(t).isfinite().all())


@EVERY_DENSITY
def test_the_quantile_inverts_the_distribution(times: TimeDensity) -> None:
    u = torch.linspace(0.001, 0.999, 101, dtype=torch.float64)
    nodes, integral = cumulative(times)
    t = times.quantile(u)
    assert bool((t.diff() > 0).all())
    cell = torch.searchsorted(nodes, t).clamp(1, len(nodes) - 1)
    torch.testing.assert_close((integral[cell - 1] + integral[cell]) / 2, u, rtol=0, atol=3e-4)


@EVERY_SAMPLER
def test_importance_weights_give_the_mean_over_uniform_times(times: TimeSampler) -> None:
    t = times.sample((40_000,), generator=seeded(2), dtype=torch.float64)
    # Where the density is positive, and weights are bounded.
    low, high = (0.55, 0.95) if float(times.density(torch.tensor(0.25))) == 0 else (0.05, 0.95)
    inside = (t > low) & (t < high)
    each = torch.where(inside, times.importance_weight(t) * torch.cos(2 * t), 0.0)
    expected = (math.sin(2 * high) - math.sin(2 * low)) / 2
    assert abs(float(each.mean()) - expected) < 4 * float(each.std()) / 200


# Stratified draws.


@EVERY_DENSITY
def test_every_slice_is_visited_once(times: TimeDensity) -> None:
    t = StratifiedTimes(times).sample((8, 8), generator=seeded(), dtype=torch.float64).flatten()
    edges = times.quantile(torch.arange(1, 64, dtype=torch.float64) / 64)
    counts = torch.bincount(torch.searchsorted(edges, t), minlength=64)
    assert counts.tolist() == [1] * 64


def test_each_place_of_a_stratified_batch_has_the_density() -> None:
    generator = seeded()
    first = torch.stack([StratifiedTimes().sample((5,), generator=generator)[0] for _ in range(2000)])
    counts = torch.histc(first, 10, 0, 1)
    assert float(((counts - 200) ** 2 / 200).sum()) < 35


def test_stratified_means_vary_less() -> None:
    generator = seeded()
    spread = [
        torch.stack([times.sample((64,), generator=generator).square().mean() for _ in range(200)]).std()
        for times in (UniformTimes(), StratifiedTimes())
    ]
    assert float(spread[1]) < 0.1 * float(spread[0])


# References.


@pytest.mark.parametrize(("a", "b"), [(1.5, 1.0), (2.0, 5.0), (0.5, 0.5), (40.0, 3.0)])
def test_beta_against_scipy(a: float, b: float) -> None:
    t = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    expected = torch.as_tensor(scipy.stats.beta(a, b).pdf(t.numpy()))
    torch.testing.assert_close(BetaTimes(a, b).density(t), expected, rtol=1e-10, atol=1e-300)
    torch.testing.assert_close(BetaTimes(a, b).quantile(t), torch.as_tensor(scipy.stats.beta(a, b).ppf(t.numpy())))


def test_logit_normal_against_its_definition() -> None:
    t = LogitNormalTimes(0.7, 1.3).sample((50_000,), generator=seeded(), dtype=torch.float64)
    z = torch.logit(t)
    assert float(z.mean()) == pytest.approx(0.7, abs=0.03)
    assert float(z.std()) == pytest.approx(1.3, abs=0.03)


def test_a_density_need_not_be_normalised() -> None:
    t = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    torch.testing.assert_close(DensityTimes(lambda s: 7 * s).density(t), 2 * t)
    torch.testing.assert_close(DensityTimes(lambda s: 7 * s, nodes=2).quantile(t), t.sqrt())


def test_the_default_of_fit_draws_what_it_always_drew() -> None:
    """Half uniform, half late, bit for bit: runs resume across versions."""
    for size, dtype in ((512, torch.float32), (7, torch.float64), (1, torch.float32)):
        late = size // 2
        slots = torch.arange(size)
        width = torch.where(slots < late, 1 / max(late, 1), 1 / (size - late))
        u = (slots - torch.where(slots < late, 0, late) + torch.rand(size, generator=seeded(5))) * width
        expected = torch.where(slots < late, 1 - 0.003**u, u).to(dtype)
        ours = UniformAndLateTimes().sample((size,), generator=seeded(5), dtype=dtype, device="cpu")
        assert torch.equal(ours, expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@EVERY_SAMPLER
def test_draws_on_a_gpu(times: TimeSampler) -> None:
    t = times.sample((9,), generator=torch.Generator("cuda").manual_seed(0), device="cuda")
    assert t.is_cuda
    assert times.density(t).is_cuda


# Bad settings.


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LogitNormalTimes(0.0, 0.0), "LogitNormalTimes: needs a finite mean and a positive, finite std"),
        (lambda: LogitNormalTimes(math.nan, 1.0), "got nan and 1.0"),
        (lambda: BetaTimes(0.0, 1.0), "BetaTimes: a and b must be positive"),
        (lambda: UniformAndLateTimes(1.0), "finest must be between 0 and 1, got 1.0"),
        (lambda: DensityTimes(lambda t: t - 0.5), "got -0.5 at time 0"),
        (lambda: DensityTimes(lambda t: 1 / t), "got inf at time 0"),
        (lambda: DensityTimes(torch.zeros_like), "got 0 everywhere"),
        (lambda: DensityTimes(torch.ones_like, nodes=1), "nodes must be a whole number, at least 2, got 1"),
    ],
)
def test_bad_settings_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_early_times_are_one_minus_those_of_pi_zero() -> None:
    """Its program counts time from data to noise, and draws .001 + .999 Beta(1.5, 1)."""
    t = EarlyTimes().sample((4000,), seeded(), torch.float64)
    theirs = scipy.stats.beta(1.5, 1.0, loc=0.001, scale=0.999)
    assert scipy.stats.kstest((1 - t).numpy(), theirs.cdf).pvalue > 0.01
    assert scipy.stats.kstest(t.numpy(), theirs.cdf).pvalue < 1e-6
    # Crowded at the noise, at time 0 here.
    assert float(t.mean()) == pytest.approx(0.999 * 0.4, abs=0.01)
    s = torch.linspace(0.01, 0.99, 9, dtype=torch.float64)
    torch.testing.assert_close(EarlyTimes().density(s), torch.from_numpy(theirs.pdf((1 - s).numpy())))
    for wrong in ({"power": 0.0}, {"last": 1.5}):
        with pytest.raises(ValueError, match="EarlyTimes"):
            EarlyTimes(**wrong)
