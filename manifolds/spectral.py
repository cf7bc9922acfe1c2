"""Functions of symmetric matrices, with derivatives that are right at repeated eigenvalues.

``f(A) = Q f(D) Q'`` is smooth in ``A`` although ``Q`` is not: automatic derivatives of ``eigh`` divide by differences
of eigenvalues. Here ``Q`` and ``D`` are constants, and ``A = Q (D + E) Q'`` enters through E, which is zero in value
but not in derivative, by the expansion

    f(D + E)_ij = f(d_i) + f[d_i, d_j] E_ij + sum_k f[d_i, d_k, d_j] E_ik E_kj + O(E^3)

with divided differences, which stay accurate as their arguments merge. First and second derivatives, in forward and
reverse mode and mixed, are therefore exact, also of functions that contain a derivative of f already: they take third
divided differences. Derivatives of third order are not defined by this expansion: they are made NaN or infinite
(`_second_order_only`), since they would come out as zero.
Tables of divided differences take n times the memory of the matrices: they are made only where a derivative is asked
for. A matrix that is not finite gives NaN for itself alone, where ``eigh`` would raise for the whole batch.

References:
    Daleckii, Krein 1965; Higham: Functions of Matrices, 2008, section 3.2 and theorem 3.11 (first derivative).
    Bhatia: Matrix Analysis, 1997, section V.3 and X.4 (higher derivatives).
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from manifolds.numerics import differentiated, horner, log_sinhc_of_root, sinhc_of_root


def symmetrise(a: Tensor) -> Tensor:
    """Return ``(a + a') / 2``, symmetric bit for bit."""
    return (a + a.mT).mul_(0.5)


def symmetric_exp(s: Tensor) -> Tensor:
    """Return the exponential of symmetric matrices ``(*batch, n, n)``."""
    d, basis = eigh(s)
    return _expand(basis, torch.exp(d), s, lambda: _pairs(_exp_quotient, d), lambda: _exp_second(d, d, d))


def symmetric_exp_derivative(s: Tensor, h: Tensor) -> Tensor:
    """Return the derivative of `symmetric_exp` at ``s`` along the symmetric ``h``."""
    d, basis = eigh(s)
    second, third = (lambda: _exp_second(d, d, d)), (lambda: _exp_third(d))
    return _derivative(basis, _pairs(_exp_quotient, d), second, third, s, h)


def symmetric_exp_after(x: Tensor, v: Tensor) -> Tensor:
    """Return ``exp(log x + v)``, with rounding error in proportion to ``x`` where ``v`` is small.

    The exponential multiplies the rounding of ``log x``, which is large where the eigenvalues spread. So a small step
    is added to ``x``: ``(P' (exp s - exp r) Q)_ij = exp[r_i, s_j] (P' (s - r) Q)_ij`` in the eigenbases P of r = log x
    and Q of s = log x + v. A large step would cancel where it shrinks, and has no need of it.
    """
    d, p = eigh(x)
    if not (differentiated(x) or differentiated(v)):
        return _exp_after(x, v, d, p)[0]
    rest = p.mT @ (v - v.detach()) @ p
    return _exp_after_live(x, v.detach(), d, p, x - x.detach(), rest)


def symmetric_exp_along(x: Tensor, u: Tensor) -> Tensor:
    """Return ``exp(log x + v)`` for v the derivative of log at ``x`` along ``u``, as accurately as that.

    For a small u, it is x + u to first order: so are its derivatives, from which only what v changes is far.
    """
    d, p = eigh(x)
    first = _pairs(log_quotient, d)
    v = symmetrise(p @ (first * (p.mT @ u.detach() @ p)) @ p.mT)
    if not (differentiated(x) or differentiated(u)):
        return _exp_after(x, v, d, p)[0]
    moved = x - x.detach()
    change = _change(p.mT @ u @ p, p.mT @ moved @ p, _log_second(d), _log_third(d))
    return _exp_after_live(x, v, d, p, moved + (u - u.detach()), change)


def _exp_after(x: Tensor, v: Tensor, d: Tensor, p: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return ``exp s`` for ``s = log x + v``, eigenvalues and eigenvectors of s, and whether v is small."""
    r = torch.log(d)[..., None, :]
    e, q = eigh(symmetrise((p * r) @ p.mT) + v)
    small = ((v * v).sum((-2, -1)) < 1)[..., None, None]
    step = x.detach() + symmetrise(p @ (_exp_quotient(r.mT, e[..., None, :]) * (p.mT @ v @ q)) @ q.mT)
    return torch.where(small, step, symmetrise((q * torch.exp(e)[..., None, :]) @ q.mT)), e, q, small


def _exp_after_live(x: Tensor, v: Tensor, d: Tensor, p: Tensor, h: Tensor, rest: Tensor) -> Tensor:
    """Return ``exp(log x + v)``, whose exponent has the derivative of log along ``h`` plus ``P rest P'``.

    With T_ab(H)_ij = exp[a_i, b_j] H_ij, in the eigenbasis of a on the left and of b on the right, a small step changes
    the derivative T_ss(H) along H = Dlog(h) from T_rr(H) = h by ``T_ss - T_rs + T_rs - T_rr``, second divided
    differences times v: nothing large cancels.

    Args:
        x: positive definite, with its derivatives.
        v: the step, a constant.
        d: eigenvalues of x.
        p: eigenvectors of x.
        h: zero in value, as is
        rest: which is in the eigenbasis P of x.
    """
    value, e, q, small = _exp_after(x, v, d, p)
    # For the derivatives, too, the largest eigenvalues of s are better known from the sum.
    y = eigh(value)[0]
    known = small[..., 0] & (y * e.abs().amax(-1, keepdim=True) > y[..., -1:])
    e = torch.where(known, torch.log(torch.where(known, y, 1.0)), e)
    r, turn = torch.log(d), p.mT @ q
    # Where the step is large, `near` is not taken, but differentiated.
    mixed = torch.where(small, p.mT @ v @ q, 0.0)
    first = _pairs(log_quotient, d) * (p.mT @ h @ p)
    here = turn.mT @ first @ turn
    near = _contracted(_exp_second(r, e, e), mixed, here) + _contracted(_exp_second(r, r, e), first, mixed)
    slope = _pairs(_exp_quotient, e)
    change = torch.where(small, h + symmetrise(p @ near @ q.mT), symmetrise(q @ (slope * here) @ q.mT))
    moved = p.mT @ (x - x.detach()) @ p
    rest = turn.mT @ (rest + _contracted(_log_second(d), moved, moved)) @ turn
    core = slope * rest + _contracted(_exp_second(e, e, e), here + rest, here + rest) + _second_order_only(moved, rest)
    return value + change + symmetrise(q @ core @ q.mT)


def symmetric_log(x: Tensor) -> Tensor:
    """Return the logarithm of symmetric positive definite matrices ``(*batch, n, n)``."""
    d, basis = eigh(x)
    return _expand(basis, torch.log(d), x, lambda: _pairs(log_quotient, d), lambda: _log_second(d))


def symmetric_log_derivative(x: Tensor, h: Tensor) -> Tensor:
    """Return the derivative of `symmetric_log` at ``x`` along the symmetric ``h``."""
    d, basis = eigh(x)
    second, third = (lambda: _log_second(d)), (lambda: _log_third(d))
    return _derivative(basis, _pairs(log_quotient, d), second, third, x, h)


def symmetric_log_difference(x: Tensor, y: Tensor) -> Tensor:
    """Return ``log y - log x``, with rounding error in proportion to ``y - x``; exactly zero where they are equal.

    In the eigenbases P of x and Q of y it is ``(P' (log y - log x) Q)_ij = log[d_i, e_j] (P' (y - x) Q)_ij``.
    """
    (d, p), (e, q) = eigh(x), eigh(y)
    core = log_quotient(d[..., :, None], e[..., None, :]) * (p.mT @ (y - x).detach() @ q)
    value = symmetrise(p @ core @ q.mT)
    if not (differentiated(x) or differentiated(y)):
        return value
    live = symmetric_log(y) - symmetric_log(x)
    return value + (live - live.detach())


def gram_log(b: Tensor, e: Tensor) -> Tensor:
    """Return ``log(b b')`` given also ``e = b b' - I`` without cancellation.

    Args:
        b: matrices ``(*batch, n, n)``; only their value is used, derivatives are those of ``e``.
        e: symmetric matrices of the same shape.
    """
    basis, d, log_d, rest = _gram_spectrum(b, e)
    return _expand(basis, log_d, e, lambda: _pairs(log_quotient, d), lambda: _log_second(d), rest)


def gram_sqrt(b: Tensor, e: Tensor) -> Tensor:
    """Return the positive square root of ``b b'``, with the arguments of `gram_log`."""
    basis, _, log_d, rest = _gram_spectrum(b, e)
    root = torch.exp(log_d / 2)

    def sums() -> Tensor:
        return root[..., :, None] + root[..., None, :]

    def second() -> Tensor:
        a = sums()
        return -1 / (a[..., :, :, None] * a[..., None, :, :] * a[..., :, None, :])

    return _expand(basis, root, e, lambda: 1 / sums(), second, rest)


def log_det_sinhc(s: Tensor) -> Tensor:
    """Return ``sum_{i<j} log(sinh(a) / a)``, ``a = (d_i - d_j) / 2``, over the eigenvalues of ``s``: ``(*batch)``."""
    d, basis = eigh(s)
    gap = d[..., :, None] - d[..., None, :]
    e = basis.mT @ (s - s.detach()) @ basis
    linear = torch.diag_embed(_slope(gap).sum(-1)) + _turn_of_slope(gap, e) / 2
    value = log_sinhc_of_root(gap * gap / 4).sum((-2, -1)) / 2
    return value + (linear * e).sum((-2, -1)) + _second_order_only(e).sum((-2, -1))


def log_det_sinhc_gradient(s: Tensor) -> Tensor:
    """Return the gradient of `log_det_sinhc`, a symmetric matrix."""
    d, basis = eigh(s)
    gap = d[..., :, None] - d[..., None, :]
    core = torch.diag_embed(_slope(gap).sum(-1))
    if differentiated(s):
        e = basis.mT @ (s - s.detach()) @ basis
        core = core + _turn_of_slope(gap, e) + _second_turn_of_slope(gap, e) + _second_order_only(e)
    return basis @ core @ basis.mT


def log_quotient(a: Tensor, b: Tensor) -> Tensor:
    """Return ``(log a - log b) / (a - b)`` for positive ``a, b``, and ``1 / a`` where they are equal."""
    low = torch.minimum(a, b)
    gap = torch.maximum(a, b) - low
    equal = gap == 0
    gap = torch.where(equal, 1.0, gap)
    apart = torch.log1p(gap / low) / gap
    return torch.where(equal, low.reciprocal(), apart)


def eigh(a: Tensor) -> tuple[Tensor, Tensor]:
    """Return the eigenvalues and eigenvectors of symmetric ``a``, as constants; NaN where ``a`` is not finite."""
    finite = torch.isfinite(a).all(-1).all(-1)[..., None, None]
    d, basis = torch.linalg.eigh(torch.where(finite, a, 0.0).detach())
    return torch.where(finite[..., 0], d, torch.nan), basis


def _gram_spectrum(b: Tensor, e: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return eigenvectors Q and eigenvalues of ``b b' = I + e``, their logarithms, and what Q leaves off the diagonal.

    Where e is small they are taken from it, since 1 + e has lost them. Elsewhere they are squares of singular values
    of b, which spread wider than the entries of ``b b'``, let alone of e, can resolve. What Q leaves is small: of it a
    function is taken to first order.
    """
    b, e = torch.broadcast_tensors(b.detach(), e.detach())
    finite = (torch.isfinite(b) & torch.isfinite(e)).all(-1).all(-1)[..., None, None]
    diagonal = torch.eye(b.shape[-1], dtype=torch.bool, device=b.device)
    b, e = torch.where(finite, b, diagonal.to(b.dtype)), torch.where(finite, e, 0.0)
    near = (e * e).sum((-2, -1)) < 0.25
    basis, excess, gram = (_few_singular_vectors if b.shape[-1] <= 3 else _singular_vectors)(
        b, e, near[..., None, None]
    )
    near, d = near[..., None], torch.diagonal(gram, dim1=-2, dim2=-1)
    log_d = torch.where(finite[..., 0], torch.where(near, torch.log1p(excess), torch.log(d)), torch.nan)
    return basis, torch.where(near, 1 + excess, d), log_d, gram.masked_fill(diagonal, 0.0)


def _singular_vectors(b: Tensor, e: Tensor, near: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return left singular vectors Q of b, the diagonal of ``Q' e Q``, and ``Q' b b' Q``; of e where it is small."""
    basis, sigma, _ = torch.linalg.svd(b)
    turned = basis.mT @ torch.where(near, e, 0.0) @ basis
    return basis, torch.diagonal(turned, dim1=-2, dim2=-1), torch.where(near, turned, torch.diag_embed(sigma * sigma))


def _few_singular_vectors(b: Tensor, e: Tensor, near: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return what `_singular_vectors` does for matrices of at most 3 x 3, at half the cost.

    Eigenvectors of ``b b'`` tell the largest singular value from the others, but two small ones not from each other.
    Their rows of ``Q' b`` do, which one rotation makes orthogonal, as in the one-sided Jacobi method. Where e is small,
    its own eigenvectors are as good as their values.
    """
    excess, basis = torch.linalg.eigh(torch.where(near, e, b @ b.mT))
    rows = torch.cat([basis.mT @ b, basis.mT], -1)
    n = b.shape[-1]
    if n == 3:
        low, middle, high = rows.unbind(-2)
        p, q = low[..., :n], middle[..., :n]
        angle = torch.atan2(2 * (p * q).sum(-1), ((q - p) * (q + p)).sum(-1)).masked_fill(near[..., 0, 0], 0.0)
        cos, sin = torch.cos(angle / 2)[..., None], torch.sin(angle / 2)[..., None]
        rows = torch.stack([cos * low - sin * middle, sin * low + cos * middle, high], -2)
    gram = rows[..., :n] @ rows[..., :n].mT
    return rows[..., n:].mT, excess, torch.where(near, torch.diag_embed(excess), gram)


def _expand(
    basis: Tensor,
    values: Tensor,
    a: Tensor,
    first: Callable[[], Tensor],
    second: Callable[[], Tensor],
    rest: Tensor | None = None,
) -> Tensor:
    """Return ``Q f(D + E) Q'`` to second order in ``E = Q' (a - a.detach()) Q``, and to first in ``rest`` beside D."""
    if not differentiated(a):
        core = basis * values[..., None, :] if rest is None else basis @ (first() * rest + torch.diag_embed(values))
        return symmetrise(core @ basis.mT)
    e = basis.mT @ (a - a.detach()) @ basis
    slope = first()
    core = torch.diag_embed(values) + slope * e + _contracted(second(), e, e) + _second_order_only(e)
    if rest is not None:
        core = core + slope * rest
    return symmetrise(basis @ core @ basis.mT)


def _derivative(
    basis: Tensor, first: Tensor, second: Callable[[], Tensor], third: Callable[[], Tensor], a: Tensor, h: Tensor
) -> Tensor:
    """Return the derivative of ``Q f(D + E) Q'`` along ``h``, to second order in ``E = Q' (a - a.detach()) Q``."""
    h = basis.mT @ h @ basis
    core = first * h
    if differentiated(a):
        e = basis.mT @ (a - a.detach()) @ basis
        core = core + _change(h, e, second(), third()) + _second_order_only(e)
    return symmetrise(basis @ core @ basis.mT)


def _change(h: Tensor, e: Tensor, second: Tensor, third: Tensor) -> Tensor:
    """Return by how much the derivative of ``f(D + E)`` along h differs from that at D, to second order in E."""
    half = _contracted(second, h, e)
    half = half + torch.einsum("...iklj,...ik,...kl,...lj->...ij", third, h, e, e)
    return half + half.mT + torch.einsum("...iklj,...ik,...kl,...lj->...ij", third, e, h, e)


def _second_order_only(*changes: Tensor) -> Tensor:
    """Return zero, with two derivatives that are zero, for changes that are; a third one is not finite."""
    total = torch.pow(changes[0], 2.5)
    for change in changes[1:]:
        total = total + torch.pow(change, 2.5)
    return total


def _contracted(second: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Return ``sum_k f[a_i, b_k, c_j] left_ik right_kj``."""
    return torch.einsum("...ikj,...ik,...kj->...ij", second, left, right)


def _pairs(quotient: Callable[[Tensor, Tensor], Tensor], d: Tensor) -> Tensor:
    return quotient(d[..., :, None], d[..., None, :])


def _exp_quotient(a: Tensor, b: Tensor) -> Tensor:
    return sinhc_of_root((a - b) ** 2 / 4) * torch.exp((a + b) / 2)


def _exp_second(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return _divided(_EXP, *_along_axes(a, b, c))


def _exp_third(d: Tensor) -> Tensor:
    return _divided(_EXP, *_along_axes(d, d, d, d))


def _log_second(d: Tensor) -> Tensor:
    return _divided(_LOG, *_along_axes(d, d, d))


def _log_third(d: Tensor) -> Tensor:
    return _divided(_LOG, *_along_axes(d, d, d, d))


def _along_axes(*eigenvalues: Tensor) -> list[Tensor]:
    """Return eigenvalues ``(*batch, n)``, each along an axis of its own, in order."""
    last = len(eigenvalues) - 1
    return [d[(..., *(None,) * i, slice(None), *(None,) * (last - i))] for i, d in enumerate(eigenvalues)]


@dataclass(frozen=True)
class _Divisible:
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


def _divided(f: _Divisible, *arguments: Tensor) -> Tensor:
    """Return ``f[a, b, ..., c]`` of two or more arguments, which broadcast.

    Arguments close to each other take the Taylor series at their mean, whose p-th term has the complete homogeneous
    polynomial h_p of the deviations from it; others divide by the widest of their gaps.
    """
    points = torch.stack(torch.broadcast_tensors(*arguments)).sort(0).values
    order = len(arguments) - 1
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
    h = [torch.ones_like(mean)]
    near = series[0] * h[0]
    for p, coefficient in enumerate(series[1:], start=1):
        terms = [(-1) ** (k + 1) * elementary[k] * h[p - k] for k in range(2, min(p, order + 1) + 1)]
        h.append(torch.stack(terms).sum(0) if terms else torch.zeros_like(mean))
        near = near + coefficient * h[p]
    far = (_divided(f, *points[1:].unbind(0)) - _divided(f, *points[:-1].unbind(0))) / torch.where(close, 1.0, gap)
    return torch.where(close, factor * near, far)


def _turn_of_slope(gap: Tensor, e: Tensor) -> Tensor:
    """Return the change to first order in E of the gradient of `log_det_sinhc`, from gaps ``d_i - d_j``."""
    diagonal = torch.diagonal(e, dim1=-2, dim2=-1)
    turn = (_curvature(gap) * (diagonal[..., :, None] - diagonal[..., None, :])).sum(-1)
    off = 1 - torch.eye(e.shape[-1], dtype=e.dtype, device=e.device)
    # Off the diagonal: the divided difference of the gradient's entries i and j, summed over k.
    divided = _slope_quotient(gap[..., None, :, :], gap[..., :, None, :]).sum(-1)
    return torch.diag_embed(turn) + off * divided * e


def _second_turn_of_slope(gap: Tensor, e: Tensor) -> Tensor:
    """Return that to second order.

    With f the slope, the gradient is the partial trace of ``f(A x I - I x A)``, x the Kronecker product, whose
    eigenvalues are the gaps: the sum over k of the entries (i, k), (j, k).
    """
    rows = gap[..., :, None, None, :], gap[..., None, :, None, :], gap[..., None, None, :, :]
    both = torch.einsum("...iljk,...il,...lj->...ij", _slope_second(*rows), e, e)
    i, j = gap[..., :, None, :], gap[..., None, :, :]
    diagonal = torch.diagonal(e, dim1=-2, dim2=-1)
    mixed = ((_slope_second(i, i, j) + _slope_second(i, j, j)) * diagonal[..., None, None, :]).sum(-1)
    other = torch.einsum("...ikm,...km,...mk->...i", _slope_second(i.mT, i.mT, i), e, e)
    return both - mixed * e + torch.diag_embed(other)


def _slope_quotient(a: Tensor, b: Tensor) -> Tensor:
    """Return the first divided difference of `_slope`."""
    width = b - a
    close = width.abs() < 0.5
    gauss = torch.stack([weight * _curvature(a + node * width) for node, weight in _GAUSS]).sum(0)
    return torch.where(close, gauss, (_slope(b) - _slope(a)) / torch.where(close, 1.0, width))


def _slope_second(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Return the second divided difference of `_slope`, by the formula of Hermite and Genocchi where it is close."""
    low, middle, high = torch.stack(torch.broadcast_tensors(a, b, c)).sort(0).values
    gap = high - low
    close = gap < 0.5
    gauss = torch.zeros_like(low)
    for t, weight in _GAUSS:
        for s, other in _GAUSS:
            gauss = gauss + weight * other * t * _third_slope(low + t * (middle - low + s * (high - middle)))
    far = (_slope_quotient(middle, high) - _slope_quotient(low, middle)) / torch.where(close, 1.0, gap)
    return torch.where(close, gauss, far)


def _slope(d: Tensor) -> Tensor:
    """Return the derivative of ``log(sinh(d/2) / (d/2))``, that is ``coth(d/2)/2 - 1/d``."""
    small = d.abs() < 1
    safe = torch.where(small, 1.0, d)
    q = torch.where(small, d * d, 0.0)
    return torch.where(small, d * horner(q, _SLOPE), 0.5 / torch.tanh(safe / 2) - 1 / safe)


def _curvature(d: Tensor) -> Tensor:
    """Return the second derivative of ``log(sinh(d/2) / (d/2))``, that is ``1/d^2 - 1/(4 sinh(d/2)^2)``."""
    small = d.abs() < 1
    safe = torch.where(small, 1.0, d)
    q = torch.where(small, d * d, 0.0)
    return torch.where(small, horner(q, _CURVATURE), 1 / safe**2 - 0.25 / torch.sinh(safe / 2) ** 2)


def _third_slope(d: Tensor) -> Tensor:
    """Return the third derivative of ``log(sinh(d/2) / (d/2))``, that is ``cosh(d/2) / (4 sinh(d/2)^3) - 2/d^3``."""
    small = d.abs() < 1
    safe = torch.where(small, 1.0, d)
    q = torch.where(small, d * d, 0.0)
    far = 0.25 / (torch.sinh(safe / 2) ** 2 * torch.tanh(safe / 2)) - 2 / safe**3
    return torch.where(small, d * horner(q, _THIRD_SLOPE), far)


_EXP = _Divisible(
    _exp_quotient,
    lambda m, q: (torch.exp(m), torch.ones_like(m)),
    tuple(1 / math.factorial(j) for j in range(2, 13)),
    0.1,
)
_LOG = _Divisible(log_quotient, lambda m, q: (m**-q, m), tuple((-1) ** (j + 1) / j for j in range(2, 13)), 0.05)
_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510, 43867 / 798, -174611 / 330)
_SLOPE = tuple(b / math.factorial(2 * k + 2) for k, b in enumerate(_BERNOULLI))
_CURVATURE = tuple((2 * k + 1) * b / math.factorial(2 * k + 2) for k, b in enumerate(_BERNOULLI))
_THIRD_SLOPE = tuple(2 * k * c for k, c in enumerate(_CURVATURE))[1:]
_GAUSS = ((0.5 - math.sqrt(0.15), 5 / 18), (0.5, 8 / 18), (0.5 + math.sqrt(0.15), 5 / 18))
