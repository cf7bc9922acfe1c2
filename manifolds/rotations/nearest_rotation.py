"""The nearest rotation to any 3 x 3 matrix, entry by entry."""

import torch
from torch import Tensor

from manifolds.numerics import pick, safe_sqrt
from manifolds.rotations.rotation_entries import (
    Matrix,
    added,
    cofactor,
    dot,
    matrix_of_quaternion,
    moved,
    orthonormalised,
    plus_identity,
    product,
    quaternion,
    skew_of_product,
    square,
    times_hat,
    transposed,
    turn_less_identity,
    turned,
)


def nearest_rotation(x: Matrix) -> Matrix:
    """Return what `SO3.projx` returns."""
    x = _scaled(x)
    return orthonormalised(_nearer(_of_scaled(*_foam(x)), x))


def nearest_rotation_jvp(x: Matrix, v: Matrix) -> tuple[Matrix, Matrix]:
    """Return the nearest rotation ``r``, and its derivative along ``v``, ``r hat(w)``.

    With ``x = r s`` and ``s`` symmetric, the skew part of ``r' v`` is that of ``hat(w) s``, whence ``(tr(s) - s) w = 2
    vee(r' v)``.
    """
    r = nearest_rotation(x)
    s = product(transposed(r), x)
    h = plus_identity([[-entry for entry in row] for row in s], s[0][0] + s[1][1] + s[2][2])
    adjugate = cofactor(h)
    scale = 2 / dot(h[0], adjugate[0])
    # Of a symmetric matrix, whose cofactors need no transposition.
    return r, times_hat(r, [scale * component for component in turned(adjugate, skew_of_product(r, v))])


def _of_scaled(x: Matrix, zeta: Tensor) -> Matrix:
    """Return the rotation that is ``x / zeta`` up to rounding."""
    return matrix_of_quaternion(*quaternion(plus_identity(x, -zeta), zeta))


def _scaled(x: Matrix) -> Matrix:
    """Return ``x`` with the Frobenius norm of a rotation, sqrt(3); zero becomes the identity."""
    # First by the largest entry, so that no square over- or underflows.
    rows = [torch.maximum(torch.maximum(a.abs(), b.abs()), c.abs()) for a, b, c in x]
    largest = torch.maximum(torch.maximum(rows[0], rows[1]), rows[2]).detach()
    none = (largest == 0).to(largest.dtype)
    divisor = largest + none
    x = plus_identity([[entry / divisor for entry in row] for row in x], none)
    scale = torch.sqrt(3 / square(x))
    return [[scale * entry for entry in row] for row in x]


def _foam(x: Matrix) -> tuple[Matrix, Tensor]:
    """Return zeta times the rotation nearest to ``x``, whose squared norm is 3, and zeta, up to rounding and sign.

    With ``r = s_1 + s_2 + s_3``, ``kappa = (r^2 - 3) / 2`` and ``zeta = kappa r - det x``, the nearest rotation times
    zeta is ``(kappa + 3) x + r cof(x) - x x' x``. It is written here in ``d = x + cof(x)`` and ``m = r - 1``, as ``(m^2
    / 2 - 1 - det x) x + m d + cof(d)``. (The cubic term, ``3 x - x x' x``, is the polarised cofactor of ``x`` and
    ``cof(x)``, and ``cof(cof(x)) = det(x) x``.) Of nearly a reflection d and m are small, and so is everything here:
    the three nearly equal roots of the quartic are those of one with small coefficients, and keep their digits. The
    quaternion, which is linear in these, needs no division by zeta.
    """
    cof = cofactor(x)
    d = added(x, cof)
    cof_d = cofactor(d)
    of_x, of_d, zeta, sign = _coefficients(x, cof, d, cof_d)
    scaled = [
        [torch.addcmul(torch.addcmul(sign * c, of_x, a), of_d, b) for a, b, c in zip(*rows, strict=True)]
        for rows in zip(x, d, cof_d, strict=True)
    ]
    return scaled, zeta


