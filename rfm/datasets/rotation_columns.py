"""Between the numbers in the columns of a table and rotations, in each convention of `rfm.datasets.Orientations`."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from manifolds.rotations import (
    euler_from_matrix,
    matrix_from_euler,
    matrix_from_wxyz,
    matrix_from_xyzw,
    wxyz_from_matrix,
    xyzw_from_matrix,
)
from manifolds.rotations.special_orthogonal import SO3
from rfm.datasets.coordinates import as_float64
from rfm.datasets.tables import Table

TOLERANCE = 1e-2
"""How far the norm of a quaternion may be from 1, or R'R from the identity: files hold three or four digits."""

MATRIX_NAMES = tuple(f"r{i}{j}" for i in (1, 2, 3) for j in (1, 2, 3))
ROTATION_NAMES: Mapping[str, tuple[str, ...]] = {
    "bunge": ("phi1", "Phi", "phi2"),
    "xyzw": ("qx", "qy", "qz", "qw"),
    "wxyz": ("qw", "qx", "qy", "qz"),
    "matrix": MATRIX_NAMES,
}
CONVENTIONS = tuple(ROTATION_NAMES)


def rotations_from(numbers: NDArray[np.float64], convention: str, table: Table, radians: bool = False) -> Tensor:
    """Return rotations ``(n, 3, 3)`` from the numbers of a table's rows, ``(n, 3, 4 or 9)``.

    Raises:
        TableError: a row holds none; the message names it.
    """
    x = torch.from_numpy(numbers)
    if convention == "bunge":
        if radians:
            _refuse_degrees(table, x)
        # Whole turns are taken off in the unit of the file, where that is exact.
        angles = torch.fmod(x, 2 * math.pi) if radians else torch.deg2rad(torch.fmod(x, 360.0))
        return matrix_from_euler(angles, "zxz", "intrinsic")
    if convention == "matrix":
        matrices = x.unflatten(-1, (3, 3))
        off = (matrices.mT @ matrices - torch.eye(3, dtype=x.dtype)).abs().amax((-2, -1))
        off = torch.where(torch.linalg.det(matrices) > 0, off, torch.inf)
        _refuse(table, off, "these nine numbers are no rotation matrix (R'R differs from 1, or det R is negative)")
        return SO3().projx(matrices)
    norm = x.norm(dim=-1)
    _refuse(table, (norm - 1).abs(), "this is no unit quaternion, its norm is {:.6g}", norm)
    return (matrix_from_xyzw if convention == "xyzw" else matrix_from_wxyz)(x)


def rotation_of(numbers: Sequence[float], convention: str) -> Tensor:
    """Return the rotation ``(3, 3)`` that four numbers of a quaternion or nine of a matrix are, by their convention.

    Raises:
        ValueError: the quaternion is no unit one. A matrix is for the manifold to check.
    """
    x = torch.tensor(numbers, dtype=torch.float64)
    if convention == "matrix":
        return x.unflatten(-1, (3, 3))
    if not abs(float(x.norm()) - 1) <= TOLERANCE:
        raise ValueError(
            f"{', '.join(f'{value:g}' for value in numbers)} is no unit quaternion, its norm is {x.norm():.6g}"
        )
    return matrix_from_xyzw(x) if convention == "xyzw" else matrix_from_wxyz(x)


def _refuse_degrees(table: Table, angles: Tensor) -> None:
    """Refuse angles of more than two turns, which no program writes in radians."""
    largest = angles.abs().amax(-1)
    rows = (largest > 4 * math.pi + 1e-3).nonzero()[:, 0]
    if len(rows):
        row = int(rows[0])
        raise table.error(
            row, f"{float(largest[row]):.6g} is no Euler angle in radians", "leave --radians out if it is degrees"
        )


def numbers_from(points: Tensor, convention: str, radians: bool = False) -> NDArray[np.float64]:
    """Return what `rotations_from` reads, for rotations ``(n, 3, 3)``; Euler angles are in [0, 360) degrees."""
    x = torch.from_numpy(as_float64(points))
    if convention == "bunge":
        turn = 2 * math.pi if radians else 360.0
        angles = euler_from_matrix(x, "zxz", "intrinsic")
        angles = torch.remainder(angles if radians else torch.rad2deg(angles), turn)
        return torch.where(angles >= turn, 0.0, angles).numpy()
    if convention == "matrix":
        return x.flatten(-2).numpy()
    make: Callable[[Tensor], Tensor] = xyzw_from_matrix if convention == "xyzw" else wxyz_from_matrix
    return make(x).numpy()


def _refuse(table: Table, error: Tensor, finding: str, value: Tensor | None = None) -> None:
    bad = (~(error <= TOLERANCE)).nonzero()[:, 0]
    if len(bad):
        row = int(bad[0])
        shown = finding if value is None else finding.format(float(value[row]))
        remedy = "check which columns hold the rotation and in which order, or remove it"
        raise table.error(row, shown, remedy, bad.tolist())
