"""The density of what jumps of a flow map draw: the Jacobian of the sampling map, at its numerical inverse."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from manifolds import Manifold
from manifolds.numerics.linear_algebra import log_abs_det, solve
from manifolds.numerics.precision import at_least_float32
from rfm.arrays import points_of
from rfm.field import Field, FlowMap, as_flow_map
from rfm.integrators import Jumps
from rfm.integrators.conditions import per_sample, unmarked
from rfm.integrators.mesh import Mesh
from rfm.likelihood.derivatives import Differentiable
from rfm.sources import Source


class NotInvertibleError(ValueError):
    """Points to which the numerical inverse of a sampling map does not converge."""


class JumpInverse(NamedTuple):
    """The points that jump to given ones."""

    x: Tensor
    """Where the jumps begin ``(*batch, *event_shape)``."""
    log_det: Tensor
    """Of the jumps' differential in orthonormal bases there ``(*batch)``; NaN where the inverse does not converge."""
    residual: Tensor
    """As in `JumpLogProb`."""
    evaluations: Tensor
    """As in `JumpLogProb`."""


class JumpLogProb(NamedTuple):
    """The log-density of what jumps draw, at points, and how well the jumps were inverted there."""

    log_prob: Tensor
    """Nats, with respect to the Riemannian volume, ``(*batch)``; NaN where the inverse does not converge."""
    residual: Tensor
    """The largest distance, over the jumps, between a point and where the jump leads from its inverse, before the last
    step of Newton's method, ``(*batch)``."""
    evaluations: Tensor
    """Evaluations of the network for each point, each directional derivative counted as one, ``(*batch)``."""


@dataclass(frozen=True)
class Inversion:
    """How a jump is inverted.

    The first guess is the jump back. While it misses by more than the tolerance it is corrected by the jump back from
    where it leads, which takes two evaluations; then by Newton's method with backtracking, each step of which takes one
    and as many directional derivatives as there are dimensions. The last of them gives the determinant.

    Args:
        tolerance: how far, in the metric, a jump may miss its point for that Jacobian to be the last. One more step of
            Newton's method follows for free, so the inverse itself is off by the order of the square.
        corrections: how many corrections by jumps back at most.
        iterations: how many Jacobians at most.
    """

    tolerance: float = 1e-4
    corrections: int = 1
    iterations: int = 20

    def __post_init__(self) -> None:
        if not 0 < self.tolerance < float("inf"):
            raise ValueError(f"Inversion: tolerance must be a positive distance, got {self.tolerance}")
        if self.corrections < 0 or self.iterations < 1:
            raise ValueError(
                f"Inversion: corrections must be at least 0 and iterations at least 1, got {self.corrections} and "
                f"{self.iterations}"
            )


def jump_log_prob(
    field: Callable[..., Tensor],
    source: Source,
    x: Tensor,
    method: Jumps | None = None,
    *,
    start: float = 0.0,
    time: float = 1.0,
    inversion: Inversion | None = None,
    check: bool = True,
    **condition: Any,
) -> JumpLogProb:
    """Return the log-density at ``x`` of where jumps of a flow map carry the source.

    With ``F`` the map of the jumps, ``log p_0(F^-1(x)) - log |det dF|`` at ``F^-1(x)``. This is the density of the very
    points that are drawn, however far the jumps are from the trajectories of the velocity: the jumps back serve as a
    first guess of the inverse, never as the inverse. It is exact where ``F`` is one-to-one, as maps are that were
    trained with ``invertibility``, see `rfm.objectives.FlowMapObjective`; where several points jump to one, only one of
    them is counted.

    Not differentiated: the inverse is found without a record of how.

    Args:
        field: the flow map.
        source: the distribution at time ``start``.
        x: points ``(*batch, *event_shape)``.
        method: how many jumps, one by default.
        start: when the source's points set out.
        time: of the density, later than ``start``.
        inversion: how the jumps are inverted.
        check: raise where the inverse does not converge; otherwise the log-density is NaN there.
        condition: passed on to the field.

    Raises:
        NotInvertibleError: if the inverse does not converge.
        ValueError: if the field has no second time.

    References:
        Rehman et al., FALCON: Few-step Accurate Likelihoods for Continuous Flows, 2025, arXiv:2512.09914, in flat
        space, where jumps back are taken for the inverse.
    """
    source.check_density("jump_log_prob")
    options: dict[str, Any] = {"start": start, "time": time, "inversion": inversion, "check": check}
    found = jump_inverse(field, source.manifold, x, method, **options, **condition)
    return JumpLogProb(source.log_prob(found.x) - found.log_det, found.residual, found.evaluations)


