"""What a flow is compared with: densities that are fitted to the same training and validation points."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

from manifolds import Manifold, Mesh
from rfm.baselines.normalizing_flow import CIRCULAR, FLAT, NormalizingFlow
from rfm.sources import KernelMixture, MeshDensity, Source


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

HEAT_KERNEL = Baseline("heat kernel", functools.partial(MeshDensity.fit, corrected=False))
"""On a mesh: the points' masses after heat has flowed for a time that validation points choose."""


@functools.singledispatch
def kernels_of(manifold: Manifold) -> tuple[Baseline, ...]:
    """Return the kernel densities that every flow on a manifold is compared with, from the weakest; none without one.

    A generic function: give your own manifold some with ``kernels_of.register(MyManifold)``.
    """
    return tuple(KERNELS.values()) if manifold.kernel is not None else ()


@kernels_of.register
def _(manifold: Mesh) -> tuple[Baseline, ...]:
    return (HEAT_KERNEL,)


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
