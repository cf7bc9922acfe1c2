"""FlowDPS: guidance by the likelihood of the predicted end point."""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from manifolds import Manifold
from manifolds.arguments import positive
from rfm.posterior.draws import PosteriorDraws
from rfm.posterior.guided import biased_draws
from rfm.posterior.likelihood import LogLikelihood
from rfm.posterior.target import SourceTarget
from rfm.steering.energy import EnergyGuidance
from rfm.steering.gradients import end_point, gradient, riemannian_gradient


class FlowDPS(EnergyGuidance):
    """The field plus ``(1 - t) / t`` times the gradient of ``log p(y | x1(x, t))``: biased.

    On conditional geodesics that run with ``t``, in flat space ``alpha = t`` and ``beta = 1 - t``, and the published
    factor ``alpha_dot beta^2 / alpha - beta_dot beta`` is ``(1 - t) / t``. It is singular at 0: guidance starts at
    ``start``. What is exact is the form of the posterior's field, the prior's plus this factor times the gradient of
    ``log p(y | x_t)``; what is not is that ``p(y | x_t)`` is taken to be the likelihood of one end point, where it is a
    mean over all that ``x_t`` may lead to, and that nothing is done about the measurement before ``start``. Draws are
    too narrow, and may miss modes.

    Args:
        manifold: where the points live; on other than flat space the end point is ``exp_x((1 - t) v)`` and the factor
            is a heuristic.
        likelihood: log-likelihoods, differentiable.
        weight: multiplies the gradient; 1 is the formula.
        start: of the guidance, in (0, 1).

    References:
        Kim, Kim, Ye: FlowDPS, Flow-driven posterior sampling for inverse problems, 2025, arXiv:2503.08136.
    """

    name = "FlowDPS"

    def __init__(self, manifold: Manifold, likelihood: LogLikelihood, weight: float = 1.0, start: float = 0.05) -> None:
        if not 0 < start < 1:
            raise ValueError(f"FlowDPS: start is a time between 0 and 1, where the guidance is singular, got {start}")
        super().__init__(manifold, lambda x: -likelihood(x), lambda t: weight * (1 - t) / t, start=start)


@dataclass(frozen=True)
class FlowDPSSteps:
    """FlowDPS as its code has it, which is not its formula: biased.

    In each step from ``t`` to ``t'``: the end point ``x1`` and the starting point ``x0`` that the velocity means; a few
    gradient steps on the length of the residual at ``x1``, without the field's derivative; a mixture, by ``1 - t``, of
    the end point after and before them; noise that is part fresh and part ``x0``, with weights ``sqrt(t')`` and
    ``sqrt(1 - t')``; the point at ``t'`` between noise and end point. No part of it depends on how exact the
    measurement is.

    In the tangent space at ``centre`` the noise is mixed as in flat space. Without a centre each point takes fresh
    noise with probability ``t'``, which keeps the source's distribution on every manifold. The published code works in
    the latent space of an autoencoder, with steps of 30 there, and takes the residual back by the operator's adjoint or
    pseudo-inverse before it measures its length; the residual itself is measured here.

    Args:
        steps: velocities evaluated for each draw.
        gradient_steps: on the residual, in each step.
        rate: length of one of these, in the metric of the manifold for a residual that changes as fast as the point.
        centre: of a normal source, ``event_shape``.
        shift: of the times, whose remainders are ``1 - t = shift r / (1 + (shift - 1) r)`` for equally spaced ``r``: 4
            was published, 1 makes equal steps.

    References:
        Kim, Kim, Ye: FlowDPS, Flow-driven posterior sampling for inverse problems, 2025, arXiv:2503.08136, and its
        code, github.com/FlowDPS-Inverse/FlowDPS (``SD3FlowDPS``).
    """

    steps: int = 28
    gradient_steps: int = 3
    rate: float = 0.1
    centre: Tensor | None = None
    shift: float = 4.0

    def __post_init__(self) -> None:
        positive("FlowDPSSteps", "shift", self.shift, "4 was published, 1 makes equal steps")

    def run(self, target: SourceTarget, n: int, generator: torch.Generator | None, like: Tensor) -> PosteriorDraws:
        """Return ``n`` draws; arguments and errors are those of `Sampler`."""
        manifold, measurement = target.manifold, target.measurement("FlowDPSSteps")

        def residual_slope(x: Tensor) -> Tensor:
            with torch.enable_grad():
                leaf = x.detach().requires_grad_()
                length = measurement.residual(leaf).reshape(len(x), -1).norm(dim=-1)
                ambient = gradient("FlowDPSSteps", length, leaf)
            return riemannian_gradient(manifold, x, torch.nan_to_num(ambient))

        def chain(count: int) -> Tensor:
            x = target.noise(count, generator, like)
            for start, end in itertools.pairwise(self._times()):
                t, after = (torch.full((count,), s, dtype=x.dtype, device=x.device) for s in (start, end))
                u, x_1 = end_point(manifold, target.field, x, t)
                kept = manifold.expmap(x, -manifold.lift(t) * u)
                led = x_1
                for _ in range(self.gradient_steps):
                    led = manifold.projx(manifold.expmap(led, -self.rate * residual_slope(led)))
                x_1 = manifold.geodesic(x_1, led, 1 - t)[0]
                noise = self._mixed(manifold, target.noise(count, generator, like), kept, after, generator)
                x = manifold.projx(manifold.geodesic(noise, x_1, after)[0])
            return x

        return biased_draws(target, chain, n, f"FlowDPS as its code, {self.steps} steps")

    def _times(self) -> list[float]:
        left = [1 - k / self.steps for k in range(self.steps + 1)]
        return [1 - self.shift * r / (1 + (self.shift - 1) * r) for r in left]

    def _mixed(
        self, manifold: Manifold, fresh: Tensor, kept: Tensor, t: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        if self.centre is None:
            u = torch.rand(len(fresh), generator=generator, dtype=fresh.dtype, device=fresh.device)
            return torch.where(manifold.lift(u < t), fresh, kept)
        centre = self.centre.to(fresh).expand_as(fresh)
        new, old = manifold.lift(t.sqrt()), manifold.lift((1 - t).clamp(min=0).sqrt())
        return manifold.expmap(centre, new * manifold.logmap(centre, fresh) + old * manifold.logmap(centre, kept))
