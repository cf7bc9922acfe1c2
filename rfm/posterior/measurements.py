"""Measurements with Gaussian noise."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from manifolds.arguments import integer, positive, shown
from rfm.arrays import tensor_of
from rfm.posterior.likelihood import Likelihood
from rfm.posterior.operators import Operator
from rfm.posterior.physics import function_of

_FAR = 4.0
"""Root mean square misfit of draws, in standard deviations, above which operator, measurement and prior disagree."""

_WINDINGS = 3
"""Turns either way that a wrapped normal density sums over: 1e-9 of it is left out where the noise is half a turn."""


class Measurement(Likelihood):
    """A measurement ``y = A(x) + noise`` with independent Gaussian noise: a log-likelihood of ``x``.

    Args:
        operator: ``A``, from points ``(*batch, *event_shape)`` to ``(*batch, *y.shape)``; see
            `rfm.posterior.operators`. One of `deepinv`'s physics is taken as it is: its ``A``, with ``A_adjoint`` for
            derivatives where it has one, which is checked, and otherwise differentiated.
        y: what was measured, of any shape.
        noise: standard deviation, positive; a number, or one for each entry of ``y``.
        period: of an operator whose values are on a circle, such as 360 or 2 pi: the noise is then wrapped normal, and
            residuals go the short way round. By default that of an `Operator` which has one.
        shape: of a point as the operator takes it, such as ``(1, 28, 28)`` for pictures that are vectors here; points
            then come in one batch axis.

    Raises:
        ValueError: the noise is not positive, ``y`` is not finite, shapes do not fit, or a physics has an adjoint that
            is none.
    """

    def __init__(
        self,
        operator: Any,
        y: Any,
        noise: float | Tensor,
        period: float | None = None,
        shape: Sequence[int] | None = None,
    ) -> None:
        self.y = tensor_of("Measurement", "y", y, torch.float64).detach()
        self.noise = tensor_of("Measurement", "noise", noise, torch.float64).detach()
        if not self.y.numel():
            raise ValueError("Measurement: y is empty; leave out what was not measured")
        if not bool(torch.isfinite(self.y).all()):
            raise ValueError("Measurement: y must be finite; leave out what was not measured, with a Mask")
        self.operator: Callable[[Tensor], Tensor] = function_of(operator, tensor_of("Measurement", "y", y).detach())
        if not callable(self.operator):
            raise ValueError(f"Measurement: operator must be a function of points, got {shown(operator)}")
        if not bool((self.noise > 0).all()) or not bool(torch.isfinite(self.noise).all()):
            raise ValueError(
                "Measurement: noise, a standard deviation, must be positive and finite, got "
                f"{float(self.noise.min()):g}; for what is known without error pass known= to Flow.posterior"
            )
        if self.noise.ndim and self.noise.shape != self.y.shape:
            raise ValueError(
                f"Measurement: noise must be a number or have the shape of y, {tuple(self.y.shape)}, got "
                f"{tuple(self.noise.shape)}"
            )
        if period is None and isinstance(operator, Operator):
            period = operator.period
        self.period = None if period is None else positive("Measurement", "period", period)
        if self.period is not None and float(self.noise.max()) > self.period / 2:
            raise ValueError(
                f"Measurement: noise of {float(self.noise.max()):g} is more than half the period, {self.period:g}: "
                "such a measurement says nothing; leave it out"
            )
        self.shape = None if shape is None else tuple(integer("Measurement", "shape", size) for size in shape)

    def __call__(self, x: Tensor) -> Tensor:
        """Return log-likelihoods in nats, normalised over ``y``, ``(*batch)``."""
        w = self.whitened(x)
        if self.period is None:
            return -w.square().sum(-1) / 2 - self.log_scale
        turn = (self.period / self.noise).expand(self.y.shape).reshape(-1, 1).to(w)
        images = w[..., None] + turn * torch.arange(-_WINDINGS, _WINDINGS + 1, device=w.device)
        return (-images.square() / 2).logsumexp(-1).sum(-1) - self.log_scale

    @property
    def log_scale(self) -> Tensor:
        """The logarithm of what normalises the likelihood over ``y``."""
        return (self.noise.log() + math.log(2 * math.pi) / 2).expand(self.y.shape).sum()

    def whitened(self, x: Tensor) -> Tensor:
        """Return ``(A(x) - y) / noise`` as vectors ``(*batch, m)``: standard normal for the true ``x``."""
        residual = self.residual(x)
        batch = residual.shape[: residual.ndim - self.y.ndim]
        return (residual / self.noise.to(residual)).reshape(*batch, self.y.numel())

    def residual(self, x: Tensor) -> Tensor:
        """Return ``A(x) - y``, ``(*batch, *y.shape)``."""
        value = self.operator(x if self.shape is None else self._shaped(x, self.shape))
        if not isinstance(value, Tensor):
            raise ValueError(f"Measurement: the operator must return a tensor, got {shown(value)}")
        y = self.y.to(value)
        if value.shape[value.ndim - y.ndim :] != y.shape:
            raise ValueError(
                f"Measurement: the operator gives values of shape {tuple(value.shape)} for points of shape "
                f"{tuple(x.shape)}, which do not end with that of y, {tuple(y.shape)}"
            )
        difference = value - y
        if self.period is not None:
            difference = difference - self.period * (difference / self.period).round()
        return difference

    @staticmethod
    def _shaped(x: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Return points in the shape that the operator takes, ``(n, *shape)``."""
        count = len(x) if x.ndim > 1 else 1
        if x.numel() != count * math.prod(shape):
            raise ValueError(
                f"Measurement: shape={shape} is {math.prod(shape)} numbers for each point, got points of shape "
                f"{tuple(x.shape)}"
            )
        return x.reshape(count, *shape)

    def doubts(self, draws: Tensor) -> tuple[str, ...]:
        """Return a sentence if draws miss the measurement by far more than its noise."""
        misfit = float(self.whitened(draws).double().square().mean().sqrt())
        if math.isnan(misfit):
            raise ValueError("Measurement: the operator is NaN at some of the draws; it must be finite everywhere")
        if misfit <= _FAR:
            return ()
        return (
            f"the draws miss the measurement by {misfit:.1f} standard deviations of its noise: it lies outside what "
            "the operator reaches, contradicts the prior, or was not found",
        )
