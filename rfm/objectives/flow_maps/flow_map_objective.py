"""What the objectives of flow maps have in common: flow matching at equal times, and a loss of jumps."""

import copy
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from manifolds import Manifold
from manifolds.arguments import check_function, check_instance, number
from rfm.field import FlowMap, as_field, as_flow_map
from rfm.integrators import Adaptive, integrate
from rfm.networks.second_time import with_second_time
from rfm.objectives.flow_maps.jump_batch import JumpBatch, Velocity
from rfm.objectives.flow_matching import check_path
from rfm.objectives.objective import Objective
from rfm.paths import ConditionalPath, default_path
from rfm.paths.time_pairs import TimePairs
from rfm.paths.times import TimeSampler
from rfm.sources import Source

_SOLVER = Adaptive(atol=1e-3, rtol=1e-3)


@dataclass(frozen=True, kw_only=True)
class FlowMapObjective(Objective):
    """The loss of a step that trains a `rfm.FlowMap`: flow matching where ``s = t``, and a loss of jumps.

    From data, the map learns the jumps of its own velocity (self-distillation); given the ``velocity`` of a trained
    flow, as `rfm.distil` gives it, those of that.

    Args:
        path: the conditional path, as for `rfm.FlowMatching`; points to jump from are on it.
        times: how to draw the times of flow matching, likewise.
        spans: how to draw the times that jumps lead from and to.
        weight: of the loss of jumps beside that of flow matching.
        invertibility: weight of ``d(x, X_{t,s}(X_{s,t}(x)))^2 / (t - s)^2``, which makes the map one-to-one, with its
            jumps back as inverses: what log-densities of few jumps need, see `rfm.likelihood.jump_log_prob`. It takes
            two more evaluations with gradients. (Rehman et al., FALCON, 2025, arXiv:2512.09914, in flat space.)
        velocity: ``velocity(x, t, **condition)``, that of a flow to distil; a module is copied.

    Raises:
        ValueError: an argument is not as said.
    """

    path: ConditionalPath | None = None
    times: TimeSampler | None = None
    spans: TimePairs = field(default_factory=TimePairs)
    weight: float = 1.0
    invertibility: float = 0.0
    velocity: Callable[..., Tensor] | None = None

    by_likelihood: ClassVar[bool] = False

    def __post_init__(self) -> None:
        owner = type(self).__name__
        if self.path is not None:
            check_instance(owner, "path", self.path, ConditionalPath, "GeodesicPath(manifold)")
        if self.times is not None:
            check_instance(owner, "times", self.times, TimeSampler, "UniformTimes()")
        check_instance(owner, "spans", self.spans, TimePairs, "TimePairs(backward=0.5)")
        if not 0 < number(owner, "weight", self.weight) < float("inf"):
            raise ValueError(f"{owner}: weight must be a number above 0, got {self.weight}; choose another")
        if not 0 <= number(owner, "invertibility", self.invertibility) < float("inf"):
            raise ValueError(f"{owner}: invertibility is a weight, at least 0, got {self.invertibility}; 1 is usual")
        if self.velocity is not None:
            check_function(owner, "velocity", self.velocity, "flow.field")

    @property
    def splits(self) -> bool:
        return True

    @abstractmethod
    def jump_loss(self, jumps: JumpBatch, generator: torch.Generator | None = None) -> Tensor:
        """Return the loss of jumps, in squared units of a velocity, ``(*batch)``.

        Args:
            jumps: the map, its points and times, and what the points follow.
            generator: source of randomness.
        """

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
        flow_map = as_flow_map(type(self).__name__, field)
        path = self._path(source)
        s, end = self.spans.sample(t.shape, generator, t.dtype, t.device)
        start = path.sample(x_0, x_1, s)
        jumps = JumpBatch(flow_map, self._velocity(flow_map, condition), start.x_t, s, end, condition)
        matching = self._matching(flow_map, path, x_0, x_1, t, **condition)
        return (matching + self.losses(jumps, generator)).mean()

    def losses(self, jumps: JumpBatch, generator: torch.Generator | None = None) -> Tensor:
        """Return the weighted losses of jumps, ``(*batch)``; arguments as for `jump_loss`."""
        losses = self.weight * self.jump_loss(jumps, generator)
        if not self.invertibility:
            return losses
        round_trip = round_trip_loss(jumps.flow_map, jumps.x, jumps.s, jumps.t, **jumps.condition)
        return losses + self.invertibility * round_trip

    def _matching(
        self, flow_map: FlowMap, path: ConditionalPath, x_0: Tensor, x_1: Tensor, t: Tensor, **condition: Any
    ) -> Tensor:
        """Return the loss of flow matching ``(*batch)``, with the velocity that is distilled in place of the path's."""
        sample = path.sample(x_0, x_1, t)
        target = sample.dx_t
        if self.velocity is not None:
            target = self._velocity(flow_map, condition)(sample.x_t, t)
        residual = flow_map(sample.x_t, t, **condition) - target
        return path.manifold.inner(sample.x_t, residual, residual)

    def _velocity(self, flow_map: FlowMap, condition: dict[str, Any]) -> Velocity:
        """Return the velocity whose jumps are learned: the one that is distilled, else the map's own."""
        followed = flow_map if self.velocity is None else self.velocity

        def velocity(x: Tensor, t: Tensor) -> Tensor:
            with torch.no_grad():
                return followed(x, t, **condition)

        return velocity

    def _path(self, source: Source) -> ConditionalPath:
        return default_path(source.manifold) if self.path is None else self.path

    @property
    def noted(self) -> Sequence[float]:
        """The times, from 0 to 1, at which `distilling` takes the trajectories of a flow."""
        return (0.0, 1.0)

    def distilling(self, velocity: Callable[..., Tensor], points: Tensor, condition: Tensor | None) -> Self:
        """Return the objective that trains the map of a flow.

        Args:
            velocity: of the flow.
            points: trajectories of it, at the times that are `noted`, ``(k, n, *event_shape)``.
            condition: of the trajectories ``(n, c)``.
        """
        return replace(self, velocity=velocity)

    def validation_loss(
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
        """Return the loss of flow matching, and the squared distance between one jump and a solve from time 0 to 1.

        Unlike the loss, which a map may lower by agreeing with itself, it tells how far samples are off.
        """
        flow_map, path = as_flow_map(type(self).__name__, field), self._path(source)
        landed = self.carried(flow_map, source, x_0, **condition)
        followed = flow_map if self.velocity is None else self.velocity
        solved = integrate(followed, path.manifold, x_0, (0.0, 1.0), _SOLVER, raise_on_failure=False, **condition).final
        matching = self._matching(flow_map, path, x_0, x_1, t, **condition)
        return (matching + path.manifold.squared_dist(landed, solved)).mean()

    def carried(self, field: Callable[..., Tensor], source: Source, x_0: Tensor, **condition: Any) -> Tensor:
        """Return where one jump takes draws from the source."""
        zero = torch.zeros((), dtype=x_0.dtype, device=x_0.device)
        return as_flow_map(type(self).__name__, field).jump(x_0, zero, zero + 1, **condition)

    @property
    def source(self) -> Source | None:
        return None if self.path is None else self.path.source

    def check(self, manifold: Manifold, source: Source, x: Tensor) -> None:
        """Raise ValueError unless the path lives on the manifold and leads from the source to the points ``x``."""
        if self.path is not None:
            check_path(type(self).__name__, self.path, manifold, source, x)

    def check_source(self, manifold: Manifold, source: Source) -> None:
        if self.path is not None:
            check_path(type(self).__name__, self.path, manifold, source)

    def on(self, manifold: Manifold) -> Self:
        return replace(self, path=default_path(manifold) if self.path is None else self.path)

    def to(self, device: torch.device) -> Self:
        if self.velocity is None:
            return self
        velocity = as_field(copy.deepcopy(self.velocity))
        for _, module in velocity.named_modules():
            module.to(device).eval()
        return replace(self, velocity=velocity)

    def velocity_of(self, network: nn.Module) -> nn.Module:
        """Return a flow map: the network if it is one, or a `rfm.networks.VelocityField` with a second time.

        Raises:
            ValueError: for a network that is neither.
        """
        try:
            return with_second_time(network)
        except ValueError as error:
            raise ValueError(f"{type(self).__name__}: {error}") from None

    def draw_times(self, shape: tuple[int, ...], **like: Any) -> Tensor:
        return super().draw_times(shape, **like) if self.times is None else self.times.sample(shape, **like)


def round_trip_loss(flow_map: FlowMap, x: Tensor, s: Tensor, t: Tensor, **condition: Any) -> Tensor:
    """Return ``d(x, X_{t,s}(X_{s,t}(x)))^2 / (t - s)^2``: how far jumps back miss where they come from, ``(*batch)``.

    Args:
        flow_map: the map.
        x: points at time s ``(*batch, *event_shape)``.
        s: times that jumps lead from ``(*batch)``.
        t: times that they lead to, likewise.
        condition: for the map.
    """
    returned = flow_map.jump(flow_map.jump(x, s, t, **condition), t, s, **condition)
    return flow_map.manifold.squared_dist(x, returned) / (t - s).square().clamp(min=_SHORTEST**2)


_SHORTEST = 1e-3
"""Spans below it count less: of two points as near, the distance is rounding."""
