"""Flow matching as an objective: regression of the field on the velocities of conditional paths."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from manifolds import Manifold
from manifolds.arguments import check_instance
from rfm.objectives.objective import Objective
from rfm.objectives.regression import flow_matching_loss
from rfm.paths import AffinePath, ConditionalPath, GeodesicPath
from rfm.paths.times import TimeSampler, UniformAndLateTimes
from rfm.records.fingerprint import fingerprint
from rfm.sources import Source
from rfm.sources.base import check_same_manifold


@dataclass(frozen=True)
class FlowMatching(Objective):
    """The objective of `rfm.fit` unless it is given another: `rfm.flow_matching_loss` along a conditional path.

    Args:
        path: the conditional path to train on, on the manifold of the flow and from its source if it presumes one; the
            geodesic at constant speed by default. The flow's density belongs to the path's start, so it is as wrong as
            that is far from the source; see `ConditionalPath.starts_at_source`.
        times: how to draw training times, whose density weights the errors; by default
            `rfm.paths.times.UniformAndLateTimes`, half of them uniform and half crowded at the data.

    Raises:
        ValueError: if they are no path and no sampler of times.
    """

    path: ConditionalPath | None = None
    times: TimeSampler | None = None

    repeats: ClassVar[bool] = True
    splits: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.path is not None:
            check_instance("FlowMatching", "path", self.path, ConditionalPath, "GeodesicPath(manifold)")
        if self.times is not None:
            check_instance("FlowMatching", "times", self.times, TimeSampler, "UniformTimes()")

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
        path = GeodesicPath(source.manifold) if self.path is None else self.path
        return flow_matching_loss(field, path, x_0, x_1, t, **condition)

    @property
    def source(self) -> Source | None:
        return None if self.path is None else self.path.source

    def check(self, manifold: Manifold, source: Source, x: Tensor) -> None:
        """Raise ValueError unless the path lives on the manifold and leads from the source to the points ``x``."""
        if self.path is None:
            return
        check_same_manifold("FlowMatching", "path", self.path.manifold, manifold)
        _check_start(self.path, source)
        x_1 = manifold.projx(x[:4])
        x_0 = source.sample((len(x_1),), generator=torch.Generator().manual_seed(0), dtype=x.dtype)
        self.path.check_ends(x_0, x_1)

    def on(self, manifold: Manifold) -> "FlowMatching":
        return replace(
            self,
            path=GeodesicPath(manifold) if self.path is None else self.path,
            times=UniformAndLateTimes() if self.times is None else self.times,
        )

    def draw_times(self, shape: tuple[int, ...], **like: Any) -> Tensor:
        return super().draw_times(shape, **like) if self.times is None else self.times.sample(shape, **like)


def _check_start(path: ConditionalPath, source: Source) -> None:
    """Raise ValueError where the path presumes a source, or a scale of it, and the flow would start from another."""
    if path.source is not None and fingerprint(path.source) != fingerprint(source):
        presumed, actual = (" ".join(str(part).split()) for part in (path.source, source))
        raise ValueError(
            f"FlowMatching: path starts from {presumed}, but source is {actual}; leave source out, or take a path that "
            "starts from any, such as GeodesicPath"
        )
    if path.source is None and isinstance(path, AffinePath) and path.schedule.source_scale != 1:
        raise ValueError(
            f"FlowMatching: {path.schedule} starts from noise of scale {path.schedule.source_scale:g}, which "
            "AffinePath leaves to you; use GaussianPath, which brings that source"
        )
