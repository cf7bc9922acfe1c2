"""D-Flow: a point of the source whose end fits the measurement, found by optimisation through the solve."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from manifolds.arguments import integer
from rfm.integrators import FixedStep, integrate
from rfm.integrators.runge_kutta.tableaux import MIDPOINT
from rfm.posterior.draws import PosteriorDraws
from rfm.posterior.guided import biased_draws
from rfm.posterior.target import SourceTarget
from rfm.steering.gradients import check_differentiable


@dataclass(frozen=True)
class DFlow:
    """Minimise ``-log L(T(z)) + weight R(z)`` over the source by L-BFGS, from draws of it.

    Modes of the reweighted source rather than draws: the spread of the results is that of the starts, not that of the
    posterior. Points move by ``exp_z0`` of a tangent vector at where they start, so that the search is in flat space.
    One line search serves a batch, as in published code, hence results depend on their batch mates.

    Args:
        rounds: restarts of L-BFGS, which forget its curvature.
        iterations: in each round, at most.
        points: time points of the solve through which gradients go, by the midpoint method.
        weight: of the regulariser. The published one is 0.01 against the squared residual, here ``0.01 / (2 noise^2)``.
        regulariser: from points of the source to penalties ``(n,)``; minus the source's log-density by default. The
            published one is `gaussian_shell`.

    References:
        Ben-Hamu et al.: D-Flow, Differentiating through flows for controlled generation, 2024, arXiv:2402.14017.
    """

    rounds: int = 20
    iterations: int = 20
    points: int = 6
    weight: float = 1.0
    regulariser: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        for name in ("rounds", "iterations"):
            integer("DFlow", name, getattr(self, name))
        if integer("DFlow", "points", self.points) < 2:
            raise ValueError(f"DFlow: points, of the solve, are at least 2, got {self.points}")

    def run(self, target: SourceTarget, n: int, generator: torch.Generator | None, like: Tensor) -> PosteriorDraws:
        """Return ``n`` draws; arguments and errors are those of `Sampler`."""
        manifold, solver = target.manifold, FixedStep(MIDPOINT, self.points - 1)

        def penalty(z: Tensor) -> Tensor:
            return -target.source.log_prob(z) if self.regulariser is None else self.regulariser(z)

        def chain(count: int) -> Tensor:
            start = target.noise(count, generator, like)
            basis = manifold.tangent_basis(start)
            offset = torch.zeros(count, manifold.dim, dtype=start.dtype, device=start.device, requires_grad=True)

            def moved() -> Tensor:
                return manifold.projx(manifold.expmap(start, (manifold.lift(offset) * basis).sum(1)))

            def end() -> tuple[Tensor, Tensor]:
                z = moved()
                return z, integrate(target.field, manifold, z, (0.0, 1.0), solver).final

            with torch.enable_grad():
                for _ in range(self.rounds):
                    search = torch.optim.LBFGS([offset], max_iter=self.iterations, line_search_fn="strong_wolfe")

                    def objective(search: torch.optim.LBFGS = search) -> Tensor:
                        search.zero_grad()
                        z, x = end()
                        fit = target.likelihood(x)
                        check_differentiable("DFlow", fit)
                        loss = (self.weight * penalty(z).double() - fit.double()).sum()
                        loss.backward(inputs=[offset])
                        return loss

                    search.step(objective)
            return end()[1]

        return biased_draws(target, chain, n, "D-Flow")


def gaussian_shell(z: Tensor) -> Tensor:
    """Return minus the log-density of the length of a standard normal vector, ``(n,)`` for vectors ``(n, d)``."""
    square = z.square().sum(-1)
    return square / 2 - (z.shape[-1] - 1) / 2 * (square + 1e-12).log()
