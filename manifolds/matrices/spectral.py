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

from collections.abc import Callable

import torch
from torch import Tensor

from manifolds.matrices.divided_differences import (
    EXP,
    LOG,
    curvature,
    exp_quotient,
    log_quotient,
    mixed_table,
    slope,
    slope_quotient,
    slope_table,
    table,
)
from manifolds.numerics import differentiated, log_sinhc_of_root
from manifolds.numerics.blocks import in_blocks


def symmetrise(a: Tensor) -> Tensor:
    """Return ``(a + a') / 2``, symmetric bit for bit."""
    return (a + a.mT).mul_(0.5)


def symmetric_exp(s: Tensor) -> Tensor:
    """Return the exponential of symmetric matrices ``(*batch, n, n)``."""
    d, basis = eigh(s)
    return _expand(basis, torch.exp(d), _moved(s, basis), lambda: _pairs(exp_quotient, d), lambda: table(EXP, d, 2))


def symmetric_exp_derivative(s: Tensor, h: Tensor) -> Tensor:
    """Return the derivative of `symmetric_exp` at ``s`` along the symmetric ``h``."""
    d, basis = eigh(s)
    second, third = (lambda: table(EXP, d, 2)), (lambda: table(EXP, d, 3))
    return _derivative(basis, _pairs(exp_quotient, d), second, third, s, h)


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
    change = _change(p.mT @ u @ p, p.mT @ moved @ p, table(LOG, d, 2), table(LOG, d, 3))
    return _exp_after_live(x, v, d, p, moved + (u - u.detach()), change)


