"""Couplings: which source point is paired with which data point.

================== ===========================================================================================
`Independent`      none: points are paired as they were drawn
`OptimalTransport` the pairing of least total squared geodesic distance in a batch
`Sinkhorn`         the same, blurred, in a fixed kind of work that a GPU does well: for batches of thousands there
================== ===========================================================================================

**Conditional models.** A field that is told the condition learns to carry the whole source to the data of that
condition. So sources must not depend on conditions, which plain optimal transport in a batch makes them do: each
condition's data take the sources that lie nearest to them, and at sampling time the others lead nowhere. A coupling
that is given conditions therefore lets each source point keep the condition of the target that it was drawn beside,
which says nothing about it, and charges ``condition_weight`` times the squared difference for a pair with another
condition: by default infinity, that is, transport among targets of equal condition only. Then sources given the
condition have their own distribution exactly. Where every condition is different this pairs independently: there, a
finite weight lets neighbouring conditions share their sources; the error this makes is as small as the differences
allowed.

References:
    Cheng, Schwing: The Curse of Conditions: Analyzing and Improving Optimal Transport for Conditional Flow-Based
    Generation, 2025, arXiv:2503.10636 (the bias, and the cost on conditions).
"""

import math
import warnings
from typing import Protocol

import torch
from torch import Tensor

from manifolds import Manifold
from manifolds.arguments import check_instance, integer, number, positive
from manifolds.precision import in_full_precision
from rfm.arrays import points_of, tensor_of

__all__ = ["Coupling", "Independent", "OptimalTransport", "Sinkhorn", "assignment"]

_CHUNK_ELEMENTS = 2**22
"""Coordinates held at a time while distances are computed."""


