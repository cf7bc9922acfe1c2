"""Errors of exp, log, distance and their derivatives, in units of rounding times the condition of the problem.

A computed value f~ of f at rounded arguments z_1, z_2 is off by

    |f~ - f(z)| / (u K)  units,   K = max(|f|, sum_i |D_i f| |z_i|),   u = eps / 2,

with f exact (`experiments.benchmarks.truth`), plain Euclidean norms of flattened tensors, spectral norms of
derivatives, and D_i along the changes of z_i that projection to the manifold does not undo: u K is how far rounding the
arguments or the result may move the result. A derivative is judged by its value J e along a random tangent vector
e = (e_1, e_2) of the arguments, contracted from all rows of reverse-mode gradients, with

    K = max(|J e|, sum_i |D_i f| |e_i|, sum_i |D_i (J e)| |z_i|).

The round trip ``exp(x, log(x, y))`` is judged by the K of exp: it does not forgive a log that ends elsewhere, also
where the log itself is ill-conditioned (at the antipode its K is infinite, and every value would pass).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import mpmath
import numpy as np
import torch
from mpmath import mpf
from torch import Tensor

from experiments.benchmarks.subjects import Arguments, Map, Subject, draw
from experiments.benchmarks.truth import (
    DIGITS,
    Branch,
    ProductTruth,
    SphereTruth,
    Truth,
    Vector,
    norm,
)

RULE = 16.0
"""Units allowed."""


# Exact values.


@dataclass(frozen=True)
class Reference:
    """Exact value and derivative at one pair of arguments, for each geodesic that is shortest to rounding.

    ``derivatives`` is empty where there is none (a distance at 0, both at the antipode): it must be finite there.
    """

    values: list[Vector]
    value_condition: float
    derivatives: list[Vector]
    derivative_condition: float
    along: tuple[np.ndarray, np.ndarray]


@dataclass
class Cell:
    """The exact values at one separation and precision, and what they belong to."""

    arguments: Arguments
    unit: float
    difference: Callable[[Vector, Vector], Vector]
    references: dict[str, list[Reference]] = field(default_factory=dict)


def exact(subject: Subject, separation: float | str, count: int, dtype: torch.dtype, seed: int = 0) -> Cell:
    """Draw arguments and compute the exact values of every map there."""
    truth, arguments = subject.truth, draw(subject, separation, count, dtype, seed)
    unit = torch.finfo(dtype).eps / 2
    cell = Cell(arguments, unit, truth.difference)
    with mpmath.workdps(DIGITS):
        for name in subject.maps:
            second, along = (arguments.u, arguments.along_u) if name == "exp" else (arguments.y, arguments.along_y)
            rows = zip(*(_vectors(a) for a in (arguments.x, second, arguments.along_x, along)), strict=True)
            cell.references[name] = [_reference(truth, name, [x, b], [p, q], unit) for x, b, p, q in rows]
        cell.references["round trip"] = [
            _round_trip(truth, x, y) for x, y in zip(_vectors(arguments.x), _vectors(arguments.y), strict=True)
        ]
    return cell


def _vectors(a: Tensor) -> list[Vector]:
    return [[mpf(value) for value in row] for row in a.double().flatten(1).tolist()]


def _projected(truth: Truth, name: str, z: list[Vector]) -> list[Vector]:
    x = truth.project(z[0])
    return [x, truth.tangent(x, z[1]) if name == "exp" else truth.project(z[1])]


def _value(truth: Truth, name: str, z: list[Vector], branch: Branch) -> Vector:
    x, b = _projected(truth, name, z)
    if name == "exp":
        return truth.exp(x, b)
    log = truth.log(x, b, branch)
    return log if name == "log" else [truth.length(x, log)]


def _reference(truth: Truth, name: str, z: list[Vector], along: list[Vector], unit: float) -> Reference:
    x, b = _projected(truth, name, z)
    branches: list[Branch] = [None] if name == "exp" else truth.branches(x, b, 64 * unit)
    subtract = truth.difference if name == "exp" else _minus
    sizes = [norm(x), norm(b)]
    directions = [truth.directions(x), truth.directions(x if name == "exp" else b)]

    def value(at: list[Vector], branch: Branch = branches[0]) -> Vector:
        return _value(truth, name, at, branch)

    def condition(f: Callable[[list[Vector]], Vector], step: mpf, scales: list[mpf]) -> float:
        centre, total = f(z), mpf(0)
        for i in (0, 1):
            columns = [_quotient(f(_moved(z, i, step, e)), centre, step, subtract) for e in directions[i]]
            total += scales[i] * mpf(float(np.linalg.norm(np.array(columns, dtype=float), 2)))
        return float(total)

    values = [value(z, branch) for branch in branches]
    value_condition = max(float(norm(values[0])), condition(value, mpf(10) ** -20, sizes))

    # Tangent to the set of admissible arguments: for exp, u has to follow x.
    h = mpf(10) ** -18
    ends = [_projected(truth, name, _moved(_moved(z, 0, s * h, along[0]), 1, s * h, along[1])) for s in (1, -1)]
    rounded = tuple(
        np.array([float(c) for c in _quotient(p, q, 2 * h, _minus)]) for p, q in zip(ends[0], ends[1], strict=True)
    )
    tangent = [[mpf(c) for c in part.tolist()] for part in rounded]

    def derivative(at: list[Vector], branch: Branch = branches[0], step: mpf = h) -> Vector:
        there, back = (_moved(_moved(at, 0, s * step, tangent[0]), 1, s * step, tangent[1]) for s in (1, -1))
        return _quotient(value(there, branch), value(back, branch), 2 * step, subtract)

    derivatives, derivative_condition = [], 0.0
    if _is_smooth(truth, name, x, b):
        derivatives = [derivative(z, branch) for branch in branches]
        coarse = mpf(10) ** -15
        derivative_condition = max(
            float(norm(derivatives[0])),
            condition(value, mpf(10) ** -20, [norm(e) for e in tangent]),
            condition(lambda at: derivative(at, step=coarse), coarse, sizes),
        )
    return Reference(values, value_condition, derivatives, derivative_condition, (rounded[0], rounded[1]))


def _is_smooth(truth: Truth, name: str, x: Vector, b: Vector) -> bool:
    if name == "exp":
        return True
    # Nearer than this, differences would step across the singular point.
    near = mpf(10) ** -12
    distance = truth.length(x, truth.log(x, b))
    at_cut = len(truth.branches(x, b, float(near))) > 1 and _cut_is_singular(truth)
    return not at_cut and (name == "log" or distance > near)


def _cut_is_singular(truth: Truth) -> bool:
    """Return whether the logarithm has no limit from one side at the cut locus: on spheres, not on SO(3) or tori."""
    factors = truth.factors if isinstance(truth, ProductTruth) else [truth]
    return any(isinstance(f, SphereTruth) for f in factors)


def _round_trip(truth: Truth, x: Vector, y: Vector) -> Reference:
    a, b = truth.project(x), truth.project(y)
    z = [a, truth.log(a, b)]
    step, total, centre = mpf(10) ** -20, mpf(0), truth.exp(*z)
    for i in (0, 1):
        columns = [
            _quotient(_value(truth, "exp", _moved(z, i, step, e), None), centre, step, truth.difference)
            for e in truth.directions(a)
        ]
        total += norm(z[i]) * mpf(float(np.linalg.norm(np.array(columns, dtype=float), 2)))
    return Reference([b], max(float(norm(b)), float(total)), [], 0.0, (np.zeros(0), np.zeros(0)))


def _moved(z: list[Vector], i: int, step: mpf, e: Vector) -> list[Vector]:
    moved = [c + step * d for c, d in zip(z[i], e, strict=True)]
    return [moved, z[1]] if i == 0 else [z[0], moved]


def _quotient(ahead: Vector, back: Vector, step: mpf, subtract: Callable[[Vector, Vector], Vector]) -> Vector:
    return [c / step for c in subtract(ahead, back)]


def _minus(x: Vector, y: Vector) -> Vector:
    return [a - b for a, b in zip(x, y, strict=True)]


# Scores.


@dataclass(frozen=True)
class Score:
    """The worst error at a cell.

    Attributes:
        units: in units of rounding times condition; infinite where not finite.
        mark: "", "NaN" (not finite), "wrong" (off by more than a tenth, and by more than the rule), "raises", or
            "finite" (there is no value to compare with, and it is finite).
    """

    units: float
    mark: str = ""

    @property
    def passes(self) -> bool:
        """Whether it keeps the rule."""
        return self.units <= RULE

    def __str__(self) -> str:
        if self.mark:
            return self.mark
        if self.units >= 1e4:
            return f"{self.units:.0e}".replace("e+0", "e").replace("e+", "e")
        return f"{self.units:.0f}" if self.units >= 10 else f"{self.units:.1f}"


def worst(scores: list[Score]) -> Score:
    """Return the worst score: first by units, then by its mark."""
    order = {"": 1, "finite": 0, "wrong": 2, "NaN": 3, "raises": 4}
    failing = [s for s in scores if not s.passes]
    if failing:
        return max(failing, key=lambda s: (order[s.mark], s.units))
    return max(scores, key=lambda s: (s.units, order[s.mark]))


def score(cell: Cell, maps: Mapping[str, Map], gradients: bool = True) -> dict[str, Score]:
    """Return the scores of an implementation: ``exp``, ``exp'`` (its derivative), ..., ``round trip``."""
    scores = {}
    a = cell.arguments
    for name in maps:
        second = a.u if name == "exp" else a.y
        try:
            values, derivatives = _evaluated(maps[name], a.x, second, cell.references[name], gradients)
        except (RuntimeError, ValueError, AssertionError):
            scores[name] = Score(math.inf, "raises")
            if gradients:
                scores[f"{name}'"] = Score(math.inf, "raises")
            continue
        scores[name] = _compared(cell, name, values, derivative=False)
        if gradients:
            scores[f"{name}'"] = _compared(cell, name, derivatives, derivative=True)
    if "exp" in maps and "log" in maps:
        try:
            ends = maps["exp"](a.x, maps["log"](a.x, a.y)).detach()
            scores["round trip"] = _compared(cell, "round trip", ends.double().flatten(1).numpy(), derivative=False)
        except (RuntimeError, ValueError, AssertionError):
            scores["round trip"] = Score(math.inf, "raises")
    return scores