def jump_inverse(
    field: Callable[..., Tensor],
    manifold: Manifold,
    x: Tensor,
    method: Jumps | None = None,
    *,
    start: float = 0.0,
    time: float = 1.0,
    inversion: Inversion | None = None,
    check: bool = True,
    **condition: Any,
) -> JumpInverse:
    """Return the points at time ``start`` that jump to ``x``, and the log-determinant of the jumps' differential there.

    Arguments and errors as for `jump_log_prob`.
    """
    flow_map, inversion = as_flow_map("jump_inverse", field), Inversion() if inversion is None else inversion
    y, batch = _rows("jump_inverse", manifold, x)
    log_det, residual, evaluations = (y.new_zeros(len(y)) for _ in range(3))
    with torch.no_grad():
        for jump in reversed(list(_jumps(flow_map, manifold, method, (start, time), batch, condition))):
            one = _inverted(jump, y, inversion)
            y, log_det = one.x, log_det + one.log_det
            residual, evaluations = torch.maximum(residual, one.residual), evaluations + one.evaluations
    bad = ~(residual <= inversion.tolerance)
    if check and bool(bad.any()):
        raise NotInvertibleError(
            f"jump_log_prob: the jumps could not be inverted at {int(bad.sum())} of {len(bad)} points on {manifold}, "
            f"where they miss by up to {float(residual[bad].max()):.2g}, allowed {inversion.tolerance:.2g}: the map is "
            "not one-to-one there; train with Semigroup(invertibility=1), take more steps, or leave out steps for the "
            "density of the equation"
        )
    log_det = log_det.where(~bad, torch.nan)
    return JumpInverse(
        y.reshape(*batch, *manifold.event_shape), *(part.reshape(batch) for part in (log_det, residual, evaluations))
    )


def _rows(owner: str, manifold: Manifold, x: Tensor) -> tuple[Tensor, torch.Size]:
    """Return points ``(n, *event_shape)`` to solve with, in float32 at least, and the batch shape that they had."""
    x = points_of(owner, manifold, x)
    batch = manifold.batch_shape(x)
    return x.detach().to(at_least_float32(x.dtype)).reshape(batch.numel(), *manifold.event_shape), batch


def jump_transport(
    field: Callable[..., Tensor],
    manifold: Manifold,
    x: Tensor,
    method: Jumps | None = None,
    *,
    start: float = 0.0,
    time: float = 1.0,
    **condition: Any,
) -> tuple[Tensor, Tensor]:
    """Return where jumps carry points, and the log-determinant of the map's differential there, ``(*batch)``.

    The log-density of a point that is carried falls by the latter. Arguments as for `jump_log_prob`.
    """
    flow_map = as_flow_map("jump_transport", field)
    y, batch = _rows("jump_transport", manifold, x)
    log_det = y.new_zeros(len(y))
    with torch.no_grad():
        for jump in _jumps(flow_map, manifold, method, (start, time), batch, condition):
            framed = jump.framed(y, torch.arange(len(y), device=y.device))
            y, log_det = framed.y, log_det + log_abs_det(framed.matrix)
    return y.reshape(*batch, *manifold.event_shape), log_det.reshape(batch)


class _Framed(NamedTuple):
    """Where a jump leads, with its differential in orthonormal bases ``(n, dim, dim)``."""

    y: Tensor
    matrix: Tensor
    before: Tensor
    """The basis where the jump begins ``(n, dim, *event_shape)``."""
    after: Tensor
    """The basis where it ends."""


