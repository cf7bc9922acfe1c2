"""The maps of each manifold in arithmetic with 80 digits: the reference for computed values, 50 of them at least.

Points and vectors are flat lists of mpmath numbers, in the order of the flattened tensors. Every map first takes its
arguments to the manifold (`Truth.project`, `Truth.tangent`), because rounding moves them off it; so it is defined, and
may be differenced, in a neighbourhood of its arguments. Nothing here is shared with the code under test, formulas
included: they are the textbook ones, whose cancellations so many digits can afford.
"""

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache

import mpmath
from mpmath import mpf

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

DIGITS = 80
"""Of which up to 30 cancel, in differences far out in hyperbolic space."""

Vector = list[mpf]
Matrix = list[Vector]
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
        return _sub(x, y)


class EuclideanTruth(Truth):
    """Flat space."""

    def project(self, x: Vector) -> Vector:
        return x

    def tangent(self, x: Vector, u: Vector) -> Vector:
        return u

    def exp(self, x: Vector, u: Vector) -> Vector:
        return _add(x, u)

    def log(self, x: Vector, y: Vector, branch: Branch = None) -> Vector:
        return _sub(y, x)

    def length(self, x: Vector, u: Vector) -> mpf:
        return norm(u)

    def directions(self, x: Vector) -> list[Vector]:
        return _units(len(x))


class FlatTorusTruth(EuclideanTruth):
    """Angles; a branch is a tuple of whole turns to add to ``y - x``."""

    def exp(self, x: Vector, u: Vector) -> Vector:
        return [_wrapped(a + b) for a, b in zip(x, u, strict=True)]

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
        return [_wrapped(a - b) for a, b in zip(x, y, strict=True)]


class SphereTruth(Truth):
    """The unit sphere; branch 1 is the long way round."""

    def project(self, x: Vector) -> Vector:
        return _scale(1 / norm(x), x)

    def tangent(self, x: Vector, u: Vector) -> Vector:
        return _axpy(-_dot(x, u), x, u)

    def exp(self, x: Vector, u: Vector) -> Vector:
        size = norm(u)
        return _axpy(mpmath.cos(size), x, _scale(mpmath.sinc(size), u))

    def log(self, x: Vector, y: Vector, branch: Branch = None) -> Vector:
        across = self.tangent(x, y)
        sine = norm(across)
        angle = mpmath.atan2(sine, _dot(x, y))
        if not sine:
            # At the antipode any direction will do; nothing is compared with this one.
            axis = self.tangent(x, _units(len(x))[min(range(len(x)), key=lambda i: abs(x[i]))])
            return _scale(angle / norm(axis), axis)
        return _scale((angle - 2 * mpmath.pi if branch == 1 else angle) / sine, across)

    def length(self, x: Vector, u: Vector) -> mpf:
        return norm(u)

    def directions(self, x: Vector) -> list[Vector]:
        basis: list[Vector] = []
        for unit in sorted(_units(len(x)), key=lambda e: abs(_dot(e, x))):
            rest = self.tangent(x, unit)
            for e in basis:
                rest = _axpy(-_dot(e, rest), e, rest)
            if len(basis) < len(x) - 1:
                basis.append(_scale(1 / norm(rest), rest))
        return basis

    def branches(self, x: Vector, y: Vector, slack: float) -> list[Branch]:
        return [0, 1] if mpmath.pi - norm(self.log(x, y)) <= slack else [0]


