"""Angles in the columns of a table, for points of a torus."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from manifolds import FlatTorus, Manifold
from rfm.datasets.coordinates import Coordinates, as_array, as_float64, output_names, positive_angles, wrapped_degrees
from rfm.datasets.tables import Table
from rfm.posterior import Slice


@final
@dataclass(frozen=True)
class Angles(Coordinates):
    """Angles, one column each, for points of ``FlatTorus(len(columns))``; whole turns make no difference.

    Scores are densities with respect to radians, and to degrees where the table is in degrees.

    Args:
        columns: the columns, in the order of the coordinates.
        radians: the table is in radians, not in degrees.
        positive_angles: write angles from 0 to a full turn, not from minus half a turn to half a turn.
    """

    kind: ClassVar[str] = "angles"

    radians: bool = False
    positive_angles: bool = False

    @property
    def unit(self) -> str:
        return "radians" if self.radians else "degrees"

    @property
    def names(self) -> tuple[str, ...]:
        return output_names(self.columns, [f"angle_{i + 1}" for i in range(len(self.columns))])

    @property
    def periods(self) -> tuple[float | None, ...]:
        return (2 * math.pi if self.radians else 360.0,) * len(self.columns)

    @property
    def rounds(self) -> bool:
        return True

    def points(self, table: Table) -> Tensor:
        angle = self._numbers(table)
        radians = np.fmod(angle, 2 * math.pi) if self.radians else np.radians(wrapped_degrees(angle))
        return FlatTorus(len(self.columns)).projx(torch.from_numpy(radians)) + 0.0

    def columns_of(self, points: Tensor) -> NDArray[np.float64]:
        angle = as_float64(points) if self.radians else np.degrees(as_float64(points))
        return positive_angles(angle, 2 * math.pi if self.radians else 360.0) if self.positive_angles else angle

    def slice_of(self, manifold: Manifold, known: NDArray[np.float64]) -> Slice:
        radians = torch.from_numpy(known if self.radians else np.radians(wrapped_degrees(known)))
        return Slice.of_entries(manifold, manifold.projx(radians))

    def score_columns(self, log_prob: Tensor) -> dict[str, NDArray[Any]]:
        n = len(self.columns)
        power = "" if n == 1 else str(n)
        score = as_array(log_prob)
        scores = {f"log_prob_nats_per_radian{power}": score}
        if not self.radians:
            scores[f"log_prob_nats_per_degree{power}"] = score + n * math.log(math.pi / 180)
        return scores
