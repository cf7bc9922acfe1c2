"""Which density a conditional flow is refined to, by what is known of a condition."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from manifolds import Manifold
from manifolds.arguments import check_instance
from rfm.conditions import Conditions
from rfm.flow.flow_mixture import FlowMixture, RefinedDensity, Velocity
from rfm.flow.refinement import Refinement
from rfm.flow.stratified_refinement import StratifiedRefinement
from rfm.integrators import Method
from rfm.likelihood import Hutchinson, LogProbEstimate
from rfm.records.descriptions import SavedFlowError, build, describe
from rfm.sources import Source

_OWNER = "ConditionalRefinement"


class ConditionalRefinement(RefinedDensity):
    """The densities of a conditional flow: one for each set of entries of a condition that may be known.

    Points are scored and drawn by the density for what is known of their conditions; where there is none for that, by
    the flow as it is. `rfm.fit` makes one.

    Args:
        known: for each density the entries that are known, ascending; none for the density given nothing.
        densities: `StratifiedRefinement` where entries are known, `Refinement` where none is.
        source: that of the flow.
        entries: how many a condition has.

    Raises:
        ValueError: an argument is not as said.
    """

    def __init__(
        self, known: Sequence[Sequence[int]], densities: Sequence[FlowMixture], source: Source, entries: int
    ) -> None:
        super().__init__()
        self.known = tuple(tuple(int(i) for i in own) for own in known)
        for density, own in zip(densities, self.known, strict=True):
            kind = StratifiedRefinement if own else Refinement
            check_instance(_OWNER, f"the density for entries {list(own)}", density, kind, f"{kind.__name__}(...)")
        if len(set(self.known)) < len(self.known) or any(i >= entries or i < 0 for own in self.known for i in own):
            raise ValueError(
                f"{_OWNER}: known must hold different sets of entries below {entries}, got {list(self.known)}"
            )
        self.densities, self.source, self.entries = nn.ModuleList(densities), source, int(entries)
        self.unrefined = Refinement([0.0], [source], [1.0])
        full = tuple(range(entries))
        self.validation_nll = dict(self._density(full).validation_nll)

    def check(self, manifold: Manifold, conditions: Conditions | None) -> None:
        if conditions is not None and conditions.width != self.entries:
            raise ValueError(
                f"{_OWNER}: made for {self.entries} entries, conditions {', '.join(conditions.names)} have "
                f"{conditions.width}; leave the refinement out"
            )
        for own in self.known:
            self._density(own).check(manifold, conditions if own else None)

    def check_condition(self, where: str, given: bool) -> None:
        """Any condition may be given, or none."""

    def standing(self, condition: Tensor | None) -> list[tuple[float, float, Source]]:
        if condition is None:
            return self._density(()).standing(None)
        return self._density(tuple((~condition.isnan()).nonzero()[:, 0].tolist())).standing(condition)

    def sample(
        self,
        field: Velocity,
        manifold: Manifold,
        count: int,
        method: Method | None = None,
        *,
        batch_size: int,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        advance: Callable[[int], Any] = lambda count: None,
    ) -> Tensor:
        like: dict[str, Any] = {"generator": generator, "dtype": dtype, "device": device}
        like |= {"batch_size": batch_size, "advance": advance}
        if condition is None:
            return self._density(()).sample(field, manifold, count, method, **like)
        points = torch.empty(count, *manifold.event_shape, dtype=dtype, device=device)
        for density, rows in self._rows(condition):
            own = condition[rows]
            points[rows] = density.sample(field, manifold, len(own), method, condition=own, **like)
        return points

    def log_prob(
        self,
        field: Velocity,
        manifold: Manifold,
        x: Tensor,
        method: Method | None = None,
        *,
        batch_size: int | None = None,
        condition: Tensor | None = None,
        advance: Callable[[int], Any] = lambda count: None,
    ) -> Tensor:
        like: dict[str, Any] = {"batch_size": batch_size, "advance": advance}
        if condition is None:
            return self._density(()).log_prob(field, manifold, x, method, **like)
        log_p = x.new_empty(len(x))
        for density, rows in self._rows(condition):
            log_p[rows] = density.log_prob(field, manifold, x[rows], method, condition=condition[rows], **like)
        return log_p

    def estimate_log_prob(
        self,
        field: Velocity,
        manifold: Manifold,
        x: Tensor,
        estimator: Hutchinson,
        method: Method | None = None,
        *,
        batch_size: int | None = None,
        condition: Tensor | None = None,
        advance: Callable[[int], Any] = lambda count: None,
    ) -> LogProbEstimate:
        like: dict[str, Any] = {"batch_size": batch_size, "advance": advance}
        if condition is None:
            return self._density(()).estimate_log_prob(field, manifold, x, estimator, method, **like)
        found = LogProbEstimate(x.new_empty(len(x)), x.new_empty(len(x)))
        for density, rows in self._rows(condition):
            like["condition"] = condition[rows]
            own = density.estimate_log_prob(field, manifold, x[rows], estimator, method, **like)
            for full, part in zip(found, own, strict=True):
                full[rows] = part
        return found

    def summary(self) -> dict[str, Any]:
        densities = {",".join(map(str, own)): self._density(own).summary() for own in self.known}
        full = ",".join(map(str, range(self.entries)))
        return {"densities": densities, "validation_nll": densities.get(full, {}).get("validation_nll", {})}

    def describe(self) -> str:
        return "; ".join(
            f"given {'entries ' + ', '.join(map(str, own)) if own else 'nothing'}: {self._density(own).describe()}"
            for own in self.known
        )

    def record(self, shared: Mapping[str, Any], tensors: dict[str, Tensor]) -> dict[str, Any]:
        return {
            "known": [list(own) for own in self.known],
            "densities": [self._density(own).record(shared, tensors) for own in self.known],
            "source": describe(self.source, shared, tensors),
            "entries": self.entries,
        }

    @classmethod
    def recorded(
        cls, record: Mapping[str, Any], where: str, shared: Mapping[str, Any], tensors: Mapping[str, Tensor]
    ) -> "ConditionalRefinement":
        """Return what `record` described, with arguments as for `rfm.records.descriptions.build`.

        Raises:
            SavedFlowError: if it is damaged.
        """
        try:
            known = record["known"]
            parts = zip(known, record["densities"], strict=True)
            densities = [
                (StratifiedRefinement if own else Refinement).recorded(part, where, shared, tensors)
                for own, part in parts
            ]
            return cls(known, densities, build(record["source"], where, shared, tensors), record["entries"])
        except SavedFlowError:
            raise
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise SavedFlowError(f"{where} is damaged ({error}); fit again") from None

    def _density(self, known: tuple[int, ...]) -> FlowMixture:
        density = self.densities[self.known.index(known)] if known in self.known else self.unrefined
        assert isinstance(density, FlowMixture)
        return density

    def _rows(self, condition: Tensor) -> list[tuple[FlowMixture, Tensor]]:
        """Return the density for what is known of each row of ``condition``, with the rows that it is for."""
        patterns, which = (~condition.isnan()).unique(dim=0, return_inverse=True)
        return [
            (self._density(tuple(pattern.nonzero()[:, 0].tolist())), (which == i).nonzero()[:, 0])
            for i, pattern in enumerate(patterns)
        ]


def recorded_refinement(
    record: Mapping[str, Any], where: str, shared: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> RefinedDensity:
    """Return a refinement of a flow, conditional or not, from what it was recorded as.

    Raises:
        SavedFlowError: if it is damaged.
    """
    kind = ConditionalRefinement if isinstance(record, Mapping) and "known" in record else Refinement
    return kind.recorded(record, where, shared, tensors)