class Coupling(Protocol):
    """A way to pair the points of two batches.

    It returns, for each target, the index of its source. Targets keep their order, so what belongs to them (labels,
    conditions, weights) stays in place.
    """

    def __call__(
        self,
        x_0: Tensor,
        x_1: Tensor,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return indices ``(n,)`` into ``x_0`` for targets ``x_1``.

        Args:
            x_0: source points ``(n, *event_shape)``, drawn independently of the targets.
            x_1: targets, the same shape.
            condition: what each target is conditional on, ``(n, c)``, NaN where not known.
            generator: source of randomness, on the points' device.
        """
        ...


class Independent:
    """The pairs as they were drawn: what training does without a coupling."""

    def __call__(
        self,
        x_0: Tensor,
        x_1: Tensor,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        _check_sizes("Independent", x_0, x_1)
        return torch.arange(len(x_1), device=x_1.device)


class OptimalTransport:
    """The pairing of least total squared geodesic distance in each batch, exactly.

    Every source point is used once. Distances are computed where the points are; the assignment is solved on the CPU,
    in time that grows a little faster than the square of the batch. It does not depend on the unit of length, and a few
    points far away do not make the others' pairs less exact. Points drawn by weight need no weights here.

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
        check_instance("OptimalTransport", "manifold", manifold, Manifold, "OptimalTransport(Sphere(2))")
        self.manifold = manifold
        self.condition_weight = _checked_weight("OptimalTransport", condition_weight)

    @torch.no_grad()
    @in_full_precision
    def __call__(
        self,
        x_0: Tensor,
        x_1: Tensor,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        x_0, x_1 = (points_of("OptimalTransport", self.manifold, x) for x in (x_0, x_1))
        _check_sizes("OptimalTransport", x_0, x_1)
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


class Sinkhorn:
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
        check_instance("Sinkhorn", "manifold", manifold, Manifold, "Sinkhorn(Sphere(2))")
        self.manifold = manifold
        self.regularisation = positive("Sinkhorn", "regularisation", regularisation)
        self.tolerance = positive("Sinkhorn", "tolerance", tolerance)
        self.max_steps = integer("Sinkhorn", "max_steps", positive("Sinkhorn", "max_steps", max_steps))
        self.condition_weight = _checked_weight("Sinkhorn", condition_weight)

    @torch.no_grad()
    @in_full_precision
    def __call__(
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
        _check_sizes("Sinkhorn", x_0, x_1)
        if len(x_1) == 0:
            return x_1.new_empty(0, 0)
        distances = _distances("Sinkhorn", self.manifold, x_0, x_1)
        # In units of the largest distance first: the square of a small one would underflow.
        largest = distances.max().clamp(min=torch.finfo(distances.dtype).tiny)
        cost = (distances / largest).square()
        mean = cost.mean().clamp(min=torch.finfo(cost.dtype).tiny)
        cost = cost / mean
        if condition is not None:
            condition = _checked_condition("Sinkhorn", condition, x_1)
            label, _ = _labels(condition, self.condition_weight)
            known = condition.to(cost) / (largest * mean.sqrt())
            cost = cost + _condition_cost(known, self.condition_weight)
            cost = torch.where(label[:, None] == label, cost, math.inf)
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


def assignment(cost: Tensor) -> Tensor:
    """Return for each row the column of the cheapest assignment, exact to the rounding of the cheapest pairs.

    The network simplex of POT compares with absolute tolerances, and with the largest cost: it may stop early where
    costs are small, and where a few are much larger than the others. So it is given what the cheapest entries of rows
    and columns leave, in units of its mean, and its result is kept only if its potentials prove it optimal; if not,
    scipy's shortest augmenting paths, which compare without tolerances, start anew.

    Args:
        cost: of pairing row and column ``(n, n)``.

    Raises:
        ValueError: if a cost is not finite.

    References:
        Peyre & Cuturi, Computational Optimal Transport, 2019, arXiv:1803.00567, section 3.3 (complementary slackness).
    """
    import ot

    if not bool(cost.isfinite().all()):
        raise ValueError("optimal transport: some costs are not finite; check the points and their conditions")
    given = cost.detach().double().cpu()
    # What a row or a column costs at least is paid by every assignment.
    rest = given - given.amin(1, keepdim=True)
    rest -= rest.amin(0)
    unit = float(rest.mean())
    if not unit > 0:
        return torch.arange(len(cost), device=cost.device)
    rest /= unit
    ones = torch.ones(len(rest), dtype=torch.float64).numpy()
    plan, log = ot.emd(ones, ones, rest.numpy(), numItermax=_MAX_PIVOTS, log=True)
    column = torch.from_numpy(plan.argmax(1))
    if not _proven(rest, column, torch.from_numpy(log["u"]), torch.from_numpy(log["v"]), given / unit):
        from scipy.optimize import linear_sum_assignment

        column = torch.from_numpy(linear_sum_assignment(rest.numpy())[1])
    return column.to(cost.device)


def _proven(rest: Tensor, column: Tensor, u: Tensor, v: Tensor, cost: Tensor) -> bool:
    """Return whether potentials prove an assignment optimal, to a millionth of what its cheapest pairs cost."""
    reduced = rest - u[:, None] - v
    rows = torch.arange(len(column))
    # By so much at most another assignment is cheaper.
    excess = float(reduced[rows, column].abs().sum() - reduced.amin(1).clamp(max=0).sum())
    cheap = float(cost[rows, column].quantile(_CHEAPEST))
    return len(column.unique()) == len(column) and excess <= _PROVEN * len(column) * cheap


_MAX_PIVOTS = 10**8
"""Never reached: a batch of 4096 takes some ten thousands."""

_PROVEN, _CHEAPEST = 1e-6, 0.01
"""Rounding leaves 1e-8 of what the hundredth cheapest pair costs, an early stop more than 1."""


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


def _check_sizes(owner: str, x_0: Tensor, x_1: Tensor) -> None:
    if len(x_0) != len(x_1):
        raise ValueError(f"{owner}: needs as many sources as targets, got {len(x_0)} and {len(x_1)}; draw as many")


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


def _checked_weight(owner: str, weight: float) -> float:
    own = number(owner, "condition_weight", weight)
    if not own >= 0:
        raise ValueError(f"{owner}: condition_weight must be at least 0, infinity included, got {weight}")
    return own
