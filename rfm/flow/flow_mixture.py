"""Mixtures of flows that start at several times along one field: what a refined flow's density is."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from manifolds import Manifold
from manifolds.arguments import number
from manifolds.numerics.constants import Constants
from rfm.conditions import Conditions
from rfm.integrators import Jumps, Method, integrate
from rfm.likelihood import Hutchinson, LogProbEstimate, estimate_transport, jump_inverse, transport

Velocity = Callable[..., Tensor]


class RefinedDensity(Constants, ABC):
    """The density that takes the place of a flow's own, and needs its field.

    Conditions are vectors ``(n, c)`` with a row for each point, or None.
    """

    validation_nll: dict[str, float]
    """What the weights were chosen by, in nats, by the name of the density: ``flow`` alone, ``kernels`` alone and
    ``refined``."""

    @abstractmethod
    def check(self, manifold: Manifold, conditions: Conditions | None) -> None:
        """Raise ValueError unless it can refine a flow on ``manifold`` that is conditional on ``conditions``."""

    @abstractmethod
    def check_condition(self, where: str, given: bool) -> None:
        """Raise ValueError where a condition is given that it knows nothing of, by the method ``where`` of a flow."""

    @abstractmethod
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
        """Return independent draws, ``(count, *event_shape)``, in random order or that of the conditions.

        Args:
            field: the velocity field.
            manifold: where the points live.
            count: how many.
            method: how to integrate.
            batch_size: points integrated together.
            condition: of each draw ``(count, c)``, as the field takes it.
            generator: source of randomness.
            dtype: of the points.
            device: of the points.
            advance: called with the number of points done each time.
        """

    @abstractmethod
    def log_prob(
        self,
        field: Velocity,
        manifold: Manifold,
        x: Tensor,
        method: Method | None = None,
        *,
        condition: Tensor | None = None,
    ) -> Tensor:
        """Return the log-density at points ``x`` in nats, with respect to the Riemannian volume, ``(n,)``."""

    @abstractmethod
    def estimate_log_prob(
        self,
        field: Velocity,
        manifold: Manifold,
        x: Tensor,
        estimator: Hutchinson,
        method: Method | None = None,
        *,
        condition: Tensor | None = None,
    ) -> LogProbEstimate:
        """Return `log_prob` with an estimated divergence, and its standard error, to first order in the noise."""

    @abstractmethod
    def summary(self) -> dict[str, Any]:
        """Return times, weights and validation NLLs in nats as plain values, for JSON."""

    @abstractmethod
    def describe(self) -> str:
        """Return in words what the density is made of, and what it gained."""

    @abstractmethod
    def record(self, shared: Mapping[str, Any], tensors: dict[str, Tensor]) -> dict[str, Any]:
        """Return it as JSON data, with arguments as for `rfm.records.descriptions.describe`."""


class FlowMixture(RefinedDensity):
    """A mixture over starts: one way along the field serves all of them.

    A subclass says how much starts at each time, and what.
    """

    starts: tuple[float, ...]
    """Times in [0, 1], strictly descending."""

    @abstractmethod
    def masses(self, count: int, condition: Tensor | None) -> Tensor:
        """Return how much of the density starts at each time, ``(count, len(starts))`` of sum 1, float64."""

    @abstractmethod
    def draw(
        self, start: int, count: int, condition: Tensor | None, generator: torch.Generator | None, like: dict[str, Any]
    ) -> Tensor:
        """Return draws of what stands at a start, given by its place in ``starts``; ``like``: dtype and device."""

    @abstractmethod
    def log_terms(self, start: int, x: Tensor, condition: Tensor | None) -> Tensor:
        """Return the log of the mass times the density of what stands at a start, at points there, ``(*batch)``."""

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
        u = torch.rand(count, generator=generator, dtype=torch.float64, device=device)
        cumulative = self.masses(count, condition).to(u.device).cumsum(-1)
        chosen = torch.searchsorted(cumulative, u[:, None])[:, 0].clamp(max=len(self.starts) - 1)
        points = torch.empty(count, *manifold.event_shape, dtype=dtype, device=device)
        for j, start in enumerate(self.starts):
            for rows in (chosen == j).nonzero()[:, 0].split(batch_size):
                if not len(rows):
                    continue
                own: dict[str, Any] = {} if condition is None else {"condition": condition[rows]}
                given = own.get("condition")
                x = self.draw(j, len(rows), given, generator, {"dtype": dtype, "device": device})
                # A length of zero is no span to integrate over.
                points[rows] = integrate(field, manifold, x, (start, 1.0), method, **own).final if start < 1 else x
                advance(len(rows))
        return points

    def log_prob(
        self,
        field: Velocity,
        manifold: Manifold,
        x: Tensor,
        method: Method | None = None,
        *,
        condition: Tensor | None = None,
    ) -> Tensor:
        own: dict[str, Any] = {} if condition is None else {"condition": condition}
        if isinstance(method, Jumps):
            return self._log_prob_of_jumps(field, manifold, x, method, condition, own)
        terms, integral, at = [], x.new_zeros(manifold.batch_shape(x)), 1.0
        for j, start in enumerate(self.starts):
            if start < at:
                solution = transport(field, manifold, x, at, start, method, **own)
                assert solution.integral is not None
                x, integral, at = solution.final, integral + solution.integral[-1], start
            terms.append(self.log_terms(j, x, condition) + integral)
        return torch.logsumexp(torch.stack(terms), dim=0)

    def _log_prob_of_jumps(
        self,
        field: Velocity,
        manifold: Manifold,
        x: Tensor,
        method: Jumps,
        condition: Tensor | None,
        own: dict[str, Any],
    ) -> Tensor:
        """Return the log-density of draws that jump: from each start by jumps of its own."""
        terms = []
        for j, start in enumerate(self.starts):
            if start == 1:
                terms.append(self.log_terms(j, x, condition))
                continue
            found = jump_inverse(field, manifold, x, method, start=start, **own)
            terms.append(self.log_terms(j, found.x, condition) - found.log_det)
        return torch.logsumexp(torch.stack(terms), dim=0)

    def estimate_log_prob(
        self,
        field: Velocity,
        manifold: Manifold,
        x: Tensor,
        estimator: Hutchinson,
        method: Method | None = None,
        *,
        condition: Tensor | None = None,
    ) -> LogProbEstimate:
        own: dict[str, Any] = {} if condition is None else {"condition": condition}
        terms, errors, at = [], [], 1.0
        integral = x.new_zeros(manifold.batch_shape(x))
        for j, start in enumerate(self.starts):
            error = torch.zeros_like(integral)
            if start < at:
                solution, error = estimate_transport(field, manifold, x, at, start, estimator, method, **own)
                assert solution.integral is not None
                x, integral, at = solution.final, integral + solution.integral[-1], start
            terms.append(self.log_terms(j, x, condition) + integral)
            errors.append(error)
        log_p = torch.logsumexp(torch.stack(terms), dim=0)
        # The noise of a stretch, drawn anew for each, moves all components that start at its end or before.
        beyond = torch.exp(torch.stack(terms) - log_p).flip(0).cumsum(0).flip(0)
        return LogProbEstimate(log_p, (beyond * torch.stack(errors)).square().sum(0).sqrt())


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
