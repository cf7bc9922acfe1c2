"""Divided differences of functions of eigenvalues, accurate where their arguments merge.

References:
    Higham: Functions of Matrices, 2008, appendix B.16 (divided differences, the formula of Hermite and Genocchi).
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from manifolds.numerics import horner, sinhc_of_root


def log_quotient(a: Tensor, b: Tensor) -> Tensor:
    """Return ``(log a - log b) / (a - b)`` for positive ``a, b``, and ``1 / a`` where they are equal."""
    low = torch.minimum(a, b)
    gap = torch.maximum(a, b) - low
    equal = gap == 0
    gap = torch.where(equal, 1.0, gap)
    apart = torch.log1p(gap / low) / gap
    return torch.where(equal, low.reciprocal(), apart)


def exp_quotient(a: Tensor, b: Tensor) -> Tensor:
    """Return ``(exp a - exp b) / (a - b)``, and ``exp a`` where they are equal."""
    return sinhc_of_root((a - b) ** 2 / 4) * torch.exp((a + b) / 2)


@dataclass(frozen=True)
class Divisible:
    """A function whose divided differences are wanted.

    Attributes:
        first: the first one.
        scales: of m and the order q, what the Taylor series at m is multiplied by, and the unit of its argument.
        series: ``f^(j)(m) / j!`` in these units, from j = 2.
        cluster: the widest gap, in units, for which ten terms are exact to rounding.
    """

    first: Callable[[Tensor, Tensor], Tensor]
    scales: Callable[[Tensor, int], tuple[Tensor, Tensor]]
    series: tuple[float, ...]
    cluster: float


def table(f: Divisible, d: Tensor, order: int) -> Tensor:
    """Return ``f[d_i, d_k, ..., d_j]`` of ascending ``d``, ``(*batch, n)``, with ``order + 1`` axes of length n."""
    tuples, places = _ascending(d.shape[-1], order + 1, d.device)
    values = divided(f, torch.stack([d.index_select(-1, axis) for axis in tuples]))
    return values.index_select(-1, places).unflatten(-1, (d.shape[-1],) * (order + 1))


def mixed_table(f: Divisible, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Return ``f[a_i, b_k, c_j]``, ``(*batch, n, n, n)``."""
    axes = torch.broadcast_tensors(a[..., :, None, None], b[..., None, :, None], c[..., None, None, :])
    return divided(f, torch.stack(axes).sort(0).values)


def divided(f: Divisible, points: Tensor) -> Tensor:
    """Return ``f[a, b, ..., c]`` of two or more ascending arguments along the first axis.

    Arguments close to each other take the Taylor series at their mean, whose p-th term has the complete homogeneous
    polynomial h_p of the deviations from it; others divide by the widest of their gaps.
    """
    order = len(points) - 1
    if order == 1:
        return f.first(points[0], points[1])
    mean = points.mean(0)
    factor, unit = f.scales(mean, order)
    gap = points[-1] - points[0]
    close = gap < f.cluster * unit
    elementary = [torch.ones_like(mean)] + [torch.zeros_like(mean)] * (order + 1)
    for x in (torch.where(close, points - mean, 0.0) / unit).unbind(0):
        elementary = elementary[:1] + [e + x * low for low, e in itertools.pairwise(elementary)]
    # The deviations add up to zero, so the generating function of h_p is 1 / (1 + e2 t^2 - e3 t^3 + ...).
    series = f.series[order - 2 : order + 8]
    h = [torch.ones_like(mean), torch.zeros_like(mean)]
    near = series[0] * h[0]
    for p in range(2, len(series)):
        term = -elementary[2] * h[p - 2]
        for k in range(3, min(p, order + 1) + 1):
            term = term + (-1) ** (k + 1) * elementary[k] * h[p - k]
        h.append(term)
        near = near + series[p] * term
    far = (divided(f, points[1:]) - divided(f, points[:-1])) / torch.where(close, 1.0, gap)
    return torch.where(close, factor * near, far)


def slope_table(d: Tensor) -> Tensor:
    """Return the second divided differences of `slope` at ``d_i - d_k, d_l - d_k, d_j - d_k``, as ``[i, l, j, k]``."""
    n = d.shape[-1]
    tuples, places = _ascending(n, 3, d.device)
    low, middle, high = (d.index_select(-1, axis)[..., None] - d[..., None, :] for axis in tuples)
    return _second_slope_quotient(low, middle, high).index_select(-2, places).unflatten(-2, (n, n, n))


