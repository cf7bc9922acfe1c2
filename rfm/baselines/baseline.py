"""What a flow is compared with: densities that are fitted to the same training and validation points."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

from rfm.baselines.normalizing_flow import CIRCULAR, FLAT, NormalizingFlow
from rfm.sources import KernelMixture, Source


@dataclass(frozen=True)
class Baseline:
    """A density to compare with.

    Args:
        title: what tables call it.
        fit: ``fit(manifold, train, validation, sample_weights=, validation_weights=)`` returns the density as a source;
            raises ValueError where the manifold has none.
    """

    title: str
    fit: Callable[..., Source]


KERNELS: dict[str, Baseline] = {
    "one-bandwidth": Baseline("kernel density, one bandwidth", KernelMixture.one_bandwidth),
    "30-bandwidths": Baseline("kernel density, 30 bandwidths", KernelMixture.mixture),
    "adaptive-kernels": Baseline("adaptive kernels", KernelMixture.adaptive),
}
"""Kernel densities, from the weakest: every flow is compared with them, on manifolds that have a kernel."""

_TITLES = {
    "nice": "NICE",
    "realnvp": "RealNVP",
    "maf": "masked autoregressive flow",
    "spline": "neural spline flow",
    "circular-spline": "circular spline flow",
}

NORMALIZING_FLOWS: dict[str, Baseline] = {
    kind: Baseline(_TITLES[kind], functools.partial(NormalizingFlow.fit, kind=kind)) for kind in (*FLAT, *CIRCULAR)
}
"""Normalising flows of zuko, compared with on request."""

BASELINES = KERNELS | NORMALIZING_FLOWS
"""All of them by the names that ``rfm evaluate --baseline`` takes."""
