"""Conditional probability paths: how a pair of end points becomes a training target.

`rfm.paths.schedules` holds how much of data and noise they mix, `rfm.paths.times` the times at which they are learnt,
`rfm.paths.conversions` the links to scores, noise and end points, and `DDIM` the sampler that follows from them.
"""

from rfm.paths import conversions, schedules, times
from rfm.paths.conditional import (
    AffinePath,
    ConditionalFlowPath,
    ConditionalPath,
    GaussianPath,
    GeodesicPath,
    PathSample,
)
from rfm.paths.ddim import DDIM

__all__ = [
    "DDIM",
    "AffinePath",
    "ConditionalFlowPath",
    "ConditionalPath",
    "GaussianPath",
    "GeodesicPath",
    "PathSample",
    "conversions",
    "schedules",
    "times",
]
