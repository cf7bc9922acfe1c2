"""Regions: where the probability is, and how much of it lies where.

`probability` integrates a flow's density over boxes, balls and polygons, with its error. `HighestDensity` finds the
smallest regions that hold a given probability, `outlines` gives them as polygons, and `coverage` measures which share
of new points they hold, the reliability of a density. `Rate` turns probabilities into numbers of events per year.
"""

from rfm.regions.balls import Ball
from rfm.regions.boxes import AngleBox, CoordinateBox, LatitudeLongitudeBox
from rfm.regions.calibration import Coverage, coverage
from rfm.regions.contours import Outline, outlines, write_geojson
from rfm.regions.highest_density import HighestDensity, Level
from rfm.regions.planar import planar_polygon
from rfm.regions.polygons import Polygon
from rfm.regions.probability import Probability, Share, probability
from rfm.regions.rates import Rate
from rfm.regions.region import Charts, Region

__all__ = [
    "AngleBox",
    "Ball",
    "Charts",
    "CoordinateBox",
    "Coverage",
    "HighestDensity",
    "LatitudeLongitudeBox",
    "Level",
    "Outline",
    "Polygon",
    "Probability",
    "Rate",
    "Region",
    "Share",
    "coverage",
    "outlines",
    "planar_polygon",
    "probability",
    "write_geojson",
]
