"""Solving the ordinary differential equation of a velocity field on a manifold."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from manifolds import Manifold
from rfm.integrators.methods import Adaptive, Method
from rfm.integrators.solution import IntegrationError, Solution


def integrate(
    field: Callable[..., Any],
    manifold: Manifold,
    x: Tensor,
    times: Tensor | Sequence[float],
    method: Method | None = None,
    *,
    with_integral: bool = False,
    raise_on_failure: bool = True,
    **condition: Any,
) -> Solution:
    """Follow ``dx/dt = field(x, t)`` on the manifold from ``times[0]`` through the other times.

    Integrating backwards is the same call with the times descending. The field only ever sees points on the manifold.

    Args:
        field: ``field(x, t, **condition)``, tangent at ``x``, called with ``t`` of shape ``(*batch)``.
        manifold: where the points live.
        x: initial points ``(*batch, *event_shape)``.
        times: at least two times, all ascending or all descending.
        method: `Adaptive` Dormand-Prince 5(4) by default; or `FixedStep`.
        with_integral: the field returns a pair, tangent vector and scalar ``(*batch)``, and the scalar is integrated
            along the path with the same method and error control.
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
    k = len(batch)
    flat = x.reshape(-1, *manifold.event_shape)
    per_sample = {
        name: value.reshape(len(flat), *value.shape[k:])
        for name, value in condition.items()
        if isinstance(value, Tensor) and value.shape[:k] == batch
    }

    def rhs(y: Tensor, t: Tensor, index: Tensor | None) -> tuple[Tensor, Tensor]:
        own = per_sample if index is None else {name: value[index] for name, value in per_sample.items()}
        out = field(y, t, **(condition | own))
        u, q = out if with_integral else (out, torch.zeros_like(t))
        return u, q

    solution = (method or Adaptive()).solve(rhs, manifold, flat, span)
    count = len(span)
    integral = solution.integral
    solution = Solution(
        solution.times,
        solution.x.reshape(count, *batch, *manifold.event_shape),
        integral.reshape(count, *batch) if with_integral and integral is not None else None,
        solution.status.reshape(batch),
        solution.evaluations.reshape(batch),
    )
    if raise_on_failure and not bool(solution.success.all()):
        raise IntegrationError(f"integrate: {solution.describe_failure()}", solution)
    return solution


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
