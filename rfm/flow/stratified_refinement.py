"""Kernels of the strata of a condition along a flow: the density of a conditional flow that is refined."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from manifolds import Manifold
from manifolds.arguments import check_instance, positive
from rfm.arrays import tensor_of
from rfm.conditions import Conditions
from rfm.flow.flow_mixture import FlowMixture, checked_start
from rfm.records.descriptions import SavedFlowError, build, describe
from rfm.sources import Source, StratifiedKernels
from rfm.sources.base import check_same_manifold, draws

_OWNER = "StratifiedRefinement"
_NOTHING = -1e30
"""The log of a density that is zero beside any other, in float32 too."""


class StratifiedRefinement(FlowMixture):
    """Kernels of strata, from narrow strata to one of all points, along a flow: a mixture for each condition.

    Level 0 has the narrowest strata, such as labels, the last level one stratum of all points. With ``n_l(c)`` the
    effective number of centres in the strata of a condition c, level l gets the share ``n_l(c) / (n_l(c) + tau)`` of
    what the levels before it have left, and the last level all that is left then: the more points a label has, the
    less it leans on others. Within a level the weights of the components are the same for all conditions. Components
    are `StratifiedKernels` at times along the flow and, last, the source of the flow twice: at time 1, as a background,
    and at time 0, where it is the flow itself.

    The share is the posterior mean under a Dirichlet process of concentration tau whose base measure is the next level
    (MacKay and Peto, A hierarchical Dirichlet language model, 1995, equation 23).

    Args:
        kernels: components, those of each level at time 1 before all others of that level.
        levels: the level of each.
        starts: the time of each, in (0, 1].
        weights: of the components, those of ``kernels`` and the source's two, in each level, ``(L, len(kernels) + 2)``;
            the sum of each level is 1.
        source: that of the flow.
        tau: number of centres by which the next level counts, positive.
        validation_nll: see `rfm.flow.Refinement`.

    Raises:
        ValueError: an argument is not as said.
    """

    weights: Tensor

    def __init__(
        self,
        kernels: Sequence[StratifiedKernels],
        levels: Sequence[int],
        starts: Sequence[float],
        weights: Tensor | Sequence[Sequence[float]],
        source: Source,
        tau: float,
        validation_nll: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        for own in kernels:
            check_instance(_OWNER, "each of kernels", own, StratifiedKernels, "StratifiedKernels(...)")
        check_instance(_OWNER, "source", source, Source, "Uniform(manifold)")
        self.kernels, self.source = nn.ModuleList(kernels), source
        self.levels = tuple(int(level) for level in levels)
        self.kernel_starts = tuple(checked_start(_OWNER, s, at_data=True) for s in starts)
        self.tau = positive(_OWNER, "tau", tau, "it is a number of centres")
        self.constant("weights", tensor_of(_OWNER, "weights", weights, torch.float64).detach())
        self.validation_nll = dict(validation_nll or {})
        self._check_parts()
        part_starts = (*self.kernel_starts, 1.0, 0.0)
        used = [start for start, own in zip(part_starts, self.weights.T, strict=True) if bool((own > 0).any())]
        self.part_starts, self.starts = part_starts, tuple(sorted(set(used), reverse=True))

    def _check_parts(self) -> None:
        count, w = len(self.kernels), self.weights
        if not count or len(self.levels) != count or len(self.kernel_starts) != count:
            raise ValueError(
                f"{_OWNER}: needs a level and a start for each of the {count} kernels, got {len(self.levels)} levels "
                f"and {len(self.kernel_starts)} starts"
            )
        depth = max(self.levels) + 1
        first = [self.levels.index(level) if level in self.levels else -1 for level in range(depth)]
        if min(first) < 0 or any(self.kernel_starts[i] != 1 for i in first) or self._kernel(first[-1]).strata.entries:
            raise ValueError(
                f"{_OWNER}: each level needs kernels at time 1, first, and the last one stratum of all points, got "
                f"levels {list(self.levels)} at {list(self.kernel_starts)}"
            )
        if w.shape != (depth, count + 2) or not bool((w >= 0).all()) or bool((w.sum(1) - 1).abs().max() > 1e-6):
            raise ValueError(
                f"{_OWNER}: weights must have shape ({depth}, {count + 2}), not be negative and sum to 1 in each "
                f"level, got shape {tuple(w.shape)}"
            )
        foreign = [i for i, level in enumerate(self.levels) if bool((w[:, i] > 0).nonzero()[:, 0].ne(level).any())]
        if foreign:
            raise ValueError(f"{_OWNER}: kernels {foreign} have weight in other levels than their own")

    def check(self, manifold: Manifold, conditions: Conditions | None) -> None:
        check_same_manifold(_OWNER, "source", self.source.manifold, manifold)
        for i in range(len(self.kernels)):
            check_same_manifold(_OWNER, f"kernels {i}", self._kernel(i).manifold, manifold)
        labels = self._kernel(0).strata.labels
        if conditions is not None and tuple(conditions.labels) != labels:
            raise ValueError(
                f"{_OWNER}: made for {list(labels)} labels, the conditions {', '.join(conditions.names)} have "
                f"{list(conditions.labels)}; leave the refinement out"
            )

    def check_condition(self, where: str, given: bool) -> None:
        if not given:
            raise ValueError(f"Flow.{where}: this flow is refined given a condition; pass condition=")

    def shares(self, condition: Tensor) -> Tensor:
        """Return how much of the density each level has given vectors ``(m, c)``, ``(m, L)`` of sum 1."""
        depth = max(self.levels) + 1
        counts = [self._kernel(self.levels.index(level)).counts(condition) for level in range(depth - 1)]
        return level_shares(counts, self.tau, condition)

    def part_masses(self, condition: Tensor) -> Tensor:
        """Return how much of the density each component has given vectors ``(m, c)``, ``(m, len(kernels) + 2)``."""
        return self.shares(condition) @ self.weights

    def masses(self, count: int, condition: Tensor | None) -> Tensor:
        mass = self.part_masses(_given(condition))
        starts = mass.new_tensor(self.part_starts)
        return torch.stack([mass[:, starts == start].sum(-1) for start in self.starts], dim=-1)

    def source_at(self, start: int, condition: Tensor | None) -> Source:
        return _Standing(self, start, _given(condition))

    def draw(
        self, start: int, count: int, condition: Tensor | None, generator: torch.Generator | None, like: dict[str, Any]
    ) -> Tensor:
        c = _given(condition)
        own = [p for p, at in enumerate(self.part_starts) if at == self.starts[start]]
        mass = self.part_masses(c)[:, own]
        part = torch.multinomial(mass, 1, generator=generator)[:, 0]
        device = mass.device if like.get("device") is None else like["device"]
        points = torch.empty(count, *self.source.manifold.event_shape, dtype=like.get("dtype"), device=device)
        for j, p in enumerate(own):
            rows = (part == j).nonzero()[:, 0]
            if len(rows) and p < len(self.kernels):
                points[rows] = self._kernel(p).sample(c[rows], generator).to(points)
            elif len(rows):
                points[rows] = self.source.sample((len(rows),), generator=generator, **like)
        return points

    def log_terms(self, start: int, x: Tensor, condition: Tensor | None) -> Tensor:
        c = _given(condition)
        mass = self.part_masses(c)
        terms = []
        for p, at in enumerate(self.part_starts):
            if at == self.starts[start] and bool((self.weights[:, p] > 0).any()):
                own = self.source.log_prob(x) if p >= len(self.kernels) else self._kernel(p).log_prob(x, c)
                log_mass = torch.where(mass[:, p] > 0, mass[:, p], 1.0).log().to(x)
                # Not -inf: of a sum of nothing but that the gradient is NaN.
                terms.append(torch.where(mass[:, p] > 0, own + log_mass, _NOTHING))
        return torch.logsumexp(torch.stack(terms), dim=0)

    def kernel_log_prob(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return the log-density where nothing starts before time 1: of kernels alone, without a field, ``(m,)``.

        Raises:
            ValueError: something does.
        """
        if self.starts != (1.0,):
            raise ValueError(f"{_OWNER}: needs the field, as parts start at {list(self.starts)}; call log_prob")
        return self.log_terms(0, x, condition)

    def summary(self) -> dict[str, Any]:
        weights = [float(self.weights[0][[s == start for s in self.part_starts]].sum()) for start in self.starts]
        strata = self._kernel(0).strata
        knots = [len(strata.knots[i]) for i in strata.entries if not strata.labels[i]]
        own = {"starts": list(self.starts), "weights": weights, "tau": self.tau, "knots": knots}
        return own | {"validation_nll": self.validation_nll}

    def describe(self) -> str:
        own = self.summary()
        parts = ", ".join(f"time {s:g} ({100 * w:.0f} %)" for s, w in zip(own["starts"], own["weights"], strict=True))
        counts = self._kernel(0).effective_counts
        few = int((counts < 2).sum())
        text = f"kernels of {len(counts)} strata at {parts}"
        text += f", those of n points weighing n / (n + {self.tau:g}) and the rest those of broader strata"
        text += f"; {own['knots'][0]} knots in each number" if own["knots"] else ""
        text += f"; {few} strata of a single point lean on the rest by {100 * self.tau / (1 + self.tau):.0f} %" * (
            few > 0
        )
        return text

    def record(self, shared: Mapping[str, Any], tensors: dict[str, Tensor]) -> dict[str, Any]:
        return {
            "kernels": [describe(own, shared, tensors) for own in self.kernels],
            "levels": list(self.levels),
            "starts": list(self.kernel_starts),
            "weights": self.weights.tolist(),
            "source": describe(self.source, shared, tensors),
            "tau": self.tau,
            "validation_nll": self.validation_nll,
        }

    @classmethod
    def recorded(
        cls, record: Mapping[str, Any], where: str, shared: Mapping[str, Any], tensors: Mapping[str, Tensor]
    ) -> "StratifiedRefinement":
        """Return what `record` described, with arguments as for `rfm.records.descriptions.build`.

        Raises:
            SavedFlowError: if it is damaged.
        """
        try:
            kernels = build(record["kernels"], where, shared, tensors)
            source = build(record["source"], where, shared, tensors)
            rest = (record["levels"], record["starts"], record["weights"], source, record["tau"])
            return cls(kernels, *rest, record.get("validation_nll"))
        except SavedFlowError:
            raise
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise SavedFlowError(f"{where} is damaged ({error}); fit again") from None

    def _kernel(self, index: int) -> StratifiedKernels:
        own = self.kernels[index]
        assert isinstance(own, StratifiedKernels)
        return own


