"""Matrices with orthonormal columns: what `Stiefel` and `Grassmann` share.

A batch of them has shape ``(*batch, n, p)``. Matrices of any size are multiplied with ``@`` here: where digits count,
leave reduced-precision products off (``torch.set_float32_matmul_precision("highest")``, the default).
"""

import torch
from torch import Tensor

from manifolds.numerics import differentiated
from manifolds.numerics.linear_algebra import orthonormal_rows


def polar(x: Tensor, *, rotation: bool = False) -> Tensor:
    """Return the nearest matrix with orthonormal columns, the polar factor U V' of ``x = U S V'``.

    With ``rotation``, for square matrices, it is the nearest of determinant +1: the least singular value and its left
    vector change sign where the determinant is negative.

    Near the manifold it comes from the Newton-Schulz iteration ``x (3 - x'x) / 2``, which has the right first
    derivative and leaves alone what is orthonormal already; elsewhere from the singular value decomposition, with first
    and second derivatives of its own, since those of the decomposition divide by differences of singular values. Where
    several are nearest (a singular value is zero) it is one of them. A matrix that is not finite gives NaN for itself
    alone.

    References:
        Higham, Functions of Matrices, 2008, chapter 8.
    """
    finite = torch.isfinite(x).all(-1).all(-1)[..., None, None]
    value = torch.where(finite, x, 0.0).detach()
    far = _polar_by_svd(value, x, rotation)
    near = (_defect(value) ** 2).sum((-2, -1), keepdim=True) < 0.01
    if rotation:
        near = near & (torch.linalg.det(value) > 0)[..., None, None]
    y = torch.where(near, torch.where(near, x, 0.0), far)
    for _ in range(_POLAR_STEPS):
        y = orthonormalised(y)
    return torch.where(finite, y, torch.nan)


def _polar_by_svd(value: Tensor, x: Tensor, rotation: bool) -> Tensor:
    """Return the polar factor of ``value``, with the derivative with respect to ``x``, of the same value."""
    u, s, vh = torch.linalg.svd(value, full_matrices=False)
    if rotation:
        least = torch.arange(s.shape[-1], device=s.device) == s.shape[-1] - 1
        sign = torch.where(least & (torch.linalg.det(u @ vh) < 0)[..., None], -1.0, 1.0).to(s.dtype)
        u, s = u * sign[..., None, :], s * sign
    factor = u @ vh
    if not differentiated(x):
        return factor
    # A step of Newton's method, from a factor that has first derivatives, has second ones.
    first = orthonormalised(factor + _polar_change(u, s, vh, x - x.detach()))
    h = first.mT @ x
    sums, v = s[..., :, None] + s[..., None, :], vh.mT
    turn = v @ ((vh @ (h - h.mT) @ v) / torch.where(sums > 0, sums, 1.0)) @ vh
    second = first @ turn
    if u.shape[-1] != u.shape[-2]:
        second = second + (x - first @ h) @ (v / torch.where(s > 0, s, 1.0)[..., None, :]) @ vh
    return first + (second - second.detach())


def _polar_change(u: Tensor, s: Tensor, vh: Tensor, change: Tensor) -> Tensor:
    """Return the derivative of the polar factor of ``u s vh`` along ``change``."""
    core = u.mT @ change @ vh.mT
    sums = s[..., :, None] + s[..., None, :]
    turn = (core - core.mT) / torch.where(sums > 0, sums, 1.0)
    if u.shape[-1] == u.shape[-2]:
        return u @ turn @ vh
    out = (change - u @ (u.mT @ change)) @ (vh.mT / torch.where(s > 0, s, 1.0)[..., None, :])
    return (u @ turn + out) @ vh


def orthonormalised(x: Tensor) -> Tensor:
    """Return the nearest matrix with orthonormal columns, for one that has them up to rounding.

    One step of the iteration of `polar`. Without it the rounding of 10,000 composed maps would add up.
    """
    return x + x @ (_defect(x) / 2)


def complement(x: Tensor) -> Tensor:
    """Return an orthonormal basis of the orthogonal complement of the columns, ``(*batch, n, n - p)``.

    It stays one as ``x`` moves; which one is arbitrary.
    """
    q = torch.linalg.qr(x.detach(), mode="complete").Q[..., x.shape[-1] :]
    return orthonormal_rows((q - x @ (x.mT @ q)).mT).mT


