"""Twisted sequential Monte Carlo: guided methods as proposals of a stochastic sampler, with exact weights."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from manifolds import Euclidean
from manifolds.arguments import check_instance, integer
from rfm.integrators import FixedStep, Method
from rfm.likelihood import log_prob, score
from rfm.posterior.draws import PosteriorDraws, clustered_size, effective_size, systematic
from rfm.posterior.guided import steered_field
from rfm.posterior.measurements import Measurement
from rfm.posterior.proposals import normal_velocities
from rfm.posterior.target import SourceTarget
from rfm.sources import Source, WrappedNormal
from rfm.steering import Steering
from rfm.steering.gradients import end_point, riemannian_gradient


def ancestral_noise(t: Tensor) -> Tensor:
    """Return ``(1 - t) / (t + 1/10)``: near the source that of the reversed diffusion on affine paths, but bounded."""
    return (1 - t) / (t + 0.1)


def score_of_normal_noise(source: Source) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Return the score that follows from a velocity: of a flow of straight paths from a normal source in flat space.

    ``s = -(x - t v - m) / ((1 - t) sigma^2)``, which holds where source and data were paired independently.

    Args:
        source: a `rfm.sources.WrappedNormal` on a Euclidean space.

    Raises:
        ValueError: it is another.
    """
    if not (isinstance(source, WrappedNormal) and isinstance(source.manifold, Euclidean)):
        raise ValueError(
            f"score_of_normal_noise: takes a WrappedNormal on a Euclidean space, got {type(source).__name__} on "
            f"{source.manifold}; leave score_from_velocity out, so that the score of the flow's density is taken"
        )
    mean, variance = source.mean, source.scale**2

    def score_from_velocity(x: Tensor, t: Tensor, velocity: Tensor) -> Tensor:
        t = t[..., None]
        return (t * velocity + mean.to(x) - x) / ((1 - t) * variance)

    return score_from_velocity


