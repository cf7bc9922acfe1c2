"""Rotations, poses, and positive definite matrices."""

from collections.abc import Callable
from functools import lru_cache

import mpmath
from mpmath import mpf

from experiments.benchmarks.truth import linear_algebra as la
from experiments.benchmarks.truth.contract import Branch, Truth
from experiments.benchmarks.truth.linear_algebra import Matrix, Vector


class SO3Truth(Truth):
    """Rotations; branch 1 is the long way round."""

    def project(self, x: Vector) -> Vector:
        return list(_polar(tuple(x)))

    def tangent(self, x: Vector, u: Vector) -> Vector:
        return self._turned(x, self.body(x, u))

    def exp(self, x: Vector, u: Vector) -> Vector:
        return la.flat(la.product(la.matrix(x, 3), rotation(self.body(x, u))))

    def log(self, x: Vector, y: Vector, branch: Branch = None) -> Vector:
        return self._turned(x, self.rotvec(x, y, branch))

    def length(self, x: Vector, u: Vector) -> mpf:
        return la.norm(u) / mpmath.sqrt(2)

    def directions(self, x: Vector) -> list[Vector]:
        return [self._turned(x, la.scale(1 / mpmath.sqrt(2), e)) for e in la.units(3)]

    def branches(self, x: Vector, y: Vector, slack: float) -> list[Branch]:
        return [0, 1] if mpmath.pi - la.norm(self.rotvec(x, y, 0)) <= slack else [0]

    def body(self, x: Vector, u: Vector) -> Vector:
        """Return the angular velocity in the body's frame."""
        m = la.product(la.transpose(la.matrix(x, 3)), la.matrix(u, 3))
        return la.scale(mpf(1) / 2, _skew(m))

    def rotvec(self, x: Vector, y: Vector, branch: Branch) -> Vector:
        """Return the rotation vector of ``x' y``."""
        m = la.product(la.transpose(la.matrix(x, 3)), la.matrix(y, 3))
        w = la.scale(mpf(1) / 2, _skew(m))
        sine = la.norm(w)
        angle = mpmath.atan2(sine, (m[0][0] + m[1][1] + m[2][2] - 1) / 2)
        if not sine:
            return w
        return la.scale((angle - 2 * mpmath.pi if branch == 1 else angle) / sine, w)

    def _turned(self, x: Vector, omega: Vector) -> Vector:
        return la.flat(la.product(la.matrix(x, 3), _hat(omega)))


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
        return _pose(self.rotations.exp(r, turn), la.add(p, way), 1)

    def log(self, x: Vector, y: Vector, branch: Branch = None) -> Vector:
        (r, p), (s, q) = _split_pose(x), _split_pose(y)
        return _pose(self.rotations.log(r, s, branch), la.sub(q, p), 0)

    def length(self, x: Vector, u: Vector) -> mpf:
        turn, way = _split_pose(u)
        return mpmath.hypot(self.rotations.length([], turn), la.norm(way) / self.unit)

    def directions(self, x: Vector) -> list[Vector]:
        zero = [mpf(0)] * 9
        turns = [_pose(e, zero[:3], 0) for e in self.rotations.directions(_split_pose(x)[0])]
        return turns + [_pose(zero, e, 0) for e in la.units(3)]

    def branches(self, x: Vector, y: Vector, slack: float) -> list[Branch]:
        return self.rotations.branches(_split_pose(x)[0], _split_pose(y)[0], slack)


class ScrewTruth(SE3Truth):
    """The group exponential of SE(3) and its inverse, carried to every pose from the left."""

    def exp(self, x: Vector, u: Vector) -> Vector:
        (r, p), (turn, way) = _split_pose(x), _split_pose(u)
        omega = self._world(r, self.rotations.body(r, turn))
        return _pose(self.rotations.exp(r, turn), la.add(p, la.applied(_screw_matrix(omega), way)), 1)

    def log(self, x: Vector, y: Vector, branch: Branch = None) -> Vector:
        (r, p), (s, q) = _split_pose(x), _split_pose(y)
        omega = self._world(r, self.rotations.rotvec(r, s, branch))
        way = mpmath.lu_solve(mpmath.matrix(_screw_matrix(omega)), mpmath.matrix(la.sub(q, p)))
        return _pose(self.rotations.log(r, s, branch), list(way), 0)

    def _world(self, r: Vector, omega: Vector) -> Vector:
        return la.applied(la.matrix(r, 3), omega)


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
        return la.flat(la.product(la.product(q, core), la.transpose(q)))


