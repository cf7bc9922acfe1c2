"""Conditional probability paths: how a pair of end points becomes a training target.

`rfm.paths.schedules` holds how much of data and noise they mix, `rfm.paths.times` the times at which they are learnt,
`rfm.paths.conversions` the links to scores, noise and end points, and `DDIM` the sampler that follows from them.
"""

from rfm.paths import conversions, schedules, times
from rfm.paths.bounded import BoundedPath, default_path
from rfm.paths.conditional import (
    AffinePath,
    ConditionalFlowPath,
    ConditionalPath,
    GaussianPath,
    GeodesicPath,
    GivenData,
    PathSample,
)
from rfm.paths.ddim import DDIM
from rfm.paths.density_interpolation import MoserVelocity
from rfm.paths.marginal import MarginalVelocity, marginal_velocity
from rfm.paths.premetric import GeodesicDistance, Premetric, PremetricPath, SpectralDistance
from rfm.paths.time_pairs import TimePairs

__all__ = [
    "DDIM",
    "AffinePath",
    "BoundedPath",
    "ConditionalFlowPath",
    "ConditionalPath",
    "GaussianPath",
    "GeodesicDistance",
    "GeodesicPath",
    "GivenData",
    "MarginalVelocity",
    "MoserVelocity",
    "PathSample",
    "Premetric",
    "PremetricPath",
    "SpectralDistance",
    "TimePairs",
    "conversions",
    "default_path",
    "marginal_velocity",
    "schedules",
    "times",
]