@dataclass(frozen=True)
class Twisted:
    """Particles that follow a stochastic sampler of the flow, led by guided methods, and weighted for what that does.

    The sampler is `rfm.integrators.Stochastic`: steps ``x' = exp_x(h (v + g s) + sqrt(2 g h) xi)``, with the score
    ``s`` of the flow's density, keep the flow's marginals. A twisting function ``psi_t``, which estimates the
    likelihood of where a particle leads and ends as the likelihood, moves the mean of a step by ``2 h g grad log
    psi_t``; the weight of a step is ``p(w) psi_t'(x') / (q(w) psi_t(x))``: of the tangent vector ``w`` that is drawn,
    so that both densities are normal on every manifold and no Jacobian of the exponential map is due. Particles are
    resampled where the weights have become unequal.

    **Exact** in the limit of many particles, for any steering, relative to the sampler with its steps, whose own error
    falls with their number (weak order 1). Twisting and steering only decide how many particles are needed.

    The twisting function takes end points for normal about ``x1 = exp_x((1 - t) v)``, with the covariance that the
    field's derivative implies, ``(1 - t)^2 / t (1 + (1 - t) J)`` for noise of variance 1, and the operator for linear
    there. In flat space with independent pairs and normal noise mean and covariance are those of the data given
    ``x_t``; elsewhere they are an estimate. It costs a derivative of the field for each number measured.

    Args:
        steering: such as `FlowDPS`, `OTODE` or `FlowChef` in place of the twisting function's gradient. What it adds
            to the field, ``G``, moves the mean by ``h G (1 + g t / (1 - t))``: the same, where ``G`` is ``(1 - t) / t``
            times that gradient. It should fall to 0 with the noise towards the data, as a constant rate of `FlowChef`
            does not. An empty sequence leads nowhere: a filter that only resamples.
        score_from_velocity: ``(x, t, velocity)`` to the score, where the one follows from the other, as in
            `rfm.integrators.Stochastic`, such as `score_of_normal_noise`; by default the score is that of the flow's
            own density, whatever its coupling, which costs a solve with second derivatives in each step.
        noise: ``g(t)``, of times ``(k,)``, positive.
        steps: of the sampler.
        particles: at least this many; as many as draws are requested, where that is more.
        share: of the effective sample size, in (0, 1), below which particles are resampled.
        solver: of the flow's own density.

    References:
        Wu, Trippe, Naesseth, Blei, Cunningham: Practical and asymptotically exact conditional sampling in diffusion
        models, 2023, arXiv:2306.17775, algorithm 1. Boys et al.: Tweedie moment projected diffusions for inverse
        problems, 2023, arXiv:2310.06721, for the covariance.
    """

    steering: Sequence[Steering] | None = None
    score_from_velocity: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None
    noise: Callable[[Tensor], Tensor] = ancestral_noise
    steps: int = 100
    particles: int = 1024
    share: float = 0.5
    solver: Method = field(default_factory=lambda: FixedStep(steps=8))

    def __post_init__(self) -> None:
        integer("Twisted", "steps", self.steps)
        integer("Twisted", "particles", self.particles)
        if not 0 < self.share < 1:
            raise ValueError(f"Twisted: share of the effective sample size is between 0 and 1, got {self.share}")
        for own in self.steering or ():
            check_instance("Twisted", "steering", own, Steering, "OTODE(manifold, measurement)")

    def run(self, target: SourceTarget, n: int, generator: torch.Generator | None, like: Tensor) -> PosteriorDraws:
        """Return all particles; arguments and errors are those of `Sampler`."""
        count = max(n, self.particles)
        sampler = _Sampler(self, target, target.measurement("Twisted"))
        cloud = sampler.started(target.noise(count, generator, like))
        log_w, evidence, resampled = cloud.log_psi, 0.0, 0
        ancestors = torch.arange(count, device=log_w.device)
        for k in range(self.steps):
            if effective_size(log_w) < self.share * count:
                evidence += float(log_w.logsumexp(0)) - math.log(count)
                rows = systematic(log_w, count, generator)
                cloud, ancestors, log_w = cloud.take(rows), ancestors[rows], torch.zeros_like(log_w)
                resampled += 1
            moved, log_ratio = sampler.moved(cloud, k / self.steps, (k + 1) / self.steps, generator)
            log_w = (log_w + log_ratio + moved.log_psi - cloud.log_psi).nan_to_num(nan=-math.inf)
            if not bool((log_w > -math.inf).any()):
                raise ValueError(
                    f"Twisted: no particle has a weight at time {(k + 1) / self.steps:g}, the steps have left what is "
                    "finite; take more steps or less noise, or Tempering"
                )
            cloud = moved
        evidence += float(log_w.logsumexp(0)) - math.log(count)
        functions = torch.cat([target.manifold.embed(cloud.x).double(), cloud.log_psi[:, None]], dim=-1)
        return PosteriorDraws(
            cloud.x,
            log_w - log_w.logsumexp(0),
            f"twisted sequential Monte Carlo, {count} particles, {self.steps} steps",
            target.evaluations,
            clustered_size(functions, ancestors, log_w),
            log_evidence=evidence,
            diagnostics={"founders": float(len(ancestors.unique())), "resampled": float(resampled)},
        )


class _Cloud(NamedTuple):
    """Particles at a time, their velocities, the twisting function's logarithms there and gradients of these."""

    x: Tensor
    u: Tensor
    log_psi: Tensor
    slope: Tensor

    def take(self, rows: Tensor) -> "_Cloud":
        return _Cloud(*(part[rows] for part in self))


