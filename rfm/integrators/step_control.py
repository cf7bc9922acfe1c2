"""How long the steps of an adaptive solve are, per sample.

References:
    Hairer, Norsett & Wanner, Solving Ordinary Differential Equations I, 1993, section II.4.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from manifolds import Manifold
from rfm.integrators.runge_kutta import Field

_SAFETY = 0.9
_SHORTEST, _LONGEST = 0.2, 5.0
"""Bounds of the ratio of a step's length to that of the one before."""


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


def factor(ratio: Tensor, order: int) -> Tensor:
    """Return what to multiply a step by whose error was ``ratio`` times the tolerated one.

    The estimate grows like the power ``order`` of the step's length. After a step into nowhere, where it is not finite,
    it is a fifth.
    """
    growth = _SAFETY * ratio.clamp(min=1e-10) ** (-1 / order)
    return torch.where(torch.isfinite(ratio), growth.clamp(_SHORTEST, _LONGEST), _SHORTEST)


def initial_step(
    field: Field,
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
        span: signed length of the whole solve.
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