def _coefficients(x: Matrix, cof: Matrix, d: Matrix, cof_d: Matrix) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the coefficients of x and d in `_foam`, zeta, all times a sign, and the sign, that of ``cof(d)``."""
    det, det_d = dot(x[0], cof[0]), dot(d[0], cof_d[0])
    # 1 + det x = q, where 4 q - q^2 = |d|^2 - det d.
    gap = torch.where(det < 0, square(d) - det_d, 0.0)
    q = torch.where(det < 0, gap / (2 + torch.sqrt(4 - gap)), 1 + det)
    m = _largest_root(q, det_d, _bound(q, det, cof))
    m2 = m * m
    # Of rank one, or for a reflection, many are nearest and this is rounding: the quaternion then is one of theirs.
    eps = torch.finfo(det.dtype).eps
    small = eps * (8 * m2 + eps)
    zeta = (1.5 + m / 2) * m2 - q + small * (1 + m)
    # A root that rounding has made too small changes all signs.
    sign = 1 - 2 * (zeta < 0).to(m.dtype)
    return sign * (m2 / 2 - q + small), sign * m, sign * zeta, sign


def _bound(q: Tensor, det: Tensor, cof: Matrix) -> Tensor:
    """Return an upper bound on `_largest_root`, near it for a matrix of nearly rank one or nearly a reflection."""
    q, det, cof2 = q.detach(), det.detach(), square(cof).detach()
    # kappa^2 = |cof x|^2 + 2 r det x, with r at most 3 and at least 1.
    kappa = torch.sqrt((cof2 + 2 * torch.where(det < 0, det, 3 * det)).clamp(min=0))
    return torch.minimum(torch.sqrt(3 + 2 * kappa) - 1, 1.75 * torch.sqrt(q.clamp(min=0))).clamp(max=2.0)


def _largest_root(q: Tensor, det_d: Tensor, bound: Tensor) -> Tensor:
    """Return ``m = s_1 + s_2 + s_3 - 1``, by Laguerre's iteration, of third order, which descends from the bound.

    It is the largest root of ``m^4 + 4 m^3 - 8 q m + 4 (q^2 - det d)``, all of whose roots are real: the quartic
    ``r^4 - 6 r^2 - 8 det(x) r + 9 - 4 |cof x|^2`` at ``r = 1 + m``.
    """
    constant, linear = 4 * (q * q - det_d), -8 * q
    m = bound
    for _ in range(_ROOT_STEPS):
        m2 = m * m
        value = torch.addcmul(torch.addcmul(constant, linear, m), m + 4, m2 * m)
        slope = torch.addcmul(linear, 4 * m + 12, m2)
        discriminant = 9 * slope * slope - 144 * value * (m2 + 2 * m)
        divisor = slope + safe_sqrt(discriminant)
        m = m - 4 * value / torch.where(divisor > 0, divisor, 1.0)
    return m


def _nearer(r: Matrix, x: Matrix) -> Matrix:
    """Return a rotation nearer to ``x`` than the rotation ``r``, quadratically.

    As ``r`` turns by an angle a about the unit axis n, ``tr(r' x)`` goes like ``g.n sin(a) + n.Hn cos(a)``, with g the
    torque ``2 vee(r' x)`` and ``H = tr(r' x) - r' x``. Newton's ``w = H^-1 g`` gives the axis; the angle is the best
    about it, ``atan2(g.n, n.Hn)``: that of Newton, |w| to first order, or from beyond a saddle the other way. All of it
    comes from ``x - r``, so that rounding counts for nothing where ``x`` is a rotation.
    """
    e = product(transposed(r), added(x, r, alpha=-1))
    rest = 2 + e[0][0] + e[1][1] + e[2][2]
    g = [e[2][1] - e[1][2], e[0][2] - e[2][0], e[1][0] - e[0][1]]
    yz, xz, xy = (e[1][2] + e[2][1]) / -2, (e[0][2] + e[2][0]) / -2, (e[0][1] + e[1][0]) / -2
    h = [[rest - e[0][0], xy, xz], [xy, rest - e[1][1], yz], [xz, yz, rest - e[2][2]]]
    # For the sake of memory.
    del e, yz, xz, xy
    adjugate = cofactor(h)
    det = dot(h[0], adjugate[0])
    det = torch.where(det == 0, 1.0, det)
    w = [component / det for component in turned(adjugate, g)]
    del h, adjugate
    w2 = dot(w, w)
    secant = 1 + torch.sqrt(1 + w2)
    ahead = (dot(g, w) >= 0).to(w2.dtype)
    # The quaternion of the half angle, of any length.
    real, along = pick(w2, secant, ahead), pick(-secant, torch.ones_like(w2), ahead)
    imaginary = [along * component for component in w]
    scale = 2 / torch.addcmul(dot(imaginary, imaginary), real, real)
    return moved(r, turn_less_identity(scale * real, scale, imaginary))


_ROOT_STEPS = 7
