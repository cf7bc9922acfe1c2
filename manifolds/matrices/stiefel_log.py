"""Geodesics between two points of a Stiefel manifold, under the canonical metric: the solver behind ``logmap``.

In the plane sum of [x, Q], with Q orthonormal columns that reach y, a point is the first p columns of a rotation V, and
geodesics of the Stiefel manifold are those of the rotation group that leave the fibre at right angles: the logarithm
of V, a skew matrix [[A, -B'], [B, C]], must have C = 0. V is free in its last r columns, ``V -> V diag(1, P)``.

**Descent.** C is the gradient of half the squared distance from the identity to V along the fibre. On a
group, which has non-negative curvature, the second derivative of that function is nowhere above 1, so steps of the
gradient divided by anything above 1/2 never ascend. Dividing by the second-order expansion ``1 - (b_i^2 + b_j^2) / 12``
of the Hessian (b singular values of B) makes them converge fast.

**Newton.** The descent is slow where the Hessian vanishes, near the cut locus; Newton's method on the initial velocity,
with halved steps where one does not improve, ends at rounding error.

Both run a fixed number of steps on constants. One more Newton step on live tensors gives ``logmap`` its derivative.

References:
    Zimmermann, A matrix-algebraic algorithm for the Riemannian logarithm on the Stiefel manifold under the canonical
    metric, 2017, arXiv:1604.05054 (steps of the gradient itself).
    Zimmermann, Hueper, Computing the Riemannian logarithm on the Stiefel manifold: metrics, methods and performance,
    2022, arXiv:2103.12046 (second-order steps).
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from manifolds.matrices.spectral import eigh


class Connection(NamedTuple):
    """A geodesic from x to y, and the inverse derivative of the exponential map at its velocity; all constants.

    Attributes:
        frame: ``[x, Q]``, ``(*batch, n, p + r)`` with r the smaller of p and n - p.
        generator: the skew matrix ``[[A, -B'], [B, 0]]``; the velocity is the first p columns of frame @ generator.
        turn: its exponential.
        inverse: takes the entries below the diagonal, in the first p columns, of ``turn' d(turn)`` to those of
            ``d(generator)``.
        inverse_across: does the same for displacements orthogonal to the frame, from the right.
    """

    frame: Tensor
    generator: Tensor
    turn: Tensor
    inverse: Tensor
    inverse_across: Tensor


def connect(x: Tensor, y: Tensor) -> Connection:
    """Return a geodesic from ``x`` to ``y``, ``(*batch, n, p)`` both, as far as it was found."""
    x, y = x.detach(), y.detach()
    finite = (torch.isfinite(x) & torch.isfinite(y)).all(-1).all(-1)[..., None, None]
    axes = torch.eye(*x.shape[-2:], dtype=x.dtype, device=x.device)
    x, y = torch.where(finite, x, axes), torch.where(finite, y, axes)
    frame, end = _reduce(x, y)
    units = _units(frame.shape[-1], x.shape[-1], x)
    return Connection(frame, *_newton(_descend(_complete(end), x.shape[-1], units), end, units))


def entries(skew: Tensor, p: int) -> Tensor:
    """Return the entries below the diagonal in the first p columns, coordinates of the velocity."""
    rows, columns = torch.tril_indices(skew.shape[-2], p, offset=-1, device=skew.device)
    return skew[..., rows, columns]


def from_entries(values: Tensor, s: int, p: int) -> Tensor:
    """Return the skew matrix ``(*batch, s, s)`` with these `entries`, zero in its last block."""
    return _combine(values, _units(s, p, values))


def _reduce(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the frame [x, Q], and y in it."""
    n, p = x.shape[-2:]
    step = y - x
    normal = step - x @ (x.mT @ step)
    if 2 * p <= n:
        size = torch.linalg.vector_norm(normal, dim=(-2, -1), keepdim=True)
        both = torch.cat([x, normal / torch.where(size > 0, size, 1.0)], dim=-1)
        q = torch.linalg.qr(both).Q[..., p:]
    else:
        q = torch.linalg.qr(x, mode="complete").Q[..., p:]
    frame = torch.cat([x, q], dim=-1)
    eye = torch.eye(frame.shape[-1], p, dtype=x.dtype, device=x.device)
    return frame, eye + frame.mT @ step


def _complete(end: Tensor) -> Tensor:
    """Return a rotation whose first p columns are ``end``, and whose last block is as near to 1 as can be."""
    p = end.shape[-1]
    rest = torch.linalg.qr(end, mode="complete").Q[..., p:]
    u, _, vh = torch.linalg.svd(rest[..., p:, :])
    rest = rest @ vh.mT
    sign = torch.where(torch.linalg.det(torch.cat([end, rest @ u.mT], dim=-1)) < 0, -1.0, 1.0).to(end.dtype)
    u = torch.cat([u[..., :-1], sign[..., None, None] * u[..., -1:]], dim=-1)
    return torch.cat([end, rest @ u.mT], dim=-1)


def _descend(v: Tensor, p: int, units: Tensor) -> Tensor:
    """Return a logarithm [[A, -B'], [B, 0]] near which there is one that ends at the first p columns of ``v``."""
    log = rotation_log(v)
    if v.shape[-1] - p > 1:
        for _ in range(_DESCENTS):
            b, c = log[..., p:, :p], log[..., p:, p:]
            b2, basis = eigh(b @ b.mT)
            hessian = 1 - (b2[..., :, None] + b2[..., None, :]) / 12
            step = basis @ ((basis.mT @ c @ basis) / hessian.clamp(min=0.55)) @ basis.mT
            v = torch.cat([v[..., :p], v[..., p:] @ torch.linalg.matrix_exp(-step)], dim=-1)
            log = rotation_log(v)
    return _combine(entries(log, p), units)


def rotation_log(v: Tensor) -> Tensor:
    """Return a skew logarithm with angles in [0, pi] of rotations ``(*batch, s, s)``, as a constant.

    Symmetric and skew part commute, so it is the skew part times ``angle / sine`` as a function of the symmetric part.
    Where an angle is pi to half the digits, its plane is one that the eigenvectors happen to span.
    """
    c, basis = eigh((v + v.mT) / 2)
    turned = (v - v.mT) / 2 @ basis
    sine = torch.linalg.vector_norm(turned, dim=-2)
    threshold = torch.finfo(v.dtype).eps ** 0.5
    small = sine < threshold
    ratio = torch.where(small, 1.0, torch.atan2(sine, c) / torch.where(small, 1.0, sine))
    opposite = small & (c < 0)
    log = (turned * torch.where(opposite, 0.0, ratio)[..., None, :]) @ basis.mT
    # Eigenvalues ascend, so -1 comes first, in pairs.
    even = v.shape[-1] // 2 * 2
    both = (opposite[..., 0:even:2] & opposite[..., 1:even:2]).to(v.dtype) * math.pi
    plane = (basis[..., 0:even:2] * both[..., None, :]) @ basis[..., 1:even:2].mT
    log = log + plane - plane.mT
    return (log - log.mT) / 2


def _newton(generator: Tensor, end: Tensor, units: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the generator improved, and the rest of `Connection`."""
    found = (generator, *_linearise(generator, end.shape[-1], units))
    error, step = _residual(found[1], found[2], end)
    for _ in range(_NEWTONS):
        candidate = found[0] + _combine(step, units)
        tried = (candidate, *_linearise(candidate, end.shape[-1], units))
        new_error, new_step = _residual(tried[1], tried[2], end)
        better = new_error < error
        wide = better[..., None, None]
        updated = [torch.where(wide, new, old) for new, old in zip(tried, found, strict=True)]
        found = (updated[0], updated[1], updated[2], updated[3])
        step = torch.where(better[..., None], new_step, step / 2)
        error = torch.where(better, new_error, error)
    generator, turn, inverse, across = found
    return generator, turn, inverse, across


def _residual(turn: Tensor, inverse: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distance from ``end`` and the Newton step, in `entries`."""
    p = end.shape[-1]
    missing = end - turn[..., :p]
    error = torch.linalg.vector_norm(missing, dim=(-2, -1))
    return error, (inverse @ entries(_skew_top(turn.mT @ missing), p)[..., None])[..., 0]


def _skew_top(columns: Tensor) -> Tensor:
    """Return ``(*batch, s, p)`` with its upper square made skew."""
    p = columns.shape[-1]
    top = columns[..., :p, :]
    return torch.cat([(top - top.mT) / 2, columns[..., p:, :]], dim=-2)


def _linearise(generator: Tensor, p: int, units: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the exponential of a generator, and the two inverses of `Connection`.

    In the eigenbasis, with eigenvalues i a, ``exp(-L) D exp(L)[E]`` multiplies E by ``(1 - exp(-i d)) / (i d)``, d the
    differences of the a; a displacement orthogonal to the frame is carried by the integral of ``exp(s L)``.
    """
    angles, q = torch.linalg.eigh(torch.complex(torch.zeros_like(generator), -generator))
    phase, conj = torch.exp(1j * angles / 2), q.mH
    turn = ((q * (phase * phase)[..., None, :]) @ conj).real
    across = ((q * (phase * _sinc(angles / 2))[..., None, :]) @ conj).real[..., :p, :p]
    gaps = angles[..., :, None] - angles[..., None, :]
    factor = _sinc(gaps / 2) * phase.conj()[..., :, None] * phase[..., None, :]
    moved = conj[..., None, :, :] @ units.to(q.dtype) @ q[..., None, :, :]
    moved = q[..., None, :, :] @ (factor[..., None, :, :] * moved) @ conj[..., None, :, :p]
    return turn, _pseudo_inverse(entries(moved.real, p).mT), _pseudo_inverse(across)


def _sinc(a: Tensor) -> Tensor:
    """Return ``sin(a) / a``."""
    return torch.special.sinc(a / math.pi)


def _pseudo_inverse(matrix: Tensor) -> Tensor:
    """Return the inverse, bounded by the root of rounding where the matrix is singular (at conjugate points)."""
    eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    gram = matrix.mT @ matrix + 4 * torch.finfo(matrix.dtype).eps * eye
    return torch.linalg.inv_ex(gram).inverse @ matrix.mT


def _combine(values: Tensor, units: Tensor) -> Tensor:
    return (values @ units.flatten(1)).unflatten(-1, units.shape[1:])


def _units(s: int, p: int, like: Tensor) -> Tensor:
    """Return the basis of generators that `entries` are coordinates in, ``(m, s, s)``."""
    rows, columns = torch.tril_indices(s, p, offset=-1, device=like.device)
    eye = torch.eye(s, dtype=like.dtype, device=like.device)
    units = eye[rows][:, :, None] * eye[columns][:, None, :]
    return units - units.mT


_DESCENTS = 8
_NEWTONS = 5
