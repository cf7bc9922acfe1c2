"""Stochastic sampling that keeps the marginals of a flow."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from manifolds import Manifold
from manifolds.arguments import check_function, number, positive
from rfm.integrators.march import March
from rfm.integrators.mesh import Mesh
from rfm.integrators.per_sample import number as number_like
from rfm.integrators.right_hand_side import TimedRightHandSide
from rfm.integrators.solution import Solution
from rfm.integrators.stochastic.walks import GeodesicWalk, Walk, WalkStep
from rfm.integrators.velocities import check_form


@dataclass(frozen=True)
class Stochastic:
    """Steps of ``dx = (v + g s) dt + sqrt(2 g) dW`` with the score ``s`` of the flow's density: a solver for samples.

    Song et al., Score-Based Generative Modeling through Stochastic Differential Equations, 2020, arXiv:2011.13456,
    section 4.3, for any noise and any metric: the diffusion spreads the density as much as the drift along the score
    concentrates it, so that ``x_t`` has the distribution that it has without noise. Geffner et al., Proteina, 2025,
    arXiv:2503.00710, section 3.3, write it so, with a ``temperature`` below 1 for samples that are less diverse.

    **Exact** in the limit of many steps, if the score is that of the flow's own density and the temperature 1; the
    error in the mean of a function falls with the number of steps (weak order 1). What is drawn has no log-density.
    Noise forgets errors of the earlier steps, and costs more steps than the flow alone.

    Args:
        noise: ``g(t)``, not negative: a number, or a function of times ``(k)``. It should fall to 0 where the score
            grows without bound, as at the data: ``lambda t: 1 - t``.
        score: ``score(x, t, **condition)``, tangent at ``x``: a network, `rfm.paths.MarginalVelocity.score`, or for
            reference ``lambda x, t: flow.score(x, t[0])``.
        score_from_velocity: ``(x, t, velocity)`` to the score, where the one follows from the other, as on an affine
            path from Gaussian noise: ``lambda x, t, v: from_velocity(schedule, x, t, v).score``.
        temperature: factor of the noise, not of the drift; 1 keeps the marginals.
        steps: number of steps, as in `FixedStep`.
        grading: as in `FixedStep`.
        walk: `GeodesicWalk`, or `ProjectedWalk`.
        generator: source of randomness, on the device of the points.

    Raises:
        ValueError: unless one of ``score`` and ``score_from_velocity`` is given, and the numbers make sense.
    """

    noise: float | Callable[[Tensor], Tensor]
    score: Callable[..., Tensor] | None = None
    score_from_velocity: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None
    temperature: float = 1.0
    steps: int = 200
    grading: float = 1.0
    walk: Walk = field(default_factory=GeodesicWalk)
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        Mesh(self.steps, self.grading).check("Stochastic")
        if (self.score is None) == (self.score_from_velocity is None):
            raise ValueError(
                "Stochastic: takes either score or score_from_velocity; pass one of them, such as the score of "
                "marginal_velocity(path, data)"
            )
        for name, function in (("score", self.score), ("score_from_velocity", self.score_from_velocity)):
            if function is not None:
                check_function("Stochastic", name, function, "lambda x, t: flow.score(x, t[0])")
        positive("Stochastic", "temperature", self.temperature, "1 keeps the marginals")

    def solve(self, rhs: TimedRightHandSide, manifold: Manifold, x: Tensor, times: tuple[float, ...]) -> Solution:
        if times[-1] < times[0]:
            raise ValueError(
                "Stochastic: noise cannot be followed backwards in time, and what it draws has no log-density; take "
                "Adaptive() or FixedStep() for that"
            )
        march, walk, evaluations = March(manifold, x), self.walk.on(manifold, x), 0
        for mesh in Mesh(self.steps, self.grading).between(times):
            noises = self._noises(rhs, mesh[:-1])
            for (start, end), noise in zip(itertools.pairwise(mesh), noises, strict=True):
                march.move(*self._step(rhs, walk, march, start, end - start, noise))
            evaluations += len(noises)
            march.output()
        grid = torch.tensor(times, dtype=x.dtype, device=x.device)
        count = torch.full((len(x),), evaluations, device=x.device)
        return Solution(grid, torch.stack(march.outputs), None, march.status, count)

    def _step(
        self, rhs: TimedRightHandSide, walk: WalkStep, march: March, start: float, h: float, noise: float
    ) -> tuple[Tensor, Tensor | None]:
        """Return where a step leads, and which samples leave the domain; ``noise`` is per share of the span."""
        manifold, x, t = march.manifold, march.x, number_like(start, march.x)
        u, integrand = rhs(x, t)
        if integrand is not None:
            raise ValueError(
                "Stochastic: what is drawn with noise has no log-density; leave out return_log_prob, or take another "
                "solver"
            )
        if noise == 0:
            return walk(x, h * u, 0.0)
        w = h * (u + noise * self._score(rhs, x, t, u))
        variance = 2 * self.temperature * noise * h
        basis = manifold.tangent_basis(x)
        draw = torch.randn(len(x), manifold.dim, generator=self.generator, dtype=x.dtype, device=x.device)
        xi = (manifold.lift(draw) * basis).sum(1)
        return walk(x, w + math.sqrt(variance) * xi, variance)

    def _score(self, rhs: TimedRightHandSide, x: Tensor, t: Tensor, u: Tensor) -> Tensor:
        if self.score is not None:
            s = rhs.beside(self.score, x, t)
        else:
            assert self.score_from_velocity is not None
            s = self.score_from_velocity(x, rhs.span.times(t).expand(len(x)), u / rhs.span.length)
        check_form("Stochastic: score", x, s)
        return s

    def _noises(self, rhs: TimedRightHandSide, shares: list[float]) -> list[float]:
        """Return the noise per share of the span at the starts of steps."""
        times = rhs.span.times(torch.tensor(shares, dtype=torch.float64))
        if callable(self.noise):
            values = self.noise(times)
        else:
            values = torch.full_like(times, number("Stochastic", "noise", self.noise))
        if values.shape != times.shape or not bool((values.isfinite() & (values >= 0)).all()):
            raise ValueError(
                "Stochastic: noise must be one finite number for each time, not negative, at all times where steps "
                f"start; found shape {tuple(values.shape)} and values from {float(values.min()):g} to "
                f"{float(values.max()):g}; bound it, as in lambda t: 1 / (t + 0.01)"
            )
        return [rhs.span.length * value for value in values.tolist()]
