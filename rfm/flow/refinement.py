"""Sources along a flow: the mixture of what each becomes as the last stretch of the flow carries it to the data."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from manifolds import Manifold
from manifolds.arguments import check_instance
from rfm.arrays import tensor_of
from rfm.conditions import Conditions
from rfm.flow.flow_mixture import FlowMixture, checked_start
from rfm.records.descriptions import SavedFlowError, build, describe
from rfm.sources import Source
from rfm.sources.base import check_same_manifold


class Refinement(FlowMixture):
    """Sources that stand at times along a flow, and their weights: the density of a refined flow.

    Source ``q_j`` at time ``s_j`` is carried to time 1 by the rest of the flow. With ``phi_j`` the way back from time 1
    to ``s_j``, the density is the mixture ``sum_j w_j q_j(phi_j(x)) |det D phi_j(x)|``, normalised as each part is. A
    source at time 1 is a part as it stands: a kernel density. The flow's own source at time 0 is its own density. In
    between, the last stretch of the flow spreads dense clusters and compresses deserts, so that one width of kernel
    there is a fine one where points are dense and a broad one where they are sparse.

    `rfm.fit` makes one from kernels about the training points, which the flow has carried back.

    Args:
        starts: times in [0, 1], strictly descending.
        sources: the distribution that stands at each.
        weights: of each, positive, sum 1.
        validation_nll: what the weights were chosen by, in nats, by the name of the density: ``flow`` alone,
            ``kernels`` alone and ``refined``.

    Raises:
        ValueError: an argument is not as said.
    """

    weights: Tensor

    def __init__(
        self,
        starts: Sequence[float],
        sources: Sequence[Source],
        weights: Tensor | Sequence[float],
        validation_nll: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.starts = tuple(checked_start("Refinement", s, at_data=True) for s in starts)
        for source in sources:
            check_instance("Refinement", "each of sources", source, Source, "KernelMixture.fit(manifold, points)")
        self.sources = nn.ModuleList(sources)
        self.constant("weights", tensor_of("Refinement", "weights", weights, torch.float64).detach())
        self.validation_nll = dict(validation_nll or {})
        count, w = len(self.starts), self.weights
        if not count or any(a <= b for a, b in zip(self.starts, self.starts[1:], strict=False)):
            raise ValueError(f"Refinement: starts must be times in strictly descending order, got {list(self.starts)}")
        if len(self.sources) != count or w.shape != (count,):
            raise ValueError(
                f"Refinement: needs one source and one weight for each of the {count} starts, got "
                f"{len(self.sources)} sources and weights of shape {tuple(w.shape)}"
            )
        if not bool((w > 0).all()) or not abs(float(w.sum()) - 1) < 1e-6:
            raise ValueError(f"Refinement: weights must be positive with sum 1, got {w.tolist()}; leave out zeros")

    def check(self, manifold: Manifold, conditions: Conditions | None) -> None:
        """Raise ValueError unless the sources can refine a flow on ``manifold`` that is conditional on nothing."""
        for source, start in zip(self.sources, self.starts, strict=True):
            assert isinstance(source, Source)
            check_same_manifold("Refinement", f"the source at time {start:g}", source.manifold, manifold)
        if conditions is not None:
            raise ValueError(
                f"Refinement: its sources know of no condition, the flow is conditional on "
                f"{', '.join(conditions.names)}; leave the refinement out"
            )

    def check_condition(self, where: str, given: bool) -> None:
        if given:
            raise ValueError(
                f"Flow.{where}: this flow is refined by sources that know of no condition; use flow.base.{where}"
            )

    def masses(self, count: int, condition: Tensor | None) -> Tensor:
        return self.weights.expand(count, len(self.starts))

    def draw(
        self, start: int, count: int, condition: Tensor | None, generator: torch.Generator | None, like: dict[str, Any]
    ) -> Tensor:
        return self._source(start).sample((count,), generator=generator, **like)

    def source_at(self, start: int, condition: Tensor | None) -> Source:
        return self._source(start)

    def log_terms(self, start: int, x: Tensor, condition: Tensor | None) -> Tensor:
        return self._source(start).log_prob(x) + math.log(float(self.weights[start]))

    def summary(self) -> dict[str, Any]:
        """Return times, weights and validation NLLs in nats as plain values, for JSON."""
        return {"starts": list(self.starts), "weights": self.weights.tolist(), "validation_nll": self.validation_nll}

    def describe(self) -> str:
        """Return in words which sources the density is made of, and what it gained."""
        parts = zip(self.starts, self.weights.tolist(), strict=True)
        text = "refined by sources at " + ", ".join(f"time {s:g} ({100 * w:.0f} %)" for s, w in parts)
        known = self.validation_nll
        if {"flow", "kernels", "refined"} <= known.keys():
            text += (
                f"; validation NLL {known['refined']:.3f} nats, of the flow alone {known['flow']:.3f}, of its kernels "
                f"alone {known['kernels']:.3f}"
            )
        return text

    def record(self, shared: Mapping[str, Any], tensors: dict[str, Tensor]) -> dict[str, Any]:
        """Return it as JSON data, with arguments as for `rfm.records.descriptions.describe`."""
        return {
            "starts": list(self.starts),
            "sources": [describe(source, shared, tensors) for source in self.sources],
            "weights": self.weights.tolist(),
            "validation_nll": self.validation_nll,
        }

    @classmethod
    def recorded(
        cls, record: Mapping[str, Any], where: str, shared: Mapping[str, Any], tensors: Mapping[str, Tensor]
    ) -> "Refinement":
        """Return the refinement that `record` described, with arguments as for `rfm.records.descriptions.build`.

        Raises:
            SavedFlowError: if it is damaged.
        """
        try:
            sources = build(record["sources"], where, shared, tensors)
            return cls(record["starts"], sources, record["weights"], record.get("validation_nll"))
        except SavedFlowError:
            raise
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise SavedFlowError(f"{where} is damaged ({error}); fit again") from None

    def _source(self, start: int) -> Source:
        source = self.sources[start]
        assert isinstance(source, Source)
        return source

    def extra_repr(self) -> str:
        return f"starts={list(self.starts)}, weights={[round(w, 4) for w in self.weights.tolist()]}"
