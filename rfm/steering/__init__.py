"""What changes where a flow goes while samples are drawn: clocks of its parts."""

from rfm.steering.clocks import Clock, Clocks, ExponentialClock, PowerClock

__all__ = [
    "Clock",
    "Clocks",
    "ExponentialClock",
    "PowerClock",
]
