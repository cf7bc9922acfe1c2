"""Rotations entry by entry: what the maps of `SO3` and `SE3` and the conversions are made of.

Here a vector is three tensors ``(*batch)``, a matrix three rows of such, a quaternion a real part and a vector. An
operation on tensors ``(B,)`` fills the vector units of a CPU, one between ``(B, 3, 3)`` and ``(B, 1, 1)``, a sum over
three or `torch.linalg.cross` leave them idle; and ``torch.compile`` makes a map that is written so one kernel, because
nothing but the result is ever put together in memory.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from manifolds.numerics import contiguous, cos_and_sinc_of_root, horner, safe_sqrt

Vector = Sequence[Tensor]
Matrix = Sequence[Vector]


# From tensors and back.


def entries(x: Tensor, copy: bool = True) -> Matrix:
    """Return the rows of the upper left 3 x 3 part of matrices ``(*batch, n, m)``: views, if they are read but once."""
    views = [x[..., i, j] for i in range(3) for j in range(3)]
    c = contiguous(views) if copy else views
    return c[:3], c[3:6], c[6:]


def components(v: Tensor, copy: bool = True) -> Vector:
    """Return the components of vectors ``(*batch, n)``: views, if they are read but once."""
    return contiguous(v.unbind(-1)) if copy else v.unbind(-1)


def matrix(x: Matrix) -> Tensor:
    """Return ``(*batch, 3, 3)``; the inverse of `entries`."""
    return vector([entry for row in x for entry in row]).unflatten(-1, (3, 3))


def vector(v: Vector) -> Tensor:
    """Return ``(*batch, n)``; the inverse of `components`."""
    return torch.stack(torch.broadcast_tensors(*v), dim=-1)


# Linear algebra.


def dot(a: Vector, b: Vector) -> Tensor:
    """Return the sum of products."""
    return torch.addcmul(torch.addcmul(a[0] * b[0], a[1], b[1]), a[2], b[2])


def cross(a: Vector, b: Vector) -> Vector:
    """Return ``a x b``."""
    return [_minor(a[i], b[j], a[j], b[i]) for i, j in ((1, 2), (2, 0), (0, 1))]


def _minor(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    return torch.addcmul(a * b, c, d, value=-1)


def transposed(x: Matrix) -> Matrix:
    """Return ``x'``."""
    return tuple(zip(*x, strict=True))


def added(x: Matrix, y: Matrix, alpha: float = 1.0) -> Matrix:
    """Return ``x + alpha y``."""
    return [[torch.add(a, b, alpha=alpha) for a, b in zip(p, q, strict=True)] for p, q in zip(x, y, strict=True)]


def product(x: Matrix, y: Matrix) -> Matrix:
    """Return ``x y``."""
    columns = transposed(y)
    return [[dot(row, column) for column in columns] for row in x]


def turned(x: Matrix, v: Vector) -> Vector:
    """Return ``x v``."""
    return [dot(row, v) for row in x]


def cofactor(x: Matrix) -> Matrix:
    """Return the matrix of cofactors, ``det(x)`` times the inverse transpose."""
    return [cross(x[1], x[2]), cross(x[2], x[0]), cross(x[0], x[1])]


def square(x: Matrix) -> Tensor:
    """Return the sum of the squares of the entries."""
    return dot(x[0], x[0]) + dot(x[1], x[1]) + dot(x[2], x[2])


def skew_of_product(x: Matrix, u: Matrix) -> Vector:
    """Return ``vee(x' u)``: half the sum of the cross products of the rows of ``u`` and ``x``."""
    x, u = transposed(x), transposed(u)
    return [(dot(x[j], u[i]) - dot(x[i], u[j])) / 2 for i, j in ((1, 2), (2, 0), (0, 1))]


def times_hat(x: Matrix, omega: Vector) -> Matrix:
    """Return ``x hat(omega)``."""
    return [cross(row, omega) for row in x]


# Exponential.