def _evaluated(
    f: Map, x: Tensor, b: Tensor, references: list[Reference], gradients: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return values and directional derivatives, each ``(n, m)``; the latter NaN where any gradient is not finite."""
    if not gradients:
        with torch.no_grad():
            return f(x, b).double().reshape(len(x), -1).numpy(), np.zeros(0)
    x, b = x.clone().requires_grad_(), b.clone().requires_grad_()
    values = f(x, b).reshape(len(x), -1)
    along = [torch.from_numpy(np.stack([r.along[i] for r in references])) for i in (0, 1)]
    columns = []
    for column in values.unbind(1):
        if not column.requires_grad:
            columns.append(torch.zeros(len(x), dtype=torch.float64))
            continue
        parts = torch.autograd.grad(column.sum(), (x, b), retain_graph=True, allow_unused=True)
        terms = [(g.double().flatten(1) * e).sum(1) for g, e in zip(parts, along, strict=True) if g is not None]
        finite = [g.flatten(1).isfinite().all(1) for g in parts if g is not None]
        total = torch.stack(terms).sum(0)
        columns.append(torch.where(torch.stack(finite).all(0), total, math.nan))
    return values.detach().double().numpy(), torch.stack(columns, 1).numpy()


def _compared(cell: Cell, name: str, computed: np.ndarray, derivative: bool) -> Score:
    points = name in ("exp", "round trip") and not derivative
    subtract = cell.difference if points else _minus
    scores = []
    for row, reference in zip(computed, cell.references[name], strict=True):
        if not np.isfinite(row).all():
            scores.append(Score(math.inf, "NaN"))
            continue
        candidates = reference.derivatives if derivative else reference.values
        if not candidates:
            scores.append(Score(0.0, "finite"))
            continue
        condition = reference.derivative_condition if derivative else reference.value_condition
        with mpmath.workdps(DIGITS):
            got = [mpf(c) for c in row.tolist()]
            error, size = min((float(norm(subtract(got, true))), float(norm(true))) for true in candidates)
        units = error / (cell.unit * condition) if error else 0.0
        scores.append(Score(units, "wrong" if units > RULE and error > 0.1 * size else ""))
    return worst(scores)
