"""The linear-Gaussian step of methods that combine a predicted end point with a measurement.

Around a point ``p`` of the manifold a measurement is linear in the tangent vector ``u`` of ``exp_p(u)``: with its
whitened residual ``w`` and the derivative ``B`` of that, ``|w + B u|^2``. In flat space with a linear operator this is
exact, elsewhere one step of Gauss and Newton. Adjoints are by automatic differentiation.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from manifolds import Manifold
from rfm.posterior.measurements import Measurement
from rfm.steering.gradients import riemannian_gradient


@dataclass(frozen=True)
class Linearised:
    """A measurement as a linear function of tangent vectors at points ``p``.

    Args:
        manifold: where the points live.
        p: points ``(n, *event_shape)``.
        residual: whitened residuals at ``p``, ``(n, m)``.
        forward: from tangent vectors to changes of the residual ``(n, m)``.
        adjoint: from vectors ``(n, m)`` to tangent vectors.
    """

    manifold: Manifold
    p: Tensor
    residual: Tensor
    forward: Callable[[Tensor], Tensor]
    adjoint: Callable[[Tensor], Tensor]


def linearised(manifold: Manifold, measurement: Measurement, p: Tensor) -> Linearised:
    """Return a measurement linearised at points ``p`` ``(n, *event_shape)``."""
    p = p.detach()
    _check_differentiable(measurement, p)
    with torch.enable_grad():
        zero = torch.zeros_like(p).requires_grad_()
        w = measurement.whitened(manifold.expmap(p, zero))
        if not bool(w.isfinite().all()):
            raise ValueError(
                "Measurement: the operator is NaN or infinite at a predicted end point; it must be finite everywhere"
            )
        # The pullback is linear in its vector, so its own derivative is the forward map: both graphs serve all
        # iterations, where torch.func.jvp would run the operator anew, and much of it in Python, in each.
        v = torch.zeros_like(w).requires_grad_()
        [pulled] = torch.autograd.grad(w, zero, v, create_graph=True)

    def forward(u: Tensor) -> Tensor:
        [moved] = torch.autograd.grad(pulled, v, u, retain_graph=True, materialize_grads=True)
        return moved

    def adjoint(by: Tensor) -> Tensor:
        [ambient] = torch.autograd.grad(w, zero, by, retain_graph=True)
        return riemannian_gradient(manifold, p, ambient)

    return Linearised(manifold, p, w.detach(), forward, adjoint)


def _check_differentiable(measurement: Measurement, p: Tensor) -> None:
    """Raise ValueError where torch would take the derivative of the operator for zero."""
    with torch.enable_grad():
        leaf = p[:1].requires_grad_()
        differentiable = measurement.whitened(leaf).requires_grad
    if len(p) and not differentiable:
        raise ValueError(
            "Measurement: the operator has no derivative that torch knows, which this method needs; write it in "
            "torch's operations, give it an A_adjoint, or use Tempering or Chains"
        )


_FEW = 16
"""Measured numbers up to which their adjoints, one each, cost no more than conjugate gradients take."""


def solve(
    problem: Linearised,
    v: Tensor,
    precision: Tensor,
    pull: Tensor | None = None,
    iterations: int = 50,
    tol: float = 1e-5,
) -> Tensor:
    """Return ``u`` with ``(B'B + precision) u = B'v + pull``: directly for few numbers, or by conjugate gradients.

    Args:
        problem: the measurement.
        v: of measured numbers ``(n, m)``.
        precision: positive numbers ``(n,)``.
        pull: tangent vectors at its points ``(n, *event_shape)``; zero by default.
        iterations: of conjugate gradients, at most; each costs a derivative of the operator and an adjoint.
        tol: of their residual's length, relative to that of the right side.
    """
    if v.shape[1] <= _FEW:
        return _solved_directly(problem, v, precision, pull)
    right = problem.adjoint(v) if pull is None else problem.adjoint(v) + pull
    return _conjugate_gradients(problem, right, precision, iterations, tol)


def _solved_directly(problem: Linearised, v: Tensor, precision: Tensor, pull: Tensor | None) -> Tensor:
    """Return the solution ``B'w + pull / precision``, where ``(B B' + precision) w = v - B pull / precision``."""
    manifold, p, m = problem.manifold, problem.p[:, None], v.shape[1]
    adjoints = torch.stack([problem.adjoint(e.expand_as(v)) for e in torch.eye(m).to(v)], dim=1)
    gram = manifold.inner(p[:, None], adjoints[:, :, None], adjoints[:, None]).double()
    lam = precision.double()[:, None]
    right = v.double()
    if pull is not None:
        right = right - manifold.inner(p, adjoints, pull[:, None]).double() / lam
    w = torch.linalg.solve(gram + lam[..., None] * torch.eye(m).to(gram), right)
    u = (manifold.lift(w.to(v)) * adjoints).sum(1)
    return u if pull is None else u + pull / manifold.lift(precision.to(pull))


def _conjugate_gradients(problem: Linearised, right: Tensor, precision: Tensor, iterations: int, tol: float) -> Tensor:
    """Return ``u`` with ``(B'B + precision) u = right``."""
    manifold, p = problem.manifold, problem.p
    lam = manifold.lift(precision.to(right))
    u, r = torch.zeros_like(right), right
    d, rho = r, manifold.inner(p, r, r)
    goal = rho * tol**2
    for _ in range(iterations):
        going = rho > goal
        if not bool(going.any()):
            break
        a = problem.adjoint(problem.forward(d)) + lam * d
        curvature = manifold.inner(p, d, a)
        step = torch.where(going, rho / torch.where(going, curvature, 1.0), 0.0)
        u, r = u + manifold.lift(step) * d, r - manifold.lift(step) * a
        following = manifold.inner(p, r, r)
        ratio = torch.where(going, following / torch.where(going, rho, 1.0), 0.0)
        d, rho = r + manifold.lift(ratio) * d, torch.where(going, following, rho)
    return u
