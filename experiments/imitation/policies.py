"""Policies of one network: a flow on the manifold, Gaussian regression, and diffusion and a flow in ambient numbers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import rfm
from experiments.imitation.spaces import Space
from manifolds import Euclidean, Manifold
from rfm.control import (
    TEN_STEPS,
    ActionChunks,
    ActionMatching,
    ActionNetwork,
    FlowPolicy,
    Observations,
    Point,
    Words,
    action_network,
    action_source,
)
from rfm.integrators import GEODESIC_EULER, FixedStep, Method
from rfm.objectives import Objective
from rfm.paths import DDIM, GaussianPath
from rfm.paths.schedules import VariancePreserving
from rfm.paths.times import TimeSampler, UniformTimes
from rfm.sources import Empirical, Source

HORIZON, EXECUTE, BEFORE = 16, 8, 4
"""Actions of a chunk, those carried out, and how many moments back the second point that is seen lies."""
TRAIN = 5
"""Of the seven demonstrations of a shape; the others are held out."""
KINDS = ("flow", "default flow", "regression", "diffusion", "ambient flow")


@dataclass(frozen=True)
class Budget:
    """How much to do.

    Args:
        steps: optimiser steps of each policy.
        batch_size: chunks in a step.
        width: of the network.
        depth: layers for actions.
        draws: rollouts from each held-out start, with noise of their own.
        shapes: how many shapes, from the first on.
    """

    steps: int = 1500
    batch_size: int = 64
    width: int = 64
    depth: int = 3
    draws: int = 3
    shapes: int = 30


QUICK = Budget(steps=4, batch_size=16, width=16, depth=1, draws=1, shapes=2)


@dataclass(frozen=True)
class Trained:
    """A policy, and how its actions become points.

    Args:
        policy: draws chunks, perhaps of ambient numbers.
        space: where points live.
        centre: of ambient numbers; None where chunks are points already.
        scale: of ambient numbers.
    """

    policy: FlowPolicy
    space: Space
    centre: Tensor | None
    scale: float

    def chunk(self, observation: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return a chunk ``(n, horizon, *event_shape)``, and how far off the manifold it was ``(n, horizon)``."""
        drawn = self.policy.plan(observation)
        if self.centre is None:
            return drawn, drawn.new_zeros(drawn.shape[:2])
        return self.space.nearest(drawn * self.scale + self.centre.to(drawn))


class _Beginning(TimeSampler):
    """Time 0 alone: what is predicted there is the mean of the logarithms of chunks at one point."""

    def sample(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=device)

    def density(self, t: Tensor) -> Tensor:
        raise ValueError("_Beginning: a point mass has no density")


@dataclass(frozen=True)
class _Recipe:
    manifold: ActionChunks
    objective: Objective
    source: Source | None
    solver: Method


def windows(chunks: ActionChunks, drawings: Tensor, points: Tensor) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """Return chunks of the training demonstrations, what was seen, and which demonstration each is of.

    Args:
        chunks: where they live.
        drawings: actions ``(shapes, demonstrations, moments, *event_shape)``.
        points: what is seen of the same moments.
    """
    shapes, count, moments = points.shape[:3]
    flat, seen = drawings.flatten(0, 1), points.flatten(0, 1)
    index = torch.arange(moments)
    return (
        # The action that is due at a moment is where to be at the next.
        torch.cat([chunks.windows(each[(index + 1).clamp(max=moments - 1)]) for each in flat]),
        {
            "now": seen.flatten(0, 1),
            "before": seen[:, (index - BEFORE).clamp(min=0)].flatten(0, 1),
            "shape": torch.arange(shapes).repeat_interleave(count * moments)[:, None],
        },
        torch.arange(shapes * count).repeat_interleave(moments),
    )


def trained(kind: str, space: Space, points: Tensor, budget: Budget, folder: Path, seed: int = 0) -> Trained:
    """Return a policy, trained, or loaded from its folder.

    Args:
        kind: one of `KINDS`.
        space: where points live.
        points: training demonstrations ``(shapes, TRAIN, moments, *event_shape)``.
        budget: how much to do.
        folder: of the run.
        seed: of every random draw.
    """
    drawings, centre, scale, m = points, None, 1.0, space.manifold
    if kind in ("diffusion", "ambient flow"):
        numbers = space.ambient(points)
        centre = numbers.flatten(0, 2).mean(0)
        scale = float((numbers - centre).square().mean().sqrt())
        drawings, m = (numbers - centre) / scale, Euclidean(numbers.shape[-1])
    recipe = _recipe(kind, m, drawings)
    actions, seen, groups = windows(recipe.manifold, drawings, points)
    observations = Observations(
        [
            Point.of("now", space.manifold, points.flatten(0, 2)),
            Point.of("before", space.manifold, points.flatten(0, 2)),
            Words("shape", len(points)),
        ]
    )
    sizes = {"width": budget.width, "depth": budget.depth, "seen_depth": 1}
    network = action_network(actions, recipe.manifold, observations, seed, **sizes)
    flow = rfm.fit(
        actions.float(),
        recipe.manifold,
        condition=observations.encode(seen).float(),
        groups=groups,
        source=recipe.source,
        field=network,
        objective=recipe.objective,
        refine=False,
        steps=budget.steps,
        batch_size=budget.batch_size,
        training=rfm.Training(learning_rate=1e-3, validations=4),
        seed=seed,
        device="cpu",
        out=folder,
        resume=True,
        progress=False,
    )
    policy = FlowPolicy(flow, EXECUTE, solver=recipe.solver, observations=observations, seed=seed)
    return Trained(policy, space, centre, scale)


def _recipe(kind: str, m: Manifold, drawings: Tensor) -> _Recipe:
    """Return what distinguishes the kinds."""
    chunks = ActionChunks(m, HORIZON)
    if kind == "regression":
        # A flow from one point, of which nothing but the velocity at the beginning is learnt, in one step.
        middle = m.projx(drawings.flatten(0, 2).mean(0)).expand(1, HORIZON, *m.event_shape)
        objective = ActionMatching(times=_Beginning())
        return _Recipe(chunks, objective, Empirical(chunks, middle.clone()), FixedStep(GEODESIC_EULER, 1))
    if kind == "diffusion":
        path = GaussianPath(chunks, VariancePreserving())
        noise = ActionMatching(path=path, times=UniformTimes(), predicts="noise")
        return _Recipe(chunks, noise, path.source, DDIM(VariancePreserving(), 100))
    # In flat space the default source of rfm.fit is normal about the actions too.
    near = kind == "flow" and not isinstance(m, Euclidean)
    source = action_source(chunks.windows(drawings.flatten(0, 2)), chunks) if near else None
    return _Recipe(chunks, ActionMatching(), source, TEN_STEPS)


def uses_network_alone(policy: FlowPolicy) -> bool:
    """Return whether a policy's field is the network itself, and not what follows from its predictions."""
    return isinstance(policy.flow.field, ActionNetwork)


def without_cache(policy: FlowPolicy, observation: dict[str, Any]) -> None:
    """Draw a chunk with the observation encoded anew at every step, to see what keeping it is worth."""
    field = policy.flow.field
    assert isinstance(field, ActionNetwork)
    vectors = policy.observations.encode(observation).float()
    x_0 = policy.flow.source.sample((len(vectors),))
    with torch.no_grad():
        rfm.integrate(field, policy.chunks, x_0, (0.0, 1.0), policy.solver, condition=vectors)
