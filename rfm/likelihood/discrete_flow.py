"""The density of the discrete flow: the exact Jacobian of fixed steps, in place of a divergence."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from manifolds import Manifold
from manifolds.numerics.precision import at_least_float32, full_precision
from rfm.arrays import points_of
from rfm.integrators import BOGACKI_SHAMPINE, FixedStep, Projected, Tableau
from rfm.integrators.conditions import unmarked
from rfm.integrators.mesh import Mesh
from rfm.integrators.per_sample import combine
from rfm.likelihood.derivatives import differentiable
from rfm.sources import Source

GRADED = FixedStep(BOGACKI_SHAMPINE, 12, grading=2.0)
"""Twelve steps that shrink towards the data, with an estimate of their errors."""

_LOG_LOWEST = math.log(1e-3)
"""What a density that a fold makes meaningless counts at most: its gradient leads back to a map without folds."""


class LeavesDomainError(ValueError):
    """A step that ends where the manifold has no points."""


class DiscreteLogProb(NamedTuple):
    """The log-density of the discrete flow at points, and how far it may be from that of the flow."""

    log_prob: Tensor
    """Nats, with respect to the Riemannian volume, ``(*batch)``."""
    squared_error: Tensor
    """The embedded method's estimate of the squared relative error of each step's Jacobian, summed over the steps,
    ``(*batch)``; 0 where the method estimates no errors."""


def discrete_log_prob(
    field: Callable[..., Tensor],
    source: Source,
    x: Tensor,
    method: FixedStep | None = None,
    *,
    shift: float = 0.0,
    **condition: Any,
) -> DiscreteLogProb:
    """Return the log-density at ``x`` of the discrete flow that carries the source at time 0 to time 1.

    Fixed Runge-Kutta steps back in time, each stage and each step projected to the manifold, are a map ``F`` from data
    to the source. Its own density is ``log p_0(F(x)) + log |det dF(x)|``, with the determinant in orthonormal bases: a
    frame at ``x`` is pushed through every stage, by the derivatives of the field and of the projection. While the steps
    are short enough for ``F`` to be one-to-one, it integrates to 1 *however inaccurate they are*. The integral of a
    divergence along the same steps gives no density, and an optimiser finds fields that make it as large as it likes.

    Args:
        field: the velocity field.
        source: the distribution at time 0.
        x: points ``(*batch, *event_shape)``.
        method: `FixedStep` of a tableau, in ambient coordinates on every manifold; by default 12 steps of Bogacki and
            Shampine's third-order method that shrink towards the data.
        shift: by how much of a step the times between 0 and 1 are moved, between -1 and 1.
        condition: passed on to the field.

    Returns:
        The log-density, and an estimate of the error.

    Raises:
        LeavesDomainError: if a step leaves the manifold's domain.
        ValueError: if the method is another.
    """
    manifold, method = source.manifold, GRADED if method is None else method
    tableau = _tableau(method)
    mesh = Mesh(method.steps, method.grading, shift)
    mesh.check("discrete_log_prob")
    x = points_of("discrete_log_prob", manifold, x)
    # Forward mode refuses tensors that overlap themselves, as expanded ones do.
    x = x.to(at_least_float32(x.dtype)).contiguous()
    known, own = differentiable(field), unmarked(condition)
    batch, (times,) = manifold.batch_shape(x), mesh.between((1.0, 0.0))

    def rate(y: Tensor, t: float, frame: Tensor) -> tuple[Tensor, Tensor]:
        return known.pushforward(manifold, y, y.new_full((), t).expand(batch), frame, own)

    at = _Framed(x, manifold.tangent_basis(x), x.new_zeros(batch), x.new_zeros(batch, dtype=torch.bool))
    first, error = None, x.new_zeros(batch)
    for start, end in itertools.pairwise(times):
        at, first, increment = _step(rate, manifold, tableau, at, start, end - start, first)
        error = error + increment
    volume = at.log_det + _log_volume(manifold, at.x, at.frame)
    volume = torch.where(at.folded, _LOG_LOWEST - torch.nn.functional.softplus(volume), volume)
    return DiscreteLogProb(source.log_prob(at.x) + volume, error)


@dataclass(frozen=True)
class _Framed:
    """Points on their way, with what becomes of a frame."""

    x: Tensor
    frame: Tensor
    """``(*batch, dim, *event_shape)``."""
    log_det: Tensor
    """The log-determinant of what the frame was divided by, ``(*batch)``."""
    folded: Tensor
    """Where a step has turned the frame inside out, ``(*batch)``."""


_Rate = tuple[Tensor, Tensor]
"""A velocity, and its derivatives along a frame."""


def _step(
    rate: Callable[[Tensor, float, Tensor], _Rate],
    manifold: Manifold,
    tableau: Tableau,
    at: _Framed,
    t: float,
    h: float,
    first: _Rate | None,
) -> tuple[_Framed, _Rate | None, Tensor]:
    """Make one step; return where it leads, the rate there if it is known, and the squared error of the frame."""
    rank = len(manifold.event_shape)
    rates = [rate(at.x, t, at.frame) if first is None else first]
    y, frame = at.x, at.frame
    weights = [*tableau.a[1:], *([] if tableau.first_same_as_last else [tableau.b])]
    for c, row in itertools.zip_longest(tableau.c[1:], weights):
        u, du = (combine(row, parts) for parts in zip(*rates, strict=True))
        y, frame = _projected(manifold, at.x + h * u, at.frame + h * du)
        if c is not None:
            rates.append(rate(y, t + c * h, frame))
    error = torch.zeros_like(at.log_det)
    if tableau.b_error is not None:
        wrong = h * combine(tableau.b_error, [du for _, du in rates])
        sizes = (v.flatten(-1 - rank).square().sum(-1) for v in (wrong, at.frame.detach()))
        error = torch.div(*sizes)
    turn, log_det, folded = _normalising(at.frame, frame, rank)
    moved = _Framed(y, _turned(turn, frame, rank), at.log_det + log_det, at.folded | folded)
    if not tableau.first_same_as_last:
        return moved, None, error
    u, du = rates[-1]
    return moved, (u, _turned(turn, du, rank)), error


def _projected(manifold: Manifold, z: Tensor, dz: Tensor) -> tuple[Tensor, Tensor]:
    """Return the points nearest to ``z``, and what the projection makes of vectors ``(*batch, k, *event_shape)``."""
    outside = manifold.outside(z)
    if outside is not None and bool(outside.any()):
        raise LeavesDomainError(
            f"discrete_log_prob: a step leaves {manifold} at {int(outside.sum())} of {outside.numel()} points, and the "
            "map of the steps has no density there; take more steps"
        )
    axis = z.ndim - len(manifold.event_shape)
    y, dy = manifold.projx_jvp(z, dz.movedim(axis, 0))
    return y, dy.movedim(0, axis)


def _normalising(before: Tensor, after: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the matrix that makes a frame orthonormal in the ambient space, minus its log-determinant, and folds.

    Constants, both: the determinant is what it was, to every derivative, and no frame of a long way degenerates.
    """
    with torch.no_grad(), full_precision(after.device):
        rows, old = after.flatten(-rank), before.flatten(-rank)
        lower = torch.linalg.cholesky_ex(rows @ rows.mT)[0]
        turn = torch.linalg.solve_triangular(lower, torch.eye(lower.shape[-1]).to(lower), upper=False)
        # Tangent spaces at neighbouring points are less than a right angle apart.
        folded = ~(torch.linalg.det(rows @ old.mT) > 0)
        return turn, torch.diagonal(lower, dim1=-2, dim2=-1).log().sum(-1), folded


