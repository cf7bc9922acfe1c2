"""Rotations in the columns of a table: Bunge's Euler angles, quaternions, matrices."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rfm.datasets.angle_units import bare_name, in_radians
from rfm.datasets.coordinates import Coordinates, as_array, output_names
from rfm.datasets.orientation_maps import is_orientation_map, read_orientation_map
from rfm.datasets.pose_columns import QUATERNION, check_order, pose_columns, pose_roles
from rfm.datasets.rotation_columns import CONVENTIONS, ROTATION_NAMES, numbers_from, rotations_from
from rfm.datasets.tables import Table, TableError
from rfm.datasets.text_files import read_once
from rfm.datasets.tracks import read_commented_table


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
        if self.convention not in ROTATION_NAMES or len(self.columns) != len(ROTATION_NAMES[self.convention]):
            raise ValueError(
                f"Orientations: convention is one of {', '.join(CONVENTIONS)} with its 3, 4, 4 or 9 columns, got "
                f"{self.convention!r} and {len(self.columns)} columns"
            )

    @property
    def unit(self) -> str:
        return ("radians" if self.radians else "degrees") if self.convention == "bunge" else ""

    @property
    def names(self) -> tuple[str, ...]:
        return output_names(self.columns, ROTATION_NAMES[self.convention])

    @property
    def ambiguous(self) -> tuple[str, ...]:
        return () if self.convention == "matrix" else self.names

    def read(self, path: str | os.PathLike[str]) -> Table:
        path = read_once(path)
        return read_orientation_map(path).table if is_orientation_map(path) else read_commented_table(path)

    def points(self, table: Table) -> Tensor:
        return rotations_from(self._numbers(table), self.convention, table, self.radians)

    def columns_of(self, points: Tensor) -> NDArray[np.float64]:
        return numbers_from(points, self.convention, self.radians)

    def score_columns(self, log_prob: Tensor) -> dict[str, NDArray[Any]]:
        score = as_array(log_prob)
        return {"log_prob_nats": score, "multiples_of_uniform": np.exp(score.astype(np.float64)) * 8 * math.pi**2}


def choose_orientations(
    table: Table, keys: tuple[str, ...] | None, radians: bool | None, layout: str | None
) -> Orientations:
    """Return the coordinates in which a table holds rotations: by what the columns are called, or by ``layout``.

    Raises:
        TableError: it is not clear.
    """
    if layout == "ang":
        return Orientations(keys or ("phi1", "Phi", "phi2"), "bunge", radians=True)
    convention = layout if layout in ROTATION_NAMES else None
    if keys is None:
        fitting = [c for c in ([convention] if convention else CONVENTIONS) if all(map(table.has, ROTATION_NAMES[c]))]
        columns = _euler_columns(table) if convention in (None, "bunge") else None
        if not fitting and columns is not None:
            return Orientations(columns, "bunge", _in_radians(table, columns, radians))
        columns = pose_columns(table, QUATERNION) if convention in (None, "xyzw", "wxyz") else None
        if not fitting and columns is not None:
            return Orientations(columns, "xyzw")
        if not fitting:
            raise TableError(
                f"{table.file}: no columns are called phi1, Phi, phi2 (Bunge's Euler angles), qw, qx, qy, qz or r11 to "
                f"r33; {table.describe_columns()}; "
                "name the columns in the header, or give --columns and --format bunge, xyzw, wxyz or matrix"
            )
        own = tuple(table.key(table.index(name)) for name in ROTATION_NAMES[fitting[0]])
        return Orientations(own, fitting[0], fitting[0] == "bunge" and _in_radians(table, own, radians))
    convention = convention or _convention_of(keys)
    if convention is None or len(keys) != len(ROTATION_NAMES[convention]):
        raise TableError(
            f"{table.file}: --columns names {len(keys)}, and what they mean is not clear; "
            "add --format bunge (3 Euler angles), matrix (9 entries), xyzw or wxyz (a quaternion, real part last or "
            "first)"
        )
    if convention in ("xyzw", "wxyz"):
        check_order(table, keys, ROTATION_NAMES[convention], f"--format {convention}")
    return Orientations(keys, convention, convention == "bunge" and _in_radians(table, keys, radians))


def _euler_columns(table: Table) -> tuple[str, ...] | None:
    """Return the columns that are called Bunge's angles with a unit, as ``phi1_deg``."""
    names = [bare_name(name).casefold() for name in table.names]
    usual = [name.casefold() for name in ROTATION_NAMES["bunge"]]
    return tuple(table.key(names.index(name)) for name in usual) if all(names.count(n) == 1 for n in usual) else None


def _in_radians(table: Table, keys: tuple[str, ...], radians: bool | None) -> bool:
    return in_radians(table, keys, radians, [2 * math.pi] * len(keys))


def _convention_of(keys: Sequence[str]) -> str | None:
    """Return the convention that the columns' names or their number leave no doubt about."""
    names = tuple(key.casefold() for key in keys)
    for convention, usual in ROTATION_NAMES.items():
        if names == tuple(name.casefold() for name in usual):
            return convention
    roles = pose_roles(keys)
    quaternion_order = next((order for order in ("xyzw", "wxyz") if roles == list(ROTATION_NAMES[order])), None)
    return quaternion_order or ("matrix" if len(keys) == 9 else None)
