"""The times of a solve, in units of their span."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Span:
    """The times between two, as shares of the time between them, counted from the one among them nearest to 0.

    Methods step through shares, in the direction of time. A single-precision solve from 1 to 1 + 1e-9 then knows its
    steps as well as one from 0 to 1, whose times are shares already; numbers are densest near 0.

    Args:
        low: the earlier end.
        high: the later end.
    """

    low: float
    high: float

    @classmethod
    def of(cls, times: tuple[float, ...]) -> "Span":
        """Return the span of times."""
        return cls(min(times), max(times))

    @property
    def length(self) -> float:
        """How long it is, positive: what a velocity per unit of time is multiplied by to be one per share."""
        return self.high - self.low

    @property
    def origin(self) -> float:
        """The time of share 0."""
        return min(max(self.low, 0.0), self.high)

    @property
    def is_unit(self) -> bool:
        """Whether times are shares."""
        return self.origin == 0 and self.length == 1

    def share(self, time: float) -> float:
        """Return a time as a share."""
        return (time - self.origin) / self.length

    def times(self, shares: Tensor) -> Tensor:
        """Return the times of shares, within the span to the last digit."""
        return shares if self.is_unit else (shares * self.length + self.origin).clamp(self.low, self.high)

    def per_share(self, rate: Tensor) -> Tensor:
        """Return a rate per unit of time as one per share."""
        return rate if self.is_unit else rate * self.length
