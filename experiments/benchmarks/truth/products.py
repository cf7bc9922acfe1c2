"""Products, and the exact maps of every built-in manifold."""

import itertools
import math
from collections.abc import Sequence

import mpmath
from mpmath import mpf

from experiments.benchmarks.truth.contract import Branch, Truth
from experiments.benchmarks.truth.linear_algebra import Vector
from experiments.benchmarks.truth.matrices import LogEuclideanSPDTruth, SE3Truth, SO3Truth, SPDTruth
from experiments.benchmarks.truth.spaces import (
    EuclideanTruth,
    FlatTorusTruth,
    HyperboloidTruth,
    PoincareBallTruth,
    SphereTruth,
)
from manifolds import (
    SE3,
    SO3,
    SPD,
    Euclidean,
    FlatTorus,
    Hyperboloid,
    LogEuclideanSPD,
    Manifold,
    PoincareBall,
    Power,
    Product,
    Sphere,
)


class ProductTruth(Truth):
    """Factors side by side; a branch is a tuple of the factors' branches."""

    def __init__(self, factors: Sequence[Truth], sizes: Sequence[int], weights: Sequence[float]) -> None:
        self.factors, self.sizes, self.weights = factors, sizes, weights

    def project(self, x: Vector) -> Vector:
        return self._joined([f.project(a) for f, a in zip(self.factors, self._split(x), strict=True)])

    def tangent(self, x: Vector, u: Vector) -> Vector:
        return self._joined([f.tangent(a, b) for f, a, b in self._pairs(x, u)])

    def exp(self, x: Vector, u: Vector) -> Vector:
        return self._joined([f.exp(a, b) for f, a, b in self._pairs(x, u)])

    def log(self, x: Vector, y: Vector, branch: Branch = None) -> Vector:
        chosen = (None,) * len(self.factors) if branch is None else branch
        assert isinstance(chosen, tuple)
        return self._joined([f.log(a, b, k) for (f, a, b), k in zip(self._pairs(x, y), chosen, strict=True)])

    def length(self, x: Vector, u: Vector) -> mpf:
        pairs = zip(self._pairs(x, u), self.weights, strict=True)
        return mpmath.sqrt(sum(w * f.length(a, b) ** 2 for (f, a, b), w in pairs))

    def directions(self, x: Vector) -> list[Vector]:
        basis, before = [], 0
        for f, a in zip(self.factors, self._split(x), strict=True):
            after = len(x) - before - len(a)
            basis += [[mpf(0)] * before + e + [mpf(0)] * after for e in f.directions(a)]
            before += len(a)
        return basis

    def branches(self, x: Vector, y: Vector, slack: float) -> list[Branch]:
        return list(itertools.product(*(f.branches(a, b, slack) for f, a, b in self._pairs(x, y))))

    def difference(self, x: Vector, y: Vector) -> Vector:
        return self._joined([f.difference(a, b) for f, a, b in self._pairs(x, y)])

    def _split(self, x: Vector) -> list[Vector]:
        ends = list(itertools.accumulate(self.sizes))
        return [x[end - size : end] for end, size in zip(ends, self.sizes, strict=True)]

    def _pairs(self, x: Vector, y: Vector) -> list[tuple[Truth, Vector, Vector]]:
        return list(zip(self.factors, self._split(x), self._split(y), strict=True))

    def _joined(self, parts: list[Vector]) -> Vector:
        return [a for part in parts for a in part]


def truth_of(manifold: Manifold) -> Truth:
    """Return the exact maps of a built-in manifold."""
    match manifold:
        case Product():
            factors = [f for f in manifold.factors if isinstance(f, Manifold)]
            return ProductTruth([truth_of(f) for f in factors], manifold.sizes, manifold.weights)
        case Power():
            base, k = manifold.m, manifold.k
            return ProductTruth([truth_of(base)] * k, [math.prod(base.event_shape)] * k, [1.0] * k)
        case FlatTorus():
            return FlatTorusTruth()
        case Euclidean():
            return EuclideanTruth()
        case Sphere():
            return SphereTruth()
        case Hyperboloid():
            return HyperboloidTruth(manifold.curvature)
        case PoincareBall():
            return PoincareBallTruth(manifold.curvature)
        case SO3():
            return SO3Truth()
        case SE3():
            return SE3Truth(manifold.length)
        case SPD():
            return SPDTruth(manifold.n)
        case LogEuclideanSPD():
            return LogEuclideanSPDTruth(manifold.n)
    raise ValueError(f"{manifold} has no exact maps here; add a Truth for it")
