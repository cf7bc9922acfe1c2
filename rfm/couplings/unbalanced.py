"""Transport between batches of which parts have no counterpart: pairs from an unbalanced plan."""

import math

import torch
from torch import Tensor

from manifolds import Manifold
from manifolds.arguments import check_instance, integer, number, positive
from manifolds.numerics.precision import in_full_precision
from rfm.arrays import points_of, tensor_of
from rfm.couplings.coupling import Pairs, check_sizes
from rfm.couplings.transport import checked_weight, relative_cost


class UnbalancedSinkhorn:
    """Pairs drawn from a transport plan that may leave mass where it is, at a price.

    The plan P minimises ``<P, cost> + regularisation KL(P | a b') + source_relaxation KL(P 1 | a) + target_relaxation
    KL(P' 1 | b)`` with equal masses a and b, and all in units of the mean cost of independent pairs. A point whose
    nearest counterparts cost more than about its relaxation takes little part. Pairs are drawn from the plan, divided
    by its total.

    By default the source is kept exactly, each of its points used once, and data points far from all of it are rarer:
    so the flow's source stays what it says, and what it learns is the data reweighted. With a finite source relaxation
    pairs have other start points than the source draws: for a source of points alone, whose weights are thereby chosen.

    Args:
        manifold: whose squared distance is the cost.
        target_relaxation: price of missing the data's masses.
        source_relaxation: likewise of the source's; infinite by default.
        regularisation: strength of the entropy.
        condition_weight: as for `Sinkhorn`.
        tolerance: largest change of a logarithm in one step, relative to the regularisation; iterations end there.
        max_steps: or here, whichever is first.

    Raises:
        ValueError: for numbers that are not positive; on use, as for `Sinkhorn`.

    References:
        Chizat, Peyre, Schmitzer, Vialard: Scaling Algorithms for Unbalanced Optimal Transport Problems, 2018,
        doi:10.1090/mcom/3303, section 4. Eyring et al.: Unbalancedness in Neural Monge Maps Improves Unpaired Domain
        Translation, 2024, arXiv:2311.15100 (pairs of flow matching from such plans).
    """

    def __init__(
        self,
        manifold: Manifold,
        target_relaxation: float = 1.0,
        source_relaxation: float = math.inf,
        regularisation: float = 0.05,
        condition_weight: float = math.inf,
        tolerance: float = 1e-3,
        max_steps: int = 1000,
    ) -> None:
        name = "UnbalancedSinkhorn"
        check_instance(name, "manifold", manifold, Manifold, f"{name}(Sphere(2))")
        self.manifold = manifold
        self.target_relaxation = _relaxation("target_relaxation", target_relaxation)
        self.source_relaxation = _relaxation("source_relaxation", source_relaxation)
        self.regularisation = positive(name, "regularisation", regularisation)
        self.condition_weight = checked_weight(name, condition_weight)
        self.tolerance = positive(name, "tolerance", tolerance)
        self.max_steps = integer(name, "max_steps", max_steps)

    def __call__(
        self,
        x_0: Tensor,
        x_1: Tensor,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Pairs:
        """Return as many pairs as points are given; each data point with its condition, as often as it takes part."""
        plan = self.plan(x_0, x_1, condition)
        x_0, x_1 = (points_of("UnbalancedSinkhorn", self.manifold, x) for x in (x_0, x_1))
        known = None if condition is None else tensor_of("UnbalancedSinkhorn", "condition", condition)
        if len(plan) == 0:
            return Pairs(x_0, x_1, known)
        rows = torch.arange(len(plan), device=plan.device)
        if self.source_relaxation < math.inf:
            rows = torch.multinomial(plan.sum(1), len(plan), replacement=True, generator=generator)
        columns = torch.multinomial(plan[rows], 1, generator=generator)[:, 0]
        return Pairs(x_0[rows], x_1[columns], None if known is None else known[columns])

    @torch.no_grad()
    @in_full_precision
    def plan(self, x_0: Tensor, x_1: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return how much mass goes from each source, a row, to each target, ``(n, n)``, of a total about 1."""
        x_0, x_1 = (points_of("UnbalancedSinkhorn", self.manifold, x) for x in (x_0, x_1))
        check_sizes("UnbalancedSinkhorn", x_0, x_1)
        if len(x_1) == 0:
            return x_1.new_empty(0, 0)
        cost = relative_cost("UnbalancedSinkhorn", self.manifold, x_0, x_1, condition, self.condition_weight).mT
        log_kernel = -cost / self.regularisation - 2 * math.log(len(cost))
        # How much of a step is taken: all of it where masses are kept.
        first, second = (1 / (1 + self.regularisation / r) for r in (self.source_relaxation, self.target_relaxation))
        f = g = log_kernel.new_zeros(len(cost))
        log_mass = -math.log(len(cost))
        for _ in range(self.max_steps):
            before = f
            g = second * (log_mass - torch.logsumexp(log_kernel + f[:, None], dim=0))
            f = first * (log_mass - torch.logsumexp(log_kernel + g, dim=1))
            if float((f - before).abs().max()) <= self.tolerance:
                break
        return torch.exp(log_kernel + f[:, None] + g)


def _relaxation(name: str, value: float) -> float:
    own = number("UnbalancedSinkhorn", name, value)
    if not own > 0:
        raise ValueError(f"UnbalancedSinkhorn: {name} must be positive, infinity included, got {value}; raise it")
    return own
