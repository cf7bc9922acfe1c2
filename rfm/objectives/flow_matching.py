"""Flow matching as an objective: regression of the field on the velocities of conditional paths."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from manifolds import Manifold
from manifolds.arguments import check_function, check_instance, shown
from manifolds.identity import same
from rfm.networks import PredictedVelocity, Prediction
from rfm.networks.predicted import check_predicts
from rfm.objectives.objective import Floor, Objective
from rfm.objectives.prediction import prediction_loss
from rfm.objectives.regression import Distance, check_distance, flow_matching_loss
from rfm.paths import AffinePath, ConditionalPath, default_path, marginal_velocity
from rfm.paths.times import TimeSampler, UniformAndLateTimes
from rfm.sources import Source
from rfm.sources.base import check_same_manifold


@dataclass(frozen=True)
class FlowMatching(Objective):
    """The objective of `rfm.fit` unless it is given another: `rfm.flow_matching_loss` along a conditional path.

    Args:
        path: the conditional path to train on, on the manifold of the flow and from its source if it presumes one; the
            geodesic at constant speed by default, see `rfm.paths.default_path`. The flow's density belongs to the
            path's start, so it is as wrong as that is far from the source; see `ConditionalPath.starts_at_source`.
        times: how to draw training times, whose density weights the errors; by default
            `rfm.paths.times.UniformAndLateTimes`, half of them uniform and half crowded at the data.
        predicts: what the network predicts, "velocity", "score", "noise" or "end point"; the flow's field is then the
            velocity that follows, see `rfm.networks.PredictedVelocity`, and `rfm.objectives.prediction_loss` the loss.
        weight: from times ``(*batch)`` to factors of each pair's loss; 1 by default.
        distance: of end points on a curved space, see `rfm.endpoint_loss`: "tangent", whose minimiser gives the
            marginal velocity, or "geodesic".

    Raises:
        ValueError: if they are no path and no sampler of times, or the prediction does not say the velocity there.
    """

    path: ConditionalPath | None = None
    times: TimeSampler | None = None
    predicts: Prediction = "velocity"
    weight: Callable[[Tensor], Tensor] | None = None
    distance: Distance = "tangent"

    repeats: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.path is not None:
            check_instance("FlowMatching", "path", self.path, ConditionalPath, "GeodesicPath(manifold)")
        if self.times is not None:
            check_instance("FlowMatching", "times", self.times, TimeSampler, "UniformTimes()")
        if self.weight is not None:
            check_function("FlowMatching", "weight", self.weight, "a function of the times")
        check_distance("FlowMatching", self.distance)
        if self.distance != "tangent" and self.predicts != "end point":
            raise ValueError(
                f'FlowMatching: distance is that of end points; pass predicts="end point", or leave it out, got '
                f"predicts={self.predicts!r}"
            )
        if self.path is not None:
            check_predicts("FlowMatching", self.path, self.predicts)
        elif self.predicts not in ("velocity", "end point"):
            raise ValueError(
                f"FlowMatching: a network that predicts {self.predicts!r} needs a path that says the velocity; pass "
                "path=GaussianPath(manifold, VariancePreserving())"
            )

    @property
    def splits(self) -> bool:
        return True

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
        path = default_path(source.manifold) if self.path is None else self.path
        if self.predicts == "velocity":
            return flow_matching_loss(field, path, x_0, x_1, t, weight=self.weight, **condition)
        if not isinstance(field, PredictedVelocity):
            raise ValueError(
                f"FlowMatching: field must be a PredictedVelocity, got {shown(field)}; pass "
                f"PredictedVelocity(network, path, {self.predicts!r})"
            )
        return prediction_loss(field, x_0, x_1, t, distance=self.distance, weight=self.weight, **condition)

    def has_floor(self, source: Source) -> bool:
        path = default_path(source.manifold) if self.path is None else self.path
        velocity = self.predicts == "velocity" and not self.jitter
        return velocity and source.has_density and path.has_density_given_data

    def floor(
        self,
        field: Callable[..., Tensor],
        source: Source,
        data: Tensor,
        weights: Tensor | None,
        x_0: Tensor,
        x_1: Tensor,
        t: Tensor,
    ) -> Floor | None:
        """Return Jensen's gap ``|dx_t|^2 - |v|^2`` and ``|field - v|^2`` with the exact marginal velocity v."""
        if not self.has_floor(source):
            return None
        path = default_path(source.manifold) if self.path is None else self.path
        inner, sample = path.manifold.inner, path.sample(x_0, x_1, t)
        v = marginal_velocity(path, data, source, weights=weights)(sample.x_t, t)
        error = field(sample.x_t, t) - v
        factor = torch.ones_like(t) if self.weight is None else self.weight(t)
        least = inner(sample.x_t, sample.dx_t, sample.dx_t) - inner(sample.x_t, v, v)
        return Floor(factor * least, factor * inner(sample.x_t, error, error))

    def velocity_of(self, network: nn.Module) -> nn.Module:
        if self.predicts == "velocity" or isinstance(network, PredictedVelocity):
            return network
        assert self.path is not None, "FlowMatching.on gives it a path"
        return PredictedVelocity(network, self.path, self.predicts)

    @property
    def source(self) -> Source | None:
        return None if self.path is None else self.path.source

    def check(self, manifold: Manifold, source: Source, x: Tensor) -> None:
        """Raise ValueError unless the path lives on the manifold and leads from the source to the points ``x``."""
        if self.path is not None:
            check_path("FlowMatching", self.path, manifold, source, x)

    def check_source(self, manifold: Manifold, source: Source) -> None:
        if self.path is not None:
            check_path("FlowMatching", self.path, manifold, source)

    def on(self, manifold: Manifold) -> "FlowMatching":
        return replace(
            self,
            path=default_path(manifold) if self.path is None else self.path,
            times=UniformAndLateTimes() if self.times is None else self.times,
        )

    def draw_times(self, shape: tuple[int, ...], **like: Any) -> Tensor:
        return super().draw_times(shape, **like) if self.times is None else self.times.sample(shape, **like)


def check_path(owner: str, path: ConditionalPath, manifold: Manifold, source: Source, x: Tensor | None = None) -> None:
    """Raise ValueError unless a path lives on the manifold and leads from the source, to the points ``x`` if given."""
    check_same_manifold(owner, "path", path.manifold, manifold)
    _check_start(owner, path, source)
    if x is not None:
        x_1 = manifold.projx(x[:4])
        x_0 = source.sample((len(x_1),), generator=torch.Generator().manual_seed(0), dtype=x.dtype)
        path.check_ends(x_0, x_1)


def _check_start(owner: str, path: ConditionalPath, source: Source) -> None:
    """Raise ValueError where the path presumes a source, or a scale of it, and the flow would start from another."""
    if path.source is not None and not same(path.source, source):
        presumed, actual = (" ".join(str(part).split()) for part in (path.source, source))
        raise ValueError(
            f"{owner}: path starts from {presumed}, but source is {actual}; leave source out, or take a path that "
            "starts from any, such as GeodesicPath"
        )
    if path.source is None and isinstance(path, AffinePath) and path.schedule.source_scale != 1:
        raise ValueError(
            f"{owner}: {path.schedule} starts from noise of scale {path.schedule.source_scale:g}, which "
            "AffinePath leaves to you; use GaussianPath, which brings that source"
        )
