"""What the hyperboloid and the Poincare ball share: gyrations, and functions of distances that are smooth at zero."""

import math

import torch
from torch import Tensor

from manifolds.arguments import number
from manifolds.numerics import horner, pick


def checked_curvature(name: str, curvature: float) -> float:
    """Return the curvature as a number, or raise ValueError, naming the manifold, unless it is positive and finite."""
    own = number(name, "curvature", curvature)
    if not 0 < own < math.inf:
        raise ValueError(
            f"{name}: curvature is the c > 0 of a space whose curvature is -c, got {curvature}; for flat space use "
            "Euclidean"
        )
    return own


def gyrate(x: Tensor, d: Tensor, a: Tensor, b: Tensor, u: Tensor) -> Tensor:
    """Return ``gyr[y, -x] u`` in the unit ball, for ``y = x + d``, ``a = 1 - |x|^2``, ``b = 1 - |y|^2``.

    It turns the plane of x and y by twice the angle of ``1 - y conj(x)``: the Cayley transform of ``x y' - y x'``, in
    which y may be replaced by d. ``1 - <x, y>`` is ``(a + b + |d|^2) / 2``.
    """
    d2 = (d * d).sum(-1, keepdim=True)
    turned = _wedge(x, d, u)
    return u + ((a + b + d2) * turned + 2 * _wedge(x, d, turned)) / (a * b + d2)


def _wedge(x: Tensor, y: Tensor, u: Tensor) -> Tensor:
    """Return ``(x y' - y x') u``."""
    return x * (y * u).sum(-1, keepdim=True) - y * (x * u).sum(-1, keepdim=True)


def angle_over_sinh(k: Tensor) -> Tensor:
    """Return ``a / sinh(a)`` from ``k = sinh^2(a/2) >= 0``, smooth at 0."""
    root = torch.sqrt(k.clamp(min=_SERIES_BOUND))
    series = horner(k.clamp(max=_SERIES_BOUND), _ANGLE_OVER_SINH, _SERIES_BOUND)
    far = torch.asinh(root) / (root * torch.sqrt(1 + root * root))
    return pick(far, series, (k < _SERIES_BOUND).to(k.dtype))


def asinh_over_argument(k: Tensor) -> Tensor:
    """Return ``asinh(z) / z`` at ``z = sqrt(k)`` for ``k >= 0``, smooth at 0."""
    root = torch.sqrt(k.clamp(min=_SERIES_BOUND))
    series = horner(k.clamp(max=_SERIES_BOUND), _ASINH, _SERIES_BOUND)
    return pick(torch.asinh(root) / root, series, (k < _SERIES_BOUND).to(k.dtype))


_SERIES_BOUND = 0.01
_ANGLE_OVER_SINH = tuple((-1) ** k * math.prod(2 * j / (2 * j + 1) for j in range(1, k + 1)) for k in range(9))
_ASINH = tuple((-1) ** k * math.comb(2 * k, k) / (4**k * (2 * k + 1)) for k in range(9))
