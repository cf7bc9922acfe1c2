"""Regression of jumps on trajectories that are solved for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from manifolds.arguments import check_instance, integer
from rfm.field import as_flow_map
from rfm.integrators import Adams, FixedStep, integrate
from rfm.objectives.flow_maps.flow_map_objective import FlowMapObjective
from rfm.objectives.flow_maps.jump_batch import JumpBatch
from rfm.sources import Source

_SOLVER = FixedStep(Adams(3), 16)


class Trajectories(NamedTuple):
    """Points of trajectories at evenly spaced times from 0 to 1."""

    points: Tensor
    """``(k, n, *event_shape)``, those at one time after those at the other."""
    condition: Tensor | None
    """Of the trajectories ``(n, c)``."""


@dataclass(frozen=True, kw_only=True)
class TrajectoryRegression(FlowMapObjective):
    """``d(X_{s,t}(x), y)^2 / (t - s)^2`` with y at time t of the trajectory through x at s, which is solved for.

    A plain regression: no target is made by the map itself, so errors of short jumps do not build up in long ones.
    Where a flow is distilled its trajectories are solved for once, and a step takes a single evaluation of the map
    beside that of flow matching. Otherwise the jumps of the step are solved for by its own velocity.

    ``invertibility`` is the weight of the same regression from t to s, which makes the map one-to-one as round trips do
    in other objectives.

    Luhman & Luhman, Knowledge Distillation in Iterative Generative Models for Improved Sampling Speed, 2021,
    arXiv:2101.02388, for jumps from time 0 to 1 in flat space.

    Args:
        knots: at how many times, evenly spaced from 0 to 1, trajectories of a flow that is distilled are noted; jumps
            lead from one to another, the nearest to those of ``spans``. Those of 9 serve 1, 2, 4 and 8 jumps.
        solver: of the jumps where no trajectories are known, in steps of equal share of the jump.
        trajectories: those of the flow to distil, as `rfm.distil` gives them.
    """

    knots: int = 9
    solver: FixedStep = _SOLVER
    trajectories: Trajectories | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        integer(type(self).__name__, "knots", self.knots, 2)
        check_instance(type(self).__name__, "solver", self.solver, FixedStep, "FixedStep(Adams(3), 16)")

    def __call__(
        self,
        field: Callable[..., Tensor],
        source: Source,
        x_0: Tensor,
        x_1: Tensor,
        t: Tensor,
        *,
        generator: torch.Generator | None = None,
        **condition: Any,
    ) -> Tensor:
        if self.trajectories is None:
            return super().__call__(field, source, x_0, x_1, t, generator=generator, **condition)
        flow_map = as_flow_map(type(self).__name__, field)
        matching = self._matching(flow_map, self._path(source), x_0, x_1, t, **condition)
        jumps, target = self._known(self.trajectories, flow_map, t, generator)
        return matching.mean() + self._both_ways(jumps, target).mean()

    def jump_loss(self, jumps: JumpBatch, generator: torch.Generator | None = None) -> Tensor:
        return _missed(jumps, self._target(jumps))

    def losses(self, jumps: JumpBatch, generator: torch.Generator | None = None) -> Tensor:
        return self._both_ways(jumps, self._target(jumps))

    def _both_ways(self, jumps: JumpBatch, target: Tensor) -> Tensor:
        losses = self.weight * _missed(jumps, target)
        if not self.invertibility:
            return losses
        back = replace(jumps, x=target, s=jumps.t, t=jumps.s)
        return losses + self.invertibility * _missed(back, jumps.x)

    @torch.no_grad()
    def _target(self, jumps: JumpBatch) -> Tensor:
        """Return where the trajectories through the points are at the times to jump to."""
        span = jumps.span

        def velocity(x: Tensor, share: Tensor) -> Tensor:
            return span * jumps.velocity(x, torch.lerp(jumps.s, jumps.t, share))

        return integrate(velocity, jumps.manifold, jumps.x, (0.0, 1.0), self.solver).final

    def _known(
        self, known: Trajectories, flow_map: Any, t: Tensor, generator: torch.Generator | None
    ) -> tuple[JumpBatch, Tensor]:
        """Return as many jumps between points of known trajectories as there are times, and where they lead."""
        last, device = len(known.points) - 1, t.device
        row = torch.randint(known.points.shape[1], t.shape, generator=generator, device=device)
        first, second = (
            (last * time).round().long() for time in self.spans.sample(t.shape, generator, t.dtype, device)
        )
        # No time from a knot to itself: the next one, or the last but one.
        second = torch.where(first != second, second, torch.where(first == last, last - 1, first + 1))
        condition = {} if known.condition is None else {"condition": known.condition[row]}
        start, end = first.to(t.dtype) / last, second.to(t.dtype) / last
        x, target = known.points[first, row], known.points[second, row]
        return JumpBatch(flow_map, self._velocity(flow_map, condition), x, start, end, condition), target

    @property
    def noted(self) -> Sequence[float]:
        return tuple(i / (self.knots - 1) for i in range(self.knots))

    def distilling(self, velocity: Callable[..., Tensor], points: Tensor, condition: Tensor | None) -> Self:
        return replace(self, velocity=velocity, trajectories=Trajectories(points, condition))

    def to(self, device: torch.device) -> Self:
        own = super().to(device)
        if own.trajectories is None:
            return own
        points, condition = own.trajectories
        moved = Trajectories(points.to(device), None if condition is None else condition.to(device))
        return replace(own, trajectories=moved)


def _missed(jumps: JumpBatch, target: Tensor) -> Tensor:
    squared = jumps.manifold.squared_dist(jumps.jump(jumps.x, jumps.s, jumps.t), target)
    return squared / (jumps.t - jumps.s).square().clamp(min=_SHORTEST**2)


_SHORTEST = 1e-3
"""Spans below it count less: of two points as near, the distance is rounding."""
