"""Steps that are settled before the solve."""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from manifolds import Manifold
from rfm.integrators.march import March
from rfm.integrators.mesh import Mesh
from rfm.integrators.right_hand_side import RightHandSide
from rfm.integrators.runge_kutta.cheapest import in_coordinates
from rfm.integrators.runge_kutta.tableaux import RK4, Tableau
from rfm.integrators.scheme import FixedStepper, Scheme
from rfm.integrators.solution import Solution


@dataclass(frozen=True)
class FixedStep:
    """Steps that are the same for all samples, equal or shrinking towards the data: one graph for `torch.compile`.

    A flow's field has structure of size ``1 - t`` at time ``t``. With ``grading`` 1.5 the last of n steps is shorter
    than the mean by the root of n; on trained fields that takes half as many steps, or fewer, to the same error.

    Args:
        scheme: a `Projected`, `Geodesic`, `MuntheKaas` or `NormalCoordinates` method; a bare tableau is
            `Projected`, on SO(3) and SE(3) `MuntheKaas`. Or `Adams`.
        steps: number of steps over the full span of times, shared between the output times in proportion to the
            distances between them, at least one each.
        grading: the exponent g of the times ``1 - (1 - s)^g`` at which steps end, for equally spaced s, as shares of
            the span from its earliest time to its latest, whichever way it is solved; 1 makes equal steps.
    """

    scheme: Tableau | Scheme = RK4
    steps: int = 100
    grading: float = 1.0

    def __post_init__(self) -> None:
        in_coordinates(self.scheme)  # raises for what is no scheme
        Mesh(self.steps, self.grading).check("FixedStep")

    def mesh(self, times: tuple[float, ...]) -> list[list[float]]:
        """Return the times at which steps begin and end, one list for each pair of consecutive output times."""
        return Mesh(self.steps, self.grading).between(times)

    def solve(self, rhs: RightHandSide, manifold: Manifold, x: Tensor, times: tuple[float, ...]) -> Solution:
        march, stepper = self.march(rhs, manifold, x, times)
        integral = None
        if integrals := stepper.integrals():
            known = [march.masked(value, output) for output, value in enumerate(integrals, 1)]
            integral = torch.stack([torch.zeros_like(known[0]), *known])
        evaluations = torch.full((len(x),), stepper.evaluations, device=x.device)
        grid = torch.tensor(times, dtype=x.dtype, device=x.device)
        return Solution(grid, torch.stack(march.outputs), integral, march.status, evaluations)

    def march(
        self, rhs: RightHandSide, manifold: Manifold, x: Tensor, times: tuple[float, ...], *, joint: bool = False
    ) -> tuple[March, FixedStepper]:
        """Return where the samples went, and the stepper, which holds the integrals.

        Args:
            rhs: what is integrated.
            manifold: where the points live.
            x: initial points ``(n, *event_shape)``.
            times: output times, the first of them the start.
            joint: the integrand is not one of each sample, but of all of them together, of any shape.
        """
        stepper, march = in_coordinates(self.scheme).fixed(rhs, manifold), March(manifold, x)
        meshes = self.mesh(times)
        stepper.begin(march, meshes[0][0])
        for mesh in meshes:
            for start, end in itertools.pairwise(mesh):
                stepper.advance(march, start, end)
            integrands = stepper.output()
            march.output(*(() if joint else integrands))
        return march, stepper
