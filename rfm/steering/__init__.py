"""What changes where a flow goes while samples are drawn: guidance by conditions or energies, clocks, a memory."""

from rfm.steering.clocks import Clock, Clocks, ExponentialClock, PowerClock
from rfm.steering.energy import EnergyGuidance
from rfm.steering.guidance import Guidance
from rfm.steering.memory import SelfConditioning
from rfm.steering.steering import Steering

__all__ = [
    "Clock",
    "Clocks",
    "EnergyGuidance",
    "ExponentialClock",
    "Guidance",
    "PowerClock",
    "SelfConditioning",
    "Steering",
]
