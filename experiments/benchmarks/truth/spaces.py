"""Flat, round and hyperbolic spaces."""

import itertools

import mpmath
from mpmath import mpf

from experiments.benchmarks.truth import linear_algebra as la
from experiments.benchmarks.truth.contract import Branch, Truth
from experiments.benchmarks.truth.linear_algebra import Vector


class EuclideanTruth(Truth):
    """Flat space."""

    def project(self, x: Vector) -> Vector:
        return x

    def tangent(self, x: Vector, u: Vector) -> Vector:
        return u

    def exp(self, x: Vector, u: Vector) -> Vector:
        return la.add(x, u)

    def log(self, x: Vector, y: Vector, branch: Branch = None) -> Vector:
        return la.sub(y, x)

    def length(self, x: Vector, u: Vector) -> mpf:
        return la.norm(u)

    def directions(self, x: Vector) -> list[Vector]:
        return la.units(len(x))


class FlatTorusTruth(EuclideanTruth):
    """Angles; a branch is a tuple of whole turns to add to ``y - x``."""

    def exp(self, x: Vector, u: Vector) -> Vector:
        return [la.wrapped(a + b) for a, b in zip(x, u, strict=True)]

    def log(self, x: Vector, y: Vector, branch: Branch = None) -> Vector:
        turns = self.branches(x, y, 0.0)[0] if branch is None else branch
        assert isinstance(turns, tuple)
        return [b - a + 2 * mpmath.pi * k for a, b, k in zip(x, y, turns, strict=True)]

    def branches(self, x: Vector, y: Vector, slack: float) -> list[Branch]:
        choices = []
        for a, b in zip(x, y, strict=True):
            near = -int(mpmath.nint((b - a) / (2 * mpmath.pi)))
            way = b - a + 2 * mpmath.pi * near
            other = near - 1 if way > 0 else near + 1
            choices.append([near, other] if mpmath.pi - abs(way) <= slack else [near])
        return list(itertools.product(*choices))

    def difference(self, x: Vector, y: Vector) -> Vector:
        return [la.wrapped(a - b) for a, b in zip(x, y, strict=True)]


class SphereTruth(Truth):
    """The unit sphere; branch 1 is the long way round."""

    def project(self, x: Vector) -> Vector:
        return la.scale(1 / la.norm(x), x)

    def tangent(self, x: Vector, u: Vector) -> Vector:
        return la.axpy(-la.dot(x, u), x, u)

    def exp(self, x: Vector, u: Vector) -> Vector:
        size = la.norm(u)
        return la.axpy(mpmath.cos(size), x, la.scale(mpmath.sinc(size), u))

    def log(self, x: Vector, y: Vector, branch: Branch = None) -> Vector:
        across = self.tangent(x, y)
        sine = la.norm(across)
        angle = mpmath.atan2(sine, la.dot(x, y))
        if not sine:
            # At the antipode any direction will do; nothing is compared with this one.
            axis = self.tangent(x, la.units(len(x))[min(range(len(x)), key=lambda i: abs(x[i]))])
            return la.scale(angle / la.norm(axis), axis)
        return la.scale((angle - 2 * mpmath.pi if branch == 1 else angle) / sine, across)

    def length(self, x: Vector, u: Vector) -> mpf:
        return la.norm(u)

    def directions(self, x: Vector) -> list[Vector]:
        basis: list[Vector] = []
        for unit in sorted(la.units(len(x)), key=lambda e: abs(la.dot(e, x))):
            rest = self.tangent(x, unit)
            for e in basis:
                rest = la.axpy(-la.dot(e, rest), e, rest)
            if len(basis) < len(x) - 1:
                basis.append(la.scale(1 / la.norm(rest), rest))
        return basis

    def branches(self, x: Vector, y: Vector, slack: float) -> list[Branch]:
        return [0, 1] if mpmath.pi - la.norm(self.log(x, y)) <= slack else [0]


class HyperboloidTruth(Truth):
    """The hyperboloid; points and vectors are held by their spatial part, as the manifold's docstring says."""

    def __init__(self, curvature: float) -> None:
        self.c = mpf(curvature)

    def project(self, x: Vector) -> Vector:
        return [mpmath.sqrt(1 / self.c + la.dot(x[1:], x[1:])), *x[1:]]

    def tangent(self, x: Vector, u: Vector) -> Vector:
        return [la.dot(x[1:], u[1:]) / x[0], *u[1:]]

    def exp(self, x: Vector, u: Vector) -> Vector:
        size = mpmath.sqrt(self.c) * self.length(x, u)
        return la.axpy(mpmath.cosh(size), x, la.scale(mpmath.sinh(size) / size if size else mpf(1), u))

    def log(self, x: Vector, y: Vector, branch: Branch = None) -> Vector:
        cosh = -self.c * la.minkowski(x, y)
        across = la.axpy(-cosh, x, y)
        size = mpmath.sqrt(self.c) * self.length(x, across)
        return la.scale(mpmath.asinh(size) / size if size else mpf(1), across)

    def length(self, x: Vector, u: Vector) -> mpf:
        return mpmath.sqrt(max(la.minkowski(u, u), mpf(0)))

    def directions(self, x: Vector) -> list[Vector]:
        return la.units(len(x))[1:]


class PoincareBallTruth(Truth):
    """The ball, by Moebius addition."""

    def __init__(self, curvature: float) -> None:
        self.c = mpf(curvature)

    def project(self, x: Vector) -> Vector:
        return x

    def tangent(self, x: Vector, u: Vector) -> Vector:
        return u

    def exp(self, x: Vector, u: Vector) -> Vector:
        half = mpmath.sqrt(self.c) * self.length(x, u) / 2
        size = mpmath.sqrt(self.c) * la.norm(u)
        return self._sum(x, la.scale(mpmath.tanh(half) / size, u)) if size else x

    def log(self, x: Vector, y: Vector, branch: Branch = None) -> Vector:
        w = self._sum(la.scale(mpf(-1), x), y)
        size = mpmath.sqrt(self.c) * la.norm(w)
        return la.scale(mpmath.atanh(size) / size * (1 - self.c * la.dot(x, x)), w) if size else w

    def length(self, x: Vector, u: Vector) -> mpf:
        return 2 * la.norm(u) / (1 - self.c * la.dot(x, x))

    def directions(self, x: Vector) -> list[Vector]:
        return la.units(len(x))

    def _sum(self, x: Vector, y: Vector) -> Vector:
        x2, y2, xy = self.c * la.dot(x, x), self.c * la.dot(y, y), self.c * la.dot(x, y)
        top = la.axpy(1 + 2 * xy + y2, x, la.scale(1 - x2, y))
        return la.scale(1 / (1 + 2 * xy + x2 * y2), top)
