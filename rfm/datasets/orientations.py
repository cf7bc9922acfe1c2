"""Rotations in the columns of a table: Bunge's Euler angles, quaternions, matrices."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

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
from manifolds.special_orthogonal import SO3
from rfm.datasets.angle_units import bare_name, in_radians
from rfm.datasets.coordinates import Coordinates, as_array, as_float64, output_names
from rfm.datasets.orientation_maps import is_orientation_map, read_orientation_map
from rfm.datasets.pose_columns import QUATERNION, check_order, pose_columns, pose_roles
from rfm.datasets.tables import Table, TableError
from rfm.datasets.tracks import read_named_table

TOLERANCE = 1e-2
"""How far the norm of a quaternion may be from 1, or R'R from the identity: files hold three or four digits."""

MATRIX_NAMES = tuple(f"r{i}{j}" for i in (1, 2, 3) for j in (1, 2, 3))
_NAMES: Mapping[str, tuple[str, ...]] = {
    "bunge": ("phi1", "Phi", "phi2"),
    "xyzw": ("qx", "qy", "qz", "qw"),
    "wxyz": ("qw", "qx", "qy", "qz"),
    "matrix": MATRIX_NAMES,
}
CONVENTIONS = tuple(_NAMES)


@final
@dataclass(frozen=True)
class Orientations(Coordinates):
    """Rotations R that take the coordinates of a body (a crystal) to those of its surroundings (the sample).

    A symmetry S of the body acts from the right, R -> R S: of a cubic crystal,
    ``Quotient(SO3(), RightMultiplication(Octahedral()))``. The conventions:

    - "bunge": the Euler angles (phi1, Phi, phi2) of texture analysis, passive: turning the sample's axes by phi1 about
      z, then by Phi about the new x, then by phi2 about the new z makes them the crystal's. Bunge's matrix g, which
      takes sample coordinates to crystal coordinates and on which the symmetry acts from the left, is the transpose of
      R = R_z(phi1) R_x(Phi) R_z(phi2).
    - "xyzw", "wxyz": a quaternion of R, real part last or first. The sign makes no difference.
    - "matrix": the nine entries of R, row by row.

    Scores are in nats with respect to the volume of `manifolds.SO3`, whose total is 8 pi^2, and in multiples of the
    uniform density.

    Args:
        columns: the columns, in the order of the convention.
        convention: one of these.
        radians: Euler angles are in radians, not in degrees.

    References:
        Bunge: Texture Analysis in Materials Science, 1982, section 2.1.2.
    """

    kind: ClassVar[str] = "orientations"

    convention: str = "bunge"
    radians: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.convention not in _NAMES or len(self.columns) != len(_NAMES[self.convention]):
            raise ValueError(
                f"Orientations: convention is one of {', '.join(CONVENTIONS)} with its 3, 4, 4 or 9 columns, got "
                f"{self.convention!r} and {len(self.columns)} columns"
            )

    @property
    def names(self) -> tuple[str, ...]:
        return output_names(self.columns, _NAMES[self.convention])

    def read(self, path: str | Path) -> Table:
        return read_orientation_map(path).table if is_orientation_map(path) else read_named_table(path)

    def points(self, table: Table) -> Tensor:
        return rotations_from(self._numbers(table), self.convention, table, self.radians)

    def columns_of(self, points: Tensor) -> NDArray[np.float64]:
        return numbers_from(points, self.convention, self.radians)

    def score_columns(self, log_prob: Tensor) -> dict[str, NDArray[Any]]:
        score = as_array(log_prob)
        return {"log_prob_nats": score, "multiples_of_uniform": np.exp(score.astype(np.float64)) * 8 * math.pi**2}


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


def _refuse_degrees(table: Table, angles: Tensor) -> None:
    """Refuse angles of more than two turns, which no program writes in radians."""
    largest = angles.abs().amax(-1)
    beyond = (largest > 4 * math.pi + 1e-3).nonzero()[:, 0]
    if len(beyond):
        row = int(beyond[0])
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


def choose_orientations(
    table: Table, keys: tuple[str, ...] | None, radians: bool | None, layout: str | None
) -> Orientations:
    """Return the coordinates in which a table holds rotations: by what the columns are called, or by ``layout``.

    Raises:
        TableError: it is not clear.
    """
    if layout == "ang":
        return Orientations(keys or ("phi1", "Phi", "phi2"), "bunge", radians=True)
    convention = layout if layout in _NAMES else None
    if keys is None:
        found = [c for c in ([convention] if convention else CONVENTIONS) if all(map(table.has, _NAMES[c]))]
        columns = _euler_columns(table) if convention in (None, "bunge") else None
        if not found and columns is not None:
            return Orientations(columns, "bunge", _in_radians(table, columns, radians))
        columns = pose_columns(table, QUATERNION) if convention in (None, "xyzw", "wxyz") else None
        if not found and columns is not None:
            return Orientations(columns, "xyzw")
        if not found:
            raise TableError(
                f"{table.file}: no columns are called phi1, Phi, phi2 (Bunge's Euler angles), qw, qx, qy, qz or r11 to "
                f"r33\n{table.describe_columns()}\n"
                "name the columns in the header, or give --columns and --format bunge, xyzw, wxyz or matrix"
            )
        own = tuple(table.key(table.index(name)) for name in _NAMES[found[0]])
        return Orientations(own, found[0], found[0] == "bunge" and _in_radians(table, own, radians))
    convention = convention or _convention_of(keys)
    if convention is None or len(keys) != len(_NAMES[convention]):
        raise TableError(
            f"{table.file}: --columns names {len(keys)}, and what they mean is not clear\n"
            "add --format bunge (3 Euler angles), matrix (9 entries), xyzw or wxyz (a quaternion, real part last or "
            "first)"
        )
    if convention in ("xyzw", "wxyz"):
        check_order(table, keys, _NAMES[convention], f"--format {convention}")
    return Orientations(keys, convention, convention == "bunge" and _in_radians(table, keys, radians))


def _euler_columns(table: Table) -> tuple[str, ...] | None:
    """Return the columns that are called Bunge's angles with a unit, as ``phi1_deg``."""
    names = [bare_name(name).casefold() for name in table.names]
    usual = [name.casefold() for name in _NAMES["bunge"]]
    return tuple(table.key(names.index(name)) for name in usual) if all(names.count(n) == 1 for n in usual) else None


def _in_radians(table: Table, keys: tuple[str, ...], said: bool | None) -> bool:
    return in_radians(table, keys, said, [2 * math.pi] * len(keys))


def _convention_of(keys: Sequence[str]) -> str | None:
    """Return the convention that the columns' names or their number leave no doubt about."""
    names = tuple(key.casefold() for key in keys)
    for convention, usual in _NAMES.items():
        if names == tuple(name.casefold() for name in usual):
            return convention
    roles = pose_roles(keys)
    named = next((order for order in ("xyzw", "wxyz") if roles == list(_NAMES[order])), None)
    return named or ("matrix" if len(keys) == 9 else None)


def _refuse(table: Table, error: Tensor, finding: str, value: Tensor | None = None) -> None:
    bad = (~(error <= TOLERANCE)).nonzero()[:, 0]
    if len(bad):
        row = int(bad[0])
        also = f" ({len(bad)} of {len(table)} rows are like that)" if len(bad) > 1 else ""
        shown = finding if value is None else finding.format(float(value[row]))
        raise table.error(row, shown + also, "check which columns hold the rotation and in which order, or remove it")
