"""The cheapest way to integrate a flow that keeps an error, by trial on a few points."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor

from manifolds.arguments import positive
from rfm.integrators import Adams, Adaptive, FixedStep, IntegrationError, Method

_STEPS = (2, 3, 4, 6, 8, 10, 14, 20, 28, 40)
_SCHEMES = ((Adams(3), 1.5), (Adams(4), 2.5), (Adams(5), 1.5))
"""Methods and gradings that are good for errors of samples, of log-densities and for small errors; each finds users."""
_TOLERANCE = 1e-4
LEAST_ERROR = 1e-5
"""That of the adaptive default, by which others are assessed, and which is of the size of float32's rounding."""


@dataclass(frozen=True)
class SolverChoice:
    """A solver, and what it was chosen by.

    Args:
        solver: for `Flow.sample`, `Flow.log_prob`.
        error: the largest difference from the adaptive default over the points that were tried; None where that is
            the choice.
        points: how many were tried.
    """

    solver: Method
    error: float | None
    points: int

    def describe(self, unit: str) -> str:
        """Return the solver and its error in words."""
        if isinstance(self.solver, FixedStep):
            scheme = self.solver.scheme
            assert isinstance(scheme, Adams)
            text = f"{self.solver.steps} steps of Adams's method of order {scheme.order}"
        else:
            text = "adaptive steps"
        if self.error is None:
            return f"{text}, as no faster solver kept the error"
        return f"{text}, with errors of at most {self.error:.1g} {unit} at {self.points} points"


def fastest_solver(
    solve: Callable[[Method], Tensor], error: float, distance: Callable[[Tensor, Tensor], Tensor] | None = None
) -> SolverChoice:
    """Return the solver with the fewest steps whose results differ by at most ``error`` from the adaptive default's.

    The default is made to be right for any flow; a trained flow whose error may be 1e-3 often needs a tenth of its
    evaluations. The error is the largest over the points of ``solve``: take a few hundred like those to come, with the
    same random numbers in each call.

    Args:
        solve: from a solver to results, a row for each point: samples, such as ``lambda solver: flow.sample(200,
            generator=torch.Generator().manual_seed(0), solver=solver)``, or log-densities.
        error: what is allowed, in the unit of ``distance``, at least 1e-5.
        distance: between results, such as ``flow.manifold.dist``; absolute differences, as of log-densities, by
            default.

    Raises:
        ValueError: ``error`` is smaller than what the default keeps.
    """
    allowed = positive("fastest_solver", "error", error)
    if allowed < LEAST_ERROR:
        raise ValueError(
            f"fastest_solver: error must be at least {LEAST_ERROR:g}, that of the adaptive default, got {error:g}; for "
            "a smaller one use Adaptive(atol=1e-8, rtol=1e-8) and the field in float64"
        )
    default = Adaptive()
    reference = solve(default)
    for solver in _candidates():
        try:
            own = solve(solver)
        except IntegrationError:
            continue
        difference = (own - reference).abs() if distance is None else distance(own, reference)
        largest = float(difference.max())  # NaN compares as too large
        if largest <= allowed:
            return SolverChoice(solver, largest, len(reference))
    return SolverChoice(default, None, len(reference))


def _candidates() -> Iterator[Method]:
    for steps in _STEPS:
        for scheme, grading in _SCHEMES:
            # The first steps of higher orders are Runge-Kutta's, which cost more than they bring.
            if steps >= 2 * scheme.order - 4:
                yield FixedStep(scheme, steps, grading)
    yield Adaptive(atol=_TOLERANCE, rtol=_TOLERANCE)
