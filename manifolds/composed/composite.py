"""What manifolds that are made of others have in common: what they do not change is looked up where it is."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from manifolds.base import Manifold
from manifolds.coordinates import Coordinates
from manifolds.lie_group import LieGroup


class Composite(Manifold):
    """A manifold made of others: its constructor composes their coordinates, as ``_coordinates``."""

    # Composed once, since networks read every point through them.
    _coordinates: Coordinates

    @property
    def coordinates(self) -> Coordinates:
        return self._coordinates

    def embed(self, x: Tensor) -> Tensor:
        return self._coordinates.embed(x)

    @property
    def embed_dim(self) -> int:
        return self._coordinates.embed_dim

    def tangent_from_vector(self, x: Tensor, w: Tensor) -> Tensor:
        return self._coordinates.tangent_from_vector(x, w)

    @property
    def field_dim(self) -> int:
        return self._coordinates.field_dim


class Derived(Composite):
    """A manifold made of one other, ``m``: all that a subclass does not write is that of ``m``, but for a kernel.

    Args:
        m: the manifold.
        dim: intrinsic dimension, by default that of ``m``.
        event_shape: shape of a point, by default that of those of ``m``.
    """

    def __init__(self, m: Manifold, dim: int | None = None, event_shape: Sequence[int] | None = None) -> None:
        super().__init__(dim or m.dim, event_shape or m.event_shape)
        self.m = m
        self.volume, self.injectivity_radius, self.logmap_radius = m.volume, m.injectivity_radius, m.logmap_radius
        self.points_are_classes, self.points_per_class = m.points_are_classes, m.points_per_class
        self.has_kinks = m.has_kinks
        self._coordinates = m.coordinates

    # Projections.

    def projx(self, x: Tensor) -> Tensor:
        return self.m.projx(x)

    def projx_jvp(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return self.m.projx_jvp(x, v)

    def outside(self, x: Tensor) -> Tensor | None:
        return self.m.outside(x)

    def excludes(self, x: Tensor) -> Tensor | None:
        return self.m.excludes(x)

    def distance_to_border(self, x: Tensor) -> Tensor | None:
        return self.m.distance_to_border(x)

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        return self.m.proju(x, u)

    # Metric.

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return self.m.inner(x, u, v)

    @property
    def metric_is_induced(self) -> bool:
        return self.m.metric_is_induced

    def norm(self, x: Tensor, u: Tensor) -> Tensor:
        return self.m.norm(x, u)

    def dist(self, x: Tensor, y: Tensor) -> Tensor:
        return self.m.dist(x, y)

    # Geodesics.

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        return self.m.expmap(x, u)

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        return self.m.logmap(x, y)

    def shoot(self, x: Tensor, u: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.m.shoot(x, u, t)

    def geodesic(self, x: Tensor, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.m.geodesic(x, y, t)

    def expmap_jvp(self, x: Tensor, u: Tensor, dx: Tensor, du: Tensor) -> tuple[Tensor, Tensor]:
        return self.m.expmap_jvp(x, u, dx, du)

    def logmap_jvp(self, x: Tensor, y: Tensor, dx: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
        return self.m.logmap_jvp(x, y, dx, dy)

    def pull_back(self, x: Tensor, u: Tensor, y: Tensor, v: Tensor) -> Tensor:
        return self.m.pull_back(x, u, y, v)

    def transp(self, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        """Carry ``u`` as ``m`` does."""
        return self.m.transp(x, y, u)

    @property
    def transp_is_isometric(self) -> bool:
        return self.m.transp_is_isometric

    @property
    def solver_accuracy(self) -> float:  # type: ignore[override]
        """That of ``m``."""
        return self.m.solver_accuracy

    # Bases and volume.

    def tangent_basis(self, x: Tensor) -> Tensor:
        return self.m.tangent_basis(x)

    def divergence_frame(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.m.divergence_frame(x)

    def divergence_probes(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        return self.m.divergence_probes(x, noise)

    def log_volume_derivative(self, x: Tensor, u: Tensor) -> Tensor:
        return self.m.log_volume_derivative(x, u)

    def log_det_expmap(self, x: Tensor, u: Tensor) -> Tensor:
        return self.m.log_det_expmap(x, u)

    @property
    def lie_group(self) -> LieGroup | None:
        """The group of ``m``."""
        return self.m.lie_group

    def random_uniform(
        self,
        *shape: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        return self.m.random_uniform(*shape, generator=generator, dtype=dtype, device=device)

    # Checks, for the borders.

    @property
    def other_forms(self) -> Mapping[tuple[int, ...], str]:
        return self.m.other_forms

    def check_point(self, x: Tensor, tol: float | None = None) -> None:
        self.m.check_point(x, tol=tol)

    def check_tangent(self, x: Tensor, u: Tensor, tol: float | None = None) -> None:
        self.m.check_tangent(x, u, tol=tol)


def product_of_volumes(volumes: Sequence[float | None]) -> float | None:
    """Return the product, or None where one is None or the product is not a normal double."""
    product = 1.0
    for volume in volumes:
        product *= math.inf if volume is None else volume
    return product if 1e-307 < product < math.inf else None
