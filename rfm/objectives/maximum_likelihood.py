"""Training by maximum likelihood: the same model as a continuous normalising flow.

Each step solves for the log-density of its batch, and differentiates it with respect to the weights: by backpropagation
through the solve, whose memory grows with the number of steps, or by the adjoint equation, whose memory does not.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from manifolds import Euclidean, Manifold, Product
from manifolds.precision import at_least_float32
from rfm.field import as_field
from rfm.integrators import RK4, FixedStep, integrate
from rfm.likelihood import Hutchinson, divergence, divergence_estimates, estimate_log_prob, log_prob
from rfm.likelihood.derivatives import check_function, differentiable
from rfm.likelihood.differentiable_operations import check_scripted
from rfm.objectives.objective import Objective
from rfm.sources import Source

_METHOD = FixedStep(RK4, 8)


@dataclass(frozen=True)
class MaximumLikelihood(Objective):
    """The objective of continuous normalising flows, for `rfm.fit`: minus the mean log-density of the data.

    Chen et al., Neural ordinary differential equations, 2018, arXiv:1806.07366; on manifolds: Mathieu & Nickel,
    Riemannian continuous normalizing flows, 2020, arXiv:2006.10605. A step costs as many evaluations of the divergence
    and of its gradient as the solve has stages, where flow matching takes one of the field.

    Args:
        method: the solve of each step; fixed steps, so that it can be differentiated.
        adjoint: take gradients by the adjoint equation instead of backpropagation.
        probes: estimate the divergence with so many, see `Hutchinson`, with new noise at every step; exact when None.
    """

    method: FixedStep = _METHOD
    adjoint: bool = False
    probes: int | None = None

    pairs: ClassVar[bool] = False

    def check_source(self, manifold: Manifold, source: Source) -> None:
        source.check_density("MaximumLikelihood")

    def __call__(
        self,
        field: Callable[..., Tensor],
        source: Source,
        x_0: Tensor,
        x_1: Tensor,
        t: Tensor,
        *,
        generator: torch.Generator | None = None,
        **condition: Any,
    ) -> Tensor:
        """Return the loss of a batch of data ``x_1``; draws from the source and times are not needed."""
        estimator = None if self.probes is None else Hutchinson(self.probes, generator)
        return negative_log_likelihood_loss(
            field, source, x_1, self.method, adjoint=self.adjoint, estimator=estimator, **condition
        )


def negative_log_likelihood_loss(
    field: Callable[..., Tensor],
    source: Source,
    x: Tensor,
    method: FixedStep | None = None,
    reduction: str = "mean",
    *,
    adjoint: bool = False,
    estimator: Hutchinson | None = None,
    **condition: Any,
) -> Tensor:
    """Return minus the log-density of ``x`` under the flow of the field, differentiable in the field's parameters.

    Args:
        field: ``field(x, t, **condition)``, tangent at ``x``.
        source: the distribution at time 0.
        x: data points ``(*batch, *event_shape)``.
        method: the solve; 8 steps of Runge and Kutta's fourth-order method by default.
        reduction: "mean" over the batch, "sum", or "none" for one value per point ``(*batch)``, in nats.
        adjoint: take gradients by the adjoint equation, see `adjoint_log_prob`.
        estimator: estimate the divergence; the same noise along one solve.
        condition: passed on to the field.

    Raises:
        ValueError: if ``reduction`` is none of the three, the method does not take fixed steps, the field is in
            training mode with dropout or batch normalisation, and then has no density, or it has parts compiled by
            TorchScript whose derivatives would be wrong.
    """
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f'negative_log_likelihood_loss: reduction must be "mean", "sum" or "none", got {reduction!r}')
    method = _METHOD if method is None else method
    check_function("negative_log_likelihood_loss", field)
    if not isinstance(method, FixedStep):
        raise ValueError(
            f"negative_log_likelihood_loss: the method must take fixed steps to be differentiated, got {method}; "
            "use rfm.integrators.FixedStep"
        )
    check_scripted("negative_log_likelihood_loss", field)
    if adjoint:
        log_p = adjoint_log_prob(field, source, x, method, estimator=estimator, **condition)
    elif estimator is None:
        log_p = log_prob(field, source, x, method, **condition)
    else:
        log_p = estimate_log_prob(field, source, x, estimator, method, **condition).log_prob
    if reduction == "none":
        return -log_p
    return -log_p.mean() if reduction == "mean" else -log_p.sum()


def adjoint_log_prob(
    field: Callable[..., Tensor],
    source: Source,
    x: Tensor,
    method: FixedStep | None = None,
    *,
    estimator: Hutchinson | None = None,
    **condition: Any,
) -> Tensor:
    """Return `log_prob` whose gradients, in the parameters and in ``x``, come from the adjoint equation.

    The backward pass solves for the path once more, from time 0 to 1, together with the cotangent along it, and keeps
    one evaluation of the field in memory at a time. Its gradient is that of the exact solution up to the error of the
    method, not that of the discrete solve: take enough steps.

    Chen et al., Neural ordinary differential equations, 2018, arXiv:1806.07366, algorithm 1, in ambient coordinates:
    ``v(projx(x))`` extends the field to them and keeps the manifold invariant, so the tangent part of the cotangent
    obeys the equation on the manifold (Lou et al., Neural manifold ordinary differential equations, 2020,
    arXiv:2006.10254). The gradient in ``x`` is right along the manifold; its normal part means nothing.

    Args:
        field: the velocity field; parameters are differentiated if it is a module.
        source: the distribution at time 0.
        x: points ``(*batch, *event_shape)``.
        method: both solves; 8 steps of Runge and Kutta's fourth-order method by default.
        estimator: estimate the divergence.
        condition: passed on to the field, and not differentiated.
    """
    manifold = source.manifold
    x = x.to(at_least_float32(x.dtype))
    method = _METHOD if method is None else method
    if estimator is not None:
        condition["noise_of_probes"] = estimator.noise(manifold, x)

    # The way there is not recorded, the way back is: what is found out about one need not hold for the other.
    ways = (differentiable(field), differentiable(field))

    def rate(y: Tensor, t: Tensor, noise_of_probes: Tensor | None = None, **own: Any) -> tuple[Tensor, Tensor]:
        known = ways[torch.is_grad_enabled()]
        if noise_of_probes is None:
            return divergence(known, manifold, y, t, **own)
        u, estimates = divergence_estimates(known, manifold, y, t, noise_of_probes, **own)
        return u, estimates.mean(-1)

    parameters = [p for p in as_field(field).parameters() if p.requires_grad]
    x_0, integral = _Adjoint.apply(_Problem(rate, manifold, method, condition), x, *parameters)  # type: ignore[no-untyped-call]
    return source.log_prob(x_0) + integral


@dataclass(frozen=True)
class _Problem:
    """What the forward and the backward solve have in common."""

    rate: Callable[..., tuple[Tensor, Tensor]]
    manifold: Manifold
    method: FixedStep
    condition: dict[str, Any]


class _Adjoint(torch.autograd.Function):
    """The way from time 1 back to 0, and the integral of the divergence along it."""

    @staticmethod
    def forward(ctx: Any, problem: _Problem, x: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        solution = integrate(
            problem.rate, problem.manifold, x, (1.0, 0.0), problem.method, with_integral=True, **problem.condition
        )
        assert solution.integral is not None
        ctx.problem = problem
        kind = x.device.type
        ctx.autocast = {"device_type": kind, "enabled": torch.is_autocast_enabled(kind)}
        ctx.autocast["dtype"] = torch.get_autocast_dtype(kind)
        ctx.save_for_backward(solution.final, *parameters)
        return solution.final, solution.integral[-1]

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        x_0, *parameters = ctx.saved_tensors
        # The field is to be the one of the way back.
        with torch.autocast(**ctx.autocast):
            along_x, along_parameters = _solve_adjoint(ctx.problem, x_0, cotangents[0], cotangents[1], parameters)
        return None, along_x, *along_parameters


def _solve_adjoint(
    problem: _Problem, x_0: Tensor, cotangent: Tensor, weight: Tensor, parameters: list[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Follow the point, its cotangent and the gradient in the parameters from time 0 to 1.

    With ``H = <cotangent, u> + weight * divergence`` they move at the rates ``u``, ``-dH/dx`` and ``-dH/dp``: a point
    of the manifold and a vector of its ambient space, and an integral, which feeds back into nothing.

    Args:
        problem: the rate, where, and how to solve.
        x_0: points at time 0.
        cotangent: derivative of the loss in ``x``.
        weight: derivative of the loss in the integral of the divergence ``(*batch)``; it stays the same.
        parameters: of the field.
    """
    pairs = Product(problem.manifold, Euclidean(problem.manifold.event_shape.numel()))

    def rates(
        x: Tensor, t: Tensor, *, integrand: bool = True, index: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        y, a = (part.reshape(x_0.shape) for part in pairs.split(x))
        leaves = parameters if integrand else []
        u, along_x, along_parameters = _hamiltonian_rates(problem, y, torch.ones_like(weight) * t, a, weight, leaves)
        flat = torch.cat([g.flatten().to(x.dtype) for g in along_parameters]) if along_parameters else None
        return pairs.join(u.reshape(-1, *problem.manifold.event_shape), along_x.reshape(len(x), -1)), flat

    start = pairs.join(x_0.reshape(-1, *problem.manifold.event_shape), cotangent.reshape(weight.numel(), -1))
    march, stepper = problem.method.march(rates, pairs, start, (0.0, 1.0), joint=True)
    integral = torch.cat(stepper.integrals() or [x_0.new_zeros(0)])
    sizes = [p.numel() for p in parameters]
    gradients = [g.reshape(p.shape) for g, p in zip(integral.split(sizes), parameters, strict=True)]
    return pairs.split(march.x)[1].reshape(x_0.shape), gradients


def _hamiltonian_rates(
    problem: _Problem, x: Tensor, t: Tensor, cotangent: Tensor, weight: Tensor, parameters: list[Tensor]
) -> tuple[Tensor, Tensor, list[Tensor]]:
    with torch.enable_grad():
        y = x.detach().requires_grad_()
        u, divergence_at_y = problem.rate(problem.manifold.projx(y), t, **problem.condition)
        hamiltonian = (cotangent * u).sum() + (weight * divergence_at_y).sum()
        along = torch.autograd.grad(hamiltonian, [y, *parameters], allow_unused=True)
    along_x, *along_parameters = (
        torch.zeros_like(v) if g is None else -g for g, v in zip(along, (y, *parameters), strict=True)
    )
    return u.detach(), along_x, along_parameters
