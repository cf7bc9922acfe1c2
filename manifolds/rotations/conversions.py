"""Rotations of space in the forms people store them in, and exact conversions between the forms.

Every rotation is active and acts on column vectors: ``R v`` is ``v`` turned. Angles are in radians. The forms are

* **matrix** ``(*batch, 3, 3)``: orthogonal, determinant +1;
* **wxyz** or **xyzw** ``(*batch, 4)``: a quaternion of any non-zero length, real part first or last as its name says,
  in Hamilton's convention (``ij = k``); ``q`` and ``-q`` are the same rotation, and what is returned has length one and
  real part >= 0; zero is no rotation, and gives NaN;
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

from manifolds.numerics import cos_and_sinc_of_root, safe_sqrt, size, unit
from manifolds.numerics.angles import wrap_radians
from manifolds.rotations.rotation_entries import (
    Vector,
    angle_of_quaternion,
    components,
    dot,
    entries,
    matrix,
    matrix_of_quaternion,
    moved,
    plus_identity,
    quaternion,
    rodrigues,
    rotvec_of_quaternion,
    turn_less_identity,
    vector,
)

__all__ = [
    "axis_angle_from_matrix",
    "cross",
    "euler_from_matrix",
    "hat",
    "matrix_from_6d",
    "matrix_from_axis_angle",
    "matrix_from_euler",
    "matrix_from_rotvec",
    "matrix_from_wxyz",
    "matrix_from_xyzw",
    "rotvec_from_matrix",
    "rotvec_from_wxyz",
    "sixd_from_matrix",
    "vee",
    "wxyz_from_matrix",
    "wxyz_from_rotvec",
    "wxyz_from_xyzw",
    "xyzw_from_matrix",
    "xyzw_from_wxyz",
]

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


def turn_rows(x: Tensor, a: Tensor, b: Tensor, v: Tensor) -> Tensor:
    """Return ``x (I + a hat(v) + b hat(v)^2)``, which is a rotated ``x`` for the right ``a`` and ``b`` (Rodrigues).

    Args:
        x: matrices ``(*batch, 3, 3)``.
        a: coefficients ``(*batch, 1)``.
        b: coefficients ``(*batch, 1)``.
        v: vectors ``(*batch, 3)``.
    """
    return matrix(moved(entries(x), turn_less_identity(a[..., 0], b[..., 0], components(v))))


# Quaternions.


def matrix_from_wxyz(q: Tensor) -> Tensor:
    """Return the matrices of quaternions with the real part first, of any non-zero length (4-d to 3 x 3)."""
    return _matrix_of(*_of_quaternion(q))


def matrix_from_xyzw(q: Tensor) -> Tensor:
    """Return the matrices of quaternions with the real part last, of any non-zero length (4-d to 3 x 3)."""
    x, y, z, w = _of_quaternion(q)
    return _matrix_of(w, x, y, z)


def wxyz_from_matrix(x: Tensor) -> Tensor:
    """Return unit quaternions, real part first and >= 0, of rotation matrices ``(*batch, 3, 3)``."""
    real, imaginary = _unit_quaternion(x)
    return vector([real, *imaginary])


def xyzw_from_matrix(x: Tensor) -> Tensor:
    """Return unit quaternions, real part last and >= 0, of rotation matrices ``(*batch, 3, 3)``."""
    real, imaginary = _unit_quaternion(x)
    return vector([*imaginary, real])


def xyzw_from_wxyz(q: Tensor) -> Tensor:
    """Move the real part from first to last."""
    return q.roll(-1, -1)


def wxyz_from_xyzw(q: Tensor) -> Tensor:
    """Move the real part from last to first."""
    return q.roll(1, -1)


def wxyz_from_rotvec(omega: Tensor) -> Tensor:
    """Return unit quaternions, real part first, of rotation vectors of any length; ``real < 0`` beyond angle pi."""
    v = components(omega)
    cos, sinc = cos_and_sinc_of_root(dot(v, v) / 4)
    half = sinc / 2
    return vector([cos, *(half * c for c in v)])


def rotvec_from_wxyz(q: Tensor) -> Tensor:
    """Return rotation vectors, at most pi long, of quaternions with the real part first, of any non-zero length.

    At real part 0, angle pi, the axis is the imaginary part's direction.
    """
    real, *imaginary = _of_quaternion(q)
    sign = 1 - 2 * (real < 0).to(q.dtype)
    return vector(rotvec_of_quaternion(sign * real, [sign * c for c in imaginary]))


# Rotation vectors, axis and angle.


def matrix_from_rotvec(omega: Tensor) -> Tensor:
    """Return the matrix exponential of ``hat(omega)``, ``(*batch, 3)`` radians to ``(*batch, 3, 3)`` (Rodrigues)."""
    v = components(omega)
    return matrix(plus_identity(turn_less_identity(*rodrigues(v), v)))


def rotvec_from_matrix(x: Tensor) -> Tensor:
    """Return rotation vectors, at most pi long, of rotation matrices: the principal matrix logarithm.

    At angle pi, where two are possible, the one whose largest entry is positive.
    """
    return vector(rotvec_of_quaternion(*_quaternion(x)))


def matrix_from_axis_angle(axis: Tensor, angle: Tensor) -> Tensor:
    """Return rotations by ``angle`` about ``axis``.

    Args:
        axis: directions ``(*batch, 3)``, of any non-zero length.
        angle: radians ``(*batch)``.
    """
    half, direction = angle / 2, components(unit(axis))
    sin = torch.sin(half)
    return matrix(matrix_of_quaternion(torch.cos(half), [sin * c for c in direction]))


def axis_angle_from_matrix(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return unit axes ``(*batch, 3)`` and angles ``(*batch)`` in [0, pi] radians.

    At the identity, where every axis will do, it is the first coordinate axis, with derivative 0 (as has the angle).
    """
    real, imaginary = _quaternion(x)
    v2 = dot(imaginary, imaginary)
    none = v2 <= 0
    v = torch.sqrt(torch.where(none, 1.0, v2))
    axis = [torch.where(none, 1.0 if i == 0 else 0.0, c / v) for i, c in enumerate(imaginary)]
    return vector(axis), angle_of_quaternion(real, imaginary)


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
    first = unit(d[..., :3])
    normal = unit(cross(first, d[..., 3:]))
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
    real, imaginary = _multiply(_multiply(q[0], q[1]), q[2])
    return _matrix_of(real[..., 0], *components(imaginary))


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
    a, v = _unit_quaternion(x)
    b, c, d = v[i], v[j], sign * v[k]
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


def _quaternion(x: Tensor) -> tuple[Tensor, Vector]:
    return quaternion(plus_identity(entries(x), -1.0))


def _unit_quaternion(x: Tensor) -> tuple[Tensor, Vector]:
    real, imaginary = _quaternion(x)
    scale = 1 / torch.sqrt(torch.addcmul(dot(imaginary, imaginary), real, real))
    return scale * real, [scale * c for c in imaginary]


def _of_quaternion(q: Tensor) -> Vector:
    """Return the entries of quaternions, divided by about their length, so that squares neither over- nor underflow."""
    # Compiled, all that reads them is one kernel, and a copy would cost more than it saves.
    own = components(q, copy=not torch.compiler.is_compiling())
    length = size(own)
    return [c / length for c in own]


def _matrix_of(real: Tensor, *imaginary: Tensor) -> Tensor:
    return matrix(matrix_of_quaternion(real, imaginary))


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
