"""Schedules: derivatives, ends, precision near the ends."""

import math
from collections.abc import Callable

import pytest
import torch
from mpmath import mp, mpf
from schedule_zoo import EVERY_KAPPA, EVERY_SCHEDULE

from rfm.paths.schedules import (
    Cosine,
    CosineKappa,
    ExponentialKappa,
    FunctionKappa,
    FunctionSchedule,
    Kappa,
    Linear,
    Polynomial,
    PolynomialKappa,
    Schedule,
    VarianceExploding,
    VariancePreserving,
)

NEAR_ENDS = torch.tensor([2.0**-k for k in range(1, 23)], dtype=torch.float64)
TIMES = torch.cat([NEAR_ENDS, 1 - NEAR_ENDS]).sort().values


# Laws.


@EVERY_SCHEDULE
def test_the_log_snr_is_that_of_the_coefficients(schedule: Schedule) -> None:
    value, derivative = schedule.log_snr(TIMES)
    at = schedule(TIMES)
    torch.testing.assert_close(value, 2 * (at.alpha.log() - at.sigma.log()), rtol=1e-9, atol=1e-9)
    one = torch.ones_like(TIMES)
    slope = torch.func.jvp(lambda s: schedule.log_snr(s)[0], (TIMES,), (one,))[1]
    torch.testing.assert_close(derivative, slope, rtol=1e-9, atol=1e-12)
    assert bool((derivative > 0).all())


@EVERY_SCHEDULE
def test_the_log_snr_has_its_limits_at_the_ends(schedule: Schedule) -> None:
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    value, derivative = schedule.log_snr(ends)
    at = schedule(ends)
    assert not bool(value.isnan().any())
    assert not bool(derivative.isnan().any())
    assert bool(value[0].isinf()) is bool(at.alpha[0] == 0)
    assert bool(value[1].isinf()) is bool(at.sigma[1] == 0)
    assert bool((value[1] > value[0]).all())
    assert bool((derivative > 0).all())


def test_the_log_snr_is_not_formed_from_what_underflows() -> None:
    t = torch.tensor([0.0, 1e-3, 0.5, 1 - 1e-6], dtype=torch.float64)
    strong = VariancePreserving(0.1, 6000.0)
    assert float(strong(t).alpha[0]) == 0.0
    with mp.workdps(40):
        for s, found in zip(t.tolist(), strong.log_snr(t)[0].tolist(), strict=True):
            left = 1 - mpf(s)
            total = left * mpf("0.1") + left**2 * (mpf(6000) - mpf("0.1")) / 2
            assert found == pytest.approx(float(-mp.log(mp.expm1(total))), rel=1e-9)
    small = torch.tensor([1e-30], dtype=torch.float32)
    value = float(Polynomial(3).log_snr(small)[0])
    assert float(Polynomial(3)(small).alpha) == 0.0
    assert value == pytest.approx(6 * math.log(1e-30), rel=1e-5)


@EVERY_SCHEDULE
def test_the_derivatives_are_those_of_the_values(schedule: Schedule) -> None:
    one = torch.ones_like(TIMES)
    for value, derivative in ((0, 2), (1, 3)):
        slope = torch.func.jvp(lambda s, k=value: schedule(s)[k], (TIMES,), (one,))[1]
        torch.testing.assert_close(schedule(TIMES)[derivative], slope, rtol=1e-9, atol=1e-12)


@EVERY_SCHEDULE
def test_data_comes_and_noise_goes(schedule: Schedule) -> None:
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    at = schedule(t)
    assert bool((at.alpha.diff() >= 0).all())
    assert bool((at.sigma.diff() < 0).all())
    assert bool((at.d_alpha >= 0).all())
    assert bool((at.d_sigma <= 0).all())
    assert float(at.alpha[-1]) == 1


