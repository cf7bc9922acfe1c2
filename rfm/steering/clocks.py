"""Clocks: parts of a point that a sampler moves faster or slower than the field was trained for."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from manifolds import Manifold, Power, Product
from rfm.field import Field, as_field
from rfm.steering.steering import Steering


class Clock(Protocol):
    """A way for a part to run from noise at time 0 to data at time 1.

    On a clock ``r(t)`` a conditional geodesic is at ``geodesic(x_0, x_1, r(t))``. A field trained on geodesics with
    ``r(t) = t`` is carried over by the factor ``r'(t) (1 - t) / (1 - r(t))``, which keeps the end point that it points
    to and changes how fast that is approached.
    """

    def speed(self, t: Tensor) -> Tensor:
        """Return the factor at times ``t``, of the shape of ``t``."""
        ...


@dataclass(frozen=True)
class ExponentialClock:
    """``r(t) = 1 - exp(-rate t)``: fast at first, at rest in the end.

    The rotation schedule of samplers for protein backbones, which usually take a rate of 10: Bose et al., SE(3)-
    Stochastic Flow Matching for Protein Backbone Generation, 2023, arXiv:2310.02391; Yim et al., Fast protein backbone
    generation with SE(3) flow matching, 2023, arXiv:2310.05297.

    Args:
        rate: positive; ``exp(-rate)`` of the way is left at time 1.
        lands: from time ``1 - 1 / rate`` on run at the speed that was trained for, and so arrive at time 1. With it the
            last of a number of equal steps reaches the end point that is predicted there.
    """

    rate: float = 10.0
    lands: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.rate < math.inf:
            raise ValueError(f"ExponentialClock: rate must be positive and finite, got {self.rate}")

    def speed(self, t: Tensor) -> Tensor:
        factor = self.rate * (1 - t)
        return factor.clamp(min=1) if self.lands else factor


@dataclass(frozen=True)
class PowerClock:
    """``r(t) = 1 - (1 - t)^power``: a speed that is ``power`` times the trained one; 1 changes nothing.

    Args:
        power: positive.
    """

    power: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.power < math.inf:
            raise ValueError(f"PowerClock: power must be positive and finite, got {self.power}")

    def speed(self, t: Tensor) -> Tensor:
        return torch.full_like(t, self.power)


class Clocks(Steering):
    """Clocks for parts of a point, for `rfm.Flow.sample`.

    The field is evaluated at ``(x, t)`` as always, and the parts' components of its velocity are multiplied by their
    clocks' speeds. The field was trained where all parts had come equally far. Samples drawn with clocks therefore do
    not follow the flow's density, and get no log-density.

    Args:
        parts: pairs of a mask and a clock. A mask broadcasts to ``event_shape``, 1 where an entry belongs to the part
            and 0 elsewhere; the part of a tangent vector that it cuts out has to be tangent itself. Parts do not
            overlap; what is in none of them keeps its speed. `of_factors` makes them for products,
            `of_poses` for rigid motions.
    """

    name = "clocks"

    def __init__(self, parts: Sequence[tuple[Tensor, Clock]]) -> None:
        if not parts or _overlap([mask for mask, _ in parts]):
            raise ValueError(
                "Clocks: takes at least one part, and parts that do not overlap; give every entry to one clock"
            )
        self.parts = tuple(parts)

    @classmethod
    def of_factors(cls, manifold: Manifold, clocks: Sequence[Clock | None]) -> "Clocks":
        """Return clocks for the factors of a product, or of each copy in a power of a product.

        Args:
            manifold: the product, or a power of one.
            clocks: one per factor; None for a factor that keeps its speed.

        Raises:
            ValueError: if the manifold is no product, or the number of clocks is not that of its factors.
        """
        product: Any = manifold.m if isinstance(manifold, Power) else manifold
        if not isinstance(product, Product) or len(clocks) != len(product.sizes):
            raise ValueError(
                "Clocks.of_factors: takes a product, or a power of one, and a clock or None per factor, got "
                f"{manifold} and {len(clocks)} clocks; for other manifolds pass masks to Clocks"
            )
        factor = torch.repeat_interleave(torch.arange(len(clocks)), torch.tensor(list(product.sizes)))
        return cls([((factor == i).to(torch.get_default_dtype()), c) for i, c in enumerate(clocks) if c is not None])

    @classmethod
    def of_poses(cls, rotation: Clock | None = None, position: Clock | None = None) -> "Clocks":
        """Return clocks for the rotations and positions of 4 x 4 pose matrices: of `SE3`, or of a power of it."""
        turns = torch.zeros(4, 4)
        turns[:3, :3] = 1
        moves = torch.zeros(4, 4)
        moves[:3, 3] = 1
        return cls([(mask, clock) for mask, clock in ((turns, rotation), (moves, position)) if clock is not None])

    def applied_to(self, field: Callable[..., Tensor]) -> Field:
        """Return the field at the clocks' speeds."""
        return _Clocked(as_field(field), self.parts)


class _Clocked(Field):
    def __init__(self, field: Field, parts: Sequence[tuple[Tensor, Clock]]) -> None:
        self.field, self.parts = field, parts

    def __call__(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
        u = self.field(x, t, **condition)
        factor = torch.ones_like(u)
        for mask, clock in self.parts:
            axes = (..., *(None,) * (u.ndim - t.ndim))
            factor = factor + mask.to(u) * (clock.speed(t)[axes] - 1)
        return factor * u

    def self_conditioned(self) -> Field:
        return _Clocked(as_field(self.field.self_conditioned()), self.parts)


def _overlap(masks: Sequence[Tensor]) -> bool:
    return bool((torch.stack(torch.broadcast_tensors(*masks)).abs().sum(0) > 1).any())
