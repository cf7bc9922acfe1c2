"""How long the steps of an adaptive solve are, per sample.

References:
    Hairer, Norsett & Wanner, Solving Ordinary Differential Equations I, 1993, section II.4.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from manifolds import Manifold
from rfm.integrators.right_hand_side import RightHandSide
from rfm.integrators.solution import LEFT_DOMAIN, NOT_FINITE, STEP_TOO_SMALL, SUCCEEDED, TOO_MANY_STEPS

_SHORTEST = 0.2
"""Smallest ratio of a step's length to that of the one before."""

_LEAST_TIME = 1e-24
"""The time, in units of the span, to whose rounding steps from time 0 may shrink."""


@dataclass(frozen=True)
class Growth:
    """How a step's length may differ from that of the one before.

    Args:
        safety: what part of the longest tolerable step to make.
        longest: largest ratio.
    """

    safety: float = 0.9
    longest: float = 5.0

    def factor(self, ratio: Tensor, order: int | Tensor) -> Tensor:
        """Return what to multiply a step by whose error was ``ratio`` times the tolerated one.

        The estimate grows like the power ``order`` of the step's length. After a step into nowhere, where it is not
        finite, it is a fifth.
        """
        if isinstance(order, Tensor):
            order = order.to(ratio.dtype)
        growth = self.safety * ratio.clamp(min=1e-10) ** (-1 / order)
        return torch.where(torch.isfinite(ratio), growth.clamp(_SHORTEST, self.longest), _SHORTEST)


@dataclass(frozen=True)
class Trial:
    """Steps that are tried, ``n`` of them."""

    t: Tensor
    """Where they start."""
    h: Tensor
    """Their lengths, positive."""
    signed: Tensor
    """Their lengths in the direction of time."""
    arrives: Tensor
    """Which would end at the end of the solve."""
    end: float
    """When that is."""

    @classmethod
    def of(cls, t: Tensor, h: Tensor, end: float, sign: float) -> "Trial":
        """Return steps of lengths ``h``, cut at the end of the solve."""
        remaining = (end - t).abs()
        arrives = h >= remaining
        h = torch.where(arrives, remaining, h)
        return cls(t, h, sign * h, arrives, end)

    @property
    def target(self) -> Tensor:
        """When they end."""
        return torch.where(self.arrives, self.end, self.t + self.signed)

    def assess(
        self, ratio: Tensor, outside: Tensor | None, growth: Tensor, steps: Tensor, max_steps: int
    ) -> "Assessment":
        """Return which steps are accepted, and how each sample goes on.

        Args:
            ratio: their errors, relative to the tolerated one.
            outside: which left the manifold; None if none can. They are repeated with a fifth of their length.
            growth: what to multiply the lengths of the others by.
            steps: how many each sample has tried, with this one.
            max_steps: how many it may.
        """
        finite = torch.isfinite(ratio)
        why: Tensor | int = STEP_TOO_SMALL
        if outside is not None:
            ratio = torch.where(outside, math.inf, ratio)
            growth = torch.where(outside, _SHORTEST, growth)
            why = torch.where(outside, LEFT_DOMAIN, STEP_TOO_SMALL)
        accept = ratio <= 1  # NaN compares false
        t, h = self.target, self.h * growth
        # Near time 0 steps may be far shorter than the span; after a field that is not finite there is no use in that.
        size = torch.maximum(self.t.abs(), t.abs())
        floor = 4 * torch.finfo(t.dtype).eps * torch.where(finite, size.clamp(min=_LEAST_TIME), size.clamp(min=1e-3))
        arrived = accept & self.arrives
        # Also after accepted steps: they can become so short that time stands still.
        status = torch.where(~arrived & (h < floor), torch.where(finite, why, NOT_FINITE), SUCCEEDED)
        status = torch.where((status == SUCCEEDED) & (steps >= max_steps) & ~arrived, TOO_MANY_STEPS, status)
        return Assessment(accept, torch.where(accept, t, self.t), h, status, arrived)


