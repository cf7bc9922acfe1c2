"""Solving the ordinary differential equation of a velocity field on a manifold."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from manifolds import Manifold
from manifolds.arguments import check_function, check_instance, shown
from manifolds.checks import check_shape
from manifolds.numerics.precision import at_least_float32
from rfm.arrays import tensor_of
from rfm.integrators.adaptive import Adaptive
from rfm.integrators.conditions import per_sample, unmarked
from rfm.integrators.method import Method
from rfm.integrators.solution import IntegrationError, Solution
from rfm.integrators.span import Span
from rfm.integrators.velocities import check_form, check_velocity


def integrate(
    field: Callable[..., Any],
    manifold: Manifold,
    x: Tensor,
    times: Tensor | Sequence[float],
    method: Method | None = None,
    *,
    with_integral: bool = False,
    velocity: Callable[..., Tensor] | None = None,
    raise_on_failure: bool = True,
    **condition: Any,
) -> Solution:
    """Follow ``dx/dt = field(x, t)`` on the manifold from ``times[0]`` through the other times.

    Integrating backwards is the same call with the times descending. Given points on the manifold, the field sees no
    others.

    Args:
        field: ``field(x, t, **condition)``, tangent at ``x``, called with ``t`` of shape ``(*batch)``.
        manifold: where the points live.
        x: initial points ``(*batch, *event_shape)``; those in float16 or bfloat16 are followed in float32.
        times: at least two times, all ascending or all descending.
        method: `Adaptive` Dormand-Prince 5(4) by default; or `FixedStep`; for a `rfm.FlowMap` `Jumps`.
        with_integral: the field returns a pair, tangent vector and scalar ``(*batch)``, and the scalar is integrated
            along the path, with error control where the method has it. It may be several scalars ``(*batch, k)``, whose
            mean is then what is controlled.
        velocity: the first of the pair alone, for where the scalar is not needed and costs much: most stages of a step.
        raise_on_failure: raise if any sample failed; otherwise the solution's status marks them. Pass False under
            `torch.func.vmap` and `torch.compile`, where control flow may not depend on values.
        condition: passed on to the field. A tensor ``(*batch, ...)`` holds a row for each sample; one that is the same
            for all is marked as such, ``name=rfm.Shared(tensor)``.

    Returns:
        A `Solution`.

    Raises:
        ValueError: if the times are not finite or do not run one way, the first velocities are not like the points or
            not tangent (not tested with ``raise_on_failure=False``), or a condition that is not marked as shared
            does not have the points' batch shape.
        IntegrationError: if a solve failed and ``raise_on_failure``.
    """
    check_instance("integrate", "manifold", manifold, Manifold, "Sphere(2)")
    check_function("integrate", "field", field, "VelocityField(manifold)")
    if method is not None and (isinstance(method, type) or not hasattr(method, "solve")):
        raise ValueError(f"integrate: method must be an object with solve, got {shown(method)}; pass Adaptive()")
    own = _checked(times)
    span = Span.of(own)
    x = x if isinstance(x, Tensor) else tensor_of("integrate", "points", x)
    check_shape(manifold, "initial points", x)
    batch = manifold.batch_shape(x)
    x = x.to(at_least_float32(x.dtype))
    flat = x.reshape(batch.numel(), *manifold.event_shape)
    rhs = _RightHandSide(field, condition, batch, with_integral, velocity, span, manifold if raise_on_failure else None)
    solution = (method or Adaptive()).solve(rhs, manifold, flat, tuple(map(span.share, own)))
    count = len(own)
    integral = solution.integral
    solution = Solution(
        torch.tensor(own, dtype=x.dtype, device=x.device),
        solution.x.reshape(count, *batch, *manifold.event_shape),
        integral.reshape(count, *batch, *integral.shape[2:]) if with_integral and integral is not None else None,
        solution.status.reshape(batch),
        solution.evaluations.reshape(batch),
    )
    if raise_on_failure and not bool(solution.success.all()):
        raise IntegrationError(f"integrate: {solution.describe_failure()}", solution)
    return solution


class _RightHandSide:
    """The field as methods call it: for some of the samples, with the conditions that belong to them.

    Its times are shares of the span, and what it returns is per share, of the
    dtype of the points, or at least float32, whatever a network computes in.
    """

    def __init__(
        self,
        field: Callable[..., Any],
        condition: dict[str, Any],
        batch: torch.Size,
        with_integral: bool,
        velocity: Callable[..., Tensor] | None,
        span: Span,
        manifold: Manifold | None,
    ) -> None:
        self.field, self.velocity, self.span = field, velocity, span
        self.condition, self.with_integral = unmarked(condition), with_integral
        self.per_sample = per_sample(condition, batch)
        self.manifold = manifold
        self.unchecked = True
        self.index: Tensor | None = None
        self.own = self.condition | self.per_sample

    def __call__(
        self, x: Tensor, t: Tensor, *, integrand: bool = True, index: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        if index is not self.index:
            own = {name: value if index is None else value[index] for name, value in self.per_sample.items()}
            self.index, self.own = index, self.condition | own
        t = self.span.times(t).expand(len(x))
        q: Tensor | None = None
        if self.with_integral and (integrand or self.velocity is None):
            u, q = self.field(x, t, **self.own)
        else:
            u = (self.velocity if self.with_integral and self.velocity is not None else self.field)(x, t, **self.own)
        u = u.to(at_least_float32(u.dtype)) if isinstance(u, Tensor) else u
        if self.unchecked:
            self._check(x, u)
        rate = self.span.per_share
        return rate(u), rate(q.to(x.dtype)) if integrand and q is not None else None

    def beside(self, function: Callable[..., Any], x: Tensor, t: Tensor) -> Any:
        return function(x, self.span.times(t).expand(len(x)), **self.own)

    def _check(self, x: Tensor, u: Tensor) -> None:
        """Check the first velocities; their values where control flow may depend on them."""
        if self.manifold is None:
            check_form("integrate", x, u)
        else:
            check_velocity("integrate", self.manifold, x, u)
        self.unchecked = False


def _checked(times: Tensor | Sequence[float]) -> tuple[float, ...]:
    """Return the times as numbers, if they run one way."""
    if isinstance(times, tuple | list) and all(type(s) in (int, float) for s in times):
        span = tuple(map(float, times))  # what a compiler can trace
    else:
        values = tensor_of("integrate", "times", times, torch.float64)
        span = tuple(values.tolist()) if values.ndim == 1 else ()
    steps = [b - a for a, b in itertools.pairwise(span)]
    finite = all(math.isfinite(s) for s in span) and math.isfinite(sum(steps))
    if len(span) < 2 or not finite or not (all(h > 0 for h in steps) or all(h < 0 for h in steps)):
        raise ValueError(
            "integrate: times must be at least two finite numbers, strictly ascending or strictly descending, got "
            f"{list(span[:6]) or times}"
        )
    return span
