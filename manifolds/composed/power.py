"""Powers: copies of one manifold, as one batched call."""

from collections.abc import Mapping

import torch
from torch import Tensor

from manifolds.arguments import check_instance, integer
from manifolds.base import Manifold
from manifolds.checks import check_shape, name_errors
from manifolds.composed.composite import Derived, product_of_volumes
from manifolds.coordinates import PowerCoordinates
from manifolds.kernel import Kernel, PowerKernel
from manifolds.lie_group import DirectPower, LieGroup
from manifolds.numerics import differentiated, safe_sqrt


class Power(Derived):
    """The product of k copies of one manifold, computed as one batched call.

    Points are ``(k, *m.event_shape)``; the metric is the sum over copies, the volume ``m.volume ** k``. The copies are
    one more batch axis to ``m``: nothing loops over them. ``Power(SE3(), 128)`` is a protein backbone of 128 residues.

    ``volume`` is None where it is infinite, unknown, or outside the range of a double.

    Args:
        m: the manifold.
        k: number of copies, at least 1.
    """

    def __init__(self, m: Manifold, k: int) -> None:
        check_instance("Power", "m", m, Manifold, "Power(Sphere(2), 3)")
        k = integer("Power", "k, the number of copies,", k)
        super().__init__(m, m.dim * k, (k, *m.event_shape))
        self.k = k
        self.volume = product_of_volumes([m.volume] * k)
        self.points_per_class = m.points_per_class**k
        self._coordinates = PowerCoordinates(self, m.coordinates, k)

    # Projections.

    def outside(self, x: Tensor) -> Tensor | None:
        """Return whether any copy lies outside."""
        one = self.m.outside(x)
        return None if one is None else one.any(-1)

    def excludes(self, x: Tensor) -> Tensor | None:
        """Return whether any copy is excluded."""
        one = self.m.excludes(x)
        return None if one is None else one.any(-1)

    def distance_to_border(self, x: Tensor) -> Tensor | None:
        """Return that of the copy nearest to its border."""
        one = self.m.distance_to_border(x)
        return None if one is None else one.amin(-1)

    # Metric.

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return self.m.inner(x, u, v).sum(-1)

    def norm(self, x: Tensor, u: Tensor) -> Tensor:
        return safe_sqrt(self.inner(x, u, u))

    def dist(self, x: Tensor, y: Tensor) -> Tensor:
        if differentiated(x) or differentiated(y):
            return safe_sqrt(self.m.squared_dist(x, y).sum(-1))
        return torch.linalg.vector_norm(self.m.dist(x, y), dim=-1)

    # Geodesics.

    def shoot(self, x: Tensor, u: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.m.shoot(x, u, t[..., None])

    def geodesic(self, x: Tensor, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.m.geodesic(x, y, t[..., None])

    # Bases and volume.

    def tangent_basis(self, x: Tensor) -> Tensor:
        return self._block_diagonal(self.m.tangent_basis(x))

    def divergence_frame(self, x: Tensor) -> tuple[Tensor, Tensor]:
        vectors, covectors = self.m.divergence_frame(x)
        return self._block_diagonal(vectors), self._block_diagonal(covectors)

    def divergence_probes(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        rank = len(self.m.event_shape)
        # The copies are a batch axis to m, the probes the axis after it.
        vectors, covectors = self.m.divergence_probes(x, noise.movedim(-2 - rank, -1 - rank))
        return vectors.movedim(-2 - rank, -1 - rank), covectors.movedim(-2 - rank, -1 - rank)

    def log_volume_derivative(self, x: Tensor, u: Tensor) -> Tensor:
        return self.m.log_volume_derivative(x, u).sum(-1)

    def log_det_expmap(self, x: Tensor, u: Tensor) -> Tensor:
        return self.m.log_det_expmap(x, u).sum(-1)

    def random_uniform(
        self,
        *shape: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        return self.m.random_uniform(*shape, self.k, generator=generator, dtype=dtype, device=device)

    @property
    def lie_group(self) -> LieGroup | None:
        """The direct power of the group of ``m``, if that is one."""
        one = self.m.lie_group
        return None if one is None else DirectPower(one, self.k)

    @property
    def kernel(self) -> Kernel | None:
        """The power of the kernel of ``m``; None where it has none, or one that several centres share."""
        one = self.m.kernel
        return None if one is None or one.centre_count > 1 else PowerKernel(self, one, self.k)

    # Checks, for the borders.

    @property
    def other_forms(self) -> Mapping[tuple[int, ...], str]:
        return {}

    def check_point(self, x: Tensor, tol: float | None = None) -> None:
        """Raise ValueError, giving batch index and copy, unless every copy is a point of ``m``."""
        check_shape(self, "points", x)
        name_errors(f"{self}, whose copy is the last index", self.m.check_point, x, tol=tol)

    def check_tangent(self, x: Tensor, u: Tensor, tol: float | None = None) -> None:
        """Raise ValueError, giving batch index and copy, unless every copy's vector is tangent."""
        check_shape(self, "tangent vectors", u)
        name_errors(f"{self}, whose copy is the last index", self.m.check_tangent, x, u, tol=tol)

    def extra_repr(self) -> str:
        return f"{self.m!r}, {self.k}"

    def _block_diagonal(self, vectors: Tensor) -> Tensor:
        """Return ``(*batch, k d, k, *event)`` from ``(*batch, k, d, *event)``: copy a's vectors, zero on the others."""
        rank = len(self.m.event_shape)
        eye = torch.eye(self.k, dtype=vectors.dtype, device=vectors.device)[:, None, :]
        spread = vectors.unsqueeze(-1 - rank) * self.m.lift(eye)
        return spread.flatten(-3 - rank, -2 - rank)
