"""Steps that are settled before the solve."""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from manifolds import Manifold
from rfm.integrators.adams import Adams
from rfm.integrators.adams_fixed import FixedAdams
from rfm.integrators.chart import Scheme
from rfm.integrators.march import March
from rfm.integrators.mesh import Mesh
from rfm.integrators.method import RightHandSide, on_manifold
from rfm.integrators.runge_kutta import number, step
from rfm.integrators.solution import Solution
from rfm.integrators.tableaux import RK4, Tableau


@dataclass(frozen=True)
class FixedStep:
    """Steps that are the same for all samples, equal or shrinking towards the data: one graph for `torch.compile`.

    A flow's field has structure of size ``1 - t`` at time ``t``. With ``grading`` 1.5 the last of n steps is shorter
    than the mean by the root of n; on trained fields that takes half as many steps, or fewer, to the same error.

    Args:
        scheme: a `Projected`, `Geodesic`, `MuntheKaas` or `NormalCoordinates` method; a bare tableau is
            `Projected`, on SO(3) and SE(3) `MuntheKaas`. Or `Adams`.
        steps: number of steps over the whole span of times, shared between the output times in proportion to the
            distances between them, at least one each.
        grading: the exponent g of the times ``1 - (1 - s)^g`` at which steps end, for equally spaced s, as shares of
            the span from its earliest time to its latest, whichever way it is solved; 1 makes equal steps.
    """

    scheme: Tableau | Scheme | Adams = RK4
    steps: int = 100
    grading: float = 1.0

    def __post_init__(self) -> None:
        Mesh(self.steps, self.grading).check("FixedStep")

    def mesh(self, times: tuple[float, ...]) -> list[list[float]]:
        """Return the times at which steps begin and end, one list for each pair of consecutive output times."""
        return Mesh(self.steps, self.grading).between(times)

    def solve(self, rhs: RightHandSide, manifold: Manifold, x: Tensor, times: tuple[float, ...]) -> Solution:
        if isinstance(self.scheme, Adams):
            return FixedAdams(self.scheme, rhs, manifold).solve(x, self.mesh(times))
        scheme = on_manifold(self.scheme, manifold)
        reuse = scheme.tableau.first_same_as_last
        asked = scheme.tableau.integrands_at(with_error=False)
        meshes = self.mesh(times)
        march = March(manifold, x)
        integral = None
        first = None
        integrals: list[Tensor] = []
        for mesh in meshes:
            for start, end in itertools.pairwise(mesh):
                t, h = number(start, x), number(end - start, x)
                made = step(scheme, rhs, manifold, march.x, t, h, first, integrands_at=asked)
                first = made.last if reuse else None
                march.move(made.x, made.outside)
                if made.increment is not None:
                    integral = made.increment if integral is None else integral + made.increment
            march.output(*([] if integral is None else [integral]))
            if integral is not None:
                integrals.append(march.masked(integral))
        per_step = len(scheme.tableau.c) - reuse
        evaluations = torch.full((len(x),), per_step * sum(len(mesh) - 1 for mesh in meshes) + reuse, device=x.device)
        grid = torch.tensor(times, dtype=x.dtype, device=x.device)
        known = torch.stack([torch.zeros_like(integrals[0]), *integrals]) if integrals else None
        return Solution(grid, torch.stack(march.outputs), known, march.status, evaluations)
