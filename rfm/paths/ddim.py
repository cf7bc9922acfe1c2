"""DDIM: steps of the probability flow that are exact where the prediction does not change."""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from manifolds import Manifold
from manifolds.arguments import check_instance
from rfm.integrators.march import March
from rfm.integrators.mesh import Mesh
from rfm.integrators.per_sample import number
from rfm.integrators.right_hand_side import TimedRightHandSide
from rfm.integrators.solution import Solution
from rfm.paths.conversions import ddim_step, from_velocity
from rfm.paths.schedules import Schedule


@dataclass(frozen=True)
class DDIM:
    """The deterministic sampler of diffusion models, as a solver for `rfm.Flow.sample` and `rfm.integrate`.

    Each step goes to ``alpha(t') endpoint + sigma(t') noise`` with the end point and the noise that the velocity says
    (`rfm.paths.conversions.ddim_step`): Euler's method for ``x / alpha`` as a function of ``sigma / alpha``, which is
    the exponential integrator that holds the predicted noise and is exact in the rest. With the linear schedule it is
    Euler's method in time. In flat space only; the field has to be of a path with this schedule.

    Song et al., Denoising Diffusion Implicit Models, 2020, arXiv:2010.02502, equation 12; as exponential integrator:
    Lu et al., DPM-Solver, 2022, arXiv:2206.00927, section 4.1.

    Args:
        schedule: of the path that the network was trained on.
        steps: number of steps over the span of times.
        grading: as for `rfm.integrators.FixedStep`.

    Raises:
        ValueError: on use, for densities: the divergence is not integrated.
    """

    schedule: Schedule
    steps: int = 50
    grading: float = 1.0

    def __post_init__(self) -> None:
        check_instance("DDIM", "schedule", self.schedule, Schedule, "VariancePreserving()")
        Mesh(self.steps, self.grading).check("DDIM")

    def solve(self, rhs: TimedRightHandSide, manifold: Manifold, x: Tensor, times: tuple[float, ...]) -> Solution:
        march, span, evaluations = March(manifold, x), rhs.span, 0
        for mesh in Mesh(self.steps, self.grading).between(times):
            for start, end in itertools.pairwise(mesh):
                first, last = number(start, x), number(end, x)
                u, integrand = rhs(march.x, first)
                if integrand is not None:
                    raise ValueError(
                        "DDIM: integrates no divergence, so it gives no log-density; take FixedStep or Adaptive"
                    )
                known = from_velocity(self.schedule, march.x, span.times(first), u / span.length)
                march.move(ddim_step(self.schedule, span.times(last), known), None)
                evaluations += 1
            march.output()
        used = torch.full((len(x),), evaluations, device=x.device)
        grid = torch.tensor(times, dtype=x.dtype, device=x.device)
        return Solution(grid, torch.stack(march.outputs), None, march.status, used)
