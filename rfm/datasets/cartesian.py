"""Coordinates of the space around a manifold, a column each."""

from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from manifolds import Manifold
from rfm.datasets.coordinates import Coordinates, as_array, as_float64, output_names
from rfm.datasets.tables import Table
from rfm.posterior import Slice

SPHERE_TOLERANCE = 1e-3
"""Rows whose norm is as near to 1 are projected to the sphere: files hold few digits."""


@final
@dataclass(frozen=True)
class Cartesian(Coordinates):
    """Ambient coordinates, one column each, for points of shape ``(len(columns),)``.

    Args:
        columns: the columns, in the order of the coordinates.
        unit_norm: the points are on the unit sphere; rows nearer to it than `SPHERE_TOLERANCE` are projected, others
            are errors.
        on_surface: the points are on a surface in space, densities are per unit of its area.
    """

    kind: ClassVar[str] = "cartesian"

    unit_norm: bool = False
    on_surface: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        n = len(self.columns)
        return output_names(self.columns, "xyz"[:n] if n <= 3 else [f"x{i + 1}" for i in range(n)])

    @property
    def rounds(self) -> bool:
        # A column alone is not, where moving it would leave the sphere or the surface.
        return not (self.unit_norm or self.on_surface)

    def points(self, table: Table) -> Tensor:
        x = self._numbers(table)
        if self.unit_norm:
            with np.errstate(over="ignore"):  # an infinite norm is as far off as a large one
                norm = np.linalg.norm(x, axis=1)
            bad = np.flatnonzero(~(np.abs(norm - 1) <= SPHERE_TOLERANCE))
            if len(bad):
                finding = f"this point is not on the unit sphere, its norm is {norm[bad[0]]:.6g}"
                remedy = "divide each row by its norm, or name other columns"
                raise table.error(int(bad[0]), finding, remedy, bad.tolist())
            x = x / norm[:, None]
        return torch.from_numpy(x + 0.0)

    def columns_of(self, points: Tensor) -> NDArray[np.float64]:
        return as_float64(points)

    def slice_of(self, manifold: Manifold, known: NDArray[np.float64]) -> Slice:
        return Slice.of_entries(manifold, known)

    def score_columns(self, log_prob: Tensor) -> dict[str, NDArray[Any]]:
        on_s2 = self.unit_norm and len(self.columns) == 3
        if self.on_surface:
            return {"log_prob_nats_per_area": as_array(log_prob)}
        return {"log_prob_nats_per_steradian" if on_s2 else "log_prob_nats": as_array(log_prob)}
