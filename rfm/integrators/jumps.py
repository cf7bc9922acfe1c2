"""Jumps of a flow map, in place of steps along its field."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from manifolds import Manifold
from rfm.field import as_flow_map
from rfm.integrators.march import March
from rfm.integrators.mesh import Mesh
from rfm.integrators.right_hand_side import TimedRightHandSide
from rfm.integrators.solution import Solution
from rfm.integrators.velocities import check_form


@dataclass(frozen=True)
class Jumps:
    """The jumps of a `rfm.FlowMap`, each of one evaluation: what `Flow.sample` takes for ``steps``.

    Points alone can jump: the divergence is not integrated on the way, so a log-density needs another method, and is
    then that of the ordinary differential equation.

    Args:
        steps: number of jumps over the full span of times, shared between the output times in proportion to the
            distances between them, at least one each.
        grading: the exponent g of the times ``1 - (1 - s)^g`` at which jumps end, as in `FixedStep`; 1 makes them
            equally long.
    """

    steps: int = 1
    grading: float = 1.0

    def __post_init__(self) -> None:
        Mesh(self.steps, self.grading).check("Jumps")

    def solve(self, rhs: TimedRightHandSide, manifold: Manifold, x: Tensor, times: tuple[float, ...]) -> Solution:
        if rhs.with_integral:
            raise ValueError(
                "Jumps: a jump carries points, and integrates nothing on the way, as a log-density needs; take "
                "Adaptive() or FixedStep() for the exact density of the field's own equation"
            )
        field, march, evaluations = as_flow_map("Jumps", rhs.field), March(manifold, x), 0

        def jump_to(end: float) -> Callable[..., Tensor]:
            def jump(y: Tensor, s: Tensor, **own: Any) -> Tensor:
                t = rhs.span.times(torch.tensor(end, dtype=y.dtype, device=y.device)).expand(len(y))
                return field.jump(y, s, t, **own)

            return jump

        for mesh in Mesh(self.steps, self.grading).between(times):
            for start, end in itertools.pairwise(mesh):
                share = torch.tensor(start, dtype=x.dtype, device=x.device)
                landed = rhs.beside(jump_to(end), march.x, share)
                check_form("Jumps", x, landed)
                march.move(manifold.projx(landed), manifold.outside(landed))
                evaluations += 1
            march.output()
        grid = torch.tensor(times, dtype=x.dtype, device=x.device)
        count = torch.full((len(x),), evaluations, device=x.device)
        return Solution(grid, torch.stack(march.outputs), None, march.status, count)
