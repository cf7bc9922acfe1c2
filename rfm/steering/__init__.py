"""What changes where a flow goes while samples are drawn: guidance, clocks of its parts, a memory."""

from rfm.steering.clocks import Clock, Clocks, ExponentialClock, PowerClock
from rfm.steering.guidance import Guidance
from rfm.steering.memory import SelfConditioning
from rfm.steering.steering import Steering

__all__ = [
    "Clock",
    "Clocks",
    "ExponentialClock",
    "Guidance",
    "PowerClock",
    "SelfConditioning",
    "Steering",
]
