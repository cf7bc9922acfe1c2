"""Training by maximum likelihood: the same model as a continuous normalising flow.

Each step solves for the log-density of its batch, and differentiates it with respect to the weights: by backpropagation
through the steps, whose memory grows with their number, or by the adjoint equation, whose memory does not.

An optimiser that descends the integral of a divergence along fixed steps finds fields for which the steps' error makes
it as small as it likes. The density of the *discrete* flow, by the exact Jacobian of its steps, is a density, whatever
the error (`rfm.likelihood.discrete_log_prob`); and new times of the steps at random keep it that of the flow.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from manifolds import Euclidean, Manifold, Product
from manifolds.arguments import number
from manifolds.numerics.precision import at_least_float32
from rfm.field import as_field
from rfm.integrators import FixedStep, integrate
from rfm.likelihood import Hutchinson, divergence, divergence_estimates, estimate_log_prob, log_prob
from rfm.likelihood.derivatives import check_function, differentiable
from rfm.likelihood.differentiable_operations import check_scripted
from rfm.likelihood.discrete_flow import GRADED, discrete_log_prob
from rfm.objectives.objective import Objective
from rfm.sources import Source

_STEPS = (12, 24, 48, 96)
"""What is tried in turn where no method is given."""

_FARTHEST_SHIFT = 0.45
"""Of the times of steps, in steps."""


@dataclass(frozen=True)
class MaximumLikelihood(Objective):
    """The objective of continuous normalising flows, for `rfm.fit`: minus the mean log-density of the data.

    It is made to go on from a trained flow, ``rfm.fit(points, manifold, field=flow.field,
    objective=rfm.MaximumLikelihood(), steps=200)``, with the same validation points: the weights of the best
    validation, those at the start included, are kept. A step costs as many evaluations of the field with its
    derivatives, and of the gradient, as the solve has stages, where flow matching takes one of the field.

    Chen et al., Neural ordinary differential equations, 2018, arXiv:1806.07366; on manifolds: Mathieu & Nickel,
    Riemannian continuous normalizing flows, 2020, arXiv:2006.10605. The Jacobian of the discrete steps, in place of the
    divergence: Onken & Ruthotto, Discretize-optimize vs. optimize-discretize, 2020, arXiv:2005.13420, argue for it.

    Training ends with a sentence (``Flow.stopped``) where the loss's log-density of the validation points and that of
    an accurate solve differ by more than ``tolerance``; at the start it is an error.

    Args:
        method: the solve of each step, by fixed steps, so that it can be differentiated; by default 12 of Bogacki and
            Shampine's third-order method that shrink towards the data, and in `rfm.fit` 24, 48 or 96 where the flow at
            the start is too sharp for fewer (half the tolerance): ``Flow.history`` has their number.
        adjoint: take gradients by the adjoint equation instead of backpropagation, with the divergence.
        probes: estimate the divergence with so many, see `Hutchinson`, with new noise at every step; None for the exact
            Jacobian, which costs as many derivatives as there are dimensions.
        jitter: standard deviation, in each direction, by which data points are moved at random, as a share of the
            distance to the sixth nearest place: without it the density grows without limit at single points.
        penalty: weight of the embedded method's estimate of the squared relative error of the Jacobians, where there
            is one. The optimiser gains from an error in proportion to it, and loses by its square.
        tolerance: by how much the two log-densities may differ, in nats.

    Raises:
        ValueError: for a negative number.
    """

    method: FixedStep | None = None
    adjoint: bool = False
    probes: int | None = None
    jitter: float = 0.3
    penalty: float = 30.0
    tolerance: float = 0.01

    pairs: ClassVar[bool] = False
    refines: ClassVar[bool] = True
    learning_rate: ClassVar[float] = 5e-4

    def __post_init__(self) -> None:
        for name in ("jitter", "penalty", "tolerance"):
            value = number("MaximumLikelihood", name, getattr(self, name))
            if not 0 <= value < math.inf:
                raise ValueError(
                    f"MaximumLikelihood: {name} must be a number of at least 0, got {value:g}; choose another"
                )

    @property
    def splits(self) -> bool:
        # Each process would estimate the divergence with other noise than one would.
        return self.probes is None

    def check_source(self, manifold: Manifold, source: Source) -> None:
        source.check_density("MaximumLikelihood")

    @property
    def candidates(self) -> Sequence[Self]:
        """With 12, 24, 48 and 96 steps; with the method alone where it is given."""
        steps = _STEPS if self.method is None else ()
        return tuple(replace(self, method=replace(GRADED, steps=n)) for n in steps) or (self,)

    @property
    def solver_steps(self) -> int:
        """Those of the method."""
        return self._solve.steps

    @property
    def _solve(self) -> FixedStep:
        return GRADED if self.method is None else self.method

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
        if self.adjoint or self.probes is not None:
            estimator = None if self.probes is None else Hutchinson(self.probes, generator)
            return negative_log_likelihood_loss(
                field, source, x_1, self._solve, adjoint=self.adjoint, estimator=estimator, **condition
            )
        _check_field(field)
        shift = _FARTHEST_SHIFT * (2 * float(torch.rand((), generator=generator, device=x_1.device)) - 1)
        found = discrete_log_prob(field, source, x_1, self._solve, shift=shift, **condition)
        return (self.penalty * found.squared_error - found.log_prob).mean()

    def log_prob(self, field: Callable[..., Tensor], source: Source, x: Tensor, **condition: Any) -> Tensor:
        """Return the log-density by the steps of ``method``."""
        if self.adjoint or self.probes is not None:
            return log_prob(field, source, x, self._solve, **condition)
        return discrete_log_prob(field, source, x, self._solve, **condition).log_prob


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

    It is the density of the discrete flow (`rfm.likelihood.discrete_log_prob`); of the flow, by the divergence, with
    ``adjoint`` or an ``estimator``.

    Args:
        field: ``field(x, t, **condition)``, tangent at ``x``.
        source: the distribution at time 0.
        x: data points ``(*batch, *event_shape)``.
        method: the solve; by default 12 steps of Bogacki and Shampine's third-order method that shrink towards the
            data.
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
    method = GRADED if method is None else method
    if not isinstance(method, FixedStep):
        raise ValueError(
            f"negative_log_likelihood_loss: the method must take fixed steps to be differentiated, got {method}; "
            "use rfm.integrators.FixedStep"
        )
    _check_field(field)
    if adjoint:
        log_p = adjoint_log_prob(field, source, x, method, estimator=estimator, **condition)
    elif estimator is None:
        log_p = discrete_log_prob(field, source, x, method, **condition).log_prob
    else:
        log_p = estimate_log_prob(field, source, x, estimator, method, **condition).log_prob
    if reduction == "none":
        return -log_p
    return -log_p.mean() if reduction == "mean" else -log_p.sum()


def _check_field(field: Callable[..., Tensor]) -> None:
    """Raise ValueError for a field without a density, or whose derivatives would be wrong."""
    check_function("negative_log_likelihood_loss", field)
    check_scripted("negative_log_likelihood_loss", field)


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
        method: both solves; by default 12 steps of Bogacki and Shampine's third-order method that shrink towards the
            data.
        estimator: estimate the divergence.
        condition: passed on to the field, and not differentiated.
    """
    manifold = source.manifold
    x = x.to(at_least_float32(x.dtype))
    method = GRADED if method is None else method
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
