"""PnP-Flow: gradient steps on the measurement, and the flow as a denoiser."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from manifolds.arguments import integer, positive
from rfm.posterior.draws import PosteriorDraws
from rfm.posterior.guided import biased_draws
from rfm.posterior.renoising import check_renoising
from rfm.posterior.target import SourceTarget
from rfm.steering.gradients import end_point, gradient, riemannian_gradient


@dataclass(frozen=True)
class PnPFlow:
    """At each time a gradient step on the measurement, fresh noise, and the end point predicted from there.

    It seeks one point that fits measurement and prior, not draws of a posterior: its spread says nothing. Fresh noise
    presumes, as in `Flower`, that source and data were paired independently. On manifolds noise is mixed in along
    geodesics, and predictions are averaged in the tangent space at the first.

    Args:
        steps: N, times ``k / N``.
        draws: predictions that are averaged in each step.
        rate: of the gradient steps, relative to the squared noise: ``rate noise^2 (1 - t)^power``.
        power: the exponent of ``1 - t``.
        coupled: as in `Flower`.

    References:
        Martin, Gagneux, Hagemann, Steidl: PnP-Flow, Plug-and-play image restoration with flow matching, 2024,
        arXiv:2410.02423, algorithm 3.
    """

    steps: int = 100
    draws: int = 5
    rate: float = 1.0
    power: float = 1.0
    coupled: bool = False

    def __post_init__(self) -> None:
        for name in ("steps", "draws"):
            integer("PnPFlow", name, getattr(self, name))
        positive("PnPFlow", "rate", self.rate)

    def run(self, target: SourceTarget, n: int, generator: torch.Generator | None, like: Tensor) -> PosteriorDraws:
        """Return ``n`` draws; arguments and errors are those of `Sampler`."""
        manifold, measurement = target.manifold, target.measurement("PnPFlow")
        notes = check_renoising("PnPFlow", self.coupled, target, generator, like)
        step = self.rate * float(measurement.noise.square().mean())

        def slope(x: Tensor) -> Tensor:
            with torch.enable_grad():
                leaf = x.detach().requires_grad_()
                ambient = gradient("PnPFlow", measurement(leaf), leaf)
            return riemannian_gradient(manifold, x, ambient)

        def chain(count: int) -> Tensor:
            x = target.noise(count, generator, like)
            for k in range(self.steps):
                t = torch.full((count,), k / self.steps, dtype=x.dtype, device=x.device)
                size = manifold.lift(step * (1 - t) ** self.power)
                z = manifold.projx(manifold.expmap(x, size * slope(x)))
                ends = []
                for _ in range(self.draws):
                    mixed = manifold.projx(manifold.geodesic(target.noise(count, generator, like), z, t)[0])
                    ends.append(manifold.projx(end_point(manifold, target.field, mixed, t)[1]))
                mean = torch.stack([manifold.logmap(ends[0], end) for end in ends]).mean(0)
                x = manifold.projx(manifold.expmap(ends[0], mean))
            return x

        return replace(biased_draws(target, chain, n, f"PnP-Flow, {self.steps} steps"), warnings=notes)
