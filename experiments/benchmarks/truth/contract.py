"""What the exact maps of a manifold are."""

from abc import ABC, abstractmethod
from collections.abc import Hashable

from mpmath import mpf

from experiments.benchmarks.truth import linear_algebra as la
from experiments.benchmarks.truth.linear_algebra import Vector

DIGITS = 80
"""Of which up to 30 cancel, in differences far out in hyperbolic space."""

Branch = Hashable
"""Names one of several geodesics between the same points."""


class Truth(ABC):
    """Exact maps of one manifold; call them inside ``mpmath.workdps(DIGITS)``."""

    @abstractmethod
    def project(self, x: Vector) -> Vector:
        """Return the manifold's ``projx(x)``."""

    @abstractmethod
    def tangent(self, x: Vector, u: Vector) -> Vector:
        """Return the manifold's ``proju(x, u)`` at a projected ``x``."""

    @abstractmethod
    def exp(self, x: Vector, u: Vector) -> Vector:
        """Return the end of the geodesic, for projected arguments."""

    @abstractmethod
    def log(self, x: Vector, y: Vector, branch: Branch = None) -> Vector:
        """Return the velocity of the geodesic of a branch (by default a shortest), for projected arguments."""

    @abstractmethod
    def length(self, x: Vector, u: Vector) -> mpf:
        """Return the Riemannian length of a tangent vector."""

    @abstractmethod
    def directions(self, x: Vector) -> list[Vector]:
        """Return a basis, orthonormal in the dot product, of the ambient changes that ``project`` does not undo."""

    def branches(self, x: Vector, y: Vector, slack: float) -> list[Branch]:
        """Return the geodesics from ``x`` to ``y`` that are shortest to ``slack``, a shortest one first."""
        return [None]

    def difference(self, x: Vector, y: Vector) -> Vector:
        """Return ``x - y`` for points, with neighbours across a seam counted as neighbours."""
        return la.sub(x, y)
