"""Sources along a flow: the mixture of what each becomes as the last stretch of the flow carries it to the data."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from manifolds import Manifold
from manifolds.arguments import check_instance, number
from manifolds.numerics.constants import Constants
from rfm.arrays import tensor_of
from rfm.conditions import Conditions
from rfm.integrators import Method, integrate
from rfm.likelihood import Hutchinson, LogProbEstimate, estimate_transport, transport
from rfm.records.descriptions import SavedFlowError, build, describe
from rfm.sources import Source
from rfm.sources.base import check_same_manifold


class Refinement(Constants):
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

    def sample(
        self,
        field: Callable[..., Tensor],
        manifold: Manifold,
        count: int,
        method: Method | None = None,
        *,
        batch_size: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        advance: Callable[[int], Any] = lambda count: None,
    ) -> Tensor:
        """Return independent draws, ``(count, *event_shape)``, in random order.

        Args:
            field: the velocity field.
            manifold: where the points live.
            count: how many.
            method: how to integrate.
            batch_size: points integrated together.
            generator: source of randomness.
            dtype: of the points.
            device: of the points.
            advance: called with the number of points done each time.
        """
        u = torch.rand(count, generator=generator, dtype=torch.float64, device=device)
        component = torch.searchsorted(self.weights.to(u.device).cumsum(0), u).clamp(max=len(self.starts) - 1)
        points = torch.empty(count, *manifold.event_shape, dtype=dtype, device=device)
        for j, (start, source) in enumerate(zip(self.starts, self.sources, strict=True)):
            assert isinstance(source, Source)
            for rows in (component == j).nonzero()[:, 0].split(batch_size):
                x = source.sample((len(rows),), generator=generator, dtype=dtype, device=device)
                # A length of zero is no span to integrate over.
                end = integrate(field, manifold, x, (start, 1.0), method).final if len(rows) and start < 1 else x
                points[rows] = end
                advance(len(rows))
        return points

    def log_prob(
        self, field: Callable[..., Tensor], manifold: Manifold, x: Tensor, method: Method | None = None
    ) -> Tensor:
        """Return the log-density at points ``x`` in nats, with respect to the Riemannian volume, ``(*batch)``.

        One way back from time 1 passes all starts.
        """
        terms, integral, at = [], x.new_zeros(manifold.batch_shape(x)), 1.0
        for start, source, weight in self._parts():
            if start < at:
                solution = transport(field, manifold, x, at, start, method)
                assert solution.integral is not None
                x, integral, at = solution.final, integral + solution.integral[-1], start
            terms.append(source.log_prob(x) + integral + math.log(weight))
        return torch.logsumexp(torch.stack(terms), dim=0)

    def estimate_log_prob(
        self,
        field: Callable[..., Tensor],
        manifold: Manifold,
        x: Tensor,
        estimator: Hutchinson,
        method: Method | None = None,
    ) -> LogProbEstimate:
        """Return `log_prob` with an estimated divergence, and its standard error, to first order in the noise."""
        terms, errors, integral, at = [], [], x.new_zeros(manifold.batch_shape(x)), 1.0
        for start, source, weight in self._parts():
            error = torch.zeros_like(integral)
            if start < at:
                solution, error = estimate_transport(field, manifold, x, at, start, estimator, method)
                assert solution.integral is not None
                x, integral, at = solution.final, integral + solution.integral[-1], start
            terms.append(source.log_prob(x) + integral + math.log(weight))
            errors.append(error)
        log_p = torch.logsumexp(torch.stack(terms), dim=0)
        # The noise of a stretch, drawn anew for each, moves all components that start at its end or before.
        beyond = torch.exp(torch.stack(terms) - log_p).flip(0).cumsum(0).flip(0)
        return LogProbEstimate(log_p, (beyond * torch.stack(errors)).square().sum(0).sqrt())

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

    def _parts(self) -> list[tuple[float, Source, float]]:
        sources = [source for source in self.sources if isinstance(source, Source)]
        return list(zip(self.starts, sources, self.weights.tolist(), strict=True))

    def extra_repr(self) -> str:
        return f"starts={list(self.starts)}, weights={[round(w, 4) for w in self.weights.tolist()]}"


def check_unconditional(where: str, unconditional: bool) -> None:
    """Raise ValueError where a refined flow is given what its sources know nothing of."""
    if not unconditional:
        raise ValueError(
            f"Flow.{where}: this flow is refined by sources that know of no condition, guidance or steering; use "
            f"flow.base.{where}"
        )


def checked_start(owner: str, start: float, at_data: bool = False) -> float:
    """Return a time at which a source may stand.

    Raises:
        ValueError: unless it is a number from 0 to below 1, or to 1 if it may stand ``at_data``.
    """
    value = number(owner, "start", start)
    if not (0 <= value < 1 or (at_data and value == 1)):
        interval = "[0, 1]" if at_data else "[0, 1)"
        raise ValueError(f"{owner}: start must be a time in {interval}, got {start}; 0 is where flows begin")
    return value
