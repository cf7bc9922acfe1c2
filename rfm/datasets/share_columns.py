"""Columns of shares of a whole, for points of a simplex."""

from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rfm.datasets.coordinates import Coordinates, as_array, as_float64, output_names
from rfm.datasets.tables import Table

SHARES_TOLERANCE = 0.02
"""Rows whose sum differs from the whole by no more than this part of it are divided by it: files hold few digits."""


@final
@dataclass(frozen=True)
class Shares(Coordinates):
    """Shares of a whole, one column each, for points of ``Simplex(len(columns) - 1)``.

    Scores are in nats, of densities with respect to the Fisher-Rao volume.

    Args:
        columns: the columns, in the order of the coordinates.
        percent: the rows sum to 100, not to 1.
    """

    kind: ClassVar[str] = "shares"

    percent: bool = False

    @property
    def unit(self) -> str:
        return "percent" if self.percent else "fractions of 1"

    @property
    def names(self) -> tuple[str, ...]:
        return output_names(self.columns, [f"share_{i + 1}" for i in range(len(self.columns))])

    def points(self, table: Table) -> Tensor:
        x = self._numbers(table) / self._whole
        total = x.sum(axis=1)
        for bad, finding, remedy in (
            (~(x >= 0).all(axis=1), "a share is negative", "repair or remove that row"),
            (
                ~(np.abs(total - 1) <= SHARES_TOLERANCE),
                "the shares do not sum to {whole:g} but to {total:.6g}",
                "divide each row by its sum, or name other columns",
            ),
        ):
            rows = np.flatnonzero(bad)
            if len(rows):
                text = finding.format(whole=self._whole, total=total[rows[0]] * self._whole)
                raise table.error(int(rows[0]), text, remedy, rows.tolist())
        return torch.from_numpy(x / total[:, None])

    def columns_of(self, points: Tensor) -> NDArray[np.float64]:
        return self._whole * as_float64(points)

    def score_columns(self, log_prob: Tensor) -> dict[str, NDArray[Any]]:
        return {"log_prob_nats_fisher_rao": as_array(log_prob)}

    @property
    def _whole(self) -> float:
        return 100.0 if self.percent else 1.0


def in_percent(values: NDArray[np.float64]) -> bool:
    """Return whether rows of shares sum to 100, by the median of the sums."""
    return bool(abs(np.median(values.sum(axis=1)) - 100) <= 100 * SHARES_TOLERANCE)
