"""A logarithm found by shooting, for manifolds that come with an exponential map alone."""

from typing import NamedTuple

import torch
from torch import Tensor

from manifolds.base import Manifold
from manifolds.numerics import differentiated
from manifolds.numerics.linear_algebra import solve


class Shot(NamedTuple):
    """What `shoot_at` found."""

    u: Tensor
    """Tangent vectors at ``x``, ``(*batch, *event_shape)``; the best ones met where the search failed."""
    converged: Tensor
    """Whether ``expmap(x, u)`` is ``y`` up to the square root of the dtype's rounding, ``(*batch)``."""


def shoot_at(manifold: Manifold, x: Tensor, y: Tensor, iterations: int = 32) -> Shot:
    """Solve ``expmap(x, u) == y`` for a tangent vector ``u`` by Gauss-Newton with step halving.

    It starts from the projection of ``y - x``; half-way, samples that have not converged start again from twice that,
    since the projection falls short of distant points. The geodesic found connects the points; it is the shortest only
    where they are near. The number of iterations is fixed: samples that are done, or have failed, wait for the others.

    Args:
        manifold: its ``expmap``, ``proju`` and ``tangent_basis`` are used.
        x: points ``(*batch, *event_shape)``.
        y: points, the same shape.
        iterations: number of Jacobians.

    References:
        Nocedal, Wright, Numerical Optimization, 2006, doi:10.1007/978-0-387-40065-5, section 10.3.
    """
    x, y = (a.contiguous() for a in torch.broadcast_tensors(x, y))
    shot = _search(manifold, x.detach(), y.detach(), iterations)
    if not (differentiated(x) or differentiated(y)):
        return shot
    # One Newton step gives a solution its first derivatives, two the second.
    basis, u = _basis(manifold, x), manifold.proju(x, shot.u)
    done = manifold.lift(shot.converged)
    for _ in range(2):
        u = torch.where(done, u + _gauss_newton_step(manifold, x, y, u, basis), u)
    return Shot(u, shot.converged)


def _basis(manifold: Manifold, x: Tensor) -> Tensor:
    """Return tangent vectors ``(dim, *batch, *event_shape)``."""
    return manifold.tangent_basis(x).movedim(-1 - len(manifold.event_shape), 0)


def _search(manifold: Manifold, x: Tensor, y: Tensor, iterations: int) -> Shot:
    axes = len(manifold.event_shape)
    basis = _basis(manifold, x)
    start = u = manifold.proju(x, y - x)
    error = _size(y - manifold.expmap(x, u), axes)
    factor = torch.ones_like(error)
    for i in range(iterations):
        if i == iterations // 2:
            failed = ~_converged(error, y, axes)
            u = torch.where(manifold.lift(failed), 2 * start, u)
            error = _size(y - manifold.expmap(x, u), axes)
            factor = torch.where(failed, 1.0, factor)
        step = _gauss_newton_step(manifold, x, y, u, basis)
        trial = u + manifold.lift(factor) * step
        trial_error = _size(y - manifold.expmap(x, trial), axes)
        better = trial_error < error
        u = torch.where(manifold.lift(better), trial, u)
        error = torch.where(better, trial_error, error)
        factor = torch.where(better, (2 * factor).clamp(max=1.0), factor / 2)
    return Shot(u, _converged(error, y, axes))


def _gauss_newton_step(manifold: Manifold, x: Tensor, y: Tensor, u: Tensor, basis: Tensor) -> Tensor:
    """Return the tangent vector that takes the linearised exponential map closest to ``y``."""
    axes = len(manifold.event_shape)

    def along(e: Tensor) -> tuple[Tensor, Tensor]:
        value, derivative = torch.func.jvp(lambda w: manifold.expmap(x, w), (u,), (e,))[:2]
        return value, derivative

    value, columns = torch.func.vmap(along, out_dims=(None, 0))(basis)  # type: ignore[arg-type]
    jacobian = columns.flatten(-axes).movedim(0, -1)
    residual = (y - value).flatten(-axes)
    gram = jacobian.mT @ jacobian
    # At a conjugate point the matrix is singular; the ridge leaves the convergence quadratic elsewhere.
    ridge = torch.finfo(x.dtype).eps * torch.diagonal(gram, dim1=-2, dim2=-1).sum(-1)[..., None, None]
    eye = torch.eye(gram.shape[-1], dtype=x.dtype, device=x.device)
    coefficients = solve(gram + ridge * eye, (jacobian.mT @ residual[..., None])[..., 0])
    return (manifold.lift(coefficients.movedim(-1, 0)) * basis).sum(0)


def _converged(error: Tensor, y: Tensor, axes: int) -> Tensor:
    return error <= torch.finfo(y.dtype).eps ** 0.5 * _size(y, axes).clamp(min=1.0)


def _size(a: Tensor, axes: int) -> Tensor:
    return torch.linalg.vector_norm(a.flatten(-axes), dim=-1)