def rodrigues(omega: Vector) -> tuple[Tensor, Tensor]:
    """Return ``sin(a) / a`` and ``(1 - cos(a)) / a^2`` for the angle ``a = |omega|``.

    In half angles, because ``1 - cos(a)`` cancels.
    """
    cos, sinc = cos_and_sinc_of_root(dot(omega, omega) / 4)
    return sinc * cos, sinc * sinc / 2


def turn_less_identity(a: Tensor, b: Tensor, v: Vector) -> Matrix:
    """Return ``a hat(v) + b hat(v)^2``, a rotation less the identity for the right ``a`` and ``b`` (Rodrigues)."""
    bv = [b * c for c in v]
    x, y, z = [torch.addcmul(bv[i] * v[i], bv[j], v[j]).neg_() for i, j in ((1, 2), (2, 0), (0, 1))]
    xy, xz, yz = [bv[i] * v[j] for i, j in ((0, 1), (0, 2), (1, 2))]
    return [
        [x, torch.addcmul(xy, a, v[2], value=-1), torch.addcmul(xz, a, v[1])],
        [torch.addcmul(xy, a, v[2]), y, torch.addcmul(yz, a, v[0], value=-1)],
        [torch.addcmul(xz, a, v[1], value=-1), torch.addcmul(yz, a, v[0]), z],
    ]


def plus_identity(x: Matrix, alpha: Tensor | float = 1.0) -> Matrix:
    """Return ``x + alpha I``."""
    return [[entry + alpha if i == j else entry for j, entry in enumerate(row)] for i, row in enumerate(x)]


def moved(x: Matrix, change: Matrix) -> Matrix:
    """Return ``x (I + change)``, as a correction of ``x``, which keeps the digits of a small change."""
    columns = transposed(change)
    return [[_plus_dot(entry, row, column) for entry, column in zip(row, columns, strict=True)] for row in x]


def _plus_dot(c: Tensor, a: Vector, b: Vector) -> Tensor:
    return c + dot(a, b)


def orthonormalised(x: Matrix) -> Matrix:
    """Return the rotation nearest to a matrix that is one up to rounding, with the derivative of that projection.

    One step of the iteration of `SO3.projx`. Without it the rounding of 10,000 composed maps would add up.
    """
    half_excess = (square(x) - 3) / 2
    change = added(cofactor(x), x, alpha=-1)
    return [
        [torch.add(a, torch.addcmul(c, half_excess, a, value=-1), alpha=0.5) for a, c in zip(p, q, strict=True)]
        for p, q in zip(x, change, strict=True)
    ]


def exponential(x: Matrix, omega: Vector) -> Matrix:
    """Return the rotation that ``x`` becomes when its body turns by ``omega``, of its own frame."""
    return orthonormalised(moved(x, turn_less_identity(*rodrigues(omega), omega)))


# Logarithm, through the quaternion.


def logarithm(x: Matrix, y: Matrix) -> Vector:
    """Return the shortest ``omega`` with ``exponential(x, omega) = y``."""
    return rotvec_of_quaternion(*relative_quaternion(x, y))


def relative_quaternion(x: Matrix, y: Matrix) -> tuple[Tensor, Vector]:
    """Return the quaternion of ``x' y``, not normalised, real part >= 0; see `quaternion`.

    ``x' y - I`` comes from ``y - x``, which is exact for neighbours: so the imaginary part keeps its relative accuracy
    at tiny separations.
    """
    return quaternion(product(transposed(x), added(y, x, alpha=-1)))


