"""A manifold in other units of length."""

from torch import Tensor

from manifolds.arguments import check_instance, positive
from manifolds.base import Manifold
from manifolds.composed.composite import Derived, product_of_volumes
from manifolds.kernel import Kernel, ScaledKernel


class Scaled(Derived):
    """A manifold with all lengths multiplied by a factor: ``Scaled(Sphere(2), 6371.0)`` is the earth in kilometres.

    Points, tangent vectors, geodesics and coordinates for networks are those of ``m``; a vector of length 1 there has
    length ``factor`` here. The metric is multiplied by ``factor^2``, the volume by ``factor^dim``, sectional curvature
    divided by ``factor^2``. A sphere of radius r has unit vectors for points: multiply them by r to see it in space.

    Args:
        m: the manifold.
        factor: what lengths are multiplied by, positive.
    """

    def __init__(self, m: Manifold, factor: float) -> None:
        check_instance("Scaled", "m", m, Manifold, "Scaled(Sphere(2), 6371.0)")
        super().__init__(m)
        self.factor = positive("Scaled", "factor", factor, "it multiplies lengths")
        self.volume = product_of_volumes([m.volume, *[self.factor] * m.dim])
        self.logmap_radius = self.factor * m.logmap_radius
        self.injectivity_radius = m.injectivity_radius and self.factor * m.injectivity_radius

    # Projections.

    def distance_to_border(self, x: Tensor) -> Tensor | None:
        one = self.m.distance_to_border(x)
        return None if one is None else self.factor * one

    # Metric.

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return self._scale(x) ** 2 * self.m.inner(x, u, v)

    @property
    def metric_is_induced(self) -> bool:
        """Whether that of ``m`` is, and the factor is 1."""
        return self.factor == 1 and self.m.metric_is_induced

    def norm(self, x: Tensor, u: Tensor) -> Tensor:
        return self._scale(x) * self.m.norm(x, u)

    def dist(self, x: Tensor, y: Tensor) -> Tensor:
        return self._scale(x) * self.m.dist(x, y)

    def squared_dist(self, x: Tensor, y: Tensor) -> Tensor:
        return self._scale(x) ** 2 * self.m.squared_dist(x, y)

    # Bases and volume.

    def tangent_basis(self, x: Tensor) -> Tensor:
        return self.m.tangent_basis(x) / self._scale(x)

    @property
    def kernel(self) -> Kernel | None:
        """That of ``m``, on its embedding; None where it has none."""
        one = self.m.kernel
        return None if one is None else ScaledKernel(self, one, self.factor, self.dim)

    def extra_repr(self) -> str:
        return f"{self.m!r}, {self.factor:g}"

    def _scale(self, x: Tensor) -> Tensor | float:
        """Return the factor, in the dtype and on the device of ``x`` where it is a tensor."""
        return self.factor
