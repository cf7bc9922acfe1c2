"""Kernel densities given a condition: those of the points that share it."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from manifolds import Manifold
from manifolds.arguments import check_instance
from manifolds.numerics.constants import Constants
from rfm.arrays import tensor_of
from rfm.sources.base import Source
from rfm.sources.kernel_arguments import checked_concentrations, checked_points, checked_shares
from rfm.sources.kernel_mixture import KernelMixture
from rfm.sources.kernel_widths import kernel_concentrations
from rfm.sources.strata import Strata

_OWNER = "StratifiedKernels"


class Members(NamedTuple):
    """Which points lie in which strata, in the order of the strata; a point may lie in several in parts."""

    point: Tensor
    """Rows of the points, ``(M,)``."""
    stratum: Tensor
    """The number of the stratum, as `Strata.members` counts, ``(M,)``."""
    part: Tensor
    """How much of the point lies there, ``(M,)``, positive."""


def members_of(strata: Strata, condition: Tensor) -> Members:
    """Return which of the points that have condition vectors ``(n, c)`` lie in which strata."""
    stratum, part = strata.members(condition)
    point, slot = (part > 0).nonzero(as_tuple=True)
    order = stratum[point, slot].argsort(stable=True)
    point, slot = point[order], slot[order]
    return Members(point, stratum[point, slot], part[point, slot])


class StratifiedKernels(Constants):
    """Kernel densities of the strata of a condition, of the same widths and weights in all of them.

    ``q(x | c) = sum_s a_s(c) q_s(x)``, where ``a_s`` are the parts of c in the strata s, and ``q_s`` is a mixture of
    kernel densities on the points that lie in s, weighted by their own parts in it. Strata without points are left
    out; a condition all of whose strata are without has density zero.

    Args:
        manifold: a manifold with a kernel.
        points: centres, ``(n, *event_shape)``.
        condition: their condition vectors, ``(n, c)``.
        strata: what divides them.
        concentrations: one of each kernel for each member of a stratum, ``(K, M)``, in the order of `members_of`.
        weights: of the kernels, ``(K,)``, sum 1.
        background: on the manifold; without weight, see `KernelMixture`.
        sample_weights: relative weight of each centre, ``(n,)``; by default equal.

    Raises:
        ValueError: an argument is not as said.
    """

    points: Tensor
    condition: Tensor
    concentrations: Tensor
    weights: Tensor
    sample_weights: Tensor | None
    strata_with_points: Tensor
    effective_counts: Tensor

    def __init__(
        self,
        manifold: Manifold,
        points: Tensor,
        condition: Tensor,
        strata: Strata,
        concentrations: Tensor,
        weights: Tensor,
        background: Source,
        sample_weights: Tensor | None = None,
    ) -> None:
        super().__init__()
        check_instance(_OWNER, "strata", strata, Strata, "Strata.of(condition, labels, entries, count)")
        self.manifold, self.strata, self.background = manifold, strata, background
        self.constant("points", checked_points(manifold, points, "points"))
        device = self.points.device
        self.constant("condition", tensor_of(_OWNER, "condition", condition, torch.float64).detach().to(device))
        if self.condition.shape != (len(self.points), len(strata.labels)):
            raise ValueError(
                f"{_OWNER}: condition must have shape ({len(self.points)}, {len(strata.labels)}), a vector for each "
                f"point, got {tuple(self.condition.shape)}"
            )
        shares = checked_shares(sample_weights, self.points, "sample_weights")
        self.register_buffer("sample_weights", None)
        if sample_weights is not None:
            given = tensor_of(_OWNER, "sample_weights", sample_weights, torch.float64)
            self.constant("sample_weights", given.detach().to(device))
        members = members_of(strata, self.condition)
        k = tensor_of(_OWNER, "concentrations", concentrations, torch.float64).detach().to(device)
        self.constant("concentrations", checked_concentrations(k, len(members.point)))
        self.constant("weights", tensor_of(_OWNER, "weights", weights, torch.float64).detach().to(device))
        # Strata themselves are found by comparison: below 2^53 their numbers are exact in float64.
        numbers, sizes = members.stratum.unique_consecutive(return_counts=True)
        self.constant("strata_with_points", numbers)
        share = members.part * shares[members.point]
        mixtures, counts = [], []
        kernel_weights = torch.cat([self.weights, self.weights.new_zeros(1)])
        for rows in torch.arange(len(members.point), device=device).split(sizes.tolist()):
            own = share[rows]
            counts.append(own.sum() ** 2 / own.square().sum())
            equal = sample_weights is None and bool((own == own[0]).all())
            arguments = (self.concentrations[:, rows], kernel_weights, background, None if equal else own)
            mixtures.append(KernelMixture(manifold, self.points[members.point[rows]], *arguments))
        self.mixtures = nn.ModuleList(mixtures)
        self.constant("effective_counts", torch.stack(counts))

    def counts(self, condition: Tensor) -> Tensor:
        """Return the effective number of centres that tell of condition vectors ``(m, c)``, ``(m,)``.

        Kish's: of n centres of equal weight n, of others fewer; the mean over the strata that a vector lies in.
        """
        index, share = self._strata_of(condition)
        return (share * self.effective_counts[index]).sum(-1)

    def log_prob(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return the log-density at points ``(m, *event_shape)`` given vectors ``(m, c)``, in nats, ``(m,)``."""
        return self._mixed(x, condition, 1, lambda mixture, part: mixture.log_prob(part)[:, None])[:, 0].to(x)

    @torch.no_grad()
    def component_log_prob(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return the log-density of each kernel, ``(m, K)``, without what is negligible beside the others."""
        k = len(self.concentrations)
        return self._mixed(x, condition, k, lambda mixture, y: mixture.component_log_prob(y, truncate=True)[:, :-1])

    @torch.no_grad()
    def sample(self, condition: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return a draw given each of the vectors ``(m, c)``, in float64, ``(m, *event_shape)``.

        Raises:
            ValueError: there are no centres in the strata of a vector.
        """
        index, share = self._strata_of(condition)
        if not bool((share.sum(-1) > 0.5).all()):
            raise ValueError(f"{_OWNER}: there are no points in the strata of some conditions; draw from broader ones")
        slot = torch.multinomial(share, 1, generator=generator)
        own = index.gather(1, slot)[:, 0]
        points = self.points.new_empty(len(own), *self.manifold.event_shape)
        for s in own.unique().tolist():
            rows = (own == s).nonzero()[:, 0]
            points[rows] = self._mixture(s).sample((len(rows),), generator, torch.float64, points.device)
        return points

    def _strata_of(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Return which strata with points vectors lie in, and their parts there, of sum 1 or 0, ``(m, r)`` both."""
        stratum, part = self.strata.members(condition.to(self.points))
        index = torch.searchsorted(self.strata_with_points, stratum.double()).clamp(max=len(self.mixtures) - 1)
        share = torch.where(self.strata_with_points[index] == stratum, part, 0.0)
        total = share.sum(-1, keepdim=True)
        return index, share / torch.where(total > 0, total, 1.0)

    def _mixed(
        self, x: Tensor, condition: Tensor, columns: int, score: Callable[[KernelMixture, Tensor], Tensor]
    ) -> Tensor:
        """Return the mixture over the strata of each point of what scores those, ``(m, columns)``."""
        x = x.to(self.points)
        index, share = self._strata_of(condition)
        terms = x.new_full((*index.shape, columns), -torch.inf)
        for s in index[share > 0].unique().tolist():
            rows, slots = ((index == s) & (share > 0)).nonzero(as_tuple=True)
            terms[rows, slots] = score(self._mixture(s), x[rows])
        result = x.new_full((len(x), columns), -torch.inf)
        # Where nothing is known there is no gradient either.
        inside = (share > 0).any(-1)
        result[inside] = torch.logsumexp(terms[inside] + share[inside].log()[..., None], dim=1)
        return result

    def _mixture(self, index: int) -> KernelMixture:
        mixture = self.mixtures[index]
        assert isinstance(mixture, KernelMixture)
        return mixture


def stratified_concentrations(
    manifold: Manifold,
    points: Tensor,
    condition: Tensor,
    strata: Strata,
    family: Callable[[Manifold, Tensor], Tensor] = kernel_concentrations,
) -> Tensor:
    """Return concentrations of kernels about the members of strata, ``(K, M)``, in the order of `members_of`.

    They follow the density of each stratum by itself. Where all its points are one place, there are no neighbours in
    it, and those among all points set the widths.

    Args:
        manifold: a manifold with a kernel.
        points: ``(n, *event_shape)``.
        condition: vectors ``(n, c)``.
        strata: what divides them.
        family: from points to concentrations ``(K, n)``, with fewer rows where all points are one place.
    """
    among_all = family(manifold, points)
    members = members_of(strata, condition)
    parts, sizes = [], members.stratum.unique_consecutive(return_counts=True)[1].tolist()
    for rows in members.point.split(sizes):
        alone = len(rows) == 1 or len(sizes) == 1
        own = among_all[:, rows] if alone else family(manifold, points[rows])
        parts.append(own if len(own) == len(among_all) else among_all[:, rows])
    return torch.cat(parts, dim=1)
