"""Functions of symmetric matrices, with derivatives that are right at repeated eigenvalues.

``f(A) = Q f(D) Q'`` is smooth in ``A`` although ``Q`` is not: automatic derivatives of ``eigh`` divide by differences
of eigenvalues. Here ``Q`` and ``D`` are constants, and ``A = Q (D + E) Q'`` enters through E, which is zero in value
but not in derivative, by the expansion

    f(D + E)_ij = f(d_i) + f[d_i, d_j] E_ij + sum_k f[d_i, d_k, d_j] E_ik E_kj + O(E^3)

with divided differences, which stay accurate as their arguments merge. First and second derivatives, in forward and
reverse mode, are therefore exact; third and higher ones are not defined by this expansion and come out as zero.
Tables of divided differences take n times the memory of the matrices: they are made only where a derivative is asked
for. A matrix that is not finite gives NaN for itself alone, where ``eigh`` would raise for the whole batch.

References:
    Daleckii, Krein 1965; Higham: Functions of Matrices, 2008, section 3.2 and theorem 3.11 (first derivative).
    Bhatia: Matrix Analysis, 1997, section V.3 and X.4 (higher derivatives).
"""

import math
from collections.abc import Callable

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
    return _derivative(basis, _pairs(_exp_quotient, d), lambda: _exp_second(d, d, d), s, h)


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
    half = _contracted(_log_second(d), p.mT @ u @ p, p.mT @ moved @ p)
    return _exp_after_live(x, v, d, p, moved + (u - u.detach()), half + half.mT)


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
    core = slope * rest + _contracted(_exp_second(e, e, e), here + rest, here + rest)
    return value + change + symmetrise(q @ core @ q.mT)


def symmetric_log(x: Tensor) -> Tensor:
    """Return the logarithm of symmetric positive definite matrices ``(*batch, n, n)``."""
    d, basis = eigh(x)
    return _expand(basis, torch.log(d), x, lambda: _pairs(log_quotient, d), lambda: _log_second(d))


def symmetric_log_derivative(x: Tensor, h: Tensor) -> Tensor:
    """Return the derivative of `symmetric_log` at ``x`` along the symmetric ``h``."""
    d, basis = eigh(x)
    return _derivative(basis, _pairs(log_quotient, d), lambda: _log_second(d), x, h)


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
    slope, turn = _slope_of_log_det_sinhc(gap, e)
    linear = torch.diag_embed(slope) + turn / 2
    return log_sinhc_of_root(gap * gap / 4).sum((-2, -1)) / 2 + (linear * e).sum((-2, -1))


def log_det_sinhc_gradient(s: Tensor) -> Tensor:
    """Return the gradient of `log_det_sinhc`, a symmetric matrix; differentiable once."""
    d, basis = eigh(s)
    gap = d[..., :, None] - d[..., None, :]
    slope, turn = _slope_of_log_det_sinhc(gap, basis.mT @ (s - s.detach()) @ basis)
    return basis @ (torch.diag_embed(slope) + turn) @ basis.mT


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
    core = torch.diag_embed(values) + slope * e + _contracted(second(), e, e)
    if rest is not None:
        core = core + slope * rest
    return symmetrise(basis @ core @ basis.mT)


def _derivative(basis: Tensor, first: Tensor, second: Callable[[], Tensor], a: Tensor, h: Tensor) -> Tensor:
    """Return the derivative of ``Q f(D + E) Q'`` along ``h``, to first order in ``E = Q' (a - a.detach()) Q``."""
    h = basis.mT @ h @ basis
    core = first * h
    if differentiated(a):
        half = _contracted(second(), h, basis.mT @ (a - a.detach()) @ basis)
        core = core + half + half.mT
    return symmetrise(basis @ core @ basis.mT)


