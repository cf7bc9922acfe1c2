"""Solving the ordinary differential equation of a velocity field on a manifold."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from manifolds import Manifold
from manifolds.precision import at_least_float32
from rfm.integrators.adaptive import Adaptive
from rfm.integrators.method import Method
from rfm.integrators.solution import IntegrationError, Solution


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
        method: `Adaptive` Dormand-Prince 5(4) by default; or `FixedStep`.
        with_integral: the field returns a pair, tangent vector and scalar ``(*batch)``, and the scalar is integrated
            along the path, with error control where the method has it. It may be several scalars ``(*batch, k)``, whose
            mean is then what is controlled.
        velocity: the first of the pair alone, for where the scalar is not needed and costs much: most stages of a step.
        raise_on_failure: raise if any sample failed; otherwise the solution says which did. Pass False under
            `torch.func.vmap` and `torch.compile`, where control flow may not depend on values.
        condition: passed on to the field. Tensors whose leading axes are the batch shape follow their samples.

    Returns:
        A `Solution`.

    Raises:
        ValueError: if the times are not finite or do not run one way.
        IntegrationError: if a solve failed and ``raise_on_failure``.
    """
    span = _checked(times)
    manifold._check_shape("initial points", x)
    batch = manifold.batch_shape(x)
    x = x.to(at_least_float32(x.dtype))
    flat = x.reshape(batch.numel(), *manifold.event_shape)
    rhs = _RightHandSide(field, condition, batch, with_integral, velocity)
    solution = (method or Adaptive()).solve(rhs, manifold, flat, span)
    count = len(span)
    integral = solution.integral
    solution = Solution(
        solution.times,
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

    What it returns is of the dtype of the points, whatever a network computes in.
    """

    def __init__(
        self,
        field: Callable[..., Any],
        condition: dict[str, Any],
        batch: torch.Size,
        with_integral: bool,
        velocity: Callable[..., Tensor] | None,
    ) -> None:
        k = len(batch)
        self.field, self.velocity = field, velocity
        self.condition, self.with_integral = condition, with_integral
        self.per_sample = {
            name: value.reshape(batch.numel(), *value.shape[k:])
            for name, value in condition.items()
            if isinstance(value, Tensor) and value.shape[:k] == batch
        }
        self.index: Tensor | None = None
        self.own = condition | self.per_sample

    def __call__(
        self, x: Tensor, t: Tensor, *, integrand: bool = True, index: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        if index is not self.index:
            own = {name: value if index is None else value[index] for name, value in self.per_sample.items()}
            self.index, self.own = index, self.condition | own
        t = t.expand(len(x))
        if not self.with_integral:
            return self.field(x, t, **self.own).to(x.dtype), None
        if not integrand and self.velocity is not None:
            return self.velocity(x, t, **self.own).to(x.dtype), None
        u, q = self.field(x, t, **self.own)
        return u.to(x.dtype), q.to(x.dtype) if integrand else None


def _checked(times: Tensor | Sequence[float]) -> tuple[float, ...]:
    """Return the times as numbers, if they run one way."""
    values = times.tolist() if isinstance(times, Tensor) else times
    try:
        span = tuple(float(s) for s in values)
    except TypeError:
        span = ()
    steps = [b - a for a, b in itertools.pairwise(span)]
    finite = all(math.isfinite(s) for s in span)
    if len(span) < 2 or not finite or not (all(h > 0 for h in steps) or all(h < 0 for h in steps)):
        raise ValueError(
            "integrate: times must be at least two finite numbers, strictly ascending or strictly descending, got "
            f"{[round(s, 6) for s in span[:6]] or times}"
        )
    return span
