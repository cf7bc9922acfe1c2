"""Hutchinson's estimator of the divergence, and log-densities with standard errors made of it."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from manifold_zoo import ZOO
from random_fields import normal, points, wavy_field
from torch import Tensor
from zoo_sources import source_of

import rfm
from manifolds import SE3, SO3, SPD, Euclidean, FlatTorus, Hyperboloid, Manifold, PoincareBall, Power, Sphere
from rfm import Flow, Hutchinson
from rfm.integrators import RK4, Adaptive, FixedStep
from rfm.likelihood import divergence_estimates, estimate_log_prob, estimate_transport, log_prob, rademacher
from rfm.networks import VelocityField
from rfm.sources import Uniform

EVERY = pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in ZOO])
STEPS = FixedStep(RK4, 6)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Probes.


@EVERY
@pytest.mark.parametrize("batch", [(), (2, 3)], ids=str)
def test_probes_are_the_frame_applied_to_the_noise(make: Callable[[], Manifold], batch: tuple[int, ...]) -> None:
    m = make()
    x, rank = points(m, *batch), len(m.event_shape)
    noise = normal(*batch, 4, *m.event_shape)
    vectors, covectors = m.divergence_probes(x, noise)
    assert vectors.shape == covectors.shape == noise.shape
    torch.testing.assert_close(m.proju(x.unsqueeze(-1 - rank), vectors), vectors)
    for ours, general in zip((vectors, covectors), Manifold.divergence_probes(m, x, noise), strict=True):
        torch.testing.assert_close(ours, general)
    # A projector: probes of probes are the probes.
    torch.testing.assert_close(m.divergence_probes(x, vectors)[0], vectors)


@EVERY
def test_probes_along_all_ambient_axes_add_up_to_the_divergence(make: Callable[[], Manifold]) -> None:
    m = make()
    x, t, field = points(m, 2), normal(2).abs(), wavy_field(m)
    n = math.prod(m.event_shape)
    axes = torch.eye(n, dtype=x.dtype).reshape(n, *m.event_shape).expand(2, n, *m.event_shape)
    u, div = rfm.divergence(field, m, x, t)
    own, estimates = divergence_estimates(field, m, x, t, axes)
    volume = m.log_volume_derivative(x, u)
    torch.testing.assert_close(own, u)
    torch.testing.assert_close((estimates - volume[:, None]).sum(-1) + volume, div, rtol=1e-8, atol=1e-9)


@EVERY
def test_probes_move_smoothly_with_the_point(make: Callable[[], Manifold]) -> None:
    """Frames jump; the probes of fixed noise must not, or no step control could follow the integrand."""
    m = make()
    x, noise = points(m, 40), normal(40, 2, *m.event_shape)
    y = m.expmap(x, 1e-6 * wavy_field(m)(x, torch.zeros(40, dtype=x.dtype)))
    for a, b in zip(m.divergence_probes(x, noise), m.divergence_probes(y, noise), strict=True):
        assert float((a - b).abs().max()) < 1e-4


@pytest.mark.parametrize("draw", [rademacher, torch.randn], ids=["rademacher", "normal"])
def test_noise_is_white_and_repeats_with_its_generator(draw: Callable[..., Tensor]) -> None:
    m, x = Sphere(2), points(Sphere(2), 5, dtype=torch.float32)
    before = torch.get_rng_state()
    noise, again = (Hutchinson(4000, seeded(), draw).noise(m, x) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(noise, again)
    assert noise.shape == (5, 4000, 3)
    assert noise.dtype == torch.float32
    covariance = torch.einsum("npi,npj->ij", noise, noise) / 20_000
    torch.testing.assert_close(covariance, torch.eye(3), atol=0.05, rtol=0)
    assert float(noise.mean()) == pytest.approx(0, abs=0.05)


def test_one_derivative_per_probe_and_no_frame_of_a_large_power() -> None:
    m = Power(SE3(), 64)
    asked = []

    class Field:
        def pushforward(self, x: Tensor, t: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
            asked.append(tangents.shape)
            return torch.zeros_like(x), torch.zeros_like(tangents)

    def refuse(x: Tensor) -> tuple[Tensor, Tensor]:
        raise AssertionError("the frame of the whole power has 384 vectors")

    m.divergence_frame = refuse  # type: ignore[method-assign]
    x = points(SE3(), 2, 64)
    rfm.divergence(Field(), m, x, torch.zeros(2), estimator=Hutchinson(3, seeded()))  # type: ignore[arg-type]
    assert asked == [(2, 3, 64, 4, 4)]


@pytest.mark.parametrize("m", [Sphere(3), PoincareBall(3), SPD(2), Hyperboloid(2), SO3()], ids=str)
def test_estimates_are_unbiased(m: Manifold) -> None:
    x, t, field = points(m, 3), normal(3).abs(), wavy_field(m)
    for draw in (rademacher, torch.randn):
        noise = Hutchinson(4000, seeded(), draw).noise(m, x)
        estimates = divergence_estimates(field, m, x, t, noise)[1]
        error = estimates.std(-1) / math.sqrt(4000)
        assert bool(((estimates.mean(-1) - rfm.divergence(field, m, x, t)[1]).abs() < 4 * error + 1e-12).all())


def test_bad_numbers_of_probes_are_refused() -> None:
    with pytest.raises(ValueError, match="probes must be at least 1, got 0"):
        Hutchinson(0)


# Log-densities.


@EVERY
def test_enough_probes_give_the_exact_log_density(make: Callable[[], Manifold]) -> None:
    """With all ambient axes as probes, scaled to unit variance, the mean of the estimates is exact."""
    m = make()
    n, source, field = math.prod(m.event_shape), source_of(m), wavy_field(m, size=0.5)

    def axes(*shape: int, **settings: Any) -> Tensor:
        eye = math.sqrt(n) * torch.eye(n, dtype=settings["dtype"])
        return eye.reshape(n, *m.event_shape).expand(*shape)

    x = points(m, 2, 1)
    estimate = estimate_log_prob(field, source, x, Hutchinson(n, None, axes), FixedStep(RK4, 3))
    torch.testing.assert_close(estimate.log_prob, log_prob(field, source, x, FixedStep(RK4, 3)))
    assert estimate.standard_error.shape == (2, 1)


@pytest.mark.parametrize(
    ("m", "draw"),
    # In few dimensions signs have few values; equal probes would make the spread zero.
    [(Sphere(2), torch.randn), (PoincareBall(2), torch.randn), (SPD(2), torch.randn), (Sphere(9), rademacher)],
    ids=["Sphere(2)", "PoincareBall(2)", "SPD(2)", "Sphere(9), signs"],
)
def test_standard_errors_are_as_large_as_the_errors(m: Manifold, draw: Callable[..., Tensor]) -> None:
    field, source, x = wavy_field(m), source_of(m), points(m, 300)
    exact = log_prob(field, source, x, STEPS)
    for probes in (4, 16):
        estimate = estimate_log_prob(field, source, x, Hutchinson(probes, seeded(), draw), STEPS)
        squares = (estimate.log_prob - exact).square()
        assert float(squares.mean() / estimate.standard_error.square().mean()) == pytest.approx(1, abs=0.4)
        assert float(estimate.standard_error.median()) > 1e-3


@pytest.mark.parametrize("m", [Sphere(2), Hyperboloid(2)], ids=str)
def test_the_flow_estimates_both_ways(m: Manifold) -> None:
    field = VelocityField(m, width=12, depth=1, features=6, max_frequency=4.0)
    for parameter in field.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=seeded())
    flow = Flow(m, field, source_of(m)).double()
    for shape, size in (((2, 3), 4), ((), 100), ((0,), 4)):
        how: dict[str, Any] = {"solver": FixedStep(RK4, 4), "batch_size": size}
        x, sampled = flow.sample(
            shape, generator=seeded(), return_log_prob=True, estimator=Hutchinson(16, seeded(), torch.randn), **how
        )
        scored = flow.log_prob(x, estimator=Hutchinson(16, seeded(1), torch.randn), **how)
        exact = flow.log_prob(x, **how)
        for estimate in (sampled, scored):
            assert estimate.log_prob.shape == estimate.standard_error.shape == shape
            assert bool(((estimate.log_prob - exact).abs() < 8 * estimate.standard_error + 1e-3).all())
    with pytest.raises(ValueError, match="estimator is for log-densities"):
        flow.sample(2, estimator=Hutchinson(2))


def test_noise_follows_its_sample_through_adaptive_steps() -> None:
    """Samples leave the batch at different times; the estimate of each depends on its own noise alone."""
    m = FlatTorus(2)
    field, x, noise = wavy_field(m), points(m, 4), rademacher(4, 2, 2, generator=seeded(), dtype=torch.float64)

    def given(*shape: int, **settings: Any) -> Tensor:
        return noise[:1] if shape[0] == 1 else noise

    together = estimate_log_prob(field, Uniform(m), x, Hutchinson(2, None, given), Adaptive())
    alone = estimate_log_prob(field, Uniform(m), x[:1], Hutchinson(2, None, given), Adaptive())
    torch.testing.assert_close(together.log_prob[:1], alone.log_prob)
    torch.testing.assert_close(together.standard_error[:1], alone.standard_error)


def test_the_spread_of_probes_does_not_change_the_steps() -> None:
    """The trace of an antisymmetric matrix vanishes for every probe, of this field's only for all of them together."""
    m, x = Euclidean(3), points(Euclidean(3), 5)
    matrix = torch.tensor([[0.0, 3.0, 0.0], [3.0, 0.0, 1.0], [0.0, 1.0, 0.0]], dtype=torch.float64)

    def opposite(*shape: int, **settings: Any) -> Tensor:
        return torch.tensor([[1.0, 1.0, 0.0], [1.0, -1.0, 0.0]], dtype=torch.float64).expand(*shape)

    def field(y: Tensor, t: Tensor) -> Tensor:
        return y @ matrix

    solution, error = estimate_transport(field, m, x, 0.0, 1.0, Hutchinson(2, None, opposite), Adaptive())
    plain = rfm.integrate(field, m, x, (0.0, 1.0), Adaptive())
    assert bool((solution.evaluations == plain.evaluations).all())
    torch.testing.assert_close(solution.final, plain.final)
    torch.testing.assert_close(error, torch.full((5,), 6.0, dtype=torch.float64))


def test_a_single_probe_has_no_standard_error() -> None:
    m = Sphere(2)
    estimate = estimate_log_prob(wavy_field(m), Uniform(m), points(m, 3), Hutchinson(1, seeded()), STEPS)
    assert bool(estimate.log_prob.isfinite().all())
    assert bool(estimate.standard_error.isnan().all())


def test_single_precision_is_kept() -> None:
    m = Sphere(2)
    x = points(m, 3, dtype=torch.float32)
    estimate = estimate_log_prob(wavy_field(m), Uniform(m), x, Hutchinson(4, seeded()), STEPS)
    assert estimate.log_prob.dtype == estimate.standard_error.dtype == torch.float32
    double = estimate_log_prob(wavy_field(m), Uniform(m), x.double(), Hutchinson(4, seeded()), STEPS)
    torch.testing.assert_close(estimate.standard_error.double(), double.standard_error, atol=1e-5, rtol=1e-3)