def haar(
    *shape: int, generator: torch.Generator | None, dtype: torch.dtype | None, device: torch.device | str | None
) -> Tensor:
    """Return matrices whose distribution does not change under rotations, from either side.

    References:
        Mezzadri, How to generate random matrices from the classical compact groups, 2007, arXiv:math-ph/0609050.
    """
    q, r = torch.linalg.qr(torch.randn(*shape, generator=generator, dtype=dtype, device=device))
    # The decomposition's own signs would prefer some matrices.
    signs = torch.where(torch.diagonal(r, dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(q.dtype)
    return orthonormalised(q * signs[..., None, :])


def canonical_geodesic(x: Tensor, a: Tensor, k: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Return position and velocity at time t of the canonical metric's geodesic with initial velocity ``x a + k``.

    The literature factors k = Q R, which has no derivative where k loses rank. Without it, the
    span of [x, k] is invariant under the motion, which is the exponential of [[a, -k'k], [1, 0]] in that basis.

    Args:
        x: matrices with orthonormal columns.
        a: skew-symmetric matrices ``(*batch, p, p)``; zero on a Grassmann manifold.
        k: matrices ``(*batch, n, p)`` whose columns are orthogonal to those of ``x``.
        t: times ``(*batch, 1, 1)``.

    References:
        Edelman, Arias, Smith, The Geometry of Algorithms with Orthogonality Constraints, 1998,
        arXiv:physics/9806030, theorem 2.1 and corollary 2.2.
    """
    p = x.shape[-1]
    motion, unit = _motion(a, k)
    turn = torch.linalg.matrix_exp(t * motion)
    velocity = _combined(x, unit, turn @ motion[..., :p])
    return orthonormalised(_combined(x, unit, turn[..., :p])), velocity


def canonical_end(x: Tensor, a: Tensor, k: Tensor) -> Tensor:
    """Return the position of `canonical_geodesic` at time 1."""
    motion, unit = _motion(a, k)
    return orthonormalised(_combined(x, unit, torch.linalg.matrix_exp(motion)[..., : x.shape[-1]]))


def canonical_displacement(x: Tensor, a: Tensor, k: Tensor) -> Tensor:
    """Return the end of `canonical_geodesic` minus ``x``, with rounding in proportion to the velocity."""
    motion, unit = _motion(a, k)
    return _combined(x, unit, _integrated(motion, motion[..., : x.shape[-1]]))


def canonical_transport(x: Tensor, k: Tensor, u: Tensor) -> Tensor:
    """Return ``u`` carried along the geodesic with initial velocity ``k`` on a Grassmann manifold, parallel.

    On a symmetric space the motion along a geodesic is also the transport: the exponential of ``k x' - x k'``.

    Args:
        x: matrices with orthonormal columns.
        k: matrices whose columns are orthogonal to those of ``x``.
        u: matrices like ``k``.
    """
    p = x.shape[-1]
    motion, unit = _motion(torch.zeros_like(x.mT @ k), k)
    moved = _integrated(motion, torch.eye(2 * p, p, dtype=k.dtype, device=k.device)) @ (k.mT @ u)
    return u - _combined(x, unit, moved)


def _combined(x: Tensor, unit: Tensor, columns: Tensor) -> Tensor:
    """Return ``[x, unit] columns``."""
    p = x.shape[-1]
    return x @ columns[..., :p, :] + unit @ columns[..., p:, :]


def _integrated(m: Tensor, columns: Tensor) -> Tensor:
    """Return the integral of ``exp(s m) columns`` over s from 0 to 1, with relative accuracy.

    It is the corner of the exponential of [[m, columns], [0, 0]].
    """
    top = torch.cat([m, columns.expand(*m.shape[:-1], columns.shape[-1])], dim=-1)
    block = torch.cat([top, torch.zeros_like(top[..., : columns.shape[-1], :])], dim=-2)
    return torch.linalg.matrix_exp(block)[..., : m.shape[-1], m.shape[-1] :]


def _motion(a: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """Return the generator in the basis [x, k / c], and ``k / c``, with c the size of k.

    What is computed from them does not depend on c, a constant that gives the generator the size of the velocity.
    """
    size = torch.linalg.vector_norm(k.detach(), dim=(-2, -1), keepdim=True)
    scale = torch.where(size > torch.finfo(k.dtype).tiny ** 0.5, size, 1.0)
    unit = k / scale
    eye = torch.eye(k.shape[-1], dtype=k.dtype, device=k.device)
    lower = scale * eye.expand_as(a)
    upper = -scale * (unit.mT @ unit)
    a, lower = torch.broadcast_tensors(a, lower)
    top = torch.cat(torch.broadcast_tensors(a, upper), dim=-1)
    bottom = torch.cat([lower, torch.zeros_like(lower)], dim=-1)
    return torch.cat([top, bottom], dim=-2), unit


def _defect(x: Tensor) -> Tensor:
    """Return ``1 - x'x``."""
    return torch.eye(x.shape[-1], dtype=x.dtype, device=x.device) - x.mT @ x


_POLAR_STEPS = 4
