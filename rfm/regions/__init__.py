"""Regions: where the probability is, and how much of it lies where.

`HighestDensity` finds the smallest regions that hold a given probability; `coverage` measures which share of new points
they hold, the reliability of a density.
"""

from rfm.regions.calibration import Coverage, coverage
from rfm.regions.highest_density import HighestDensity, Level

__all__ = ["Coverage", "HighestDensity", "Level", "coverage"]