class SPDTruth(_MatrixTruth):
    """The affine-invariant metric, by the symmetric square root."""

    def exp(self, x: Vector, u: Vector) -> Vector:
        root, inverse = self._roots(x)
        return self._between(root, self._function(self._between(inverse, u), mpmath.exp))

    def log(self, x: Vector, y: Vector, branch: Branch = None) -> Vector:
        root, inverse = self._roots(x)
        return self._between(root, self._function(self._between(inverse, y), mpmath.log))

    def length(self, x: Vector, u: Vector) -> mpf:
        return la.norm(self._between(self._roots(x)[1], u))

    def _roots(self, x: Vector) -> tuple[Matrix, Matrix]:
        d, q = self._eigen(x)
        pair = []
        for power in (mpf(1) / 2, -mpf(1) / 2):
            core = [[d[i] ** power if i == j else mpf(0) for j in range(self.n)] for i in range(self.n)]
            pair.append(la.matrix(self._rebuilt(q, core), self.n))
        return pair[0], pair[1]

    def _between(self, a: Matrix, u: Vector) -> Vector:
        return self.project(la.flat(la.product(la.product(a, la.matrix(u, self.n)), a)))


class LogEuclideanSPDTruth(_MatrixTruth):
    """The log-Euclidean metric, by the derivatives of Daleckii and Krein."""

    def exp(self, x: Vector, u: Vector) -> Vector:
        return self._function(la.add(self._function(x, mpmath.log), self._dlog(x, u)), mpmath.exp)

    def log(self, x: Vector, y: Vector, branch: Branch = None) -> Vector:
        d, q = self._eigen(x)
        logs = [mpmath.log(a) for a in d]
        start = self._rebuilt(q, [[logs[i] if i == j else mpf(0) for j in range(self.n)] for i in range(self.n)])
        way = la.sub(self._function(y, mpmath.log), start)
        return self._derivative(q, way, lambda i, j: 1 / _log_quotient(d[i], d[j]))

    def length(self, x: Vector, u: Vector) -> mpf:
        return la.norm(self._dlog(x, u))

    def _dlog(self, x: Vector, u: Vector) -> Vector:
        d, q = self._eigen(x)
        return self._derivative(q, u, lambda i, j: _log_quotient(d[i], d[j]))

    def _derivative(self, q: Matrix, u: Vector, quotient: Callable[[int, int], mpf]) -> Vector:
        inner = la.product(la.product(la.transpose(q), la.matrix(u, self.n)), q)
        return self._rebuilt(q, [[inner[i][j] * quotient(i, j) for j in range(self.n)] for i in range(self.n)])


@lru_cache(maxsize=64)
def _polar(x: tuple[mpf, ...]) -> tuple[mpf, ...]:
    """Return the rotation nearest to a matrix that is one to seven digits."""
    m = la.matrix(list(x), 3)
    for _ in range(5):
        # Newton and Schulz: each step doubles the digits.
        gram = la.product(la.transpose(m), m)
        step = [[(3 if i == j else 0) - gram[i][j] for j in range(3)] for i in range(3)]
        m = [la.scale(mpf(1) / 2, row) for row in la.product(m, step)]
        if max(abs(gram[i][j] - (i == j)) for i in range(3) for j in range(3)) < mpf(10) ** -26:
            break
    return tuple(la.flat(m))


@lru_cache(maxsize=64)
def _eigen(a: tuple[mpf, ...], n: int) -> tuple[Vector, Matrix]:
    d, q = mpmath.eigsy(mpmath.matrix(la.matrix(list(a), n)))
    return list(d), [[q[i, j] for j in range(n)] for i in range(n)]


def _screw_matrix(omega: Vector) -> Matrix:
    """Return the integral over s in [0, 1] of ``rotation(s omega)``."""
    a2 = la.dot(omega, omega)
    a = mpmath.sqrt(a2)
    once = _hat(omega)
    twice = la.product(once, once)
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


def _hat(w: Vector) -> Matrix:
    zero = mpf(0)
    return [[zero, -w[2], w[1]], [w[2], zero, -w[0]], [-w[1], w[0], zero]]


def _skew(m: Matrix) -> Vector:
    return [m[2][1] - m[1][2], m[0][2] - m[2][0], m[1][0] - m[0][1]]


def _split_pose(x: Vector) -> tuple[Vector, Vector]:
    return [x[4 * i + j] for i in range(3) for j in range(3)], [x[3], x[7], x[11]]


def _pose(turn: Vector, way: Vector, corner: int) -> Vector:
    rows = [[*turn[3 * i : 3 * i + 3], way[i]] for i in range(3)]
    return [*la.flat(rows), mpf(0), mpf(0), mpf(0), mpf(corner)]


def rotation(omega: Vector) -> Matrix:
    """Return the matrix exponential of ``hat(omega)``."""
    a2 = la.dot(omega, omega)
    a = mpmath.sqrt(a2)
    once = _hat(omega)
    twice = la.product(once, once)
    half = mpmath.sinc(a / 2)
    s, c = mpmath.sinc(a), half * half / 2
    return [[(i == j) + s * once[i][j] + c * twice[i][j] for j in range(3)] for i in range(3)]
