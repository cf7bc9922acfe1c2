"""The cheapest assignment of rows to columns, in any unit of cost."""

import torch
from torch import Tensor


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
