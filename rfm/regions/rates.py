"""Rates of events: expected numbers, and the probability of at least one, where events come at random in time."""

import math
from dataclasses import dataclass

from scipy.special import gammaincinv

from manifolds.arguments import number, positive

_TAIL = 0.025


@dataclass(frozen=True)
class Rate:
    """How often events happen, from how many did in a number of years: a Poisson process.

    Events are taken as independent of each other and equally frequent at all times. Aftershocks, seasons and trends are
    neither: remove them from the data, or take the figures as means over long times.

    Args:
        events: how many happened, at least 0; weighted numbers need not be whole.
        years: in how long a time.

    Raises:
        ValueError: a number is negative, or the time not positive.
    """

    events: float
    years: float

    def __post_init__(self) -> None:
        if number("Rate", "events", self.events) < 0:
            raise ValueError(f"Rate: events must not be negative, got {self.events:g}; give how many happened")
        positive("Rate", "years", self.years)

    @property
    def per_year(self) -> float:
        """Events per year."""
        return self.events / self.years

    @property
    def interval_95(self) -> tuple[float, float]:
        """The exact 95 % interval of the rate, events per year.

        References:
            Garwood, Fiducial limits for the Poisson distribution, Biometrika 28, 1936.
        """
        low = gammaincinv(self.events, _TAIL) if self.events > 0 else 0.0
        high = gammaincinv(self.events + 1, 1 - _TAIL)
        return float(low) / self.years, float(high) / self.years

    def expected(self, probability: float, interval: tuple[float, float] | None = None) -> tuple[float, float, float]:
        """Return the expected number of events per year in a region, with the lower and upper end of a 95 % interval.

        Args:
            probability: that an event lies in the region.
            interval: what is open about it; its relative width is added to that of the rate, in squares.
        """
        p = number("Rate.expected", "probability", probability)
        low, high = (p, p) if interval is None else interval
        ends = []
        for rate, other in zip(self.interval_95, (low, high), strict=True):
            ends.append(_combined(self.per_year * p, rate * p, self.per_year * other))
        return self.per_year * p, min(ends[0], self.per_year * p), max(ends[1], self.per_year * p)

    def at_least_one(
        self, probability: float, years: float, interval: tuple[float, float] | None = None
    ) -> tuple[float, float, float]:
        """Return the probability of at least one event in a region within some years, with a 95 % interval.

        Args:
            probability: that an event lies in the region.
            years: how long.
            interval: see `expected`.
        """
        time = positive("Rate.at_least_one", "years", years)
        value, low, high = (-math.expm1(-rate * time) for rate in self.expected(probability, interval))
        return value, low, high


def _combined(value: float, by_rate: float, by_probability: float) -> float:
    """Return the end of an interval whose two relative deviations, of independent causes, add up in squares.

    On a logarithmic scale, where ends of rates stay positive; 0 if an end is, and linearly if the value itself is 0.
    """
    if value == 0:
        return max(by_rate, by_probability)
    if min(by_rate, by_probability) <= 0:
        return 0.0
    logs = [math.log(end / value) for end in (by_rate, by_probability)]
    distance = math.hypot(*logs)
    return value * math.exp(distance if sum(logs) > 0 else -distance)