def _ascending(n: int, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return all ascending tuples of indices, ``(length, m)``, and the place of each of the ``n^length`` among them."""
    every = list(itertools.product(range(n), repeat=length))
    # Not itertools.combinations_with_replacement, which the compiler cannot trace.
    tuples = [t for t in every if t == tuple(sorted(t))]
    place = {t: i for i, t in enumerate(tuples)}
    places = [place[tuple(sorted(t))] for t in every]
    return torch.tensor(tuples, device=device).T, torch.tensor(places, device=device)


def slope_quotient(a: Tensor, b: Tensor) -> Tensor:
    """Return the first divided difference of `slope`."""
    width = b - a
    close = width.abs() < 0.5
    gauss = torch.stack([weight * curvature(a + node * width) for node, weight in _GAUSS]).sum(0)
    return torch.where(close, gauss, (slope(b) - slope(a)) / torch.where(close, 1.0, width))


def _second_slope_quotient(low: Tensor, middle: Tensor, high: Tensor) -> Tensor:
    """Return the second divided difference of `slope`, by the formula of Hermite and Genocchi where it is close."""
    gap = high - low
    close = gap < 0.5
    gauss = torch.zeros_like(low)
    for t, weight in _GAUSS:
        for s, other in _GAUSS:
            gauss = gauss + weight * other * t * _third_derivative(low + t * (middle - low + s * (high - middle)))
    far = (slope_quotient(middle, high) - slope_quotient(low, middle)) / torch.where(close, 1.0, gap)
    return torch.where(close, gauss, far)


def slope(d: Tensor) -> Tensor:
    """Return the derivative of ``log(sinh(d/2) / (d/2))``, that is ``coth(d/2)/2 - 1/d``."""
    small = d.abs() < 1
    safe = torch.where(small, 1.0, d)
    q = torch.where(small, d * d, 0.0)
    return torch.where(small, d * horner(q, _SLOPE), 0.5 / torch.tanh(safe / 2) - 1 / safe)


def curvature(d: Tensor) -> Tensor:
    """Return the second derivative of ``log(sinh(d/2) / (d/2))``, that is ``1/d^2 - 1/(4 sinh(d/2)^2)``."""
    small = d.abs() < 1
    safe = torch.where(small, 1.0, d)
    q = torch.where(small, d * d, 0.0)
    return torch.where(small, horner(q, _CURVATURE), 1 / safe**2 - 0.25 / torch.sinh(safe / 2) ** 2)


def _third_derivative(d: Tensor) -> Tensor:
    """Return the third derivative of ``log(sinh(d/2) / (d/2))``, that is ``cosh(d/2) / (4 sinh(d/2)^3) - 2/d^3``."""
    small = d.abs() < 1
    safe = torch.where(small, 1.0, d)
    q = torch.where(small, d * d, 0.0)
    far = 0.25 / (torch.sinh(safe / 2) ** 2 * torch.tanh(safe / 2)) - 2 / safe**3
    return torch.where(small, d * horner(q, _THIRD_SLOPE), far)


EXP = Divisible(
    exp_quotient,
    lambda m, q: (torch.exp(m), torch.ones_like(m)),
    tuple(1 / math.factorial(j) for j in range(2, 13)),
    0.1,
)
LOG = Divisible(log_quotient, lambda m, q: (m**-q, m), tuple((-1) ** (j + 1) / j for j in range(2, 13)), 0.05)
_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510, 43867 / 798, -174611 / 330)
_SLOPE = tuple(b / math.factorial(2 * k + 2) for k, b in enumerate(_BERNOULLI))
_CURVATURE = tuple((2 * k + 1) * b / math.factorial(2 * k + 2) for k, b in enumerate(_BERNOULLI))
_THIRD_SLOPE = tuple(2 * k * c for k, c in enumerate(_CURVATURE))[1:]
_GAUSS = ((0.5 - math.sqrt(0.15), 5 / 18), (0.5, 8 / 18), (0.5 + math.sqrt(0.15), 5 / 18))
