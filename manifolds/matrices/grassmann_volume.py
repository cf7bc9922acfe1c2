"""How the exponential map of a Grassmann manifold stretches volume, as a function of the Gram matrix of the velocity.

With ``q_i = a_i^2`` the eigenvalues of that matrix it is a symmetric function of the q_i,

    H = sum_{i<j} [l(a_i + a_j) + l(a_i - a_j)] + w sum_i l(a_i),    l(s) = log |sin(s) / s|,

smooth also where they meet or vanish, though the a_i are not. From the product ``sin(s) / s = prod_m (1 - s^2 / c_m)``,
``c_m = (m pi)^2``, its derivatives are sums over m of rational functions of the q_i, in which nothing cancels.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from manifolds.matrices.spectral import eigh
from manifolds.numerics import differentiated, sinc_of_root

Coefficient = Tensor | float


def log_det(gram: Tensor, weight: int) -> Tensor:
    """Return H of the eigenvalues of ``gram`` ``(*batch, p, p)``, with w the weight: ``(*batch)``.

    First and second derivatives are exact where no two angles add up to more than 4 pi, third ones are not.
    """
    p = gram.shape[-1]
    q, basis = eigh(gram)
    q = q.clamp(min=0.0)
    rows, columns = torch.tril_indices(p, p, offset=-1, device=gram.device)
    a = torch.sqrt(q)
    sums, gaps = a[..., rows] + a[..., columns], a[..., rows] - a[..., columns]
    pairs = torch.log(torch.abs(sinc_of_root(sums * sums))) + torch.log(torch.abs(sinc_of_root(gaps * gaps)))
    value = pairs.sum(-1) + weight * torch.log(torch.abs(sinc_of_root(q))).sum(-1)
    if not differentiated(gram):
        return value
    return value + _change(q, basis.mT @ (gram - gram.detach()) @ basis, weight)


def _change(q: Tensor, e: Tensor, weight: int) -> Tensor:
    """Return what H changes by, to second order, when ``E`` is added to the diagonal matrix of ``q``.

    Off the diagonal E enters by divided differences of the gradient of H. With ``D(x, z)`` the product of
    ``c - (sqrt x +- sqrt z)^2`` a pair contributes ``sum_m log D(x, z)`` to H.
    """
    p = q.shape[-1]
    same = torch.eye(p, dtype=torch.bool, device=q.device)
    x, z = q[..., :, None], q[..., None, :]
    pair = _pair(x, z)
    slopes = _sum([-2.0, 2 * (x - z)], pair).masked_fill(same, 0.0).sum(-1)
    slopes = slopes - weight * _sum([1.0], [1.0, -q])
    diagonal = torch.diagonal(e, dim1=-2, dim2=-1)
    mixed = _sum([-6.0, 4 * (x + z), 2 * (x - z).square()], _times(pair, pair)).masked_fill(same, 0.0)
    turned = 4 * _sum([1.0], pair).masked_fill(same, 0.0) - weight * _sum([1.0], _times([1.0, -x], [1.0, -z]))
    x, y, z = q[..., :, None, None], q[..., None, :, None], q[..., None, None, :]
    others = _sum([-2.0, 2 * (x + y) - 12 * z, -2 * (z - x) * (z - y)], _times(_pair(x, z), _pair(y, z)))
    turned = turned + others.masked_fill(same[:, None, :] | same[None, :, :], 0.0).sum(-1)
    second = turned * e * e + mixed * diagonal[..., :, None] * diagonal[..., None, :]
    return (slopes * diagonal).sum(-1) + second.sum((-2, -1)) / 2


def _pair(x: Tensor, z: Tensor) -> list[Coefficient]:
    """Return the coefficients of ``D(x, z)`` in c, the highest power first."""
    return [1.0, -2 * (x + z), (x - z).square()]


def _times(a: Sequence[Coefficient], b: Sequence[Coefficient]) -> list[Coefficient]:
    """Return the coefficients of the product of two polynomials."""
    product: list[Coefficient] = [0.0] * (len(a) + len(b) - 1)
    for i, u in enumerate(a):
        for j, v in enumerate(b):
            product[i + j] = product[i + j] + u * v
    return product


def _sum(numerator: Sequence[Coefficient], denominator: Sequence[Coefficient]) -> Tensor:
    """Return the sum over m of a quotient of polynomials in ``c_m``, the highest powers first.

    The first terms are added as they are; the others as their series in 1 / c, whose powers have known sums.

    Args:
        numerator: coefficients.
        denominator: more of them, of which the first is 1.
    """
    total: Coefficient = 0.0
    for m in range(1, _EXPLICIT + 1):
        c = (m * math.pi) ** 2
        total = total + _value(numerator, c) / _value(denominator, c)
    series: list[Coefficient] = []
    for j in range(len(_REST) - len(denominator)):
        term = numerator[j] if j < len(numerator) else 0.0
        for i in range(1, min(j, len(denominator) - 1) + 1):
            term = term - denominator[i] * series[j - i]
        series.append(term)
        total = total + _REST[len(denominator) - len(numerator) + j] * term
    assert isinstance(total, Tensor)
    return total


def _value(coefficients: Sequence[Coefficient], c: float) -> Coefficient:
    value: Coefficient = 0.0
    for coefficient in coefficients:
        value = value * c + coefficient
    return value


_EXPLICIT = 6
_REST = tuple(
    float(torch.special.zeta(torch.tensor(2.0 * k, dtype=torch.float64), _EXPLICIT + 1)) / math.pi ** (2 * k)
    if k
    else 0.0
    for k in range(20)
)
