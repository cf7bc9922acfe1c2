"""Truncated sums of kernels equal complete ones within their stated error, on every manifold with a kernel."""

import math
from collections.abc import Callable

import pytest
import torch
from manifold_zoo import ZOO
from random_fields import points
from test_kernel_widths import AXES, CUBIC, smeared, varying, widths
from torch import Tensor

from manifolds import Euclidean, Manifold, Sphere
from rfm.sources import KernelMixture, Uniform, WrappedNormal, kernel_concentrations
from rfm.sources.truncated_sums import DOUBLE, SINGLE, Precision

F64 = torch.float64
TRUNCATION = DOUBLE.truncation
WITH_KERNEL = [(name, make) for name, make in ZOO if make().kernel is not None]
WITH_KERNEL += [("axes", lambda: AXES), ("cubic", lambda: CUBIC)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def both(density: KernelMixture, x: Tensor, monkeypatch: pytest.MonkeyPatch) -> tuple[Tensor, Tensor]:
    """Return log-densities by truncated and by complete sums."""
    monkeypatch.setattr("rfm.sources.kernel_components._TRUNCATED_PAIRS", 0)
    truncated = density.log_prob(x)
    monkeypatch.setattr("rfm.sources.kernel_components._TRUNCATED_PAIRS", 2**62)
    return truncated, density.log_prob(x)


@pytest.mark.parametrize("weighted", [False, True], ids=["equal", "weighted"])
@pytest.mark.parametrize(("name", "make"), WITH_KERNEL, ids=[name for name, _ in WITH_KERNEL])
def test_they_equal_complete_sums(
    name: str, make: Callable[[], Manifold], weighted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The family of all widths, at the centres themselves, near them, and anywhere."""
    m = make()
    x = smeared(m, 120)
    shares = 10 ** (-4 * torch.rand(120, generator=generator(2), dtype=F64)) if weighted else None
    density = varying(m, x, kernel_concentrations(m, x), shares)
    y = torch.cat([x[:40], smeared(m, 60, seed=7), points(m, 30)])
    truncated, complete = both(density, y, monkeypatch)
    error = (truncated - complete).abs() / complete.abs().clamp(min=1)
    assert float(error.max()) < TRUNCATION


@pytest.mark.parametrize(("name", "make"), WITH_KERNEL, ids=[name for name, _ in WITH_KERNEL])
def test_for_points_in_single_precision_they_are_as_exact_as_those(
    name: str, make: Callable[[], Manifold], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside complete sums in float64 at the same rounded points; the result itself is in float32."""
    m = make()
    x = smeared(m, 120)
    density = varying(m, x, kernel_concentrations(m, x))
    y = torch.cat([x[:40], smeared(m, 60, seed=7), points(m, 30)]).float()
    complete = both(density, y.double(), monkeypatch)[1]
    truncated, _ = both(density, y, monkeypatch)
    assert truncated.dtype == torch.float32
    error = (truncated.double() - complete).abs() / complete.abs().clamp(min=1)
    assert float(error.max()) < 2 * SINGLE.truncation


def test_far_centres_are_left_out() -> None:
    """With a looser bound the error is larger, and within it: the terms are left out, not too small to be seen."""
    m = Sphere(2)
    x = m.random_uniform(2000, generator=generator(), dtype=F64)
    density = varying(m, x, 50 * widths(3, 2000))
    y = m.projx(x[:1] + 1e-3 * torch.randn(64, 3, generator=generator(1), dtype=F64))
    complete = density.log_prob(y)
    errors = []
    for share in (1e-1, 1e-5, 1e-9):
        last = density.background.log_prob(y) + density.weights[-1].log()
        of_kernels = density._kernels.truncated(y, density.weights[:-1], last, Precision(F64, share, -700.0))
        truncated = torch.cat([of_kernels, last[:, None]], dim=-1).logsumexp(-1)
        assert bool((truncated <= complete + 1e-12).all())
        errors.append(float((truncated - complete).abs().max()))
        assert errors[-1] < share
    assert errors[0] > 10 * errors[1]
    assert errors[0] > 1e-6


def test_where_the_background_vanishes_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """So far out that every density underflows; and without a background."""
    m = Euclidean(2)
    x = smeared(m)
    narrow = WrappedNormal(m, torch.zeros(2), 1e-3)
    for last in (0.5, 0.0):
        weights = torch.tensor([(1 - last) / 2, (1 - last) / 2, last], dtype=F64)
        density = KernelMixture(m, x, 1e4 * widths(2, 60), weights, narrow)
        y = torch.cat([x, 1e3 * torch.randn(50, 2, generator=generator(), dtype=F64)])
        truncated, complete = both(density, y, monkeypatch)
        assert bool(complete.isfinite().all())
        assert float(complete.min()) < -1e5
        torch.testing.assert_close(truncated, complete, rtol=1e-9, atol=1e-9)


def test_regions_are_as_exact_as_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many blocks, clustered and scattered, in regions of any number of them."""
    m = Sphere(2)
    x = torch.cat([smeared(m, 150), m.random_uniform(150, generator=generator(), dtype=F64)])
    density = varying(m, x, kernel_concentrations(m, x)[::3])
    y = torch.cat([m.projx(x + 1e-2 * torch.randn(300, 3, generator=generator(1), dtype=F64)), smeared(m, 300, seed=4)])
    monkeypatch.setattr("rfm.sources.truncated_sums._BLOCK", 7)
    for region in (1, 3, 1000):
        monkeypatch.setattr("rfm.sources.truncated_sums._REGION", region)
        truncated, complete = both(density, y, monkeypatch)
        torch.testing.assert_close(truncated, complete, rtol=0, atol=TRUNCATION)


def test_narrow_kernels_keep_their_digits_in_a_wide_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Points at a ten-thousandth from their centres, scattered over the sphere: products would lose them."""
    m = Sphere(2)
    x = m.random_uniform(40, generator=generator(), dtype=F64)
    y = m.projx(x + 1e-4 * torch.randn(40, 3, generator=generator(1), dtype=F64))
    truncated, complete = both(varying(m, x, torch.tensor([1e8, 10.0], dtype=F64)), y, monkeypatch)
    assert float((truncated - complete).abs().max()) < TRUNCATION


def test_a_component_of_weight_zero_is_no_component(monkeypatch: pytest.MonkeyPatch) -> None:
    m = Sphere(2)
    x, k = smeared(m), widths(3, 60)
    density = KernelMixture(m, x, k, torch.tensor([0.4, 0.0, 0.5, 0.1]), Uniform(m))
    some = KernelMixture(m, x, k[[0, 2]], torch.tensor([0.4, 0.5, 0.1]), Uniform(m))
    truncated, complete = both(density, x, monkeypatch)
    assert torch.equal(complete, both(some, x, monkeypatch)[1])
    torch.testing.assert_close(truncated, complete, rtol=0, atol=TRUNCATION)
    monkeypatch.setattr("rfm.sources.kernel_components._TRUNCATED_PAIRS", 0)
    for weights in ([0.4, 0.0, 0.5, 0.1], [0.4, 0.1, 0.5, 0.0]):
        density = KernelMixture(m, x, k, torch.tensor(weights), Uniform(m))
        components = density.component_log_prob(x, truncate=True)
        assert bool((components[:, density.weights == 0] == -math.inf).all())
        mixed = torch.logsumexp(components + density.weights.log(), dim=-1)
        torch.testing.assert_close(mixed, density.log_prob(x), rtol=0, atol=TRUNCATION)


def test_a_gradient_comes_from_complete_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    m = Sphere(2)
    density, x = varying(m, smeared(m), widths(2, 60)), smeared(m, 20, seed=3)
    monkeypatch.setattr("rfm.sources.kernel_components._TRUNCATED_PAIRS", 0)
    y = x.clone().requires_grad_()
    value = density.log_prob(y)
    (gradient,) = torch.autograd.grad(value.sum(), y)
    assert bool((gradient.norm(dim=-1) > 0).all())
    with torch.no_grad():
        assert float((density.log_prob(y) - value).abs().max()) < TRUNCATION


def test_many_points_are_scored_so_by_default() -> None:
    """At 4.2 million pairs, in any batch shape and dtype."""
    m = Sphere(2)
    x = m.random_uniform(3000, generator=generator(), dtype=F64)
    density = varying(m, x, kernel_concentrations(m, x)[20:30])
    y = m.random_uniform(1500, generator=generator(1), dtype=F64)
    together = density.log_prob(y)
    apart = torch.cat([density.log_prob(part) for part in y.split(100)])
    error = float((together - apart).abs().max())
    assert 0 < error < TRUNCATION
    assert torch.equal(density.log_prob(y.reshape(5, 300, 3)), together.reshape(5, 300))
    assert density.log_prob(y.float()).dtype == torch.float32
    assert math.isfinite(float(together.min()))


def test_far_from_all_centres_the_background_alone_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    m, pole = Sphere(2), torch.tensor([0.0, 0.0, 1.0], dtype=F64)
    noise = [0.01 * torch.randn(n, 3, generator=generator(n), dtype=F64) for n in (60, 40)]
    x, y = m.projx(pole + noise[0]), m.projx(noise[1] - pole)
    truncated, complete = both(varying(m, x, torch.tensor([300.0], dtype=F64)), y, monkeypatch)
    torch.testing.assert_close(truncated, complete, rtol=0, atol=TRUNCATION)
