"""Ranges of coordinates and of angles."""

import math
from typing import Any

import torch
from torch import Tensor

from manifolds.arguments import check_instance
from manifolds.base import Manifold
from manifolds.constraints.constraint import Constraint, vector
from manifolds.euclidean import Euclidean
from manifolds.flat_torus import FlatTorus
from manifolds.numerics.angles import wrap_radians

_LAYER = 0.15
"""Width of the border layer, as a share of a range."""


class Box(Constraint):
    """Ranges of the coordinates of R^n: ``Box([0.0, 0.0], [1.0, 2.0])``.

    Args:
        low: lower ends ``(n,)``; ``-inf``, or None in a list, for none.
        high: upper ends ``(n,)``, above the lower ones; ``inf`` or None for none.
    """

    lower: Tensor
    upper: Tensor

    def __init__(self, low: Any, high: Any) -> None:
        super().__init__()
        low, high = (vector("Box", *end) for end in (("low", _known(low, -math.inf)), ("high", _known(high, math.inf))))
        if low.shape != high.shape or not bool((low < high).all()):
            raise ValueError(
                f"Box: each end in low must be below that in high, got {low.tolist()} and {high.tolist()}; exchange or "
                "correct them"
            )
        # As what JSON knows.
        self.low, self.high = ([end if math.isfinite(end) else None for end in ends.tolist()] for ends in (low, high))
        self.constant("lower", low)
        self.constant("upper", high)
        widths = high - low
        self.volume = float(widths.prod()) if bool(widths.isfinite().all()) else None
        ends = torch.cat([low, high])
        self.reach = float(ends[ends.isfinite()].abs().max()) if bool(ends.isfinite().any()) else 1.0
        self.constant("layer", torch.where(widths.isfinite(), _LAYER * widths, 1.0))

    layer: Tensor

    def check_manifold(self, manifold: Manifold) -> None:
        check_instance("Bounded with a Box", "manifold", manifold, Euclidean, f"Euclidean({len(self.lower)})")
        _check_dimension(self, manifold, len(self.lower))

    def contains(self, x: Tensor) -> Tensor:
        return ((x >= self.lower) & (x <= self.upper)).all(-1)

    def depth(self, x: Tensor) -> Tensor:
        return torch.minimum(x.double() - self.lower, self.upper - x.double()).amin(-1).to(x.dtype)

    def nearest(self, x: Tensor, margin: float) -> Tensor:
        margins = torch.clamp((self.upper - self.lower) / 2, max=margin)
        y = x.double()
        y = torch.where(y < self.lower, self.lower + margins, torch.where(y > self.upper, self.upper - margins, y))
        return y.to(x.dtype)

    def wall(self, x: Tensor) -> tuple[Tensor, Tensor]:
        below, above = (x.double() - self.lower).abs(), (self.upper - x.double()).abs()
        return _nearest_end(x, below, above, self.lower, self.upper)

    def damped(self, x: Tensor, u: Tensor, layer: float | Tensor) -> Tensor:
        """Each component by itself, times ``1 / (1 + layer / a + layer / b)`` at distances a, b from its ends."""
        y = x.double()
        below, above = (y - self.lower).clamp(min=0), (self.upper - y).clamp(min=0)
        # From an end that is not there nothing is near.
        one, other = (torch.where(d.isinf(), 1.0, d / (d + layer)) for d in (below, above))
        return u * (one * other / (one + other - one * other).clamp(min=_LEAST)).to(u.dtype)

    def random_uniform(self, count: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
        draw = torch.rand(count, len(self.lower), generator=generator, dtype=torch.float64, device=device)
        return self.lower.to(device) + draw * (self.upper - self.lower).to(device)

    def extra_repr(self) -> str:
        return f"{self.low}, {self.high}"


class JointLimits(Constraint):
    """Ranges of the angles of a flat torus: ``JointLimits([-2.0, -1.0], [2.0, 3.5])``, in radians.

    Each range is counted upwards from its lower end, over the seam at half a turn where need be. A range of a full turn
    is a joint without limits. Ways from one angle to another stay within the limits, however long: on `Bounded`,
    ``logmap`` and ``dist`` are those of the ways inside.

    Args:
        low: lower ends ``(n,)``, from -2 pi to 2 pi; None for an angle without limits.
        high: upper ends ``(n,)``, above the lower ones by a turn at most; None where ``low`` is.
    """

    lower: Tensor
    width: Tensor
    layer: Tensor

    def __init__(self, low: Any, high: Any) -> None:
        super().__init__()
        low = vector("JointLimits", "low", _known(low, -math.pi))
        high = vector("JointLimits", "high", _known(high, math.pi))
        turn = 2 * math.pi
        same = low.shape == high.shape
        if not same or not bool(((low < high) & (high - low <= turn * (1 + 1e-9)) & (low.abs() <= turn)).all()):
            raise ValueError(
                "JointLimits: each angle in high must be above that in low, in radians, by a turn at most, and low "
                f"from -2 pi to 2 pi, got {low.tolist()} and {high.tolist()}; turn degrees into radians"
            )
        self.low, self.high = low.tolist(), high.tolist()
        self.constant("lower", low)
        self.constant("width", (high - low).clamp(max=turn))
        # A joint that goes all the way round has no ends.
        self.constant("limited", self.width < turn * (1 - 1e-9))
        self.volume, self.reach = float(self.width.prod()), math.pi
        self.constant("layer", _LAYER * self.width)

    limited: Tensor

    def check_manifold(self, manifold: Manifold) -> None:
        check_instance("Bounded with JointLimits", "manifold", manifold, FlatTorus, f"FlatTorus({len(self.lower)})")
        _check_dimension(self, manifold, len(self.lower))

    def depth(self, x: Tensor) -> Tensor:
        below, above = self._ends(x)
        d = torch.where(self.limited.bool(), torch.minimum(below, above), math.inf)
        return d.amin(-1).to(x.dtype)

    def nearest(self, x: Tensor, margin: float) -> Tensor:
        below, above = self._ends(x)
        inner = torch.clamp(self.width / 2, max=margin)
        offset = torch.where(below < 0, inner, torch.where(above < 0, self.width - inner, below))
        moved = wrap_radians((self.lower + offset).to(x.dtype))
        return torch.where(self.limited.bool() & ((below < 0) | (above < 0)), moved, x)

    def wall(self, x: Tensor) -> tuple[Tensor, Tensor]:
        free = torch.where(self.limited.bool(), 0.0, math.inf)
        below, above = (d.abs() + free for d in self._ends(x))
        return _nearest_end(x, below, above, wrap_radians(self.lower), wrap_radians(self.lower + self.width))

    def damped(self, x: Tensor, u: Tensor, layer: float | Tensor) -> Tensor:
        """As in a `Box`; an angle without limits keeps its component."""
        below, above = (d.clamp(min=0) for d in self._ends(x))
        a, b = below / (below + layer), above / (above + layer)
        factor = torch.where(self.limited.bool(), a * b / (a + b - a * b).clamp(min=_LEAST), 1.0)
        return u * factor.to(u.dtype)

    def random_uniform(self, count: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
        draw = torch.rand(count, len(self.lower), generator=generator, dtype=torch.float64, device=device)
        return wrap_radians(self.lower.to(device) + draw * self.width.to(device))

    def logmap(self, manifold: Manifold, x: Tensor, y: Tensor) -> Tensor:
        """Return the way within the limits: the difference of the angles counted from the lower ends."""
        start, end = (torch.remainder(z - self.lower.to(z), 2 * math.pi) for z in (x, y))
        return torch.where(self.limited.bool(), end - start, manifold.logmap(x, y))

    def dist(self, manifold: Manifold, x: Tensor, y: Tensor) -> Tensor:
        return manifold.norm(x, self.logmap(manifold, x, y))

    def extra_repr(self) -> str:
        return f"{self.low}, {self.high}"

    def _ends(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return how far angles are above their lower and below their upper ends, the nearer end negative outside."""
        offset = torch.remainder(x.double() - self.lower, 2 * math.pi)
        # Outside, the middle of what is left of the turn divides what is below from what is above.
        turn = 2 * math.pi
        below = torch.where(offset > (self.width + turn) / 2, offset - turn, offset)
        return below, self.width - below


def _nearest_end(x: Tensor, below: Tensor, above: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Return the points where the range ends that is nearest to its end, and the unit vectors from there inwards."""
    place = torch.minimum(below, above).argmin(-1, keepdim=True)
    own = torch.zeros_like(below, dtype=torch.bool).scatter(-1, place, True)
    upper = above < below
    at = torch.where(own, torch.where(upper, high, low).to(x.dtype), x)
    return at, torch.where(own, torch.where(upper, -1.0, 1.0), 0.0).to(x.dtype)


def _known(ends: Any, otherwise: float) -> Any:
    """Return ends with a number in place of None."""
    return [otherwise if end is None else end for end in ends] if isinstance(ends, list | tuple) else ends


def _check_dimension(constraint: Constraint, manifold: Manifold, n: int) -> None:
    if manifold.dim != n:
        raise ValueError(
            f"Bounded: {type(constraint).__name__} has {n} ranges, and {manifold} has {manifold.dim} coordinates; give "
            "one for each"
        )


_LEAST = 1e-300