@EVERY_SCHEDULE
def test_single_precision_is_as_good_near_the_ends(schedule: Schedule) -> None:
    if isinstance(schedule, FunctionSchedule):
        pytest.skip("its precision is that of the user's function")
    low, high = schedule(TIMES.float()), schedule(TIMES)
    for part, truth in zip(low, high, strict=True):
        assert part.dtype == torch.float32
        # Exponents of up to 10 lose ten times the rounding of their argument.
        torch.testing.assert_close(part.double(), truth, rtol=16 * 2.0**-24 * 10, atol=1e-37)


@EVERY_SCHEDULE
@pytest.mark.parametrize("shape", [(), (4,), (2, 3)], ids=str)
def test_shapes_and_dtypes_follow_the_times(schedule: Schedule, shape: tuple[int, ...]) -> None:
    for dtype in (torch.float32, torch.float64):
        for part in (
            *schedule(torch.full(shape, 0.3, dtype=dtype)),
            *schedule.probability_flow(torch.full(shape, 0.3, dtype=dtype)),
        ):
            assert part.shape == shape
        assert {part.dtype for part in schedule(torch.full(shape, 0.3, dtype=dtype))} == {dtype}


@EVERY_SCHEDULE
def test_schedules_work_under_vmap_and_have_finite_second_derivatives(schedule: Schedule) -> None:
    # The slope of the variance-preserving sigma is infinite at 1.
    t = torch.tensor([0.0, 0.4, 0.999 if isinstance(schedule, VariancePreserving) else 1.0], dtype=torch.float64)
    assert torch.equal(torch.func.vmap(lambda s: schedule(s).sigma)(t), schedule(t).sigma)
    for k in range(4):
        assert bool(torch.func.vmap(torch.func.grad(lambda s, k=k: schedule(s)[k]))(t).isfinite().all())


@EVERY_SCHEDULE
def test_probability_flow_is_what_the_coefficients_say(schedule: Schedule) -> None:
    t = torch.linspace(0.05, 0.999, 30, dtype=torch.float64)
    alpha, sigma, d_alpha, d_sigma = schedule(t)
    f, h = schedule.probability_flow(t)
    torch.testing.assert_close(f, d_alpha / alpha)
    torch.testing.assert_close(h, sigma**2 * d_alpha / alpha - sigma * d_sigma)


@EVERY_KAPPA
def test_kappa_falls_from_one_to_zero(kappa: Kappa) -> None:
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    value, derivative = kappa(t)
    assert float(value[0]) == pytest.approx(1, abs=1e-15)
    assert float(value[-1]) == 0
    assert bool((value.diff() < 0).all())
    slope = torch.func.jvp(lambda s: kappa(s)[0], (t,), (torch.ones_like(t),))[1]
    torch.testing.assert_close(derivative, slope, rtol=1e-9, atol=1e-12)
    assert kappa(t.float())[0].dtype == kappa(t.float())[1].dtype == torch.float32


# References.


def _reference_vp(t: mpf) -> tuple[mpf, mpf]:
    total = (1 - t) * mpf("0.1") + (1 - t) ** 2 * mpf("19.9") / 2
    return mp.exp(-total / 2), mp.sqrt(1 - mp.exp(-total))


REFERENCES: list[tuple[Schedule, Callable[[mpf], tuple[mpf, mpf]]]] = [
    (Linear(), lambda t: (t, 1 - t)),
    (Cosine(), lambda t: (mp.sin(mp.pi * t / 2), mp.cos(mp.pi * t / 2))),
    (Polynomial(3), lambda t: (t**3, 1 - t**3)),
    (VariancePreserving(), _reference_vp),
    (VarianceExploding(), lambda t: (mpf(1), mpf(50) * (mpf("0.01") / 50) ** t)),
]


@pytest.mark.parametrize(("schedule", "reference"), REFERENCES, ids=[repr(s) for s, _ in REFERENCES])
def test_values_against_fifty_digits(schedule: Schedule, reference: Callable[[mpf], tuple[mpf, mpf]]) -> None:
    with mp.workdps(50):
        at = schedule(TIMES)
        for i, t in enumerate(TIMES.tolist()):
            for part, truth in zip((at.alpha, at.sigma), reference(mpf(t)), strict=True):
                assert abs(mpf(float(part[i])) / truth - 1) < 16 * 2.0**-53 * 10


