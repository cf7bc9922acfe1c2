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
from rfm.integrators import Jumps, Method, Solution, integrate
from rfm.likelihood import Hutchinson, LogProbEstimate, estimate_transport, jump_inverse, transport
from rfm.sources import Source

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
    def standing(self, condition: Tensor | None) -> list[tuple[float, float, Source]]:
        """Return what stands along the flow: times, shares of the density, positive, and sources.

        Args:
            condition: one for all ``(c,)``, or None.
        """

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
        batch_size: int | None = None,
        condition: Tensor | None = None,
        advance: Callable[[int], Any] = lambda count: None,
    ) -> Tensor:
        """Return the log-density in nats, with respect to the Riemannian volume, ``(n,)``.

        Args:
            field: the velocity field.
            manifold: where the points live.
            x: points ``(n, *event_shape)``.
            method: how to integrate.
            batch_size: points integrated together; all by default. Kernels are summed for all points at once: those
                that are near each other share the work.
            condition: of each point ``(n, c)``, as the field takes it.
            advance: called with the number of points done each time.
        """

    @abstractmethod
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

    @abstractmethod
    def source_at(self, start: int, condition: Tensor | None) -> Source:
        """Return what stands at a start, given one condition ``(c,)`` or None."""

    def standing(self, condition: Tensor | None) -> list[tuple[float, float, Source]]:
        masses = self.masses(1, None if condition is None else condition[None])[0].tolist()
        return [
            (s, m, self.source_at(j, condition)) for j, (s, m) in enumerate(zip(self.starts, masses, strict=True)) if m
        ]

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
        batch_size: int | None = None,
        condition: Tensor | None = None,
        advance: Callable[[int], Any] = lambda count: None,
    ) -> Tensor:
        if isinstance(method, Jumps):
            return self._log_prob_of_jumps(field, manifold, x, method, batch_size, condition, advance)

        def carry(y: Tensor, at: float, start: float, **own: Any) -> tuple[Solution, Tensor]:
            solution = transport(field, manifold, y, at, start, method, **own)
            return solution, y.new_zeros(len(y))

        return torch.logsumexp(torch.stack(self._terms(carry, x, batch_size, condition, advance)[0]), dim=0)

    def _log_prob_of_jumps(
        self,
        field: Velocity,
        manifold: Manifold,
        x: Tensor,
        method: Jumps,
        batch_size: int | None,
        condition: Tensor | None,
        advance: Callable[[int], Any],
    ) -> Tensor:
        """Return the log-density of draws that jump: from each start by jumps of its own."""
        size, terms = batch_size or max(1, len(x)), list[Tensor]()
        parts, given = x.split(size), _conditions(condition, x, size)
        for j, start in enumerate(self.starts):
            if start == 1:
                terms.append(self.log_terms(j, x, condition))
                continue
            found = [
                jump_inverse(field, manifold, part, method, start=start, **own)
                for part, own in zip(parts, given, strict=True)
            ]
            log_det = torch.cat([own.log_det for own in found])
            terms.append(self.log_terms(j, torch.cat([own.x for own in found]), condition) - log_det)
        advance(len(x))
        return torch.logsumexp(torch.stack(terms), dim=0)

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
        def carry(y: Tensor, at: float, start: float, **own: Any) -> tuple[Solution, Tensor]:
            return estimate_transport(field, manifold, y, at, start, estimator, method, **own)

        terms, errors = map(torch.stack, self._terms(carry, x, batch_size, condition, advance))
        log_p = torch.logsumexp(terms, dim=0)
        # The noise of a stretch, drawn anew for each, moves all components that start at its end or before.
        beyond = torch.exp(terms - log_p).flip(0).cumsum(0).flip(0)
        return LogProbEstimate(log_p, (beyond * errors).square().sum(0).sqrt())

    def _terms(
        self,
        carry: Callable[..., tuple[Solution, Tensor]],
        x: Tensor,
        batch_size: int | None,
        condition: Tensor | None,
        advance: Callable[[int], Any],
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return the log of what each start adds to the density, and the error of the stretch before it, ``(n,)`` each.

        Args:
            carry: from points, two times and conditions to a solve between these with the integral of the divergence,
                and the standard error of that.
            x: points ``(n, *event_shape)``.
            batch_size: points carried together; all by default.
            condition: of each point ``(n, c)``.
            advance: called with the number of points that have been carried all the way.
        """
        terms, errors, at, integral = list[Tensor](), list[Tensor](), 1.0, x.new_zeros(len(x))
        size, last = batch_size or max(1, len(x)), len(self.starts) - 1
        given = _conditions(condition, x, size)
        for j, start in enumerate(self.starts):
            error = torch.zeros_like(integral)
            if start < at:
                carried = list[tuple[Tensor, Tensor, Tensor]]()
                for part, own in zip(x.split(size), given, strict=True):
                    solution, spread = carry(part, at, start, **own)
                    assert solution.integral is not None
                    carried.append((solution.final, solution.integral[-1], spread))
                    if j == last:
                        advance(len(part))
                x, stretch, error = map(torch.cat, zip(*carried, strict=True))
                integral, at = integral + stretch, start
            terms.append(self.log_terms(j, x, condition) + integral)
            errors.append(error)
        if at == 1:
            advance(len(x))
        return terms, errors


def _conditions(condition: Tensor | None, x: Tensor, size: int) -> list[dict[str, Any]]:
    """Return what the field is given with each ``size`` of the points ``x``."""
    if condition is None:
        return [{}] * len(x.split(size))
    return [{"condition": own} for own in condition.split(size)]


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
