"""Schedules: how much of the data and how much of the noise a path holds at each time.

Time runs from 0, the source, to 1, the data: diffusion papers mostly count the other way. A `Schedule` gives the
coefficients of ``x_t = alpha(t) x_1 + sigma(t) noise`` in flat space, a `Kappa` the share of a geodesic that is still
to go; both give derivatives with values. Quantities that vanish at an end are computed without cancellation there.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "Coefficients",
    "Cosine",
    "CosineKappa",
    "ExponentialKappa",
    "FunctionKappa",
    "FunctionSchedule",
    "Kappa",
    "Linear",
    "LinearKappa",
    "Polynomial",
    "PolynomialKappa",
    "Schedule",
    "VarianceExploding",
    "VariancePreserving",
]


class Coefficients(NamedTuple):
    """The values of a schedule at times ``(*batch)``; every part has that shape."""

    alpha: Tensor
    """Coefficient of the data."""
    sigma: Tensor
    """Coefficient of the noise, which has unit variance."""
    d_alpha: Tensor
    """Derivative of ``alpha`` in time."""
    d_sigma: Tensor
    """Derivative of ``sigma`` in time."""


class Schedule(ABC):
    """The coefficients of ``x_t = alpha(t) x_1 + sigma(t) noise``.

    A subclass writes ``__call__``: from times ``(*batch)`` in [0, 1] to `Coefficients`, in the dtype and on the device
    of the times. `FunctionSchedule` makes one from two functions.
    """

    source_scale: float = 1.0
    """Standard deviation of the source: the path's start ``x_0`` is the noise times this. It differs from 1 where
    ``sigma(0)`` does, so that the flow starts from the source."""

    @abstractmethod
    def __call__(self, t: Tensor) -> Coefficients:
        """Return the coefficients and their derivatives at times ``t``."""

    def log_snr(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logarithm of the signal-to-noise ratio, ``log(alpha^2 / sigma^2)``, and its derivative in time.

        It rises from the source to the data. Where a coefficient is 0 it has its limit: ``-inf`` where ``alpha`` is, as
        at time 0 of most schedules, ``inf`` where ``sigma`` is, as at time 1 of most; the derivative is ``inf`` at
        both. Elsewhere both are finite, and computed without a ratio that overflows.

        Kingma et al., Variational Diffusion Models, 2021, arXiv:2107.00630, section 3.1.
        """
        alpha, sigma, d_alpha, d_sigma = self(t)
        return 2 * (torch.log(alpha) - torch.log(sigma)), 2 * (d_alpha / alpha - d_sigma / sigma)

    def probability_flow(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``f`` and ``h`` of the marginal velocity ``f x + h score(x, t)``, for Gaussian noise.

        Song et al., Score-Based Generative Modeling through Stochastic Differential Equations, 2020, arXiv:2011.13456,
        equation 13, with time reversed: ``h`` is half the squared diffusion coefficient. Both are NaN where ``alpha``
        is 0: the score is that of the noise there, and independent of the data.
        """
        alpha, sigma, d_alpha, d_sigma = self(t)
        f = d_alpha / torch.where(alpha == 0, math.nan, alpha)
        return f, sigma * (sigma * f - d_sigma)


@dataclass(frozen=True)
class Linear(Schedule):
    """``alpha = t, sigma = 1 - t``: straight lines at constant speed.

    Liu et al., Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow, 2022,
    arXiv:2209.03003; Lipman et al., Flow Matching for Generative Modeling, 2022, arXiv:2210.02747, equation 20 with
    sigma_min = 0.
    """

    def __call__(self, t: Tensor) -> Coefficients:
        one = torch.ones_like(t)
        return Coefficients(t, 1 - t, one, -one)


@dataclass(frozen=True)
class Cosine(Schedule):
    """``alpha = sin(pi t / 2), sigma = cos(pi t / 2)``: the variance stays 1 where that of the data is 1.

    Albergo & Vanden-Eijnden, Building Normalizing Flows with Stochastic Interpolants, 2022, arXiv:2209.15571: the
    trigonometric interpolant.
    """

    def __call__(self, t: Tensor) -> Coefficients:
        half_pi = math.pi / 2
        # A sine of what is left: the cosine near its zero would have an absolute error of one unit of rounding.
        alpha, sigma = torch.sin(half_pi * t), torch.sin(half_pi * (1 - t))
        return Coefficients(alpha, sigma, half_pi * sigma, -half_pi * alpha)


@dataclass(frozen=True)
class Polynomial(Schedule):
    """``alpha = t^power, sigma = 1 - t^power``: `Linear`, with more of the time spent near the source.

    Args:
        power: a whole number, at least 1. Above 1 the velocity vanishes at time 0.
    """

    power: int = 2

    def __post_init__(self) -> None:
        _check_power(self, self.power)

    def __call__(self, t: Tensor) -> Coefficients:
        n = self.power
        slope = n * t ** (n - 1) if n > 1 else torch.ones_like(t)
        return Coefficients(t**n, self._sigma(t), slope, -slope)

    def log_snr(self, t: Tensor) -> tuple[Tensor, Tensor]:
        # The power itself underflows at times that are no zeros of it.
        sigma = self._sigma(t)
        slope = self.power * t ** (self.power - 1) if self.power > 1 else torch.ones_like(t)
        return 2 * (self.power * torch.log(t) - torch.log(sigma)), 2 * (self.power / t + slope / sigma)

    def _sigma(self, t: Tensor) -> Tensor:
        # 1 - t^n = (1 - t)(1 + t + ... + t^(n-1)), whose first factor is exact near 1.
        total = torch.ones_like(t)
        for _ in range(self.power - 1):
            total = 1 + t * total
        return (1 - t) * total


@dataclass(frozen=True)
class VariancePreserving(Schedule):
    """The variance-preserving diffusion: ``alpha = exp(-B / 2), sigma = sqrt(1 - exp(-B))``.

    ``B = s beta_min + s^2 (beta_max - beta_min) / 2`` is the noise added by diffusion time ``s = 1 - t``.

    Song et al., 2020, arXiv:2011.13456, appendix C: the continuous limit of DDPM (Ho et al., 2020, arXiv:2006.11239).

    The path ends at the data, but ``sigma`` has slope -inf there: at t = 1 the velocity of a path is not finite.
    It does not start at the source exactly: ``alpha(0) = exp(-(beta_min + beta_max) / 4)``, 0.0066 by default.

    Args:
        beta_min: rate of noise at the data, t = 1.
        beta_max: rate of noise at the source, t = 0.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        if not 0 < self.beta_min <= self.beta_max < math.inf:
            raise ValueError(
                "VariancePreserving: needs 0 < beta_min <= beta_max, finite, got "
                f"{self.beta_min} and {self.beta_max}; beta_min is the rate at the data"
            )

    def __call__(self, t: Tensor) -> Coefficients:
        s, beta = self._rate(t)
        total = s * (self.beta_min + beta) / 2
        alpha = torch.exp(-total / 2)
        sigma = torch.sqrt(-torch.expm1(-total))
        return Coefficients(alpha, sigma, alpha * beta / 2, -(alpha**2) * beta / (2 * sigma))

    def log_snr(self, t: Tensor) -> tuple[Tensor, Tensor]:
        s, beta = self._rate(t)
        total = s * (self.beta_min + beta) / 2
        # alpha^2 = exp(-B), which underflows, is never formed.
        variance = -torch.expm1(-total)
        return -total - torch.log(variance), beta / variance

    def probability_flow(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return half of beta, twice: finite at t = 1 too, where the derivative of ``sigma`` is not."""
        beta = self._rate(t)[1]
        return beta / 2, beta / 2

    def _rate(self, t: Tensor) -> tuple[Tensor, Tensor]:
        s = 1 - t
        return s, self.beta_min + s * (self.beta_max - self.beta_min)


@dataclass(frozen=True)
class VarianceExploding(Schedule):
    """The variance-exploding diffusion: ``alpha = 1, sigma = sigma_max^(1 - t) sigma_min^t``.

    Song et al., 2020, arXiv:2011.13456, appendix C, with time reversed.

    The source is N(0, sigma_max^2), so a path's ``x_0`` is the unit noise times ``sigma_max``. The path does not start
    at ``x_0``, but at ``x_1 + x_0``, and does not end at the data, but with noise ``sigma_min`` about it. Make
    ``sigma_max`` large beside the data, and ``sigma_min`` small.

    Args:
        sigma_min: standard deviation of the noise at t = 1.
        sigma_max: standard deviation of the noise at t = 0, and of the source.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max < math.inf:
            raise ValueError(
                "VarianceExploding: needs 0 < sigma_min < sigma_max, finite, got "
                f"{self.sigma_min} and {self.sigma_max}; sigma_max is the noise at time 0, the source"
            )
        object.__setattr__(self, "source_scale", float(self.sigma_max))

    def __call__(self, t: Tensor) -> Coefficients:
        rate = math.log(self.sigma_min / self.sigma_max)
        sigma = self.sigma_max * torch.exp(rate * t)
        return Coefficients(torch.ones_like(t), sigma, torch.zeros_like(t), rate * sigma)

    def log_snr(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return a straight line, finite at both ends."""
        rate = math.log(self.sigma_min / self.sigma_max)
        return -2 * (math.log(self.sigma_max) + rate * t), torch.full_like(t, -2 * rate)


@dataclass(frozen=True)
class FunctionSchedule(Schedule):
    """A schedule from two functions of time, elementwise; their derivatives are taken in forward mode.

    Args:
        alpha: coefficient of the data, 1 at time 1.
        sigma: coefficient of the unit noise, 0 at time 1.
        source_scale: standard deviation of the source, ``sigma(0)``.
    """

    alpha: Callable[[Tensor], Tensor]
    sigma: Callable[[Tensor], Tensor]
    source_scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.source_scale < math.inf:
            raise ValueError(f"FunctionSchedule: source_scale must be positive and finite, got {self.source_scale}")

    def __call__(self, t: Tensor) -> Coefficients:
        alpha, d_alpha = _with_derivative(self.alpha, t)
        sigma, d_sigma = _with_derivative(self.sigma, t)
        return Coefficients(alpha, sigma, d_alpha, d_sigma)


class Kappa(ABC):
    """The share of a geodesic from source to data that is still to go: 1 at time 0, 0 at time 1.

    Chen & Lipman, Flow Matching on General Geometries, 2023, arXiv:2302.03660, equation 13. A subclass writes
    ``__call__``: from times ``(*batch)`` to the share and its derivative. `FunctionKappa` makes one from a function.
    """

    @abstractmethod
    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return the share that is left at times ``t``, and its derivative in time."""


@dataclass(frozen=True)
class LinearKappa(Kappa):
    """``kappa = 1 - t``: constant speed."""

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return 1 - t, -torch.ones_like(t)


@dataclass(frozen=True)
class PolynomialKappa(Kappa):
    """``kappa = (1 - t)^power``: fast at the source, slow at the data.

    Args:
        power: a whole number, at least 1. Above 1 the velocity vanishes at time 1.
    """

    power: int = 2

    def __post_init__(self) -> None:
        _check_power(self, self.power)

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        left = 1 - t
        slope = -self.power * left ** (self.power - 1) if self.power > 1 else -torch.ones_like(t)
        return left**self.power, slope


@dataclass(frozen=True)
class CosineKappa(Kappa):
    """``kappa = cos(pi t / 2)^2``: slow at both ends, where the velocity vanishes."""

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        half_pi = math.pi / 2
        rising, falling = torch.sin(half_pi * t), torch.sin(half_pi * (1 - t))
        return falling**2, -math.pi * rising * falling


@dataclass(frozen=True)
class ExponentialKappa(Kappa):
    """``kappa = (exp(-rate t) - exp(-rate)) / (1 - exp(-rate))``: an exponential decay that reaches 0 at time 1.

    Yim et al., Fast Protein Backbone Generation with SE(3) Flow Matching, 2023, arXiv:2310.05297, use it for rotations
    without the division, which stops at ``exp(-rate)`` of the way.

    Args:
        rate: positive.
    """

    rate: float = 10.0

    def __post_init__(self) -> None:
        if not 0 < self.rate < math.inf:
            raise ValueError(f"ExponentialKappa: rate must be positive and finite, got {self.rate}")

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        scale = 1 / -math.expm1(-self.rate)
        decay = torch.exp(-self.rate * t)
        return -scale * decay * torch.expm1(-self.rate * (1 - t)), -scale * self.rate * decay


@dataclass(frozen=True)
class FunctionKappa(Kappa):
    """A share left from a function of time, elementwise; its derivative is taken in forward mode.

    Args:
        kappa: 1 at time 0, 0 at time 1.
    """

    kappa: Callable[[Tensor], Tensor]

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return _with_derivative(self.kappa, t)


def _with_derivative(function: Callable[[Tensor], Tensor], t: Tensor) -> tuple[Tensor, Tensor]:
    # Contiguous: forward mode refuses a tensor whose entries share memory.
    t = t.contiguous()
    value = function(t)
    if not isinstance(value, Tensor) or value.shape != t.shape:
        raise ValueError(
            f"a function of time must return a tensor of the times' shape {tuple(t.shape)}, got "
            f"{tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__}; for a constant return "
            "c * torch.ones_like(t)"
        )
    value, derivative = torch.func.jvp(function, (t,), (torch.ones_like(t),))[:2]
    # Forward mode takes plain numbers for double precision where the time has no axes.
    return value, derivative.to(value.dtype)


def _check_power(owner: object, power: int) -> None:
    if power != int(power) or power < 1:
        raise ValueError(f"{type(owner).__name__}: power must be a whole number, at least 1, got {power}")
    object.__setattr__(owner, "power", int(power))