@dataclass(frozen=True)
class Assessment:
    """What became of steps that were tried."""

    accept: Tensor
    t: Tensor
    """Where the samples are now."""
    h: Tensor
    """How long the next steps are."""
    status: Tensor
    """Whether they can go on, see `rfm.integrators.solution`."""
    arrived: Tensor
    """Which are at the end."""


@dataclass(frozen=True)
class Tolerance:
    """What error a step may make: ``atol + rtol |x|``, in the unit of the metric."""

    atol: float
    rtol: float

    def of_points(self, x: Tensor) -> Tensor:
        """Return the tolerated error at points, with ``|x|`` over ambient coordinates, ``(n)``."""
        return self.of_sizes(torch.linalg.vector_norm(x.flatten(1), dim=1))

    def of_sizes(self, size: Tensor) -> Tensor:
        """Return the tolerated error of numbers of this size."""
        return self.atol + self.rtol * size

    def ratio(
        self,
        error: Tensor,
        points: tuple[Tensor, Tensor],
        error_of_integral: Tensor | None,
        integrals: tuple[Tensor | None, Tensor | None],
    ) -> Tensor:
        """Return the larger of the errors of the point and of the integral, relative to what is tolerated.

        Args:
            error: of the points, as a length ``(n)``.
            points: before and after the step.
            error_of_integral: its mean over several integrals is what counts; None if there is none.
            integrals: before and after the step.
        """
        ratio = error / torch.maximum(*map(self.of_points, points))
        before, after = integrals
        if error_of_integral is None or before is None or after is None:
            return ratio
        size = torch.maximum(average(before).abs(), average(after).abs())
        return torch.maximum(ratio, average(error_of_integral).abs() / self.of_sizes(size))


def initial_step(
    field: RightHandSide,
    manifold: Manifold,
    tolerance: Tolerance,
    order: int,
    x: Tensor,
    t: Tensor,
    first: tuple[Tensor, Tensor | None],
    span: float,
) -> Tensor:
    """Return a first step per sample, positive: algorithm of the reference, p. 169, with one more evaluation.

    Args:
        field: what is integrated.
        manifold: where the points live.
        tolerance: of the solve.
        order: of the method.
        x: initial points ``(n, *event_shape)``.
        t: initial times ``(n)``.
        first: the field there, with the integrand if there is one.
        span: signed length of the full solve.
    """
    u, q = first
    scale = tolerance.of_points(x)
    d_1 = _larger(manifold.norm(x, u), q) / scale
    h_0 = torch.where(d_1 < 1e-5, 1e-3, 1e-2 / (d_1 * scale).clamp(min=1e-3)).clamp(max=abs(span))
    # A field that is NaN here is still tried, and then reported, from a step that can shrink.
    h_0 = torch.nan_to_num(h_0, nan=min(1e-3, abs(span)))
    signed = torch.copysign(h_0, torch.full_like(h_0, span))
    y = manifold.projx(x + manifold.lift(signed) * u)
    v, r = field(y, t + signed)
    change = manifold.norm(y, manifold.proju(y, v - u))
    d_2 = _larger(change, None if r is None or q is None else r - q) / scale / h_0
    h_1 = (0.01 / torch.maximum(d_1, d_2).clamp(min=1e-8)) ** (1 / (order + 1))
    return torch.where(torch.isfinite(h_1), torch.minimum(100 * h_0, h_1), h_0).clamp(max=abs(span))


def _larger(length: Tensor, integrand: Tensor | None) -> Tensor:
    return length if integrand is None else torch.maximum(length, average(integrand).abs())


def average(integrals: Tensor) -> Tensor:
    """Return the mean over several integrals of a sample ``(n, ...)``, which is what steps are controlled by."""
    return integrals.flatten(1).mean(1) if integrals.ndim > 1 else integrals
