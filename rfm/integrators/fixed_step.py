"""Equal steps."""

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
    """Equal steps, the same for all samples: one graph for `torch.compile`.

    Args:
        scheme: a `Projected`, `Geodesic`, `MuntheKaas` or `NormalCoordinates` method; a bare tableau is
            `Projected`, on SO(3) and SE(3) `MuntheKaas`.
        steps: number of steps over the whole span of times, shared between the output times in proportion to the
            distances between them, at least one each.
    """

    scheme: Tableau | Scheme = RK4
    steps: int = 100

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"FixedStep: steps must be at least 1, got {self.steps}")

    def solve(self, rhs: RightHandSide, manifold: Manifold, x: Tensor, times: tuple[float, ...]) -> Solution:
        scheme = on_manifold(self.scheme, manifold)
        reuse = scheme.tableau.first_same_as_last
        asked = scheme.tableau.integrands_at(with_error=False)
        length = abs(times[-1] - times[0])
        counts = [max(1, round(self.steps * abs(b - a) / length)) for a, b in itertools.pairwise(times)]
        status = torch.where(_finite(x), SUCCEEDED, NOT_FINITE)
        integral = None
        first = None
        xs, integrals = [x], list[Tensor]()
        for start, end, count in zip(times, times[1:], counts, strict=False):
            h = torch.full((), (end - start) / count, dtype=x.dtype, device=x.device)
            for i in range(count):
                t = torch.full((), start + i * (end - start) / count, dtype=x.dtype, device=x.device)
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
        evaluations = torch.full((len(x),), per_step * sum(counts) + reuse, device=x.device)
        grid = torch.tensor(times, dtype=x.dtype, device=x.device)
        known = torch.stack([torch.zeros_like(integrals[0]), *integrals]) if integrals else None
        return Solution(grid, torch.stack(xs), known, status, evaluations)


def _finite(x: Tensor) -> Tensor:
    return torch.isfinite(x.flatten(1) if x.ndim > 1 else x[:, None]).all(1)
