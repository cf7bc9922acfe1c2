"""What is known of a point besides its prior: log-likelihoods, from measurements or of a user's own."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from manifolds import Manifold
from manifolds.arguments import shown
from rfm.arrays import tensor_of

LogLikelihood = Callable[[Tensor], Tensor]
"""From points ``(*batch, *event_shape)`` to log-likelihoods ``(*batch)``, up to a constant; -inf where impossible."""


class Measurement:
    """A measurement ``y = A(x) + noise`` with independent Gaussian noise: a log-likelihood of ``x``.

    Args:
        operator: ``A``, from points ``(*batch, *event_shape)`` to ``(*batch, *y.shape)``. One of `deepinv`'s physics is
            taken as it is: its ``A`` is used.
        y: what was measured, of any shape.
        noise: standard deviation, positive; a number, or one for each entry of ``y``.
        period: of an operator whose values are on a circle, such as 360 or 2 pi: differences are taken the short way
            round. The noise is then a wrapped normal distribution where it is small against the period.

    Raises:
        ValueError: the noise is not positive, ``y`` is not finite, or shapes do not fit.
    """

    def __init__(self, operator: Any, y: Any, noise: float | Tensor, period: float | None = None) -> None:
        self.operator: Callable[[Tensor], Tensor] = operator.A if _is_physics(operator) else operator
        if not callable(self.operator):
            raise ValueError(f"Measurement: operator must be a function of points, got {shown(operator)}")
        self.y = tensor_of("Measurement", "y", y, torch.float64).detach()
        self.noise = tensor_of("Measurement", "noise", noise, torch.float64).detach()
        if not bool(torch.isfinite(self.y).all()):
            raise ValueError("Measurement: y must be finite; leave out what was not measured, with a Mask")
        if not bool((self.noise > 0).all()) or not bool(torch.isfinite(self.noise).all()):
            raise ValueError(
                "Measurement: noise, a standard deviation, must be positive and finite, got "
                f"{float(self.noise.min()):g}; for what is known without error see Flow.posterior"
            )
        if self.noise.ndim and self.noise.shape != self.y.shape:
            raise ValueError(
                f"Measurement: noise must be a number or have the shape of y, {tuple(self.y.shape)}, got "
                f"{tuple(self.noise.shape)}"
            )
        self.period = period

    def __call__(self, x: Tensor) -> Tensor:
        """Return log-likelihoods in nats, normalised over ``y``, ``(*batch)``."""
        residual = self.residual(x)
        noise = self.noise.to(residual)
        log_scale = (noise.log() + math.log(2 * math.pi) / 2).expand(self.y.shape).sum()
        axes = tuple(range(-max(self.y.ndim, 1), 0))
        return -(residual / noise).square().sum(axes) / 2 - log_scale

    def residual(self, x: Tensor) -> Tensor:
        """Return ``A(x) - y``, ``(*batch, *y.shape)``."""
        value = self.operator(x)
        y = self.y.to(value)
        if value.shape[value.ndim - y.ndim :] != y.shape:
            raise ValueError(
                f"Measurement: the operator gives values of shape {tuple(value.shape)} for points of shape "
                f"{tuple(x.shape)}, which do not end with that of y, {tuple(y.shape)}"
            )
        difference = value - y
        if self.period is not None:
            difference = difference - self.period * (difference / self.period).round()
        # A number measured has no axis of its own.
        return difference if y.ndim else difference[..., None]


def _is_physics(operator: Any) -> bool:
    return callable(getattr(operator, "A", None))


def distance_to(manifold: Manifold, beacon: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the operator that measures the geodesic distance to a point, ``(*batch)``.

    Args:
        manifold: of the points.
        beacon: the point, ``event_shape``.
    """
    manifold.check_point(beacon)
    return lambda x: manifold.dist(x, beacon.to(x))


def inside(contains: Callable[[Tensor], Tensor]) -> LogLikelihood:
    """Return the log-likelihood of being where ``contains`` says so: 0 there, -inf elsewhere.

    Args:
        contains: from points to booleans ``(*batch)``.
    """

    def log_likelihood(x: Tensor) -> Tensor:
        within = contains(x)
        zero = torch.zeros(within.shape, dtype=x.dtype, device=x.device)
        return zero.masked_fill(~within, -math.inf)

    return log_likelihood


def checked_log_likelihood(likelihood: LogLikelihood, x: Tensor, batch: torch.Size) -> Tensor:
    """Return log-likelihoods of points, float64, ``(*batch)``.

    Raises:
        ValueError: they have another shape, are NaN or +inf.
    """
    value = likelihood(x)
    if not isinstance(value, Tensor) or value.shape != batch:
        raise ValueError(
            "posterior: the likelihood must return one log-likelihood per point, shape "
            f"{tuple(batch)}, got {tuple(value.shape) if isinstance(value, Tensor) else shown(value)}"
        )
    value = value.double()
    if bool((value.isnan() | (value == math.inf)).any()):
        raise ValueError(
            "posterior: the likelihood is NaN or infinite at a point of the prior; it must be a finite log-likelihood "
            "or -inf everywhere"
        )
    return value