def _contracted(second: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Return ``sum_k f[a_i, b_k, c_j] left_ik right_kj``."""
    return torch.einsum("...ikj,...ik,...kj->...ij", second, left, right)


def _pairs(quotient: Callable[[Tensor, Tensor], Tensor], d: Tensor) -> Tensor:
    return quotient(d[..., :, None], d[..., None, :])


def _exp_quotient(a: Tensor, b: Tensor) -> Tensor:
    return sinhc_of_root((a - b) ** 2 / 4) * torch.exp((a + b) / 2)


def _exp_second(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return _second_quotient(a, b, c, _exp_quotient, lambda m: (torch.exp(m), torch.ones_like(m)), _EXP_SERIES, 0.1)


def _log_second(d: Tensor) -> Tensor:
    return _second_quotient(d, d, d, log_quotient, lambda m: (1 / (m * m), m), _LOG_SERIES, 0.05)


def _second_quotient(
    a: Tensor,
    b: Tensor,
    c: Tensor,
    first: Callable[[Tensor, Tensor], Tensor],
    scales: Callable[[Tensor], tuple[Tensor, Tensor]],
    series: tuple[float, ...],
    cluster: float,
) -> Tensor:
    """Return ``f[a_i, b_k, c_j]``, ``(*batch, n, n, n)``.

    Three arguments within ``cluster`` units of each other take the Taylor series at their mean m, whose p-th term has
    the complete homogeneous polynomial h_p of the deviations from m; others divide by the widest of their gaps.

    Args:
        a: eigenvalues ``(*batch, n)``.
        b: others, or the same.
        c: others, or the same.
        first: the first divided difference of f.
        scales: of m, what the series is multiplied by and the unit of the deviations.
        series: ``f^(p + 2)(m) / (p + 2)!`` in these units, from p = 0.
        cluster: the widest gap, in units, for which the series is exact to rounding.
    """
    triples = torch.broadcast_tensors(a[..., :, None, None], b[..., None, :, None], c[..., None, None, :])
    low, middle, high = torch.stack(triples).sort(0).values
    mean = (low + middle + high) / 3
    factor, unit = scales(mean)
    gap = high - low
    close = gap < cluster * unit
    p, q, r = ((torch.where(close, x - mean, 0.0) / unit) for x in (low, middle, high))
    # The deviations add up to zero, so the generating function of h_p is 1 / (1 + e2 t^2 - e3 t^3).
    e2, e3 = p * q + q * r + r * p, p * q * r
    h = [torch.ones_like(p), torch.zeros_like(p), -e2]
    for _ in series[3:]:
        h.append(e3 * h[-3] - e2 * h[-2])
    near = torch.zeros_like(p)
    for coefficient, term in zip(series, h, strict=True):
        near = near + coefficient * term
    far = (first(middle, high) - first(low, middle)) / torch.where(close, 1.0, gap)
    return torch.where(close, factor * near, far)


def _slope_of_log_det_sinhc(gap: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradient of `log_det_sinhc` in the eigenbasis, and its change along E, from gaps ``d_i - d_j``."""
    diagonal = torch.diagonal(e, dim1=-2, dim2=-1)
    turn = (_curvature(gap) * (diagonal[..., :, None] - diagonal[..., None, :])).sum(-1)
    # Off the diagonal: the divided difference of the gradient's entries i and j, summed over k.
    to, fro, width = gap[..., :, None, :], gap[..., None, :, :], gap[..., :, :, None]
    close = width.abs() < 0.5
    gauss = torch.zeros_like(to + fro)
    for node, weight in _GAUSS:
        gauss = gauss + weight * _curvature((to + fro) / 2 + node * width)
    divided = torch.where(close, gauss, (_slope(to) - _slope(fro)) / torch.where(close, 1.0, width)).sum(-1)
    off = 1 - torch.eye(e.shape[-1], dtype=e.dtype, device=e.device)
    return _slope(gap).sum(-1), torch.diag_embed(turn) + off * divided * e


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


_EXP_SERIES = tuple(1 / math.factorial(p + 2) for p in range(8))
_LOG_SERIES = tuple((-1) ** (p + 1) / (p + 2) for p in range(10))
_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510, 43867 / 798, -174611 / 330)
_SLOPE = tuple(b / math.factorial(2 * k + 2) for k, b in enumerate(_BERNOULLI))
_CURVATURE = tuple((2 * k + 1) * b / math.factorial(2 * k + 2) for k, b in enumerate(_BERNOULLI))
_GAUSS = ((-math.sqrt(0.15), 5 / 18), (0.0, 8 / 18), (math.sqrt(0.15), 5 / 18))