class _Standing(Source):
    """What stands at a start given one condition ``(c,)``."""

    def __init__(self, density: StratifiedRefinement, start: int, condition: Tensor) -> None:
        super().__init__(density.source.manifold)
        self.density, self.start = density, start
        self.register_buffer("condition", condition, persistent=False)
        self.log_mass = float(density.masses(1, condition[None])[0, start].log())

    def sample(
        self,
        shape: int | tuple[int, ...],
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        size = draws(self, shape, dtype)
        count = size.numel()
        like = {"dtype": dtype, "device": device}
        x = self.density.draw(self.start, count, self._given(count), generator, like)
        return x.reshape(*size, *self.manifold.event_shape)

    def log_prob(self, x: Tensor) -> Tensor:
        batch = self.manifold.batch_shape(x)
        flat = x.reshape(-1, *self.manifold.event_shape)
        return (self.density.log_terms(self.start, flat, self._given(len(flat))) - self.log_mass).reshape(batch)

    def _given(self, count: int) -> Tensor:
        condition = self.condition
        assert isinstance(condition, Tensor)
        return condition.expand(count, len(condition))


def level_shares(counts: Sequence[Tensor], tau: float, like: Tensor) -> Tensor:
    """Return the share of each level, ``(m, len(counts) + 1)``, from the effective counts of all but the last one.

    Args:
        counts: of each level ``(m,)``, from the narrowest on.
        tau: see `StratifiedRefinement`.
        like: of as many rows, where there are no counts.
    """
    left = torch.ones(len(like), dtype=torch.float64, device=like.device)
    shares = []
    for n in counts:
        own = n / (n + tau)
        shares.append(left * own)
        left = left * (1 - own)
    return torch.stack([*shares, left], dim=-1)


def _given(condition: Tensor | None) -> Tensor:
    assert condition is not None, "a conditional density is asked for without a condition"
    return condition
