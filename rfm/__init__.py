"""Riemannian flow matching on PyTorch: fit, sample and score densities on manifolds."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rfm import datasets, metrics, networks, plotting, sources
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
    "datasets",
    "divergence",
    "fit",
    "flow_matching_loss",
    "integrate",
    "metrics",
    "networks",
    "plotting",
    "sources",
]

_HOMES = {
    "Flow": "flow",
    "GeodesicPath": "paths",
    "PathSample": "paths",
    "divergence": "likelihood",
    "fit": "fitting",
    "flow_matching_loss": "losses",
    "integrate": "integrators",
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