@pytest.mark.parametrize(
    ("schedule", "start", "end"),
    [
        (Linear(), (0, 1), (1, 0)),
        (Cosine(), (0, 1), (1, 0)),
        (Polynomial(2), (0, 1), (1, 0)),
        (VariancePreserving(), (math.exp(-5.025), math.sqrt(1 - math.exp(-10.05))), (1, 0)),
        (VarianceExploding(), (1, 50), (1, 0.01)),
    ],
    ids=repr,
)
def test_ends(schedule: Schedule, start: tuple[float, float], end: tuple[float, float]) -> None:
    for t, expected in ((0.0, start), (1.0, end)):
        at = schedule(torch.tensor(t, dtype=torch.float64))
        assert (float(at.alpha), float(at.sigma)) == pytest.approx(expected, rel=1e-12, abs=0)


def test_the_variance_is_preserved() -> None:
    for schedule in (Cosine(), VariancePreserving()):
        at = schedule(TIMES)
        torch.testing.assert_close(at.alpha**2 + at.sigma**2, torch.ones_like(TIMES), rtol=1e-14, atol=0)


def test_probability_flow_of_the_variance_preserving_diffusion_is_finite_at_the_data() -> None:
    f, h = VariancePreserving(0.1, 20.0).probability_flow(torch.tensor([0.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(f, torch.tensor([10.0, 0.05], dtype=torch.float64))
    assert torch.equal(f, h)


def test_functions_give_the_same_as_closed_forms() -> None:
    by_function = FunctionSchedule(lambda t: torch.sin(math.pi / 2 * t), lambda t: torch.cos(math.pi / 2 * t))
    for ours, closed in zip(by_function(TIMES), Cosine()(TIMES), strict=True):
        torch.testing.assert_close(ours, closed, rtol=1e-9, atol=1e-15)


def test_times_may_share_memory() -> None:
    t = torch.tensor(0.3).expand(4)
    assert FunctionSchedule(lambda s: s, lambda s: 1 - s)(t).sigma.shape == (4,)
    assert FunctionKappa(lambda s: 1 - s)(t)[1].tolist() == [-1.0] * 4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Polynomial(0), "Polynomial: power must be a whole number, at least 1, got 0"),
        (lambda: Polynomial(1.5), "got 1.5"),
        (lambda: PolynomialKappa(0), "PolynomialKappa: power"),
        (lambda: ExponentialKappa(-1.0), "rate must be positive"),
        (lambda: VariancePreserving(2.0, 1.0), "0 < beta_min <= beta_max"),
        (lambda: VarianceExploding(0.0, 1.0), "0 < sigma_min < sigma_max"),
        (lambda: FunctionSchedule(torch.sin, torch.cos, 0.0), "source_scale must be positive"),
    ],
)
def test_bad_settings_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_settings_are_values() -> None:
    assert Polynomial(3) == Polynomial(3) != Polynomial(2)
    assert repr(VariancePreserving()) == "VariancePreserving(beta_min=0.1, beta_max=20.0)"
    assert CosineKappa() == CosineKappa()
    assert isinstance(hash(VarianceExploding()), int)
    assert isinstance(VarianceExploding(0.1, 7.0).source_scale, float)


def test_a_constant_that_is_no_tensor_is_named() -> None:
    schedule = FunctionSchedule(alpha=lambda t: t, sigma=lambda t: 1.0)  # type: ignore[arg-type,return-value]
    with pytest.raises(ValueError, match=r"got float; for a constant return c \* torch.ones_like"):
        schedule(torch.rand(3))


def test_a_whole_float_is_a_power() -> None:
    torch.testing.assert_close(Polynomial(2.0)(torch.rand(3)).alpha.shape, torch.Size([3]))  # type: ignore[arg-type]