def _turned(turn: Tensor, frame: Tensor, rank: int) -> Tensor:
    with full_precision(frame.device):
        return (turn @ frame.flatten(-rank)).reshape(frame.shape)


def _log_volume(manifold: Manifold, x: Tensor, frame: Tensor) -> Tensor:
    """Return the logarithm of the volume that the vectors of a frame span, ``(*batch)``."""
    axis = x.ndim - len(manifold.event_shape)
    # Where points are classes, what moves a representative within its class is no part of the volume.
    frame = manifold.proju(x.unsqueeze(axis), frame)
    gram = manifold.inner(x.unsqueeze(axis).unsqueeze(axis), frame.unsqueeze(axis), frame.unsqueeze(axis + 1))
    with full_precision(x.device):
        return torch.diagonal(torch.linalg.cholesky_ex(gram)[0], dim1=-2, dim2=-1).log().sum(-1)


def _tableau(method: FixedStep) -> Tableau:
    """Return the tableau of a method whose steps are projected.

    Raises:
        ValueError: for another method.
    """
    scheme = method.scheme.tableau if isinstance(method.scheme, Projected) else method.scheme
    if not isinstance(scheme, Tableau):
        raise ValueError(
            f"discrete_log_prob: the steps must be those of a tableau, projected to the manifold, got {method.scheme}; "
            "pass FixedStep(BOGACKI_SHAMPINE, 12, grading=2.0)"
        )
    return scheme
