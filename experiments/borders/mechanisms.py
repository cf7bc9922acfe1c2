"""Ways to keep a flow in a set, each as a density that can be sampled and scored."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

import rfm
from experiments.borders.known import Known
from manifolds import Ball, Bounded, Box, Constraint, Euclidean, JointLimits
from rfm.integrators import Adaptive
from rfm.networks import VelocityField
from rfm.paths import BoundedPath

SIZE: dict[str, Any] = {"width": 64, "depth": 2, "features": 64, "max_frequency": 12.0}
"""Of the network, the same for all."""


SOLVER = Adaptive(atol=1e-4, rtol=1e-4)


class Fitted(NamedTuple):
    """A density as it is fitted."""

    sample: Callable[[int, int], Tensor]
    """From a count and a seed to points."""
    log_prob: Callable[[Tensor], Tensor]
    seconds: float
    """Of the fit."""
    mass: float = 1.0
    """Of the set, before what lies outside was left out."""


@dataclass(frozen=True)
class Budget:
    """How long to train."""

    steps: int
    batch_size: int = 256


def damped(known: Known, x: Tensor, budget: Budget, seed: int, layer: float = 1.0, reflected: float = 0.5) -> Fitted:
    """Fit a flow whose velocity has no normal component at the border.

    Args:
        known: where.
        x: training points.
        budget: of the training.
        seed: of the fit.
        layer: width of the border layer, in units of the default.
        reflected: share of the paths that are reflected at the border; 0 for straight ones.
    """
    m = known.manifold
    if layer != 1.0:
        own = m.constraint.layer
        m = Bounded(m.m, m.constraint, layer * float(torch.as_tensor(own).mean()))
    path = BoundedPath(m, reflected=reflected, seed=seed)
    return _of_flow(*_fit(m, x, budget, seed, objective=rfm.FlowMatching(path=path)))


def mapped(known: Known, x: Tensor, budget: Budget, seed: int) -> Fitted | None:
    """Fit a flow on R^n that a diffeomorphism maps to the set."""
    chart = _chart(known.manifold.constraint)
    if chart is None:
        return None
    forward, back = chart
    z, _ = forward(x)
    m = Euclidean(known.manifold.dim)
    flow, seconds = _fit(m, z, budget, seed)

    def sample(count: int, seed: int) -> Tensor:
        return back(flow.sample(count, generator=torch.Generator().manual_seed(seed), solver=SOLVER).double())

    def log_prob(y: Tensor) -> Tensor:
        z, log_det = forward(y.double())
        return flow.log_prob(z, solver=SOLVER).double() + log_det

    return Fitted(sample, log_prob, seconds)


def conditioned(known: Known, x: Tensor, budget: Budget, seed: int) -> Fitted:
    """Fit a flow without a border, and condition it on the set: draws are rejected, the density divided by its mass."""
    flow, seconds = _fit(known.manifold.m, x, budget, seed)
    contains = known.manifold.constraint.contains
    drawn = flow.sample(2**15, generator=torch.Generator().manual_seed(99), solver=SOLVER)
    mass = float(contains(drawn.double()).double().mean())

    def sample(count: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        y = flow.sample(int(1.2 * count / mass) + 100, generator=generator, solver=SOLVER)
        return y[contains(y)][:count]

    return Fitted(sample, lambda y: flow.log_prob(y, solver=SOLVER).double() - math.log(mass), seconds, mass)


def _fit(m: Any, x: Tensor, budget: Budget, seed: int, **options: Any) -> tuple[rfm.Flow, float]:
    started = time.process_time()
    torch.manual_seed(seed)
    embedded = m.embed(x)
    flat = m.volume is None
    own: dict[str, Any] = {
        "offset": embedded.mean(0).tolist() if flat else None,
        "scale": float((embedded - embedded.mean(0)).square().mean().sqrt()) if flat else 1.0,
    }
    flow = rfm.fit(
        x,
        m,
        field=VelocityField(m, **SIZE, **own),
        refine=False,
        steps=budget.steps,
        batch_size=budget.batch_size,
        seed=seed,
        progress=False,
        training=rfm.Training(validations=3),
        **options,
    )
    return flow, time.process_time() - started


def _of_flow(flow: rfm.Flow, seconds: float) -> Fitted:
    def sample(count: int, seed: int) -> Tensor:
        return flow.sample(count, generator=torch.Generator().manual_seed(seed), solver=SOLVER)

    return Fitted(sample, lambda y: flow.log_prob(y, solver=SOLVER).double(), seconds)


Chart = tuple[Callable[[Tensor], tuple[Tensor, Tensor]], Callable[[Tensor], Tensor]]


def _chart(constraint: Constraint) -> Chart | None:
    """Return a diffeomorphism to R^n with the logarithm of its determinant, and its inverse."""
    if isinstance(constraint, Ball):
        return _of_ball(constraint)
    if isinstance(constraint, Box | JointLimits):
        low = constraint.lower
        width = low.new_tensor(constraint.high) - low

        def forward(x: Tensor) -> tuple[Tensor, Tensor]:
            share = ((x - low) / width).clamp(1e-12, 1 - 1e-12)
            return torch.logit(share), -(share.log() + torch.log1p(-share) + width.log()).sum(-1)

        return forward, lambda z: low + width * torch.sigmoid(z)
    return None


def _of_ball(ball: Ball) -> Chart:
    """Return ``y / sqrt(1 - |y|^2)`` in units of the radius: its determinant is ``(1 - |y|^2)^(-(n + 2) / 2)``."""
    n = len(ball.centre)

    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        y = (x - ball.centre) / ball.radius
        rest = (1 - y.square().sum(-1)).clamp(min=1e-12)
        return y / rest.sqrt()[:, None], -(n + 2) / 2 * rest.log() - n * math.log(ball.radius)

    return forward, lambda z: ball.centre + ball.radius * z / (1 + z.square().sum(-1, keepdim=True)).sqrt()
