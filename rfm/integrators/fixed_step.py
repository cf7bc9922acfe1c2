"""Steps that are settled before the solve."""

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from manifolds import Manifold
from rfm.integrators.chart import Scheme
from rfm.integrators.method import RightHandSide, on_manifold
from rfm.integrators.runge_kutta import lift, step
from rfm.integrators.solution import LEFT_DOMAIN, NOT_FINITE, SUCCEEDED, Solution
from rfm.integrators.tableaux import RK4, Tableau


@dataclass(frozen=True)
class FixedStep:
    """Steps that are the same for all samples, equal or shrinking towards the data: one graph for `torch.compile`.

    A flow's field has structure of size ``1 - t`` at time ``t``. With ``grading`` 1.5 the last of n steps is shorter
    than the mean by the root of n; on trained fields that takes half as many steps, or fewer, to the same error.

    Args:
        scheme: a `Projected`, `Geodesic`, `MuntheKaas` or `NormalCoordinates` method; a bare tableau is
            `Projected`, on SO(3) and SE(3) `MuntheKaas`.
        steps: number of steps over the whole span of times, shared between the output times in proportion to the
            distances between them, at least one each.
        grading: the exponent g of the times ``1 - (1 - s)^g`` at which steps end, for equally spaced s, as shares of
            the span from its earliest time to its latest, whichever way it is solved; 1 makes equal steps.
    """

    scheme: Tableau | Scheme = RK4
    steps: int = 100
    grading: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"FixedStep: steps must be at least 1, got {self.steps}")
        if not 1 <= self.grading < math.inf:
            raise ValueError(f"FixedStep: grading must be a number of at least 1, got {self.grading}")

    def mesh(self, times: tuple[float, ...]) -> list[list[float]]:
        """Return the times at which steps begin and end, one list for each pair of consecutive output times."""
        low, high = min(times), max(times)
        places = [1 - ((high - t) / (high - low)) ** (1 / self.grading) for t in times]
        meshes = []
        for start, end, first, last in zip(times, times[1:], places, places[1:], strict=False):
            count = max(1, round(self.steps * abs(last - first)))
            inner = (first + (last - first) * i / count for i in range(1, count))
            meshes.append([start, *(high - (high - low) * (1 - s) ** self.grading for s in inner), end])
        return meshes

    def solve(self, rhs: RightHandSide, manifold: Manifold, x: Tensor, times: tuple[float, ...]) -> Solution:
        scheme = on_manifold(self.scheme, manifold)
        reuse = scheme.tableau.first_same_as_last
        asked = scheme.tableau.integrands_at(with_error=False)
        meshes = self.mesh(times)
        status = torch.where(_finite(x), SUCCEEDED, NOT_FINITE)
        integral = None
        first = None
        xs: list[Tensor] = [x]
        integrals: list[Tensor] = []
        for mesh in meshes:
            for start, end in itertools.pairwise(mesh):
                t, h = (torch.full((), value, dtype=x.dtype, device=x.device) for value in (start, end - start))
                made = step(scheme, rhs, manifold, x, t, h, first, integrands_at=asked)
                first = made.last if reuse else None
                if made.outside is None:
                    x = made.x
                else:
                    # The field is asked at points only: a sample that has left waits where it was last seen.
                    status = torch.where(made.outside & (status == SUCCEEDED), LEFT_DOMAIN, status)
                    x = torch.where(manifold.lift(made.outside), x, made.x)
                if made.increment is not None:
                    integral = made.increment if integral is None else integral + made.increment
            finite = _finite(x) if integral is None else _finite(x) & _finite(integral)
            status = torch.where((status == SUCCEEDED) & ~finite, NOT_FINITE, status)
            failed = status != SUCCEEDED
            xs.append(torch.where(manifold.lift(failed), math.nan, x))
            if integral is not None:
                integrals.append(torch.where(lift(failed, integral), math.nan, integral))
        per_step = len(scheme.tableau.c) - reuse
        evaluations = torch.full((len(x),), per_step * sum(len(mesh) - 1 for mesh in meshes) + reuse, device=x.device)
        grid = torch.tensor(times, dtype=x.dtype, device=x.device)
        known = torch.stack([torch.zeros_like(integrals[0]), *integrals]) if integrals else None
        return Solution(grid, torch.stack(xs), known, status, evaluations)


def _finite(x: Tensor) -> Tensor:
    return torch.isfinite(x.flatten(1) if x.ndim > 1 else x[:, None]).all(1)
