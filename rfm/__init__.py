"""Riemannian flow matching on PyTorch: fit, sample and score densities on manifolds."""

from rfm import sources
from rfm.fitting import fit
from rfm.flow import Flow
from rfm.integrators import integrate
from rfm.likelihood import divergence
from rfm.losses import flow_matching_loss
from rfm.paths import GeodesicPath, PathSample

__version__ = "0.1.0"

__all__ = [
    "Flow",
    "GeodesicPath",
    "PathSample",
    "__version__",
    "divergence",
    "fit",
    "flow_matching_loss",
    "integrate",
    "sources",
]