def _exp_after(x: Tensor, v: Tensor, d: Tensor, p: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return ``exp s`` for ``s = log x + v``, eigenvalues and eigenvectors of s, and whether v is small."""
    r = torch.log(d)[..., None, :]
    e, q = eigh(symmetrise((p * r) @ p.mT) + v)
    small = ((v * v).sum((-2, -1)) < 1)[..., None, None]
    step = x.detach() + symmetrise(p @ (exp_quotient(r.mT, e[..., None, :]) * (p.mT @ v @ q)) @ q.mT)
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
    near = _contracted(mixed_table(EXP, r, e, e), mixed, here) + _contracted(mixed_table(EXP, r, r, e), first, mixed)
    slope = _pairs(exp_quotient, e)
    change = torch.where(small, h + symmetrise(p @ near @ q.mT), symmetrise(q @ (slope * here) @ q.mT))
    moved = p.mT @ (x - x.detach()) @ p
    rest = turn.mT @ (rest + _contracted(table(LOG, d, 2), moved, moved)) @ turn
    core = slope * rest + _contracted(table(EXP, e, 2), here + rest, here + rest) + _second_order_only(moved, rest)
    return value + change + symmetrise(q @ core @ q.mT)


def symmetric_log(x: Tensor) -> Tensor:
    """Return the logarithm of symmetric positive definite matrices ``(*batch, n, n)``."""
    d, basis = eigh(x)
    return _expand(basis, torch.log(d), _moved(x, basis), lambda: _pairs(log_quotient, d), lambda: table(LOG, d, 2))


def symmetric_log_derivative(x: Tensor, h: Tensor) -> Tensor:
    """Return the derivative of `symmetric_log` at ``x`` along the symmetric ``h``."""
    d, basis = eigh(x)
    second, third = (lambda: table(LOG, d, 2)), (lambda: table(LOG, d, 3))
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


def gram_log(b: Tensor, e: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Return ``log(b b')`` given also ``e = b b' - I`` without cancellation.

    Args:
        b: matrices ``(*batch, n, n)``, constants.
        e: symmetric matrices of the same shape, constants.
        left: zero; derivatives are those of ``(I + left) b (I + right) b' (I + left)'``.
        right: zero, and symmetric.
    """
    basis, d, log_d, rest = _gram_spectrum(b, e)
    return _expand(
        basis,
        log_d,
        _gram_moved(b, left, right, basis, d),
        lambda: _pairs(log_quotient, d),
        lambda: table(LOG, d, 2),
        rest,
    )


def gram_sqrt(b: Tensor, e: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Return the positive square root of ``b b'``, with the arguments of `gram_log`."""
    basis, d, log_d, rest = _gram_spectrum(b, e)
    root = torch.exp(log_d / 2)

    def sums() -> Tensor:
        return root[..., :, None] + root[..., None, :]

    def second() -> Tensor:
        a = sums()
        return -1 / (a[..., :, :, None] * a[..., None, :, :] * a[..., :, None, :])

    return _expand(basis, root, _gram_moved(b, left, right, basis, d), lambda: 1 / sums(), second, rest)


def log_det_sinhc(s: Tensor) -> Tensor:
    """Return ``sum_{i<j} log(sinh(a) / a)``, ``a = (d_i - d_j) / 2``, over the eigenvalues of ``s``: ``(*batch)``."""
    d, basis = eigh(s)
    gap = d[..., :, None] - d[..., None, :]
    e = basis.mT @ (s - s.detach()) @ basis
    linear = torch.diag_embed(slope(gap).sum(-1)) + _turn_of_slope(gap, e) / 2
    value = log_sinhc_of_root(gap * gap / 4).sum((-2, -1)) / 2
    return value + (linear * e).sum((-2, -1)) + _second_order_only(e).sum((-2, -1))


def log_det_sinhc_gradient(s: Tensor) -> Tensor:
    """Return the gradient of `log_det_sinhc`, a symmetric matrix."""
    d, basis = eigh(s)
    gap = d[..., :, None] - d[..., None, :]
    core = torch.diag_embed(slope(gap).sum(-1))
    if differentiated(s):
        e = basis.mT @ (s - s.detach()) @ basis
        core = core + _turn_of_slope(gap, e) + _second_turn_of_slope(d, e) + _second_order_only(e)
    return basis @ core @ basis.mT


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
    return in_blocks(_spectrum_of_block, b.shape[:-2], _HELD_MATRICES * b.shape[-1] ** 2, b, e)


def _spectrum_of_block(b: Tensor, e: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
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
    # Ascending, as eigenvalues are.
    basis, sigma = basis.flip(-1), sigma.flip(-1)
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
    e: Tensor | None,
    first: Callable[[], Tensor],
    second: Callable[[], Tensor],
    rest: Tensor | None = None,
) -> Tensor:
    """Return ``Q f(D + E) Q'`` to second order in E, None without derivatives, and to first in ``rest`` beside D."""
    if e is None:
        core = basis * values[..., None, :] if rest is None else basis @ (first() * rest + torch.diag_embed(values))
        return symmetrise(core @ basis.mT)
    slope = first()
    core = torch.diag_embed(values) + slope * e + _contracted(second(), e, e) + _second_order_only(e)
    if rest is not None:
        core = core + slope * rest
    return symmetrise(basis @ core @ basis.mT)


def _moved(a: Tensor, basis: Tensor) -> Tensor | None:
    """Return ``E = Q' (a - a.detach()) Q``, or None where no derivative is asked for."""
    return basis.mT @ (a - a.detach()) @ basis if differentiated(a) else None


def _gram_moved(b: Tensor, left: Tensor, right: Tensor, basis: Tensor, d: Tensor) -> Tensor | None:
    """Return E for ``(I + left) b (I + right) b' (I + left)'``, entry by entry in proportion to the eigenvalues.

    As a difference of products of matrices it would lose what changes the small ones.
    """
    if not (differentiated(left) or differentiated(right)):
        return None
    sigma = torch.sqrt(d)[..., None]
    rows = (basis.mT @ b) / sigma
    a, y = basis.mT @ left @ basis, sigma * (rows @ right @ rows.mT) * sigma.mT
    half = a * d[..., None, :] + a @ y
    return half + half.mT + y + (a * d[..., None, :]) @ a.mT


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


def _turn_of_slope(gap: Tensor, e: Tensor) -> Tensor:
    """Return the change to first order in E of the gradient of `log_det_sinhc`, from gaps ``d_i - d_j``."""
    diagonal = torch.diagonal(e, dim1=-2, dim2=-1)
    turn = (curvature(gap) * (diagonal[..., :, None] - diagonal[..., None, :])).sum(-1)
    off = 1 - torch.eye(e.shape[-1], dtype=e.dtype, device=e.device)
    # Off the diagonal: the divided difference of the gradient's entries i and j, summed over k.
    divided = slope_quotient(gap[..., None, :, :], gap[..., :, None, :]).sum(-1)
    return torch.diag_embed(turn) + off * divided * e


def _second_turn_of_slope(d: Tensor, e: Tensor) -> Tensor:
    """Return that to second order.

    With f the slope, the gradient is the partial trace of ``f(A x I - I x A)``, x the Kronecker product, whose
    eigenvalues are the gaps: the sum over k of the entries (i, k), (j, k).
    """
    f = slope_table(d)
    both = torch.einsum("...iljk,...il,...lj->...ij", f, e, e)
    # E on both sides of the product, and twice on the other side, by the oddness of the slope.
    mixed = torch.einsum("...iijk,...kk->...ij", f, e)
    other = -torch.einsum("...kmki,...km,...mk->...i", f, e, e)
    return both - (mixed + mixed.mT) * e + torch.diag_embed(other)


_HELD_MATRICES = 12