class HyperboloidTruth(Truth):
    """The hyperboloid; points and vectors are held by their spatial part, as the manifold's docstring says."""

    def __init__(self, curvature: float) -> None:
        self.c = mpf(curvature)

    def project(self, x: Vector) -> Vector:
        return [mpmath.sqrt(1 / self.c + _dot(x[1:], x[1:])), *x[1:]]

    def tangent(self, x: Vector, u: Vector) -> Vector:
        return [_dot(x[1:], u[1:]) / x[0], *u[1:]]

    def exp(self, x: Vector, u: Vector) -> Vector:
        size = mpmath.sqrt(self.c) * self.length(x, u)
        return _axpy(mpmath.cosh(size), x, _scale(mpmath.sinh(size) / size if size else mpf(1), u))

    def log(self, x: Vector, y: Vector, branch: Branch = None) -> Vector:
        cosh = -self.c * _minkowski(x, y)
        across = _axpy(-cosh, x, y)
        size = mpmath.sqrt(self.c) * self.length(x, across)
        return _scale(mpmath.asinh(size) / size if size else mpf(1), across)

    def length(self, x: Vector, u: Vector) -> mpf:
        return mpmath.sqrt(max(_minkowski(u, u), mpf(0)))

    def directions(self, x: Vector) -> list[Vector]:
        return _units(len(x))[1:]


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
        size = mpmath.sqrt(self.c) * norm(u)
        return self._sum(x, _scale(mpmath.tanh(half) / size, u)) if size else x

    def log(self, x: Vector, y: Vector, branch: Branch = None) -> Vector:
        w = self._sum(_scale(mpf(-1), x), y)
        size = mpmath.sqrt(self.c) * norm(w)
        return _scale(mpmath.atanh(size) / size * (1 - self.c * _dot(x, x)), w) if size else w

    def length(self, x: Vector, u: Vector) -> mpf:
        return 2 * norm(u) / (1 - self.c * _dot(x, x))

    def directions(self, x: Vector) -> list[Vector]:
        return _units(len(x))

    def _sum(self, x: Vector, y: Vector) -> Vector:
        x2, y2, xy = self.c * _dot(x, x), self.c * _dot(y, y), self.c * _dot(x, y)
        top = _axpy(1 + 2 * xy + y2, x, _scale(1 - x2, y))
        return _scale(1 / (1 + 2 * xy + x2 * y2), top)


class SO3Truth(Truth):
    """Rotations; branch 1 is the long way round."""

    def project(self, x: Vector) -> Vector:
        return list(_polar(tuple(x)))

    def tangent(self, x: Vector, u: Vector) -> Vector:
        return self._turned(x, self.body(x, u))

    def exp(self, x: Vector, u: Vector) -> Vector:
        return _flat(_product(_matrix(x, 3), rotation(self.body(x, u))))

    def log(self, x: Vector, y: Vector, branch: Branch = None) -> Vector:
        return self._turned(x, self.rotvec(x, y, branch))

    def length(self, x: Vector, u: Vector) -> mpf:
        return norm(u) / mpmath.sqrt(2)

    def directions(self, x: Vector) -> list[Vector]:
        return [self._turned(x, _scale(1 / mpmath.sqrt(2), e)) for e in _units(3)]

    def branches(self, x: Vector, y: Vector, slack: float) -> list[Branch]:
        return [0, 1] if mpmath.pi - norm(self.rotvec(x, y, 0)) <= slack else [0]

    def body(self, x: Vector, u: Vector) -> Vector:
        """Return the angular velocity in the body's frame."""
        m = _product(_transpose(_matrix(x, 3)), _matrix(u, 3))
        return _scale(mpf(1) / 2, _skew(m))

    def rotvec(self, x: Vector, y: Vector, branch: Branch) -> Vector:
        """Return the rotation vector of ``x' y``."""
        m = _product(_transpose(_matrix(x, 3)), _matrix(y, 3))
        w = _scale(mpf(1) / 2, _skew(m))
        sine = norm(w)
        angle = mpmath.atan2(sine, (m[0][0] + m[1][1] + m[2][2] - 1) / 2)
        if not sine:
            return w
        return _scale((angle - 2 * mpmath.pi if branch == 1 else angle) / sine, w)

    def _turned(self, x: Vector, omega: Vector) -> Vector:
        return _flat(_product(_matrix(x, 3), _hat(omega)))