def quaternion(e: Matrix, scale: Tensor | float = 1.0) -> tuple[Tensor, Vector]:
    """Return the quaternion of the rotation ``I + e / scale``, not normalised, real part >= 0.

    It is the largest column of the matrix 4 q q', whose entries are linear in ``e``: no square root is taken and
    nothing is divided, so each entry has the error of ``e`` at every angle.

    References:
        Shepperd, Quaternion from rotation matrix, 1978, doi:10.2514/3.55767b (the choice of the column).
    """
    (a, _, _), (_, b, _), (_, _, c) = e
    trace = a + b + c
    w = [e[j][i] - e[i][j] for i, j in ((1, 2), (2, 0), (0, 1))]
    xy, xz, yz = e[0][1] + e[1][0], e[0][2] + e[2][0], e[1][2] + e[2][1]
    columns = (
        (4 * scale + trace, *w),
        (w[0], a - b - c, xy, xz),
        (w[1], xy, b - c - a, yz),
        (w[2], xz, yz, c - a - b),
    )
    # Numbers to multiply with, exactly 0 or 1: selecting with where takes ten times as long on a CPU.
    chosen = _one_hot_of_largest((trace + 2 * scale, a, b, c))
    q = [torch.addcmul(chosen[0] * row[0], chosen[1], row[1]) for row in columns]
    q = [
        torch.addcmul(torch.addcmul(p, chosen[2], row[2]), chosen[3], row[3]) for p, row in zip(q, columns, strict=True)
    ]
    sign = 1 - 2 * (q[0] < 0).to(a.dtype)
    real, *imaginary = (sign * entry for entry in q)
    return real, imaginary


def _one_hot_of_largest(values: Vector) -> Vector:
    """Return, for each of four values, 1 where it is the largest (the first of equals) and 0 elsewhere."""
    a, b, c, d = values
    first, second = (a >= b).to(a.dtype), (c >= d).to(a.dtype)
    low = (torch.maximum(a, b) >= torch.maximum(c, d)).to(a.dtype)
    return first * low, low - first * low, second - second * low, (1 - second) * (1 - low)


def transported(x: Matrix, y: Matrix, u: Matrix) -> Matrix:
    """Return what `SO3.transp` returns."""
    real, imaginary = relative_quaternion(x, y)
    scale = 1 / torch.sqrt(torch.addcmul(dot(imaginary, imaginary), real, real))
    v, divisor = [scale * c for c in imaginary], 1 + scale * real
    omega = skew_of_product(x, u)
    once = cross(v, omega)
    return times_hat(y, [a - b + c / divisor for a, b, c in zip(omega, once, cross(v, once), strict=True)])


def rotvec_of_quaternion(real: Tensor, imaginary: Vector) -> Vector:
    """Return the rotation vector of a quaternion of any length with ``real >= 0``."""
    v2, r2 = dot(imaginary, imaginary), real * real
    # 2 atan(|v| / w) / |v|: near the identity a series in |v|^2 / w^2, smooth at 0. The argument of the branch not
    # taken is replaced by a harmless one.
    small = v2 < _ATAN_BOUND * r2
    w, inner = torch.where(small, real, 1.0), torch.where(small, v2, 0.0)
    v = torch.sqrt(torch.where(small, 1.0, v2))
    series = horner(inner / (w * w), _ATAN_OVER_ROOT, _ATAN_BOUND) / w
    scale = 2 * torch.where(small, series, torch.atan2(v, real) / v)
    return [scale * c for c in imaginary]


def matrix_of_quaternion(real: Tensor, imaginary: Vector) -> Matrix:
    """Return the rotation matrix of a non-zero quaternion of any length."""
    scale = 2 / torch.addcmul(dot(imaginary, imaginary), real, real)
    return plus_identity(turn_less_identity(scale * real, scale, imaginary))


def angle_of_quaternion(real: Tensor, imaginary: Vector) -> Tensor:
    """Return the angle in [0, pi] of a quaternion of any length with ``real >= 0``; its derivative at 0 is 0.

    Half-angle form: both parts are exact to rounding at every angle, and so is the derivative. That of an atan2 of the
    whole angle's sine and cosine is wrong near pi, where the direction of the sine is rounding.
    """
    return 2 * torch.atan2(safe_sqrt(dot(imaginary, imaginary)), real)


_ATAN_BOUND = 0.02
_ATAN_OVER_ROOT = tuple((-1) ** k / (2 * k + 1) for k in range(9))
