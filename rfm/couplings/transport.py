"""Couplings by optimal transport: source points are paired with the data points that lie near them in the batch."""

import math
import warnings
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from manifolds import Manifold
from manifolds.arguments import check_instance, integer, number, positive
from manifolds.numerics.precision import in_full_precision
from rfm.arrays import points_of, tensor_of
from rfm.couplings.assignment import assignment
from rfm.couplings.coupling import Pairs, check_sizes

_CHUNK_ELEMENTS = 2**22
"""Coordinates held at a time while distances are computed."""


class _BatchTransport(ABC):
    """A coupling that chooses, for each data point of a batch, a source point of the batch by their distance."""

    def __init__(self, manifold: Manifold, condition_weight: float) -> None:
        check_instance(type(self).__name__, "manifold", manifold, Manifold, f"{type(self).__name__}(Sphere(2))")
        self.manifold = manifold
        self.condition_weight = checked_weight(type(self).__name__, condition_weight)

    def __call__(
        self,
        x_0: Tensor,
        x_1: Tensor,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Pairs:
        """Return the source points in the order of their data points, which stay where they are."""
        index = self.indices(x_0, x_1, condition=condition, generator=generator)
        x_0, x_1 = (points_of(type(self).__name__, self.manifold, x) for x in (x_0, x_1))
        known = None if condition is None else tensor_of(type(self).__name__, "condition", condition)
        return Pairs(x_0[index], x_1, known)

    @abstractmethod
    def indices(
        self,
        x_0: Tensor,
        x_1: Tensor,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return for each data point the index of its source point, ``(n,)``: for what else belongs to the latter."""


class OptimalTransport(_BatchTransport):
    """The pairing of least total squared geodesic distance in each batch, exactly.

    Every source point is used once. Distances are computed where the points are; the assignment is solved on the CPU,
    in time that grows a little faster than the square of the batch. It does not depend on the unit of length, and a few
    points far away do not make the others' pairs less exact.

    Args:
        manifold: whose distance is the cost.
        condition_weight: cost of one squared unit between conditions; infinite by default, which pairs within groups
            of equal condition, and solves each of them by itself.

    Raises:
        ValueError: if ``condition_weight`` is negative; on use, if the batches differ in size or a distance is not
            finite.

    References:
        Tong et al.: Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal Transport, 2023,
        arXiv:2302.00482 (here with the cost of the manifold). Bonneel et al.: Displacement interpolation using
        Lagrangian mass transport, 2011, doi:10.1145/2070781.2024192 (the network simplex of the package POT).
    """

    def __init__(self, manifold: Manifold, condition_weight: float = math.inf) -> None:
        super().__init__(manifold, condition_weight)

    @torch.no_grad()
    @in_full_precision
    def indices(
        self,
        x_0: Tensor,
        x_1: Tensor,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        x_0, x_1 = (points_of("OptimalTransport", self.manifold, x) for x in (x_0, x_1))
        check_sizes("OptimalTransport", x_0, x_1)
        index = torch.arange(len(x_1), device=x_1.device)
        if condition is None:
            return assignment(self._squared(x_0, x_1)).to(x_1.device) if len(x_1) else index
        condition = _checked_condition("OptimalTransport", condition, x_1)
        label, count = _labels(condition, self.condition_weight)
        for group in range(count):
            rows = (label == group).nonzero()[:, 0]
            if len(rows) > 1:
                cost = self._squared(x_0[rows], x_1[rows])
                cost = cost + _condition_cost(condition[rows].to(cost), self.condition_weight)
                index[rows] = rows[assignment(cost)]
        return index

    def _squared(self, x_0: Tensor, x_1: Tensor) -> Tensor:
        # On the CPU, where the assignment is solved; squares of small distances underflow in single precision.
        return _distances("OptimalTransport", self.manifold, x_0, x_1).cpu().double().square()


class Sinkhorn(_BatchTransport):
    """Pairs drawn from the entropic transport plan of each batch, computed where the points are.

    The plan minimises ``E[cost] - regularisation * mean cost * entropy``. For each target a source is drawn from its
    column: a source may be used more than once or not at all, but on average each is used once, to ``tolerance``.

    Scalings are absorbed into logarithms every ten steps: as safe as steps in logarithms throughout (POT's
    ``sinkhorn_log``, which takes the logarithm of n^2 numbers twice a step), and several times faster.

    Args:
        manifold: whose squared distance is the cost.
        regularisation: strength of the entropy, in units of the mean cost of independent pairs. A tenth of it costs
            ten times the steps and comes nearer to `OptimalTransport`.
        condition_weight: cost of one squared unit between conditions; infinite by default: pairs of equal condition.
        tolerance: largest relative error of how often a source is used; iterations end there.
        max_steps: or here, whichever is first.

    Raises:
        ValueError: for a regularisation, tolerance or ``max_steps`` that is not positive, or a negative
            ``condition_weight``; on use, if the batches differ in size or a distance is not finite.

    Warns:
        UserWarning: on use, if ``max_steps`` are not enough for ``tolerance``.

    References:
        Cuturi: Sinkhorn Distances: Lightspeed Computation of Optimal Transport, 2013, arXiv:1306.0895. Schmitzer:
        Stabilized Sparse Scaling Algorithms for Entropy Regularized Transport Problems, 2019, arXiv:1610.06519,
        section 3.1 (absorption).
    """

    def __init__(
        self,
        manifold: Manifold,
        regularisation: float = 0.05,
        condition_weight: float = math.inf,
        tolerance: float = 1e-2,
        max_steps: int = 1000,
    ) -> None:
        super().__init__(manifold, condition_weight)
        self.regularisation = positive("Sinkhorn", "regularisation", regularisation)
        self.tolerance = positive("Sinkhorn", "tolerance", tolerance)
        self.max_steps = integer("Sinkhorn", "max_steps", positive("Sinkhorn", "max_steps", max_steps))

    @torch.no_grad()
    @in_full_precision
    def indices(
        self,
        x_0: Tensor,
        x_1: Tensor,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        plan = self.plan(x_0, x_1, condition)
        return torch.multinomial(plan, 1, generator=generator)[:, 0] if len(plan) else plan.new_empty(0).long()

    @torch.no_grad()
    @in_full_precision
    def plan(self, x_0: Tensor, x_1: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return how much of each target, a row, comes from each source, ``(n, n)``.

        Rows sum to 1, columns to 1 within ``tolerance``.
        """
        x_0, x_1 = (points_of("Sinkhorn", self.manifold, x) for x in (x_0, x_1))
        check_sizes("Sinkhorn", x_0, x_1)
        if len(x_1) == 0:
            return x_1.new_empty(0, 0)
        cost = relative_cost("Sinkhorn", self.manifold, x_0, x_1, condition, self.condition_weight)
        log_kernel = -cost / self.regularisation
        # Two steps in logarithms: from then on no sum over a row or a column underflows.
        g = -torch.logsumexp(log_kernel, dim=0)
        f = -torch.logsumexp(log_kernel + g, dim=1)
        plan = torch.exp(log_kernel + f[:, None] + g)
        for _ in range(math.ceil(self.max_steps / _ABSORB_EVERY)):
            if _margin_error(plan) <= self.tolerance:
                return plan
            # What is next to nothing is dropped: numbers below the normal range make a CPU slow.
            plan = torch.nn.functional.threshold(plan, 1e-30, 0.0)
            u, v = torch.ones_like(f), torch.ones_like(g)
            for _ in range(_ABSORB_EVERY):
                v = 1 / (u @ plan)
                u = 1 / (plan @ v)
            f, g = f + torch.log(u), g + torch.log(v)
            plan = torch.exp(log_kernel + f[:, None] + g)
        if (error := _margin_error(plan)) > self.tolerance:
            warnings.warn(
                f"Sinkhorn: after {self.max_steps} steps a source is used {error:.2g} too often or too rarely, above "
                f"the tolerance of {self.tolerance:g}; raise max_steps or regularisation, {self.regularisation:g} now",
                stacklevel=2,
            )
        return plan


_ABSORB_EVERY = 10


def relative_cost(
    owner: str, manifold: Manifold, x_0: Tensor, x_1: Tensor, condition: Tensor | None, condition_weight: float
) -> Tensor:
    """Return the cost of each target, a row, from each source, in units of that of independent pairs, ``(n, n)``.

    Infinite between groups that may not be paired.
    """
    distances = _distances(owner, manifold, x_0, x_1)
    # In units of the largest distance first: the square of a small one would underflow.
    largest = distances.max().clamp(min=torch.finfo(distances.dtype).tiny)
    cost = (distances / largest).square()
    mean = cost.mean().clamp(min=torch.finfo(cost.dtype).tiny)
    cost = cost / mean
    if condition is None:
        return cost
    condition = _checked_condition(owner, condition, x_1)
    label, _ = _labels(condition, condition_weight)
    known = condition.to(cost) / (largest * mean.sqrt())
    cost = cost + _condition_cost(known, condition_weight)
    return torch.where(label[:, None] == label, cost, math.inf)


def _margin_error(plan: Tensor) -> float:
    """Return by how much the columns of a plan miss a sum of one at most."""
    return float((plan.sum(0) - 1).abs().max())


def _distances(owner: str, manifold: Manifold, x_0: Tensor, x_1: Tensor) -> Tensor:
    """Return the distance of each target, a row, from each source, ``(n, n)``, in bounded memory."""
    rows = max(1, _CHUNK_ELEMENTS // max(1, x_0.numel()))
    distances = torch.cat([manifold.dist(part[:, None], x_0[None]) for part in x_1.split(rows)])
    if not bool(distances.isfinite().all()):
        raise ValueError(f"{owner}: some distances are not finite; check the points and the manifold's dist")
    return distances


def _labels(condition: Tensor, weight: float) -> tuple[Tensor, int]:
    """Return the group of each row, ``(n,)``, and how many there are: only points of one group may be paired.

    Groups have equal conditions where the weight is infinite; else they know the same entries of theirs.
    """
    missing = condition.isnan()
    # Adding 0 turns -0.0 into 0.0.
    known = torch.where(missing, 0.0, condition) + 0 if weight == math.inf else condition[:, :0]
    rows = torch.cat([known, missing.to(condition.dtype)], dim=-1)
    groups, label = torch.unique(rows, dim=0, return_inverse=True)
    return label, len(groups)


def _condition_cost(condition: Tensor, weight: float) -> Tensor | float:
    """Return the weighted squared differences within a group, ``(n, n)``: none where its conditions are equal."""
    if weight == math.inf:
        return 0.0
    c = condition.nan_to_num()
    return weight * torch.cdist(c, c, compute_mode="donot_use_mm_for_euclid_dist").square()


def _checked_condition(owner: str, condition: Tensor, x_1: Tensor) -> Tensor:
    # Whole numbers in float64, where more of them differ.
    floating = isinstance(condition, Tensor) and condition.is_floating_point()
    condition = tensor_of(owner, "condition", condition, None if floating else torch.float64)
    if condition.ndim != 2 or len(condition) != len(x_1):
        raise ValueError(
            f"{owner}: condition must hold one vector per target, ({len(x_1)}, c), got {tuple(condition.shape)}; "
            "add an axis to numbers with [:, None]"
        )
    if bool(condition.isinf().any()):
        raise ValueError(f"{owner}: condition holds infinite entries; use NaN where it is not known")
    return condition


def checked_weight(owner: str, weight: float) -> float:
    """Return the weight of conditions as a number that is not negative."""
    own = number(owner, "condition_weight", weight)
    if not own >= 0:
        raise ValueError(f"{owner}: condition_weight must be at least 0, infinity included, got {weight}")
    return own
