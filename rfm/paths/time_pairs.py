"""Pairs of times to train jumps between."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from manifolds.arguments import check_instance, number
from rfm.paths.times import TimeSampler, UniformAndLateTimes


@dataclass(frozen=True)
class TimePairs:
    """Draws pairs of times ``(s, t)``, of jumps from s to t: two draws in order, moved to the ends of time at random.

    Args:
        base: of the two draws; by default half uniform and half crowded at the data.
        ends: the share of jumps that begin at time 0, and likewise of those that end at time 1; a quarter of those that
            do either do both.
        backward: the share of jumps that lead back in time, for maps that are to be inverses of each other.

    Raises:
        ValueError: if a share is not from 0 to 1.
    """

    base: TimeSampler = field(default_factory=UniformAndLateTimes)
    ends: float = 0.25
    backward: float = 0.0

    def __post_init__(self) -> None:
        check_instance("TimePairs", "base", self.base, TimeSampler, "UniformTimes()")
        for name in ("ends", "backward"):
            share = number("TimePairs", name, getattr(self, name))
            if not 0 <= share <= 1:
                raise ValueError(f"TimePairs: {name} is a share, from 0 to 1, got {share:g}; choose one between")

    def sample(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return times s and t of the given shape, from 0 to 1; global random state is not touched with a generator."""

        def uniform() -> Tensor:
            return torch.rand(shape, generator=generator, device=device)

        first, second = (self.base.sample(shape, generator, dtype, device) for _ in range(2))
        # Stratified draws rise along the batch: paired as they are, the two would be nearly the same.
        second = second.flatten()[uniform().flatten().argsort()].reshape(shape)
        low = torch.where(uniform() < self.ends, 0.0, torch.minimum(first, second))
        high = torch.where(uniform() < self.ends, 1.0, torch.maximum(first, second))
        back = uniform() < self.backward
        return torch.where(back, high, low), torch.where(back, low, high)
