"""What the entries of condition vectors mean: named columns of numbers, labels, times and pictures."""

from rfm.conditions.conditions import Conditions
from rfm.conditions.kinds import Column, Label, Number
from rfm.conditions.pictures import Picture
from rfm.conditions.times import Periodic, Time

__all__ = [
    "Column",
    "Conditions",
    "Label",
    "Number",
    "Periodic",
    "Picture",
    "Time",
]