class SE3Truth(Truth):
    """Poses with the product metric; branch 1 turns the long way round."""

    def __init__(self, length: float) -> None:
        self.unit = mpf(length)
        self.rotations = SO3Truth()

    def project(self, x: Vector) -> Vector:
        turn, way = _split_pose(x)
        return _pose(self.rotations.project(turn), way, 1)

    def tangent(self, x: Vector, u: Vector) -> Vector:
        turn, way = _split_pose(u)
        return _pose(self.rotations.tangent(_split_pose(x)[0], turn), way, 0)

    def exp(self, x: Vector, u: Vector) -> Vector:
        (r, p), (turn, way) = _split_pose(x), _split_pose(u)
        return _pose(self.rotations.exp(r, turn), _add(p, way), 1)

    def log(self, x: Vector, y: Vector, branch: Branch = None) -> Vector:
        (r, p), (s, q) = _split_pose(x), _split_pose(y)
        return _pose(self.rotations.log(r, s, branch), _sub(q, p), 0)

    def length(self, x: Vector, u: Vector) -> mpf:
        turn, way = _split_pose(u)
        return mpmath.hypot(self.rotations.length([], turn), norm(way) / self.unit)

    def directions(self, x: Vector) -> list[Vector]:
        zero = [mpf(0)] * 9
        turns = [_pose(e, zero[:3], 0) for e in self.rotations.directions(_split_pose(x)[0])]
        return turns + [_pose(zero, e, 0) for e in _units(3)]

    def branches(self, x: Vector, y: Vector, slack: float) -> list[Branch]:
        return self.rotations.branches(_split_pose(x)[0], _split_pose(y)[0], slack)


class ScrewTruth(SE3Truth):
    """The group exponential of SE(3) and its inverse, carried to every pose from the left."""

    def exp(self, x: Vector, u: Vector) -> Vector:
        (r, p), (turn, way) = _split_pose(x), _split_pose(u)
        omega = self._world(r, self.rotations.body(r, turn))
        return _pose(self.rotations.exp(r, turn), _add(p, _applied(_screw_matrix(omega), way)), 1)

    def log(self, x: Vector, y: Vector, branch: Branch = None) -> Vector:
        (r, p), (s, q) = _split_pose(x), _split_pose(y)
        omega = self._world(r, self.rotations.rotvec(r, s, branch))
        way = mpmath.lu_solve(mpmath.matrix(_screw_matrix(omega)), mpmath.matrix(_sub(q, p)))
        return _pose(self.rotations.log(r, s, branch), list(way), 0)

    def _world(self, r: Vector, omega: Vector) -> Vector:
        return _applied(_matrix(r, 3), omega)


class _MatrixTruth(Truth):
    """What the two metrics on positive definite matrices share."""

    def __init__(self, n: int) -> None:
        self.n = n

    def project(self, x: Vector) -> Vector:
        n = self.n
        return [(x[i * n + j] + x[j * n + i]) / 2 for i in range(n) for j in range(n)]

    def tangent(self, x: Vector, u: Vector) -> Vector:
        return self.project(u)

    def directions(self, x: Vector) -> list[Vector]:
        n, basis = self.n, []
        for i in range(n):
            for j in range(i, n):
                e = [mpf(0)] * (n * n)
                e[i * n + j] = e[j * n + i] = mpf(1) if i == j else 1 / mpmath.sqrt(2)
                basis.append(e)
        return basis

    def _function(self, a: Vector, f: Callable[[mpf], mpf]) -> Vector:
        d, q = self._eigen(a)
        return self._rebuilt(q, [[f(d[i]) if i == j else mpf(0) for j in range(self.n)] for i in range(self.n)])

    def _eigen(self, a: Vector) -> tuple[Vector, Matrix]:
        return _eigen(tuple(a), self.n)

    def _rebuilt(self, q: Matrix, core: Matrix) -> Vector:
        return _flat(_product(_product(q, core), _transpose(q)))


