"""Velocity, score, noise and end point: any one of a network's predictions gives the others.

In flat space, for ``x_t = alpha(t) x_1 + sigma(t) noise`` with the coefficients of a `Schedule`, linear equations hold
for each sample, hence for the conditional means that networks learn::

    x_t = alpha x_1 + sigma noise        velocity = alpha' x_1 + sigma' noise        score = -noise / sigma

The noise has unit variance: a path's ``x_0`` is ``schedule.source_scale`` times it. The score is that of the marginal
density if the noise is Gaussian; the other three need no such thing.

**Where a conversion is singular**, the prediction does not determine the requested quantity, and the result is
NaN, never infinite and never a plausible number:

- from the velocity: the score where ``sigma = 0``; all where ``alpha' sigma = alpha sigma'``: the paths stand still;
- from the score: velocity and end point where ``alpha = 0``;
- from the noise: velocity and end point where ``alpha = 0``; the score where ``sigma = 0``; the velocity where
  ``sigma'`` is infinite;
- from the end point: all where ``sigma = 0``.

With most schedules ``alpha = 0`` at time 0 and ``sigma = 0`` at time 1. So integrate a field made from noise
predictions from a time after 0, or with a schedule whose ``alpha(0)`` is positive, and one made from noise or end
points to a time before 1, and take the end point predicted there.

On manifolds, for a `GeodesicPath`: `velocity_from_endpoint` and `endpoint_from_velocity`.

Lipman et al., Flow Matching Guide and Code, 2024, arXiv:2412.06264, table 1.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from rfm.paths.conditional import GeodesicPath
from rfm.paths.schedules import Coefficients, Schedule

__all__ = [
    "Predictions",
    "ddim_step",
    "endpoint_from_velocity",
    "from_endpoint",
    "from_noise",
    "from_score",
    "from_velocity",
    "velocity_from_endpoint",
]


class Predictions(NamedTuple):
    """The same knowledge in four forms, each ``(*batch, *event_shape)``."""

    velocity: Tensor
    """The marginal velocity at ``x_t``."""
    score: Tensor
    """The gradient of the log-density of ``x_t``."""
    noise: Tensor
    """The mean of the unit noise given ``x_t``."""
    endpoint: Tensor
    """The mean of the data given ``x_t``."""


def from_velocity(schedule: Schedule, x_t: Tensor, t: Tensor, velocity: Tensor) -> Predictions:
    """Return all predictions, from the velocity.

    Args:
        schedule: of the path that the network was trained on.
        x_t: positions ``(*batch, *event_shape)``.
        t: times ``(*batch)``, the leading axes of ``x_t``, or one number.
        velocity: at ``x_t``, the same shape.

    Raises:
        ValueError: if the shape of ``t`` is neither.
    """
    at = _lifted(schedule, x_t, t)
    # Both terms have one sign where alpha rises and sigma falls: nothing cancels.
    determinant = _nan_unless_regular(at.d_alpha * at.sigma - at.alpha * at.d_sigma)
    noise = (at.d_alpha * x_t - at.alpha * velocity) / determinant
    endpoint = (at.sigma * velocity - at.d_sigma * x_t) / determinant
    return Predictions(velocity, -noise / _nan_unless_regular(at.sigma), noise, endpoint)


def from_score(schedule: Schedule, x_t: Tensor, t: Tensor, score: Tensor) -> Predictions:
    """Return all predictions, from the score.

    Args:
        schedule: of the path that the network was trained on.
        x_t: positions ``(*batch, *event_shape)``.
        t: times ``(*batch)``, the leading axes of ``x_t``, or one number.
        score: at ``x_t``, the same shape.

    Raises:
        ValueError: if the shape of ``t`` is neither.
    """
    at = _lifted(schedule, x_t, t)
    f, h = (_lift(c, x_t) for c in schedule.probability_flow(t))
    endpoint = (x_t + at.sigma**2 * score) / _nan_unless_regular(at.alpha)
    return Predictions(f * x_t + h * score, score, -at.sigma * score, endpoint)


def from_noise(schedule: Schedule, x_t: Tensor, t: Tensor, noise: Tensor) -> Predictions:
    """Return all predictions, from the unit noise.

    Args:
        schedule: of the path that the network was trained on.
        x_t: positions ``(*batch, *event_shape)``.
        t: times ``(*batch)``, the leading axes of ``x_t``, or one number.
        noise: at ``x_t``, the same shape.

    Raises:
        ValueError: if the shape of ``t`` is neither.
    """
    at = _lifted(schedule, x_t, t)
    endpoint = (x_t - at.sigma * noise) / _nan_unless_regular(at.alpha)
    d_sigma = torch.where(at.d_sigma.isfinite(), at.d_sigma, math.nan)
    return Predictions(at.d_alpha * endpoint + d_sigma * noise, -noise / _nan_unless_regular(at.sigma), noise, endpoint)


def from_endpoint(schedule: Schedule, x_t: Tensor, t: Tensor, endpoint: Tensor) -> Predictions:
    """Return all predictions, from the end point.

    Args:
        schedule: of the path that the network was trained on.
        x_t: positions ``(*batch, *event_shape)``.
        t: times ``(*batch)``, the leading axes of ``x_t``, or one number.
        endpoint: at ``x_t``, the same shape.

    Raises:
        ValueError: if the shape of ``t`` is neither.
    """
    at = _lifted(schedule, x_t, t)
    sigma = _nan_unless_regular(at.sigma)
    noise = (x_t - at.alpha * endpoint) / sigma
    return Predictions(at.d_alpha * endpoint + at.d_sigma * noise, -noise / sigma, noise, endpoint)


def ddim_step(schedule: Schedule, t: Tensor, predictions: Predictions) -> Tensor:
    """Return the position at time ``t`` that earlier predictions lead to, ``alpha endpoint + sigma noise``.

    Song et al., Denoising Diffusion Implicit Models, 2020, arXiv:2010.02502, equation 12 with no added noise. It is a
    step of Euler's method for ``x / alpha`` as a function of ``sigma / alpha``, and with the linear schedule a step of
    Euler's method in time.

    Args:
        schedule: of the path that the network was trained on.
        t: times to step to ``(*batch)``, or one number.
        predictions: at the time stepped from.
    """
    at = _lifted(schedule, predictions.endpoint, t)
    return at.alpha * predictions.endpoint + at.sigma * predictions.noise


def velocity_from_endpoint(path: GeodesicPath, x_t: Tensor, t: Tensor, endpoint: Tensor) -> Tensor:
    """Return the velocity at ``x_t`` of the path that reaches ``endpoint``: ``-kappa' / kappa log_x(endpoint)``.

    NaN where kappa is 0, that is at time 1, where a position does not determine the velocity.

    Args:
        path: the path that the network was trained on.
        x_t: positions ``(*batch, *event_shape)``.
        t: times ``(*batch)``.
        endpoint: predicted end points, the same shape as the positions.
    """
    kappa, d_kappa = _kappa(path, t)
    rate = -d_kappa / torch.where(kappa == 0, math.nan, kappa)
    return path.manifold.lift(rate) * path.manifold.logmap(x_t, endpoint)


def endpoint_from_velocity(path: GeodesicPath, x_t: Tensor, t: Tensor, velocity: Tensor) -> Tensor:
    """Return where a path with this velocity at ``x_t`` ends: ``exp_x(-kappa / kappa' velocity)``.

    The end point of a mean velocity is the exponential of the mean of ``log_x(x_1)``, which on a curved space is no
    mean of ``x_1``. Where kappa is 0 it is ``x_t``; where the path stands still before, it is NaN.

    Args:
        path: the path that the network was trained on.
        x_t: positions ``(*batch, *event_shape)``.
        t: times ``(*batch)``.
        velocity: tangent at ``x_t``, the same shape.
    """
    kappa, d_kappa = _kappa(path, t)
    still = d_kappa == 0
    left = torch.where(still, 0.0, -kappa / torch.where(still, 1.0, d_kappa))
    endpoint = path.manifold.expmap(x_t, path.manifold.lift(left) * velocity)
    # Not by way of a NaN velocity: eigensolvers raise on them.
    return torch.where(path.manifold.lift(still & (kappa != 0)), math.nan, endpoint)


def _kappa(path: GeodesicPath, t: Tensor) -> tuple[Tensor, Tensor]:
    return (1 - t, -torch.ones_like(t)) if path.kappa is None else path.kappa(t)


def _lifted(schedule: Schedule, x_t: Tensor, t: Tensor) -> Coefficients:
    if not all(n in (1, m) for n, m in zip(t.shape, x_t.shape, strict=False)) or t.ndim > x_t.ndim:
        raise ValueError(
            f"conversions: times must have the leading axes of the points, or none, got {tuple(t.shape)} for points "
            f"{tuple(x_t.shape)}; expand them to the batch shape"
        )
    return Coefficients(*(_lift(c, x_t) for c in schedule(t)))


def _lift(c: Tensor, x_t: Tensor) -> Tensor:
    return c[(..., *(None,) * (x_t.ndim - c.ndim))]


def _nan_unless_regular(c: Tensor) -> Tensor:
    """Replace a denominator that is zero or infinite by NaN."""
    return torch.where((c == 0) | ~c.isfinite(), math.nan, c)
