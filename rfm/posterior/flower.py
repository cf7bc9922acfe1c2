"""FLOWER: predict the end point, combine it with the measurement, go back to the path with fresh noise."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from manifolds.arguments import integer
from rfm.posterior.draws import PosteriorDraws
from rfm.posterior.guided import biased_draws
from rfm.posterior.proposals import normal_velocities
from rfm.posterior.renoising import check_renoising
from rfm.posterior.tangent_solve import linearised, solve
from rfm.posterior.target import SourceTarget
from rfm.steering.gradients import end_point


@dataclass(frozen=True)
class Flower:
    """Three steps at each time: end point, Gaussian correction, fresh noise. Biased, unless the prior is normal.

    The end point ``x1 = exp_x((1 - t) v)`` is taken for the mean of a Gaussian of deviation ``nu = (1 - t) / sqrt(t^2 +
    (1 - t)^2)``. Its product with the measurement is solved for in the tangent space at ``x1``, by conjugate gradients
    or, for up to 16 numbers, directly: exact for a linear operator in flat space. That the end point given ``x_t`` is
    such a Gaussian is exact for a standard normal prior in flat space only. The next point lies between the corrected
    end point and a fresh draw of the source, which keeps the marginals where source and data were paired independently:
    along geodesics too, as only the end point is given. A flow whose coupling ties them is refused, unless requested.

    Args:
        steps: N, times ``k / N``.
        draw: add the matching Gaussian draw, for draws of a posterior; without it, as in the published code, the most
            likely end point is taken.
        coupled: draw from a flow whose source and data may be coupled all the same; that is then not tested, and the
            draws say so.
        iterations: of conjugate gradients, at most.

    References:
        Pourya, El Rawas, Unser: FLOWER, A flow-matching solver for inverse problems, 2025, arXiv:2509.26287.
    """

    steps: int = 100
    draw: bool = True
    coupled: bool = False
    iterations: int = 50

    def __post_init__(self) -> None:
        for name in ("steps", "iterations"):
            integer("Flower", name, getattr(self, name))

    def run(self, target: SourceTarget, n: int, generator: torch.Generator | None, like: Tensor) -> PosteriorDraws:
        """Return ``n`` draws; arguments and errors are those of `Sampler`."""
        measurement = target.measurement("Flower")
        notes = check_renoising("Flower", self.coupled, target, generator, like)
        manifold = target.manifold

        def chain(count: int) -> Tensor:
            x = target.noise(count, generator, like)
            for k in range(self.steps):
                t = torch.full((count,), k / self.steps, dtype=x.dtype, device=x.device)
                _, x_1 = end_point(manifold, target.field, x, t)
                x_1 = manifold.projx(x_1)
                precision = (t.square() + (1 - t).square()) / (1 - t).square()
                problem = linearised(manifold, measurement, x_1)
                residual, pull = problem.residual, None
                if self.draw:
                    # The minimiser of a randomly perturbed objective is a draw of the Gaussian.
                    residual = residual + torch.randn(
                        residual.shape, generator=generator, dtype=residual.dtype, device=residual.device
                    )
                    pull = manifold.lift(precision.sqrt()) * normal_velocities(manifold, x_1, generator)
                u = solve(problem, -residual, precision, pull, self.iterations)
                x_1 = manifold.expmap(x_1, u)
                after = torch.full_like(t, (k + 1) / self.steps)
                x = manifold.projx(manifold.geodesic(target.noise(count, generator, like), x_1, after)[0])
            return x

        draws = biased_draws(target, chain, n, f"FLOWER {'with' if self.draw else 'without'} the draw")
        return replace(draws, warnings=notes)