class SPDTruth(_MatrixTruth):
    """The affine-invariant metric, by the symmetric square root."""

    def exp(self, x: Vector, u: Vector) -> Vector:
        root, inverse = self._roots(x)
        return self._between(root, self._function(self._between(inverse, u), mpmath.exp))

    def log(self, x: Vector, y: Vector, branch: Branch = None) -> Vector:
        root, inverse = self._roots(x)
        return self._between(root, self._function(self._between(inverse, y), mpmath.log))

    def length(self, x: Vector, u: Vector) -> mpf:
        return norm(self._between(self._roots(x)[1], u))

    def _roots(self, x: Vector) -> tuple[Matrix, Matrix]:
        d, q = self._eigen(x)
        pair = []
        for power in (mpf(1) / 2, -mpf(1) / 2):
            core = [[d[i] ** power if i == j else mpf(0) for j in range(self.n)] for i in range(self.n)]
            pair.append(_matrix(self._rebuilt(q, core), self.n))
        return pair[0], pair[1]

    def _between(self, a: Matrix, u: Vector) -> Vector:
        return self.project(_flat(_product(_product(a, _matrix(u, self.n)), a)))


class LogEuclideanSPDTruth(_MatrixTruth):
    """The log-Euclidean metric, by the derivatives of Daleckii and Krein."""

    def exp(self, x: Vector, u: Vector) -> Vector:
        return self._function(_add(self._function(x, mpmath.log), self._dlog(x, u)), mpmath.exp)

    def log(self, x: Vector, y: Vector, branch: Branch = None) -> Vector:
        d, q = self._eigen(x)
        logs = [mpmath.log(a) for a in d]
        start = self._rebuilt(q, [[logs[i] if i == j else mpf(0) for j in range(self.n)] for i in range(self.n)])
        way = _sub(self._function(y, mpmath.log), start)
        return self._derivative(q, way, lambda i, j: 1 / _log_quotient(d[i], d[j]))

    def length(self, x: Vector, u: Vector) -> mpf:
        return norm(self._dlog(x, u))

    def _dlog(self, x: Vector, u: Vector) -> Vector:
        d, q = self._eigen(x)
        return self._derivative(q, u, lambda i, j: _log_quotient(d[i], d[j]))

    def _derivative(self, q: Matrix, u: Vector, quotient: Callable[[int, int], mpf]) -> Vector:
        inner = _product(_product(_transpose(q), _matrix(u, self.n)), q)
        return self._rebuilt(q, [[inner[i][j] * quotient(i, j) for j in range(self.n)] for i in range(self.n)])


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


# Vectors and matrices.


def norm(x: Vector) -> mpf:
    """Return the Euclidean norm."""
    return mpmath.sqrt(_dot(x, x))


def rotation(omega: Vector) -> Matrix:
    """Return the matrix exponential of ``hat(omega)``."""
    a2 = _dot(omega, omega)
    a = mpmath.sqrt(a2)
    once = _hat(omega)
    twice = _product(once, once)
    half = mpmath.sinc(a / 2)
    s, c = mpmath.sinc(a), half * half / 2
    return [[(i == j) + s * once[i][j] + c * twice[i][j] for j in range(3)] for i in range(3)]


@lru_cache(maxsize=64)
def _polar(x: tuple[mpf, ...]) -> tuple[mpf, ...]:
    """Return the rotation nearest to a matrix that is one to seven digits."""
    m = _matrix(list(x), 3)
    for _ in range(5):
        # Newton and Schulz: each step doubles the digits.
        gram = _product(_transpose(m), m)
        step = [[(3 if i == j else 0) - gram[i][j] for j in range(3)] for i in range(3)]
        m = [_scale(mpf(1) / 2, row) for row in _product(m, step)]
        if max(abs(gram[i][j] - (i == j)) for i in range(3) for j in range(3)) < mpf(10) ** -26:
            break
    return tuple(_flat(m))


