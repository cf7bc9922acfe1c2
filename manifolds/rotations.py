"""Rotations of space in the forms people store them in, and exact conversions between the forms.

Every rotation is active and acts on column vectors: ``R v`` is ``v`` turned. Angles are in radians. The forms are

* **matrix** ``(*batch, 3, 3)``: orthogonal, determinant +1;
* **wxyz** or **xyzw** ``(*batch, 4)``: a quaternion of any non-zero length, real part first or last as its name says,
  in Hamilton's convention (``ij = k``); ``q`` and ``-q`` are the same rotation, and what is returned has length one and
  real part >= 0;
* **rotvec** ``(*batch, 3)``: the axis times the angle; what is returned has length at most pi;
* **6d** ``(*batch, 6)``: the first two columns, or the first two rows, as the name says, not necessarily orthonormal;
* **Euler angles** ``(*batch, 3)``: turns about three named axes, which are those of the body ("intrinsic") or those of
  space ("extrinsic"), as the name says.

Values are accurate to a few units of rounding at every angle, and derivatives are finite everywhere: at the identity,
at angle pi, where a rotation vector may be one of two, and at gimbal lock, where Euler angles are not unique.

Nothing here multiplies matrices with ``@``: under autocast or reduced-precision float32 matmuls that would keep only
three digits of a rotation.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from manifolds.flat_torus import wrap_radians
from manifolds.numerics import cos_of_root, horner, safe_sqrt, sinc_of_root

# Vectors and skew-symmetric matrices.


def cross(a: Tensor, b: Tensor) -> Tensor:
    """Return ``a x b`` along the last axis, broadcasting; torch.linalg.cross wants as many axes in both."""
    return torch.linalg.cross(*torch.broadcast_tensors(a, b), dim=-1)


def hat(omega: Tensor) -> Tensor:
    """Return the skew-symmetric matrices with ``hat(omega) v = omega x v``: ``(*batch, 3)`` to ``(*batch, 3, 3)``."""
    return cross(_eye(omega), omega[..., None, :])


def vee(matrix: Tensor) -> Tensor:
    """Return the vector whose `hat` is the skew-symmetric part of the matrix: ``(*batch, 3, 3)`` to ``(*batch, 3)``."""
    difference = [matrix[..., i, j] - matrix[..., j, i] for i, j in ((2, 1), (0, 2), (1, 0))]
    return torch.stack(difference, dim=-1) / 2


def skew_of_product(x: Tensor, u: Tensor) -> Tensor:
    """Return ``vee(x' u)``, ``(*batch, 3)``: half the sum of the cross products of the rows of ``u`` and ``x``."""
    c = cross(u, x)
    return (c[..., 0, :] + c[..., 1, :] + c[..., 2, :]) / 2


def turn_rows(x: Tensor, a: Tensor, b: Tensor, v: Tensor) -> Tensor:
    """Return ``x (I + a hat(v) + b hat(v)^2)``, which is a rotated ``x`` for the right ``a`` and ``b`` (Rodrigues).

    Args:
        x: matrices ``(*batch, 3, 3)``.
        a: coefficients ``(*batch, 1)``.
        b: coefficients ``(*batch, 1)``.
        v: vectors ``(*batch, 3)``.
    """
    v = v[..., None, :]
    once = cross(x, v)
    return x + a[..., None] * once + b[..., None] * cross(once, v)


def rodrigues(omega: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``sin(a) / a`` and ``(1 - cos(a)) / a^2`` for the angle ``a = |omega|``, each ``(*batch, 1)``.

    In half angles, because ``1 - cos(a)`` cancels.
    """
    quarter = (omega * omega).sum(-1, keepdim=True) / 4
    sinc = sinc_of_root(quarter)
    return sinc * cos_of_root(quarter), sinc * sinc / 2


# Quaternions as a pair (real part (*batch, 1), imaginary part (*batch, 3)), of any length.


def relative_quaternion(x: Tensor, y: Tensor, difference: Tensor) -> tuple[Tensor, Tensor]:
    """Return the quaternion of ``x' y``, not normalised, real part >= 0.

    It is the largest column of the matrix 4 q q', whose entries are linear in ``x' y``: no square root is taken and
    nothing is divided, so each entry has the error of ``x' y`` at every angle. The skew part comes from ``y - x``,
    which is exact for neighbours: the imaginary part keeps its relative accuracy at tiny separations.

    Args:
        x: rotations ``(*batch, 3, 3)``.
        y: rotations, the same shape.
        difference: ``y - x``.

    References:
        Shepperd, Quaternion from rotation matrix, 1978, doi:10.2514/3.55767b (the choice of the column).
    """
    w = 2 * skew_of_product(x, difference)
    p = x * y
    diagonal = p[..., 0, :] + p[..., 1, :] + p[..., 2, :]
    trace = diagonal.sum(-1, keepdim=True)
    largest, index = diagonal.max(dim=-1, keepdim=True)
    chosen = torch.arange(3, device=index.device) == index
    one_hot = chosen.to(w.dtype)[..., None, :]
    p = y * (x * one_hot).sum(-1, keepdim=True) + x * (y * one_hot).sum(-1, keepdim=True)
    column = p[..., 0, :] + p[..., 1, :] + p[..., 2, :] + torch.where(chosen, 1 - trace, 0.0)
    real_is_largest = trace >= largest
    real = torch.where(real_is_largest, 1 + trace, torch.where(chosen, w, 0.0).sum(-1, keepdim=True))
    imaginary = torch.where(real_is_largest, w, column)
    flip = real < 0
    return torch.where(flip, -real, real), torch.where(flip, -imaginary, imaginary)


def rotvec_of_quaternion(real: Tensor, imaginary: Tensor) -> Tensor:
    """Return the rotation vector of a quaternion of any length with ``real >= 0``."""
    v2 = (imaginary * imaginary).sum(-1, keepdim=True)
    r2 = real * real
    # 2 atan(|v| / w) / |v|: near the identity a series in |v|^2 / w^2, smooth at 0.
    small = v2 < 0.02 * r2
    w = torch.where(small, real, 1.0)
    series = 2 * horner(torch.where(small, v2, 0.0) / (w * w), _ATAN_OVER_ROOT) / w
    v = torch.sqrt(torch.where(small, 1.0, v2))
    return torch.where(small, series, 2 * torch.atan2(v, real) / v) * imaginary


def matrix_of_quaternion(real: Tensor, imaginary: Tensor) -> Tensor:
    """Return the rotation matrix of a non-zero quaternion of any length."""
    scale = 2 / (real * real + (imaginary * imaginary).sum(-1, keepdim=True))
    return turn_rows(_eye(imaginary), scale * real, scale, imaginary)


_ATAN_OVER_ROOT = tuple((-1) ** k / (2 * k + 1) for k in range(9))


# Quaternions.


def matrix_from_wxyz(q: Tensor) -> Tensor:
    """Return the matrices of quaternions with the real part first, of any non-zero length (4-d to 3 x 3)."""
    return matrix_of_quaternion(q[..., :1], q[..., 1:])


def matrix_from_xyzw(q: Tensor) -> Tensor:
    """Return the matrices of quaternions with the real part last, of any non-zero length (4-d to 3 x 3)."""
    return matrix_of_quaternion(q[..., 3:], q[..., :3])


def wxyz_from_matrix(x: Tensor) -> Tensor:
    """Return unit quaternions, real part first and >= 0, of rotation matrices ``(*batch, 3, 3)``."""
    return _unit(torch.cat(_quaternion(x), dim=-1))


def xyzw_from_matrix(x: Tensor) -> Tensor:
    """Return unit quaternions, real part last and >= 0, of rotation matrices ``(*batch, 3, 3)``."""
    real, imaginary = _quaternion(x)
    return _unit(torch.cat([imaginary, real], dim=-1))


def xyzw_from_wxyz(q: Tensor) -> Tensor:
    """Move the real part from first to last."""
    return q.roll(-1, -1)


def wxyz_from_xyzw(q: Tensor) -> Tensor:
    """Move the real part from last to first."""
    return q.roll(1, -1)


def wxyz_from_rotvec(omega: Tensor) -> Tensor:
    """Return unit quaternions, real part first, of rotation vectors of any length; ``real < 0`` beyond angle pi."""
    quarter = (omega * omega).sum(-1, keepdim=True) / 4
    return torch.cat([cos_of_root(quarter), sinc_of_root(quarter) / 2 * omega], dim=-1)


def rotvec_from_wxyz(q: Tensor) -> Tensor:
    """Return rotation vectors, at most pi long, of quaternions with the real part first, of any non-zero length.

    At real part 0, angle pi, the axis is the imaginary part's direction.
    """
    q = torch.where(q[..., :1] < 0, -q, q)
    return rotvec_of_quaternion(q[..., :1], q[..., 1:])


# Rotation vectors, axis and angle.


def matrix_from_rotvec(omega: Tensor) -> Tensor:
    """Return the matrix exponential of ``hat(omega)``, ``(*batch, 3)`` radians to ``(*batch, 3, 3)`` (Rodrigues)."""
    a, b = rodrigues(omega)
    return turn_rows(_eye(omega), a, b, omega)


def rotvec_from_matrix(x: Tensor) -> Tensor:
    """Return rotation vectors, at most pi long, of rotation matrices: the principal matrix logarithm.

    At angle pi, where two are possible, the one whose largest entry is positive.
    """
    return rotvec_of_quaternion(*_quaternion(x))


def matrix_from_axis_angle(axis: Tensor, angle: Tensor) -> Tensor:
    """Return rotations by ``angle`` about ``axis``.

    Args:
        axis: directions ``(*batch, 3)``, of any non-zero length.
        angle: radians ``(*batch)``.
    """
    half = angle[..., None] / 2
    return matrix_of_quaternion(torch.cos(half), torch.sin(half) * _unit(axis))


def axis_angle_from_matrix(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return unit axes ``(*batch, 3)`` and angles ``(*batch)`` in [0, pi] radians.

    At the identity, where every axis will do, it is the first coordinate axis, with derivative 0 (as has the angle).
    """
    real, imaginary = _quaternion(x)
    v2 = (imaginary * imaginary).sum(-1, keepdim=True)
    v = safe_sqrt(v2)
    none = v2 <= 0
    axis = torch.where(none, _eye(x)[0], imaginary / torch.where(none, 1.0, v))
    return axis, 2 * torch.atan2(v, real)[..., 0]


# Six numbers.


def matrix_from_6d(d: Tensor, vectors: Literal["columns", "rows"]) -> Tensor:
    """Return rotations from two vectors by Gram-Schmidt: continuous, hence fit for a network's output.

    Args:
        d: two vectors one after the other, ``(*batch, 6)``, linearly independent.
        vectors: whether they are the first two columns of the matrix (as in the paper) or its first two rows.

    References:
        Zhou et al., On the continuity of rotation representations in neural networks, 2019, arXiv:1812.07035, B.
    """
    _check_choice("vectors", vectors, ("columns", "rows"))
    first = _unit(d[..., :3])
    normal = _unit(cross(first, d[..., 3:]))
    rows = torch.stack([first, cross(normal, first), normal], dim=-2)
    return rows if vectors == "rows" else rows.mT


def sixd_from_matrix(x: Tensor, vectors: Literal["columns", "rows"]) -> Tensor:
    """Return the first two columns, or the first two rows, one after the other: ``(*batch, 6)``."""
    _check_choice("vectors", vectors, ("columns", "rows"))
    return (x.mT if vectors == "columns" else x)[..., :2, :].flatten(-2)


# Euler angles.


def matrix_from_euler(angles: Tensor, axes: str, frame: Literal["intrinsic", "extrinsic"]) -> Tensor:
    """Return the rotation by three successive turns.

    ``matrix_from_euler(a, "zxz", "intrinsic")`` is ``R_z(a_1) R_x(a_2) R_z(a_3)``. With Bunge's angles
    ``(phi1, Phi, phi2)`` of texture analysis it is the transpose of Bunge's matrix g, which takes sample coordinates to
    crystal coordinates. Roll, pitch and yaw of a vehicle are ``"xyz", "extrinsic"``.

    Args:
        angles: ``(*batch, 3)`` radians, in the order of ``axes``.
        axes: three of the letters x, y, z in the order of the turns; no letter twice in a row.
        frame: whether each turn is about an axis of the turned body or of fixed space.
    """
    i, j, k = _axis_numbers(axes, frame)
    half = angles / 2
    cos, sin = torch.cos(half), torch.sin(half)
    units = _eye(angles)
    q = [(cos[..., n : n + 1], sin[..., n : n + 1] * units[axis]) for n, axis in enumerate((i, j, k))]
    if frame == "extrinsic":
        q.reverse()
    return matrix_of_quaternion(*_multiply(_multiply(q[0], q[1]), q[2]))


def euler_from_matrix(x: Tensor, axes: str, frame: Literal["intrinsic", "extrinsic"]) -> Tensor:
    """Return Euler angles; see `matrix_from_euler`, which inverts it everywhere.

    The first and third are in [-pi, pi), the second in [0, pi] if the first and third axes agree ("zxz"), else in
    [-pi/2, pi/2] ("xyz"). At its ends is gimbal lock: only a sum or difference of the other two is determined, so
    the third is set to 0, and infinite derivatives are returned as 0; near it they grow like the inverse distance.

    Args:
        x: rotations ``(*batch, 3, 3)``.
        axes: three of the letters x, y, z in the order of the turns; no letter twice in a row.
        frame: whether each turn is about an axis of the turned body or of fixed space.

    Returns:
        ``(*batch, 3)`` radians, in the order of ``axes``.

    References:
        Bernardes and Viollet, Quaternion to Euler angles conversion, 2022, doi:10.1371/journal.pone.0276302.
    """
    i, j, k = _axis_numbers(axes, frame)
    if frame == "intrinsic":
        i, k = k, i
    proper = i == k
    if proper:
        k = 3 - i - j
    sign = (i - j) * (j - k) * (k - i) // 2
    real, v = _quaternion(x)
    q = _unit(torch.cat([real, v], dim=-1))
    a, b, c, d = q[..., 0], q[..., 1 + i], q[..., 1 + j], sign * q[..., 1 + k]
    if not proper:
        a, b, c, d = a - c, b + d, c + a, d - b
    # Where one of the pairs is only rounding, its angle is not determined.
    noise = 16 * torch.finfo(x.dtype).eps ** 2
    low, high = c * c + d * d, a * a + b * b
    half_sum, half_difference = _angle(b, a, high > noise), _angle(d, c, low > noise)
    # Then it takes the value that makes the last turn zero.
    last = 1 if frame == "intrinsic" else -1
    half_sum, half_difference = (
        torch.where(high > noise, half_sum, last * half_difference),
        torch.where(low > noise, half_difference, last * half_sum),
    )
    first, third = half_sum - half_difference, half_sum + half_difference
    second = 2 * torch.atan2(safe_sqrt(low), safe_sqrt(high))
    if not proper:
        second, third = second - math.pi / 2, sign * third
    ends = (first, third) if frame == "extrinsic" else (third, first)
    return torch.stack([wrap_radians(ends[0]), second, wrap_radians(ends[1])], dim=-1)


# Parts.


def _eye(like: Tensor) -> Tensor:
    return torch.eye(3, dtype=like.dtype, device=like.device)


def _unit(x: Tensor) -> Tensor:
    return x / torch.sqrt((x * x).sum(-1, keepdim=True))


def _quaternion(x: Tensor) -> tuple[Tensor, Tensor]:
    eye = _eye(x)
    return relative_quaternion(eye, x, x - eye)


def _multiply(p: tuple[Tensor, Tensor], q: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the Hamilton product of two quaternions."""
    real = p[0] * q[0] - (p[1] * q[1]).sum(-1, keepdim=True)
    return real, p[0] * q[1] + q[0] * p[1] + cross(p[1], q[1])


def _angle(sine: Tensor, cosine: Tensor, determined: Tensor) -> Tensor:
    """Return ``atan2`` where it is determined, else 0; its derivative at the origin is NaN."""
    return torch.atan2(torch.where(determined, sine, 0.0), torch.where(determined, cosine, 1.0))


def _axis_numbers(axes: str, frame: str) -> tuple[int, int, int]:
    _check_choice("frame", frame, ("intrinsic", "extrinsic"))
    order = ["xyz".find(letter) for letter in axes.lower()]
    if len(order) != 3 or min(order) < 0 or order[0] == order[1] or order[1] == order[2]:
        raise ValueError(
            f"axes: three of the letters x, y, z, no letter twice in a row, are required, got {axes!r}; Bunge's angles "
            'are "zxz", roll-pitch-yaw "xyz"'
        )
    return order[0], order[1], order[2]


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(
            f"{name}: one of {', '.join(map(repr, allowed))} is required, got {value!r}; conventions differ"
        )
