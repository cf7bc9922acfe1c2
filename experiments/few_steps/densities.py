"""Densities from which one can draw and whose log-density is exact: what maps are trained on and judged by."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from manifolds import (
    SE3,
    SO3,
    SPD,
    Euclidean,
    FlatTorus,
    Hyperboloid,
    Manifold,
    Octahedral,
    Product,
    Quotient,
    RightMultiplication,
    Sphere,
)
from rfm.sources import KernelMixture, Source, WrappedNormal, default_source

_SEED = 11


class Mixture(Source):
    """A mixture of sources on one manifold.

    Args:
        components: the sources.
        weights: relative weights, one for each.
    """

    def __init__(self, components: Sequence[Source], weights: Tensor) -> None:
        super().__init__(components[0].manifold)
        self.components = nn.ModuleList(components)
        self.weights = (weights / weights.sum()).double()

    def sample(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        count = math.prod(shape)
        chosen = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        points = torch.empty(count, *self.manifold.event_shape, dtype=dtype or torch.float32)
        for i, component in enumerate(self._sources):
            rows = (chosen == i).nonzero()[:, 0]
            points[rows] = component.sample((len(rows),), generator=generator, dtype=points.dtype)
        return points.reshape(*shape, *self.manifold.event_shape).to(device)

    def log_prob(self, x: Tensor) -> Tensor:
        terms = [w.log() + c.log_prob(x.double()) for w, c in zip(self.weights, self._sources, strict=True)]
        return torch.logsumexp(torch.stack(terms), dim=0)

    @property
    def _sources(self) -> list[Source]:
        return [part for part in self.components if isinstance(part, Source)]


def kernels(manifold: Manifold, centres: Tensor, concentrations: Sequence[float]) -> Mixture:
    """Return a mixture of kernels about points, of concentrations of their own."""
    assert manifold.kernel is not None
    many = centres.repeat(20, *[1] * (centres.ndim - 1))
    about = manifold.kernel.sample(many, torch.ones(len(many)), _drawn())
    background = default_source(manifold, about)
    alone = torch.tensor([1.0, 0.0])
    parts = [
        KernelMixture(manifold, centre[None], torch.tensor([k]), alone, background)
        for centre, k in zip(centres, concentrations, strict=True)
    ]
    return Mixture(parts, _weights(len(parts)))


def wrapped(manifold: Manifold, centres: Tensor, scales: Sequence[float]) -> Mixture:
    """Return a mixture of wrapped normals about points."""
    parts = [WrappedNormal(manifold, centre, scale) for centre, scale in zip(centres, scales, strict=True)]
    return Mixture(parts, _weights(len(parts)))


def _weights(count: int) -> Tensor:
    return torch.linspace(1.0, 2.0, count, dtype=torch.float64)


def _drawn() -> torch.Generator:
    return torch.Generator().manual_seed(_SEED)


def sphere() -> Mixture:
    """Six kernels on the sphere."""
    centres = Sphere(2).random_uniform(6, generator=_drawn(), dtype=torch.float64)
    return kernels(Sphere(2), centres, (8.0, 12.0, 16.0, 24.0, 32.0, 48.0))


def flat_torus(n: int) -> Mixture:
    """Four kernels on a torus."""
    centres = FlatTorus(n).random_uniform(4, generator=_drawn(), dtype=torch.float64)
    return kernels(FlatTorus(n), centres, (3.0, 4.0, 6.0, 8.0))


def rotations() -> Mixture:
    """Four kernels on the rotations."""
    centres = SO3().random_uniform(4, generator=_drawn(), dtype=torch.float64)
    return kernels(SO3(), centres, (4.0, 6.0, 8.0, 12.0))


def hyperbolic_plane() -> Mixture:
    """Four wrapped normals in a ring on the hyperbolic plane."""
    m = Hyperboloid(2)
    origin = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    angle = torch.linspace(0, 2 * math.pi, 5, dtype=torch.float64)[:-1, None]
    away = torch.cat([torch.zeros_like(angle), 1.5 * angle.cos(), 1.5 * angle.sin()], dim=-1)
    return wrapped(m, m.expmap(origin, away), (0.3, 0.4, 0.5, 0.6))


def definite_matrices() -> Mixture:
    """Three wrapped normals on the positive definite matrices."""
    m, eye = SPD(3), torch.eye(3, dtype=torch.float64)
    draw = 0.6 * torch.randn(3, 3, 3, generator=_drawn(), dtype=torch.float64)
    return wrapped(m, m.expmap(eye, (draw + draw.mT) / 2), (0.25, 0.35, 0.45))


def rigid_motions() -> Mixture:
    """Four kernels on the poses."""
    m, generator = SE3(), _drawn()
    centres = torch.eye(4, dtype=torch.float64).repeat(4, 1, 1)
    centres[:, :3, :3] = SO3().random_uniform(4, generator=generator, dtype=torch.float64)
    centres[:, :3, 3] = 1.2 * torch.randn(4, 3, generator=generator, dtype=torch.float64)
    return kernels(m, centres, (3.0, 4.0, 6.0, 8.0))


def product() -> Mixture:
    """Four kernels on a product of a sphere, an angle and a number."""
    m, generator = Product(Sphere(2), FlatTorus(1), Euclidean(1)), _drawn()
    centres = m.join(
        Sphere(2).random_uniform(4, generator=generator, dtype=torch.float64),
        FlatTorus(1).random_uniform(4, generator=generator, dtype=torch.float64),
        torch.randn(4, 1, generator=generator, dtype=torch.float64),
    )
    return kernels(m, centres, (6.0, 8.0, 12.0, 16.0))


def cubic_orientations() -> Mixture:
    """Three kernels on the orientations of a cubic crystal."""
    m = Quotient(SO3(), RightMultiplication(Octahedral()))
    centres = m.random_uniform(3, generator=_drawn(), dtype=torch.float64)
    return kernels(m, centres, (10.0, 15.0, 20.0))


DENSITIES: dict[str, Callable[[], Mixture]] = {
    "S2": sphere,
    "T7": lambda: flat_torus(7),
    "SO3": rotations,
    "H2": hyperbolic_plane,
    "SPD3": definite_matrices,
    "SE3": rigid_motions,
    "product": product,
    "SO3-cubic": cubic_orientations,
    "T2": lambda: flat_torus(2),
}
"""By name; the last one is for the likelihoods' goal alone."""

