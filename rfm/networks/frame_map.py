"""The network of rigid bodies in a row with a second time, for flow maps."""

from typing import Any

import torch
from torch import Tensor, nn

from manifolds import CentredPoses
from rfm.networks.frames import TIME_WIDTH, WAVES, FrameField, time_waves
from rfm.networks.precision import in_precision_of_weights
from rfm.networks.second_time import SecondTime


class FrameMap(FrameField, SecondTime, one_time=FrameField):
    """A `FrameField` with a second time: the average velocity of jumps from s to t, of any number of poses.

    It is that of the geodesic to a predicted pose, ``log_x(endpoint) / (1 - s)``; the prediction depends on t as well,
    through what is added to the features of time, multiplied by ``t - s``. So at equal times it is a `FrameField`, with
    its weights and its cost, and since that part is zero at first, a network made by `from_velocity` begins as the
    field that it is made from. A jump to time 1 lands on the prediction.

    Arguments as for `FrameField`.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # Its points and vectors are those of single poses, so that the number of them does not matter.
        self.manifold = CentredPoses(2, self.length)
        last = nn.Linear(TIME_WIDTH, TIME_WIDTH)
        self.jump_time = nn.Sequential(nn.Linear(4 * WAVES, TIME_WIDTH), nn.SiLU(), last)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    @in_precision_of_weights
    def average_velocity(  # type: ignore[override]
        self,
        x: Tensor,
        s: Tensor,
        t: Tensor,
        *,
        mask: Tensor | None = None,
        held: Tensor | None = None,
        previous: Tensor | None = None,
    ) -> Tensor:
        """Return the average velocity of the jump, tangent at ``x``.

        Args:
            x: poses at time s ``(*batch, n, 4, 4)``.
            s: times ``(*batch)``, or one for all.
            t: times to jump to, likewise.
            mask: as for `endpoint`, and so are the others.
            held: which bodies stay.
            previous: the prediction to build on.
        """
        s, t = s.expand(x.shape[:-3]), t.expand(x.shape[:-3])
        ahead = self.jump_time(torch.cat([time_waves(s), time_waves(t)], dim=-1))
        time = self.time(time_waves(s)) + (t - s)[..., None] * ahead
        return self.velocity(x, s, self._predicted(x, s, time, mask, held, previous), mask)
