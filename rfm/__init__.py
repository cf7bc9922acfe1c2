"""Riemannian flow matching on PyTorch: fit, sample and score densities on manifolds."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rfm import (
        clocks,
        conditions,
        conversions,
        couplings,
        datasets,
        integrators,
        likelihood,
        metrics,
        networks,
        objectives,
        plotting,
        schedules,
        sources,
        times,
    )
    from rfm.fitting import fit
    from rfm.flow import Flow
    from rfm.integrators import Shared, integrate
    from rfm.likelihood import Hutchinson, divergence
    from rfm.losses import endpoint_loss, flow_matching_loss
    from rfm.maximum_likelihood import MaximumLikelihood, negative_log_likelihood_loss
    from rfm.paths import AffinePath, ConditionalFlowPath, ConditionalPath, GaussianPath, GeodesicPath, PathSample
    from rfm.streams import fit_stream

__version__ = "0.1.0"

__all__ = [
    "AffinePath",
    "ConditionalFlowPath",
    "ConditionalPath",
    "Flow",
    "GaussianPath",
    "GeodesicPath",
    "Hutchinson",
    "MaximumLikelihood",
    "PathSample",
    "Shared",
    "__version__",
    "clocks",
    "conditions",
    "conversions",
    "couplings",
    "datasets",
    "divergence",
    "endpoint_loss",
    "fit",
    "fit_stream",
    "flow_matching_loss",
    "integrate",
    "integrators",
    "likelihood",
    "metrics",
    "negative_log_likelihood_loss",
    "networks",
    "objectives",
    "plotting",
    "schedules",
    "sources",
    "times",
]

_HOMES = {
    "AffinePath": "paths",
    "ConditionalFlowPath": "paths",
    "ConditionalPath": "paths",
    "Flow": "flow",
    "GaussianPath": "paths",
    "GeodesicPath": "paths",
    "Hutchinson": "likelihood",
    "MaximumLikelihood": "maximum_likelihood",
    "PathSample": "paths",
    "Shared": "integrators",
    "divergence": "likelihood",
    "endpoint_loss": "losses",
    "fit": "fitting",
    "fit_stream": "streams",
    "flow_matching_loss": "losses",
    "integrate": "integrators",
    "negative_log_likelihood_loss": "maximum_likelihood",
}


# Names are imported when first used: the command line answers `--help` without loading torch.
def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(import_module(f"rfm.{_HOMES[name]}"), name)
    elif name in __all__:
        value = import_module(f"rfm.{name}")
    else:
        raise AttributeError(f"module 'rfm' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
