"""Vectors and matrices of mpmath numbers, as lists."""

import mpmath
from mpmath import mpf

Vector = list[mpf]
Matrix = list[Vector]


def norm(x: Vector) -> mpf:
    """Return the Euclidean norm."""
    return mpmath.sqrt(dot(x, x))


def wrapped(a: mpf) -> mpf:
    """Return an angle in [-pi, pi)."""
    return a - 2 * mpmath.pi * mpmath.floor((a + mpmath.pi) / (2 * mpmath.pi))


def dot(x: Vector, y: Vector) -> mpf:
    """Return the dot product."""
    return mpmath.fdot(x, y)


def minkowski(x: Vector, y: Vector) -> mpf:
    """Return the Minkowski product, negative along the first entry."""
    return dot(x[1:], y[1:]) - x[0] * y[0]


def scale(s: mpf, x: Vector) -> Vector:
    """Return ``s x``."""
    return [s * a for a in x]


def axpy(s: mpf, x: Vector, y: Vector) -> Vector:
    """Return ``s x + y``."""
    return [s * a + b for a, b in zip(x, y, strict=True)]


def add(x: Vector, y: Vector) -> Vector:
    """Return ``x + y``."""
    return [a + b for a, b in zip(x, y, strict=True)]


def sub(x: Vector, y: Vector) -> Vector:
    """Return ``x - y``."""
    return [a - b for a, b in zip(x, y, strict=True)]


def units(n: int) -> list[Vector]:
    """Return the unit vectors."""
    return [[mpf(i == j) for j in range(n)] for i in range(n)]


def matrix(x: Vector, n: int) -> Matrix:
    """Return a flat list as a matrix with rows of length n."""
    return [x[i * n : (i + 1) * n] for i in range(n)]


def flat(m: Matrix) -> Vector:
    """Return the rows of a matrix one after the other."""
    return [a for row in m for a in row]


def transpose(m: Matrix) -> Matrix:
    """Return the transpose."""
    return [list(column) for column in zip(*m, strict=True)]


def product(a: Matrix, b: Matrix) -> Matrix:
    """Return the product of two matrices."""
    columns = transpose(b)
    return [[mpmath.fdot(row, column) for column in columns] for row in a]


def applied(a: Matrix, x: Vector) -> Vector:
    """Return a matrix times a vector."""
    return [mpmath.fdot(row, x) for row in a]
