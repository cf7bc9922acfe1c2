"""The results of a solve whose samples arrive one by one."""

import math

import torch
from torch import Tensor

from rfm.integrators.scheme import Moving
from rfm.integrators.solution import SUCCEEDED, Solution


class Recorder:
    """What is known so far, NaN where nothing is."""

    def __init__(self, x: Tensor, times: tuple[float, ...]) -> None:
        self.grid = torch.tensor(times, dtype=x.dtype, device=x.device)
        self.x = x.new_full((len(times), *x.shape), math.nan)
        # With other output times that rounding does not distinguish from the start.
        self.at_start = self.grid == self.grid[0]
        self.x[self.at_start] = x
        self.integrals: Tensor | None = None
        self.status = torch.full((len(x),), SUCCEEDED, device=x.device)
        self.evaluations = torch.zeros(len(x), dtype=torch.long, device=x.device)

    def begin_integrals(self, zeros: Tensor) -> None:
        """Note that there are integrals, and their shape ``(n)`` or ``(n, k)``."""
        self.integrals = zeros.new_full((len(self.grid), *zeros.shape), math.nan)
        self.integrals[self.at_start] = zeros

    def passed(self, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
        """Return which samples pass which output times on the way from one time ``(n)`` to another, as pairs.

        Rows number the samples, columns the output times. The last output time is nobody's: what arrives is recorded by
        `end`. A rejected step has length zero, and passes nothing.
        """
        way, ahead = (after - before)[:, None], self.grid[1:-1] - before[:, None]
        row, column = torch.nonzero((ahead.sign() * way.sign() > 0) & (ahead.abs() <= way.abs()), as_tuple=True)
        return row, column + 1

    def fill(self, column: Tensor, index: Tensor, x: Tensor, integral: Tensor | None) -> None:
        """Fill in where samples are at output times, one of each per entry."""
        self.x[column, index] = x
        if integral is not None and self.integrals is not None:
            self.integrals[column, index] = integral

    def end(self, done: Moving, evaluations: Tensor) -> None:
        """Fill in samples that have arrived or failed, and how many evaluations they took."""
        self.status[done.index] = done.status
        self.evaluations[done.index] += evaluations
        arrived = torch.nonzero(done.arrived).flatten()
        self.fill(
            torch.full_like(arrived, len(self.grid) - 1),
            done.index[arrived],
            done.x[arrived],
            None if done.integral is None else done.integral[arrived],
        )

    def solution(self) -> Solution:
        return Solution(self.grid, self.x, self.integrals, self.status, self.evaluations)