TITLES = {
    "S2": "sphere S^2",
    "T7": "torus T^7",
    "SO3": "rotations SO(3)",
    "H2": "hyperbolic plane H^2",
    "SPD3": "SPD(3)",
    "SE3": "poses SE(3)",
    "product": "S^2 x T^1 x R",
    "SO3-cubic": "SO(3)/cubic",
    "T2": "torus T^2",
}


def planted(density: Mixture, divergence: float, points: Tensor) -> Mixture:
    """Return the mixture with other weights whose divergence from the density is as given, in nats.

    The weight of the heaviest component is lowered until ``KL(density, other)``, the mean over draws from the density,
    is reached.

    Args:
        density: a mixture.
        divergence: what the mean is to be.
        points: draws from the density.
    """
    parts = torch.stack([c.log_prob(points.double()) for c in density._sources])
    log_p = torch.logsumexp(parts + density.weights.log()[:, None], dim=0)
    heaviest = int(density.weights.argmax())
    low, high = 0.0, 1.0
    for _ in range(50):
        share = (low + high) / 2
        weights = density.weights.clone()
        weights[heaviest] *= share
        weights = weights / weights.sum()
        found = float((log_p - torch.logsumexp(parts + weights.log()[:, None], dim=0)).mean())
        low, high = (share, high) if found > divergence else (low, share)
    return Mixture(density._sources, weights)
