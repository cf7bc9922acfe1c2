"""Real-time chunking: a new chunk that goes on where the last one leads."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from manifolds.arguments import integer, positive
from rfm.control.action_chunks import ActionChunks
from rfm.steering import EnergyGuidance


@dataclass(frozen=True)
class RealTimeChunking:
    """Draws each chunk so that it agrees with what is left of the last one.

    While a chunk is computed the robot carries on with the last, so that the first ``delay`` actions are settled; those
    after them are asked to change little, the less the sooner they are due. That is inpainting by guidance: the field
    is led to where the predicted end point ``exp_A((1 - t) v)`` is near to what is left, in squared geodesic distance
    ``sum_i W_i d_i^2 / 2``, by ``min(strength, (t^2 + (1 - t)^2) / (t (1 - t)))``; in flat space that is the method of
    the source, equations 2 to 5.

    Chunks drawn so have no log-density under the flow.

    Args:
        delay: how many actions are done before a new chunk is there; they are the last chunk's own.
        strength: bound of the guidance, 5 in the source.

    References:
        Black, Galliker, Levine, Real-Time Execution of Action Chunking Flow Policies, 2025, arXiv:2506.07339.
    """

    delay: int = 0
    strength: float = 5.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "delay", integer("RealTimeChunking", "delay", self.delay, 0))
        object.__setattr__(self, "strength", positive("RealTimeChunking", "strength", self.strength))

    def weights(self, horizon: int, execute: int) -> Tensor:
        """Return how much each action of a chunk is held to what is left of the last one, ``(horizon,)``, from 1 to 0.

        Args:
            horizon: how many actions a chunk has.
            execute: how many of them are done before the next; as many of the last actions have nothing to agree with.
        """
        i = torch.arange(horizon, dtype=torch.float64)
        left = (horizon - execute - i) / (horizon - execute - self.delay + 1)
        soft = left * torch.expm1(left) / (math.e - 1)
        return torch.where(i < self.delay, 1.0, torch.where(i < horizon - execute, soft, 0.0))

    def guidance(self, chunks: ActionChunks, last: Tensor, execute: int) -> EnergyGuidance:
        """Return the steering towards what is left of the last chunk.

        Args:
            chunks: where chunks live.
            last: what is left, ``(*batch, horizon, *event_shape)``; where nothing is, its weight is 0.
            execute: as for `weights`.
        """
        weights = self.weights(chunks.horizon, execute).to(last)

        def energy(chunk: Tensor) -> Tensor:
            return (weights * chunks.manifold.squared_dist(chunk, last)).sum(-1) / 2

        def strength(t: Tensor) -> Tensor:
            ways = (t * (1 - t)).clamp(min=torch.finfo(t.dtype).tiny)
            return ((t**2 + (1 - t) ** 2) / ways).clamp(max=self.strength)

        return EnergyGuidance(chunks, energy, strength)
