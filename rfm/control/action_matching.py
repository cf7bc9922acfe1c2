"""Flow matching as policies are trained by it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from rfm.integrators import EULER, FixedStep, integrate
from rfm.objectives import FlowMatching
from rfm.paths.times import EarlyTimes, TimeSampler
from rfm.sources import Source

TEN_STEPS = FixedStep(EULER, 10)
"""How pi-zero draws a chunk: ten equal steps of Euler's method."""


@dataclass(frozen=True)
class ActionMatching(FlowMatching):
    """`rfm.FlowMatching` of chunks of actions, with the times of pi-zero and validation by the loss.

    A chunk A and noise eps are joined by the geodesic; in flat space that is ``A_t = t A + (1 - t) eps``, which given A
    has the variance ``(1 - t)^2`` of the noise. The target is its velocity, ``A - eps``: from noise to data, forward in
    time. Times are crowded at the noise (`rfm.paths.times.EarlyTimes`). A chunk has too many dimensions to look at its
    likelihood at every validation, so the loss of chunks held out decides when to stop; and beside it the discrepancy
    between them and chunks that are drawn by ten steps.

    Arguments as for `rfm.FlowMatching`.
    """

    times: TimeSampler | None = field(default_factory=EarlyTimes)

    by_likelihood: ClassVar[bool] = False

    def carried(self, field: Callable[..., Tensor], source: Source, x_0: Tensor, **condition: Any) -> Tensor:
        return integrate(field, source.manifold, x_0, (0.0, 1.0), TEN_STEPS, **condition).final
