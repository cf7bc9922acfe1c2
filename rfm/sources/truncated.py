"""A source restricted to a bounded set."""

import math

import torch
from torch import Tensor

from manifolds import Bounded, Manifold
from manifolds.arguments import number
from rfm.arrays import points_of
from rfm.sources.base import Source, checked_part, draws

_DRAWS = 2**17
_LEAST_SHARE = 1e-4
_BLOCK = 2**16


class Truncated(Source):
    """A source on a manifold given that its point lies in a bounded set: its density there is divided by its mass.

    Draws are repeated until they fall into the set, so samples and density agree. Where the mass is not given, it is
    the share of 2^17 draws with a fixed seed that fall into it: for a mass m the error of all log-densities is
    ``sqrt((1 - m) / m) / 362``, a thousandth where 9 tenths of the mass are inside.

    Args:
        manifold: the bounded set.
        source: on ``manifold.m``.
        mass: the probability of the set under the source, if it is known.

    Raises:
        ValueError: the source is on another manifold, or next to nothing of it lies in the set.
    """

    manifold: Bounded

    def __init__(self, manifold: Bounded, source: Source, mass: float | None = None) -> None:
        super().__init__(manifold)
        if not isinstance(manifold, Bounded):
            raise ValueError(f"Truncated: lives on a Bounded manifold, got {manifold}; use the source itself")
        self.source = checked_part("Truncated", "source", source, manifold.m)
        self.mass = share_inside(source, manifold) if mass is None else number("Truncated", "mass", mass)
        if not _LEAST_SHARE <= self.mass <= 1:
            raise ValueError(
                f"Truncated: a share of {self.mass:.2g} of the source lies in {manifold}, too little to draw from; "
                "choose a source nearer to it"
            )

    def sample(
        self,
        shape: int | tuple[int, ...],
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        size = draws(self, shape, dtype)
        found: list[Tensor] = []
        missing = size.numel()
        while missing > 0 or not found:
            count = min(int(1.1 * missing / self.mass) + 16, _DRAWS)
            x = self.source.sample((count,), generator, dtype, device)
            found.append(x[self.manifold.constraint.contains(x)][:missing])
            missing -= len(found[-1])
        return torch.cat(found).reshape(*size, *self.manifold.event_shape)

    def log_prob(self, x: Tensor) -> Tensor:
        x = points_of("Truncated", self.manifold, x)
        log_p = self.source.log_prob(x) - math.log(self.mass)
        return torch.where(self.manifold.excludes(x), -math.inf, log_p)


def restricted(source: Source, manifold: Manifold) -> Source:
    """Return a source on ``manifold.unbounded`` as one on the manifold: itself, where that is not a part of another."""
    return Truncated(manifold, source) if isinstance(manifold, Bounded) else source


def share_inside(source: Source, manifold: Bounded, count: int = _DRAWS) -> float:
    """Return the share of a source's draws, from a fixed seed, that lie in a bounded set."""
    device = next((tensor.device for tensor in source.buffers()), torch.device("cpu"))
    generator = torch.Generator(device).manual_seed(0)
    inside = 0
    for start in range(0, count, _BLOCK):
        x = source.sample((min(_BLOCK, count - start),), generator, torch.float64, device)
        inside += int(manifold.constraint.contains(manifold.m.projx(x)).sum())
    return inside / count
