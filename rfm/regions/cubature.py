"""Adaptive cubature of a function over many boxes at once."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Integrand = Callable[[NDArray[np.int64], Array], Array]
"""From the numbers of pieces ``(n,)`` and places in the unit cube ``(n, dim)`` to values ``(n,)``."""


@dataclass(frozen=True)
class Rule:
    """A rule of cubature on the cube from -1 to 1, with a second one for the error.

    Args:
        nodes: ``(m, dim)``.
        weights: ``(m,)``, of sum 1.
        lower: weights of the rule of lower degree, ``(m,)``.
        inner: indices of the nodes at plus and minus the inner distance along each axis, ``(dim, 2)``; of `outer` ones
            likewise: their second differences tell the axis along which the function varies most.
        outer: see ``inner``.
    """

    nodes: Array
    weights: Array
    lower: Array
    inner: NDArray[np.int64]
    outer: NDArray[np.int64]


@dataclass(frozen=True)
class Integral:
    """The result of `cubature`.

    Args:
        value: the integral.
        error: the sum of the differences between two rules: an upper bound in practice, no law.
        evaluations: of the function.
        converged: whether the error is within the tolerance.
    """

    value: float
    error: float
    evaluations: int
    converged: bool


def cubature(
    function: Integrand, pieces: int, dim: int, *, relative: float, absolute: float, most: int, least_boxes: int = 48
) -> Integral:
    """Return the integral of a function over several unit cubes, which are halved where it varies.

    Args:
        function: takes the numbers of the pieces and places in the unit cube.
        pieces: how many cubes there are.
        dim: of the cubes, at least 1.
        relative: error to reach, relative to the integral.
        absolute: error to reach, if it is larger.
        most: evaluations at most, about.
        least_boxes: the pieces are first cut into this many boxes, so that narrow peaks are not passed over.

    References:
        Genz and Malik, An adaptive algorithm for numerical integration over an N-dimensional rectangular region, J.
        Comput. Appl. Math. 6, 1980; Berntsen, Espelid and Genz, ACM TOMS 17, 1991: the choice of the axis to halve.
    """
    rule = _gauss() if dim == 1 else _genz_malik(dim)
    cuts = max(1, round((least_boxes / pieces) ** (1 / dim)))
    corners = np.array(list(itertools.product(range(cuts), repeat=dim)), dtype=float)
    low = np.tile(corners / cuts, (pieces, 1))
    piece = np.repeat(np.arange(pieces), len(corners))
    size = np.full_like(low, 1 / cuts)
    boxes = _Boxes(piece, low, size, *_assess(function, rule, piece, low, size))
    evaluations = len(piece) * len(rule.nodes)
    while True:
        value, error = float(boxes.value.sum()), float(boxes.error.sum())
        goal = max(absolute, relative * abs(value))
        if error <= goal or evaluations >= most:
            return Integral(value, error, evaluations, error <= goal)
        worst = np.argsort(-boxes.error)
        # Those that hold all but half of what may be left, within the budget.
        needed = int(np.searchsorted(np.cumsum(boxes.error[worst]), error - goal / 2)) + 1
        chosen = worst[: min(needed, max(1, (most - evaluations) // (2 * len(rule.nodes)) + 1))]
        halves = boxes.halved(chosen)
        evaluations += len(halves[0]) * len(rule.nodes)
        boxes = boxes.replaced(chosen, _Boxes(*halves, *_assess(function, rule, *halves)))


@dataclass(frozen=True)
class _Boxes:
    """Boxes of pieces: lower corners, edges, integrals, errors and the axes to halve."""

    piece: NDArray[np.int64]
    low: Array
    size: Array
    value: Array
    error: Array
    axis: NDArray[np.int64]

    def halved(self, chosen: NDArray[np.int64]) -> tuple[NDArray[np.int64], Array, Array]:
        rows = np.arange(len(chosen))
        size = self.size[chosen].copy()
        size[rows, self.axis[chosen]] /= 2
        upper = self.low[chosen].copy()
        upper[rows, self.axis[chosen]] += size[rows, self.axis[chosen]]
        return (
            np.tile(self.piece[chosen], 2),
            np.concatenate([self.low[chosen], upper]),
            np.concatenate([size, size]),
        )

    def replaced(self, chosen: NDArray[np.int64], new: "_Boxes") -> "_Boxes":
        kept = np.ones(len(self.piece), dtype=bool)
        kept[chosen] = False
        names = ("piece", "low", "size", "value", "error", "axis")
        old, more = vars(self), vars(new)
        return _Boxes(*(np.concatenate([old[name][kept], more[name]]) for name in names))


def _assess(
    function: Integrand, rule: Rule, piece: NDArray[np.int64], low: Array, size: Array
) -> tuple[Array, Array, NDArray[np.int64]]:
    """Return the integral over each box, its error, and the axis along which the function varies most."""
    m, dim = rule.nodes.shape
    places = low[:, None] + size[:, None] * (rule.nodes + 1) / 2
    values = function(np.repeat(piece, m), places.reshape(-1, dim)).reshape(-1, m)
    volume = size.prod(1)
    value = volume * (values @ rule.weights)
    error = np.abs(volume * (values @ (rule.weights - rule.lower)))
    if dim == 1:
        return value, error, np.zeros(len(piece), dtype=np.int64)
    inner, outer = (values[:, index].sum(-1) - 2 * values[:, :1] for index in (rule.inner, rule.outer))
    ratio = (rule.nodes[rule.inner[0, 0], 0] / rule.nodes[rule.outer[0, 0], 0]) ** 2
    # Of equal differences, as those of a constant are, the longest edge.
    difference = np.abs(inner - ratio * outer) + 1e-12 * np.abs(values).max(1, keepdims=True) * size
    return value, error, difference.argmax(1)


def _gauss() -> Rule:
    """Return Gauss and Legendre's rule of ten nodes, with that of five for the error."""
    (x, w), (y, v) = (np.polynomial.legendre.leggauss(n) for n in (10, 5))
    none = np.zeros((1, 2), dtype=np.int64)
    weights, lower = np.concatenate([w, np.zeros(5)]) / 2, np.concatenate([np.zeros(10), v]) / 2
    return Rule(np.concatenate([x, y])[:, None], weights, lower, none, none)


def _genz_malik(n: int) -> Rule:
    """Return Genz and Malik's rule of degree 7, with that of degree 5 for the error."""
    near, far, corner = np.sqrt([9 / 70, 9 / 10, 9 / 19])
    units = np.stack([np.eye(n), -np.eye(n)], axis=1).reshape(-1, n)
    pairs = [
        far * (a * np.eye(n)[i] + b * np.eye(n)[j])
        for i, j in itertools.combinations(range(n), 2)
        for a, b in itertools.product((1, -1), repeat=2)
    ]
    groups = [np.zeros((1, n)), near * units, far * units, np.array(pairs)]
    groups.append(corner * np.array(list(itertools.product((1.0, -1.0), repeat=n))))
    high = [
        (12824 - 9120 * n + 400 * n**2) / 19683,
        980 / 6561,
        (1820 - 400 * n) / 19683,
        200 / 19683,
        6859 / 19683 / 2**n,
    ]
    low = [(729 - 950 * n + 50 * n**2) / 729, 245 / 486, (265 - 100 * n) / 1458, 25 / 729, 0.0]
    counts = [len(group) for group in groups]
    inner = 1 + np.arange(2 * n).reshape(n, 2)
    return Rule(np.concatenate(groups), np.repeat(high, counts), np.repeat(low, counts), inner, inner + 2 * n)