class _AverageVelocity(Field):
    """The average velocity to one time, as a field of its own."""

    def __init__(self, flow_map: FlowMap, t: Tensor) -> None:
        self.flow_map, self.t = flow_map, t

    def __call__(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
        return self.flow_map.average_velocity(x, t, self.t, **condition)

    def pushforward(self, x: Tensor, t: Tensor, tangents: Tensor, **condition: Any) -> tuple[Tensor, Tensor] | None:
        return self.flow_map.average_pushforward(x, t, self.t, tangents, **condition)

    def named_modules(self) -> Iterator[tuple[str, nn.Module]]:
        yield from self.flow_map.named_modules()


class _Jump:
    """One jump of a flow map from time s to t, for points that are picked from a batch."""

    def __init__(
        self,
        flow_map: FlowMap,
        manifold: Manifold,
        s: float,
        t: float,
        rows: dict[str, Tensor],
        shared: dict[str, Any],
    ) -> None:
        self.flow_map, self.manifold, self.s, self.t = flow_map, manifold, s, t
        self.rows, self.shared = rows, shared

    def forth(self, x: Tensor, index: Tensor) -> Tensor:
        """Return where points jump to; ``index`` tells which of the batch they are."""
        return self._between(x, self.s, self.t, index)

    def back(self, y: Tensor, index: Tensor) -> Tensor:
        """Return where points at time t jump back to."""
        return self._between(y, self.t, self.s, index)

    def framed(self, x: Tensor, index: Tensor) -> _Framed:
        """Return where points jump to, with the differential of the jump."""
        m, gap = self.manifold, self.t - self.s
        before = m.tangent_basis(x)
        velocity = Differentiable(_AverageVelocity(self.flow_map, x.new_full((), self.t)))
        u, du = velocity.pushforward(m, x, x.new_full((len(x),), self.s), before, self._condition(index))
        y, columns = m.expmap_jvp(x, gap * u, before.movedim(1, 0), gap * du.movedim(1, 0))
        after = m.tangent_basis(y)
        matrix = m.inner(y, after.movedim(1, 0)[:, None], columns[None]).movedim(-1, 0)
        # Where the dimension differs from point to point, bases have zeros in the place of what is not there.
        absent = m.inner(x, before.movedim(1, 0), before.movedim(1, 0)).movedim(-1, 0) == 0
        return _Framed(m.projx(y), matrix + torch.diag_embed(absent.to(matrix.dtype)), before, after)

    def _between(self, x: Tensor, s: float, t: float, index: Tensor) -> Tensor:
        times = (x.new_full((len(x),), time) for time in (s, t))
        return self.manifold.projx(self.flow_map.jump(x, *times, **self._condition(index)))

    def _condition(self, index: Tensor) -> dict[str, Any]:
        return self.shared | {name: value[index] for name, value in self.rows.items()}


def _jumps(
    flow_map: FlowMap,
    manifold: Manifold,
    method: Jumps | None,
    span: tuple[float, float],
    batch: torch.Size,
    condition: dict[str, Any],
) -> Iterator[_Jump]:
    method = Jumps() if method is None else method
    rows = per_sample(condition, batch)
    shared = {name: value for name, value in unmarked(condition).items() if name not in rows}
    (times,) = Mesh(method.steps, method.grading).between(span)
    for s, t in itertools.pairwise(times):
        yield _Jump(flow_map, manifold, s, t, rows, shared)


def _inverted(jump: _Jump, y: Tensor, inversion: Inversion) -> JumpInverse:
    """Return the points that jump to ``y``, and the log-determinant of the jump there."""
    m, everything = jump.manifold, torch.arange(len(y), device=y.device)
    x = jump.back(y, everything)
    at, step, residual, evaluations = _corrected(jump, x, y, inversion)
    log_det, length = torch.full_like(residual, torch.nan), torch.ones_like(residual)
    pending = everything
    for _ in range(inversion.iterations):
        trial = m.projx(m.expmap(at[pending], m.lift(length[pending]) * step[pending]))
        framed = jump.framed(trial, pending)
        missed = m.logmap(framed.y, y[pending])
        distance = m.norm(framed.y, missed)
        evaluations[pending] += 1 + m.dim
        better = distance < residual[pending]
        index = pending[better]
        at[index], residual[index], length[index] = trial[better], distance[better], 1.0
        log_det[index] = log_abs_det(framed.matrix[better])
        step[index] = _newton_step(m, framed, missed)[better]
        length[pending[~better]] /= 4
        pending = pending[~(residual[pending] <= inversion.tolerance)]
        if not len(pending):
            break
    return JumpInverse(m.projx(m.expmap(at, step)), log_det, residual, evaluations)


def _corrected(jump: _Jump, x: Tensor, y: Tensor, inversion: Inversion) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return a first guess, a step from there, how far the guess misses where that is known, and evaluations."""
    m, index = jump.manifold, torch.arange(len(y), device=y.device)
    at, guess, step = x.clone(), x, torch.zeros_like(x)
    residual, evaluations = x.new_full((len(x),), torch.inf), x.new_ones(len(x))
    for _ in range(inversion.corrections):
        here = m.projx(m.expmap(at[index], step[index]))
        landed = jump.forth(here, index)
        distance = m.dist(landed, y[index])
        evaluations[index] += 1
        better = distance < residual[index]
        index, here, landed, distance = index[better], here[better], landed[better], distance[better]
        at[index], step[index] = here, 0.0
        far = distance > inversion.tolerance
        index, here, landed = index[far], here[far], landed[far]
        if not len(index):
            break
        # Only what is to be left behind for a better guess counts as a residual to beat.
        residual[index] = distance[far]
        returned = jump.back(landed, index)
        evaluations[index] += 1
        step[index] = m.logmap(here, guess[index]) - m.logmap(here, returned)
    return at, step, residual, evaluations


def _newton_step(m: Manifold, framed: _Framed, missed: Tensor) -> Tensor:
    """Return the tangent vectors that the differential maps to what is missed; none where it is singular."""
    coefficients = m.inner(framed.y[:, None], framed.after, missed[:, None])
    solved = solve(framed.matrix, coefficients)
    step = (m.lift(solved) * framed.before).sum(1)
    return torch.where(m.lift(solved.isfinite().all(-1)), step, 0.0)
