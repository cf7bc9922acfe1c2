"""How a solve steps through time: with a fixed number of steps, or with steps that keep an error bound per sample."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from manifolds import Manifold
from rfm.integrators.solution import NOT_FINITE, STEP_TOO_SMALL, SUCCEEDED, TOO_MANY_STEPS, Solution
from rfm.integrators.tableaux import DORMAND_PRINCE, RK4, Tableau

RightHandSide = Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]
"""``rhs(x, t, index)`` gives the velocity and the integrand; ``index`` names the samples that ``x`` holds, None all."""


class Method(Protocol):
    """A way to solve for a batch of initial points ``x`` of shape ``(n, *event_shape)``."""

    def solve(self, rhs: RightHandSide, manifold: Manifold, x: Tensor, times: tuple[float, ...]) -> Solution:
        """Return positions and integrals at ``times``, of batch shape ``(n,)``."""
        ...


@dataclass(frozen=True)
class FixedStep:
    """Equal steps of a projected Runge-Kutta method.

    Each stage and each step is projected to the manifold. The exact solution of the field, extended by
    ``v(projx(x))``, stays on the manifold, so projection keeps the order of the method (Hairer, Lubich & Wanner,
    Geometric Numerical Integration, 2006, section IV.4).

    Args:
        tableau: the method.
        steps: number of steps over the whole span of times, shared between the output times in proportion to the
            distances between them, at least one each.
    """

    tableau: Tableau = RK4
    steps: int = 100

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"FixedStep: steps must be at least 1, got {self.steps}")

    def solve(self, rhs: RightHandSide, manifold: Manifold, x: Tensor, times: tuple[float, ...]) -> Solution:
        length = abs(times[-1] - times[0])
        counts = [max(1, round(self.steps * abs(b - a) / length)) for a, b in itertools.pairwise(times)]
        integral = torch.zeros(len(x), dtype=x.dtype, device=x.device)
        failed = ~torch.isfinite(x.flatten(1)).all(1)
        xs, integrals = [x], [integral]
        for start, end, count in zip(times, times[1:], counts, strict=False):
            h = (end - start) / count
            for i in range(count):
                t = torch.full((), start + i * h, dtype=x.dtype, device=x.device).expand(len(x))
                x, increment, _, _ = _step(self.tableau, rhs, manifold, x, t, torch.full_like(integral, h))
                integral = integral + increment
            failed = failed | ~(torch.isfinite(x.flatten(1)).all(1) & torch.isfinite(integral))
            x = torch.where(manifold.lift(failed), math.nan, x)
            integral = torch.where(failed, math.nan, integral)
            xs.append(x)
            integrals.append(integral)
        evaluations = torch.full((len(x),), len(self.tableau.c) * sum(counts), device=x.device)
        status = torch.where(failed, NOT_FINITE, SUCCEEDED)
        grid = torch.tensor(times, dtype=x.dtype, device=x.device)
        return Solution(grid, torch.stack(xs), torch.stack(integrals), status, evaluations)


@dataclass(frozen=True)
class Adaptive:
    """Steps chosen for each sample alone, so that its result does not depend on the rest of its batch.

    A step is accepted where the embedded method's estimate of its error, in the norm of the manifold, is at most
    ``atol + rtol |x|`` (``|x|`` over ambient coordinates), and for the integral ``atol + rtol |integral|``. Samples
    that have arrived leave the batch. Step control: Hairer, Norsett & Wanner, Solving Ordinary Differential Equations
    I, 1993, section II.4.

    Args:
        tableau: a method with an embedded one.
        atol: absolute tolerance per step, in the unit of the metric (radians on a sphere).
        rtol: relative tolerance per step.
        max_steps: steps tried per sample, accepted or not, before it is given up.
    """

    tableau: Tableau = DORMAND_PRINCE
    atol: float = 1e-6
    rtol: float = 1e-6
    max_steps: int = 10_000

    def __post_init__(self) -> None:
        if self.tableau.b_error is None:
            raise ValueError("Adaptive: the tableau has no embedded method to estimate errors with; use DORMAND_PRINCE")
        if not (self.atol >= 0 and self.rtol >= 0 and self.atol + self.rtol > 0):
            raise ValueError(f"Adaptive: tolerances must be positive, got atol {self.atol} and rtol {self.rtol}")

    def solve(self, rhs: RightHandSide, manifold: Manifold, x: Tensor, times: tuple[float, ...]) -> Solution:
        n = len(x)
        x = x.clone()
        grid = torch.tensor(times, dtype=x.dtype, device=x.device)
        t = grid[0].expand(n).clone()
        sign = math.copysign(1.0, times[-1] - times[0])
        integral = torch.zeros_like(t)
        status = torch.full((n,), SUCCEEDED, device=x.device)
        steps = torch.zeros(n, dtype=torch.long, device=x.device)
        first = rhs(x, t, None)
        h = self._initial_step(rhs, manifold, x, t, first, sign, abs(times[-1] - times[0]))
        evaluations = torch.full((n,), 2, device=x.device)
        first = (first[0].clone(), first[1].clone())
        xs, integrals = [x.clone()], [integral.clone()]
        for end in grid[1:]:
            while True:
                index = torch.nonzero((t != end) & (status == SUCCEEDED)).flatten()
                if len(index) == 0:
                    break
                x_i, t_i, h_i, integral_i = x[index], t[index], h[index], integral[index]
                first_i = (first[0][index], first[1][index])
                remaining = (end - t_i).abs()
                arrives = h_i >= remaining
                h_used = torch.where(arrives, remaining, h_i)

                def at_index(y: Tensor, s: Tensor, _: Tensor | None, index: Tensor = index) -> tuple[Tensor, Tensor]:
                    return rhs(y, s, None if len(index) == n else index)

                x_new, increment, last, error = _step(
                    self.tableau, at_index, manifold, x_i, t_i, sign * h_used, first_i
                )
                assert error is not None
                ratio = self._error_ratio(manifold, x_i, x_new, integral_i, increment, error)
                # NaN compares false: a step into nowhere is rejected and tried again with a fifth of its length.
                accept = ratio <= 1
                growth = 0.9 * ratio.clamp(min=1e-10) ** (-1 / self.tableau.order)
                factor = torch.where(torch.isfinite(ratio), growth.clamp(0.2, 5.0), 0.2)
                t_new = torch.where(arrives, end, t_i + sign * h_used)
                # A step cut short to land on an output time says little about the next: keep the longer one.
                h_new = torch.where(accept & arrives, torch.maximum(h_i, h_used * factor), h_used * factor)

                on = manifold.lift(accept)
                x[index] = torch.where(on, x_new, x_i)
                t[index] = torch.where(accept, t_new, t_i)
                h[index] = h_new
                integral[index] = torch.where(accept, integral_i + increment, integral_i)
                if not self.tableau.first_same_as_last:
                    last = rhs(x[index], t[index], index)
                first[0][index] = torch.where(on, last[0], first_i[0])
                first[1][index] = torch.where(accept, last[1], first_i[1])
                steps[index] += 1
                evaluations[index] += len(self.tableau.c) - 1

                floor = 4 * torch.finfo(t.dtype).eps * torch.maximum(t_i.abs(), t_new.abs()).clamp(min=1e-3)
                small = ~accept & (h_new < floor)
                code = torch.where(torch.isfinite(ratio), STEP_TOO_SMALL, NOT_FINITE)
                over = ~small & (steps[index] >= self.max_steps) & (t[index] != end)
                status[index] = torch.where(small, code, torch.where(over, TOO_MANY_STEPS, status[index]))
            failed = status != SUCCEEDED
            xs.append(torch.where(manifold.lift(failed), math.nan, x))
            integrals.append(torch.where(failed, math.nan, integral))
        return Solution(grid, torch.stack(xs), torch.stack(integrals), status, evaluations)

    def _scale(self, x: Tensor) -> Tensor:
        return self.atol + self.rtol * torch.linalg.vector_norm(x.flatten(1), dim=1)

    def _error_ratio(
        self,
        manifold: Manifold,
        x: Tensor,
        x_new: Tensor,
        integral: Tensor,
        increment: Tensor,
        error: tuple[Tensor, Tensor],
    ) -> Tensor:
        """Return the larger of the errors of the point and of the integral, relative to what is tolerated."""
        of_point = manifold.norm(x_new, manifold.proju(x_new, error[0])) / torch.maximum(
            self._scale(x), self._scale(x_new)
        )
        size = torch.maximum(integral.abs(), (integral + increment).abs())
        return torch.maximum(of_point, error[1].abs() / (self.atol + self.rtol * size))

    def _initial_step(
        self,
        rhs: RightHandSide,
        manifold: Manifold,
        x: Tensor,
        t: Tensor,
        first: tuple[Tensor, Tensor],
        sign: float,
        span: float,
    ) -> Tensor:
        """Return a first step per sample: algorithm of Hairer, Norsett & Wanner, p. 169, with one more evaluation."""
        scale = self._scale(x)
        d_1 = torch.maximum(manifold.norm(x, first[0]), first[1].abs()) / scale
        h_0 = torch.where(d_1 < 1e-5, 1e-3, 1e-2 / (d_1 * scale).clamp(min=1e-3)).clamp(max=span)
        # A field that is NaN here is still tried, and then reported, from a step that can shrink.
        h_0 = torch.nan_to_num(h_0, nan=min(1e-3, span))
        y = manifold.projx(x + manifold.lift(sign * h_0) * first[0])
        second = rhs(y, t + sign * h_0, None)
        change = manifold.norm(y, manifold.proju(y, second[0] - first[0]))
        d_2 = torch.maximum(change, (second[1] - first[1]).abs()) / scale / h_0
        h_1 = (0.01 / torch.maximum(d_1, d_2).clamp(min=1e-8)) ** (1 / (self.tableau.order + 1))
        return torch.where(torch.isfinite(h_1), torch.minimum(100 * h_0, h_1), h_0).clamp(max=span)


def _step(
    tableau: Tableau,
    rhs: RightHandSide,
    manifold: Manifold,
    x: Tensor,
    t: Tensor,
    h: Tensor,
    first: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor], tuple[Tensor, Tensor] | None]:
    """Make one step of length ``h`` per sample.

    Returns:
        The new points, the integral over the step, the last stage, and the estimated errors of both.
    """
    lifted = manifold.lift(h)
    velocities: list[Tensor] = []
    integrands: list[Tensor] = []
    for i, (c, row) in enumerate(zip(tableau.c, tableau.a, strict=True)):
        if i == 0 and first is not None:
            u, q = first
        elif i == 0:
            u, q = rhs(x, t, None)
        else:
            stage = manifold.projx(x + lifted * _combine(row, velocities))
            u, q = rhs(stage, t + c * h, None)
        velocities.append(u)
        integrands.append(q)
    x_new = stage if tableau.first_same_as_last else manifold.projx(x + lifted * _combine(tableau.b, velocities))
    increment = h * _combine(tableau.b, integrands)
    error = None
    if tableau.b_error is not None:
        error = lifted * _combine(tableau.b_error, velocities), h * _combine(tableau.b_error, integrands)
    return x_new, increment, (u, q), error


def _combine(weights: tuple[float, ...], terms: list[Tensor]) -> Tensor:
    """Return the sum of ``weights[i] * terms[i]``, leaving out zero weights."""
    total = None
    for weight, term in zip(weights, terms, strict=False):
        if weight != 0:
            total = weight * term if total is None else torch.add(total, term, alpha=weight)
    assert total is not None
    return total