@lru_cache(maxsize=64)
def _eigen(a: tuple[mpf, ...], n: int) -> tuple[Vector, Matrix]:
    d, q = mpmath.eigsy(mpmath.matrix(_matrix(list(a), n)))
    return list(d), [[q[i, j] for j in range(n)] for i in range(n)]


def _screw_matrix(omega: Vector) -> Matrix:
    """Return the integral over s in [0, 1] of ``rotation(s omega)``."""
    a2 = _dot(omega, omega)
    a = mpmath.sqrt(a2)
    once = _hat(omega)
    twice = _product(once, once)
    half = mpmath.sinc(a / 2)
    # The difference a - sin(a) keeps 20 digits down to a = 1e-15; below, the series is exact.
    cubic = (1 - mpmath.sinc(a)) / a2 if a > mpf(10) ** -12 else mpf(1) / 6 - a2 / 120
    return [[(i == j) + half * half / 2 * once[i][j] + cubic * twice[i][j] for j in range(3)] for i in range(3)]


def _log_quotient(a: mpf, b: mpf) -> mpf:
    """Return the divided difference of the logarithm, by its series where the arguments nearly agree."""
    r = (a - b) / (a + b)
    if abs(r) < mpf(10) ** -8:
        return 2 / (a + b) * (1 + r**2 / 3 + r**4 / 5 + r**6 / 7)
    return 2 * mpmath.atanh(r) / (a - b)


def _wrapped(a: mpf) -> mpf:
    return a - 2 * mpmath.pi * mpmath.floor((a + mpmath.pi) / (2 * mpmath.pi))


def _dot(x: Vector, y: Vector) -> mpf:
    return mpmath.fdot(x, y)


def _minkowski(x: Vector, y: Vector) -> mpf:
    return _dot(x[1:], y[1:]) - x[0] * y[0]


def _scale(s: mpf, x: Vector) -> Vector:
    return [s * a for a in x]


def _axpy(s: mpf, x: Vector, y: Vector) -> Vector:
    return [s * a + b for a, b in zip(x, y, strict=True)]


def _add(x: Vector, y: Vector) -> Vector:
    return [a + b for a, b in zip(x, y, strict=True)]


def _sub(x: Vector, y: Vector) -> Vector:
    return [a - b for a, b in zip(x, y, strict=True)]


def _units(n: int) -> list[Vector]:
    return [[mpf(i == j) for j in range(n)] for i in range(n)]


def _matrix(x: Vector, n: int) -> Matrix:
    return [x[i * n : (i + 1) * n] for i in range(n)]


def _flat(m: Matrix) -> Vector:
    return [a for row in m for a in row]


def _transpose(m: Matrix) -> Matrix:
    return [list(column) for column in zip(*m, strict=True)]


def _product(a: Matrix, b: Matrix) -> Matrix:
    columns = _transpose(b)
    return [[mpmath.fdot(row, column) for column in columns] for row in a]


def _applied(a: Matrix, x: Vector) -> Vector:
    return [mpmath.fdot(row, x) for row in a]


def _hat(w: Vector) -> Matrix:
    zero = mpf(0)
    return [[zero, -w[2], w[1]], [w[2], zero, -w[0]], [-w[1], w[0], zero]]


def _skew(m: Matrix) -> Vector:
    return [m[2][1] - m[1][2], m[0][2] - m[2][0], m[1][0] - m[0][1]]


def _split_pose(x: Vector) -> tuple[Vector, Vector]:
    return [x[4 * i + j] for i in range(3) for j in range(3)], [x[3], x[7], x[11]]


def _pose(turn: Vector, way: Vector, corner: int) -> Vector:
    rows = [[*turn[3 * i : 3 * i + 3], way[i]] for i in range(3)]
    return [*_flat(rows), mpf(0), mpf(0), mpf(0), mpf(corner)]