class _Sampler:
    """The twisted steps of one run."""

    def __init__(self, setting: Twisted, target: SourceTarget, measurement: Measurement) -> None:
        self.setting, self.target, self.measurement = setting, target, measurement
        self.steered = None if setting.steering is None else steered_field(target, setting.steering)
        self.noise_variance = 1.0

    def started(self, x: Tensor) -> _Cloud:
        """Return the particles at draws of the source, of which nothing is known yet."""
        manifold = self.target.manifold
        self.noise_variance = float(manifold.dist(x, x.roll(1, 0)).square().mean()) / (2 * manifold.dim)
        zero = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        return _Cloud(x, self.target.field(x, _times(x, 0.0)), zero, torch.zeros_like(x))

    def at(self, x: Tensor, t: float) -> _Cloud:
        """Return the particles at points, with the twisting function there."""
        manifold, times = self.target.manifold, _times(x, t)
        if t == 1:
            return _Cloud(x, torch.zeros_like(x), self.measurement(x).double(), torch.zeros_like(x))
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            u, x_1 = end_point(manifold, self.target.field, leaf, times)
            w = self.measurement.whitened(x_1)
            # Derivatives of the residual by where the particle is, and by its end point.
            pulls = [
                torch.autograd.grad(own.sum(), [leaf, x_1], retain_graph=True, materialize_grads=True)
                for own in w.unbind(-1)
            ]
        w, at = w.detach().double(), x_1.detach()
        near = torch.stack([riemannian_gradient(manifold, x, by.nan_to_num()) for by, _ in pulls], dim=1)
        far = [manifold.transp(at, x, riemannian_gradient(manifold, at, by.nan_to_num())) for _, by in pulls]
        base = x[:, None, None]
        # What has left the finite weighs nothing later, and must not stop the others here.
        gram = manifold.inner(base, near[:, :, None], torch.stack(far, dim=1)[:, None]).double().nan_to_num()
        # Where the field is no conditional mean the covariance need not be one: its positive part is.
        values, vectors = torch.linalg.eigh((gram + gram.mT) / 2)
        values = 1 + self.noise_variance * (1 - t) ** 2 / t * values.clamp(min=0)
        w = (vectors.mT @ w[..., None])[..., 0]
        v = (vectors @ (w / values)[..., None])[..., 0]
        log_psi = -(w.square() / values + values.log()).sum(-1) / 2 - self.measurement.log_scale
        return _Cloud(x, u.detach(), log_psi, -(manifold.lift(v.to(x)) * near).sum(1))

    def moved(self, cloud: _Cloud, t: float, after: float, generator: torch.Generator | None) -> tuple[_Cloud, Tensor]:
        """Return the particles after a step, and the log-density of it under the sampler less that as proposed."""
        manifold, times = self.target.manifold, _times(cloud.x, t)
        h, g = after - t, float(self.setting.noise(times[:1]))
        if not 0 < g < math.inf:
            raise ValueError(f"Twisted: noise must be positive and finite, got {g:g} at time {t:g}; bound it")
        drift = cloud.u + g * self._score(cloud.x, t, cloud.u)
        if self.steered is None:
            lead = 2 * g * cloud.slope
        else:
            lead = (self.steered(cloud.x, times) - cloud.u) * (1 + g * t / (1 - t))
        deviation = math.sqrt(2 * g * h)
        xi = normal_velocities(manifold, cloud.x, generator)
        x = manifold.projx(manifold.expmap(cloud.x, h * (drift + lead) + deviation * xi))
        # Of two normal densities of one width, the means h lead apart.
        shift = h / deviation * lead
        log_ratio = -(manifold.inner(cloud.x, shift, shift).double() / 2 + manifold.inner(cloud.x, shift, xi).double())
        return self.at(x, after), log_ratio

    def _score(self, x: Tensor, t: float, u: Tensor) -> Tensor:
        own, target = self.setting, self.target
        if own.score_from_velocity is not None:
            return own.score_from_velocity(x, _times(x, t), u)
        if t == 0:
            return score(target.source.log_prob, target.manifold, x)
        return score(lambda y: log_prob(target.field, target.source, y, own.solver, time=t), target.manifold, x)


def _times(x: Tensor, t: float) -> Tensor:
    return torch.full((len(x),), t, dtype=x.dtype, device=x.device)
