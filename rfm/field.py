"""Velocity fields, and what they may offer beside a velocity."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from manifolds import Manifold
from manifolds.arguments import shown


class Field:
    """A velocity field ``field(x, t, **condition)``, tangent at ``x``, and its optional abilities.

    All of them have defaults, so that a subclass overrides what it can do better. Functions, modules and other objects
    need not inherit from here: they are wrapped where they enter (`as_field`), and abilities that they define under
    these names are theirs. A module that inherits names `torch.nn.Module` first.
    """

    condition_dim: int | None = None
    """Length of the condition vectors; None where it is not known."""
    condition_labels: Sequence[int] | None = None
    """How many labels each entry of a condition vector has, 0 for a number; None where all are numbers."""
    needs_condition: bool = False
    """Whether there is no velocity without a condition, as behind an encoder."""
    reads_unknown: bool = False
    """Whether an entry of a condition vector that is NaN is one that is not known."""

    @property
    def identity(self) -> Any:
        """What is remembered of the field is remembered of this: the object that was given as one."""
        return self

    default_method: Any = None
    """The method that its flow is solved by unless given another; None for that of `rfm.integrate`."""

    def __call__(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
        """Return the velocity at points ``x`` ``(*batch, *event_shape)`` and times ``t`` ``(*batch)``."""
        raise NotImplementedError(
            f"{type(self).__name__} has no velocity: define __call__; a module inherits torch.nn.Module before Field"
        )

    def pushforward(self, x: Tensor, t: Tensor, tangents: Tensor, **condition: Any) -> tuple[Tensor, Tensor] | None:
        """Return the velocity and its derivatives along tangent vectors, or None: then the field is differentiated.

        Args:
            x: points ``(*batch, *event_shape)``.
            t: times ``(*batch)``.
            tangents: ``(*batch, k, *event_shape)``.
            condition: as for the velocity.
        """
        return None

    def log_prob_from(self, source: Any, x: Tensor, t: Tensor) -> Tensor | None:
        """Return the log-density of the field's flow from a source at time 0, or None: then it is solved for.

        Args:
            source: the `rfm.sources.Source`.
            x: points ``(*batch, *event_shape)``.
            t: times ``(*batch)``.
        """
        return None

    def encoded(self, condition: Tensor) -> tuple[Callable[..., Tensor], Tensor]:
        """Return a field and a condition for it, which give the same velocity; done once for each solve."""
        return self, condition

    def without_and_with(self, x: Tensor, t: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Return the unconditional and the conditional velocity at ``x``."""
        return self(x, t), self(x, t, condition=condition)

    def self_conditioned(self) -> Callable[..., Tensor]:
        """Return the field with a memory: at each call it is given what it predicted at the call before.

        Raises:
            ValueError: if it cannot remember.
        """
        raise ValueError(
            "self-conditioning is for fields that have a self_conditioned(), such as FrameField, and without guidance; "
            "leave it out"
        )

    def check_manifold(self, manifold: Manifold) -> None:
        """Raise ValueError unless the field serves this manifold beside the one that it was made for."""
        raise ValueError(
            f"it does not serve {manifold}; a field that serves others says which by its method "
            "check_manifold(manifold)"
        )

    def named_modules(self) -> Iterator[tuple[str, nn.Module]]:
        """Yield the modules that the field consists of, itself included, with their names."""
        yield from ()

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield the field's parameters."""
        yield from ()


class FlowMap(Field):
    """A field with a second time: where points at time s are at time t, in one evaluation.

    ``X_{s,t}(x) = exp_x((t - s) u(x, s, t))`` with the average velocity u, tangent at x; either time may be the later.
    At equal times u is the velocity, so that a flow map is a velocity field like any other: its trajectories and exact
    log-densities are those of the ordinary differential equation of ``u(x, t, t)``, which the jumps approximate as well
    as they were trained to.

    `rfm.distil` trains one, or `rfm.fit` with one of the objectives of `rfm.objectives` that are made for them. Others,
    such as `rfm.FlowMatching`, train the velocity alone, and leave jumps behind that are no longer its own.

    Boffi, Albergo, Vanden-Eijnden, Flow map matching, 2024, arXiv:2406.07507; the average velocity: Geng et al., Mean
    Flows for One-step Generative Modeling, 2025, arXiv:2505.13447.

    A subclass writes `average_velocity`, and has a `manifold`. A module names `torch.nn.Module` first, and its
    ``forward`` returns ``average_velocity(x, t, t)``.
    """

    manifold: Manifold
    """Where the points live."""

    def average_velocity(self, x: Tensor, s: Tensor, t: Tensor, **condition: Any) -> Tensor:
        """Return the initial velocity, at ``x``, of the geodesic that takes ``t - s`` to where ``x`` is at time t.

        Args:
            x: points at time s ``(*batch, *event_shape)``.
            s: times of the points ``(*batch)``, or one for all, shape ``()``.
            t: times to jump to, likewise.
            condition: as for the velocity.
        """
        raise NotImplementedError(f"{type(self).__name__} has no second time: define average_velocity")

    def __call__(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
        return self.average_velocity(x, t, t, **condition)

    def average_pushforward(
        self, x: Tensor, s: Tensor, t: Tensor, tangents: Tensor, **condition: Any
    ) -> tuple[Tensor, Tensor] | None:
        """Return the average velocity and its derivatives along tangent vectors ``(*batch, k, *event_shape)``, or None.

        None is for a map that is to be differentiated, as for `pushforward`.
        """
        return None

    def jump(self, x: Tensor, s: Tensor, t: Tensor, **condition: Any) -> Tensor:
        """Return where points ``x`` at time s are at time t, ``(*batch, *event_shape)``; arguments as above."""
        return self.manifold.expmap(x, self.manifold.lift(t - s) * self.average_velocity(x, s, t, **condition))


def as_flow_map(owner: str, field: object) -> FlowMap:
    """Return the flow map that a field is.

    Raises:
        ValueError: if it has no second time.
    """
    if not isinstance(field, FlowMap):
        field = field.function if isinstance(field, _Wrapped) else field
        found = shown(field) if inspect.isroutine(field) else type(field).__name__
        raise ValueError(
            f"{owner}: jumps need a field with a second time, an rfm.FlowMap, got {found}; distil the "
            "flow first, rfm.distil(flow), or fit with objective=rfm.objectives.Semigroup()"
        )
    return field


class _Wrapped(Field):
    """A function, a module or another object as a field, with those abilities that it has itself."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self.function = function
        offered = {name: getattr(function, name, None) for name in _OPTIONAL}
        self.needs_condition = offered["encoded"] is not None
        if isinstance(function, nn.Module):
            offered |= {"named_modules": function.named_modules, "parameters": function.parameters}
        vars(self).update({name: own for name, own in offered.items() if own is not None})

    @property
    def identity(self) -> Any:
        return self.function

    def __call__(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
        return self.function(x, t, **condition)


_OPTIONAL = [name for name in vars(Field) if name[0] != "_" and name not in ("named_modules", "parameters", "identity")]


def as_field(function: Callable[..., Tensor]) -> Field:
    """Return the field that a function, a module or another object is; a `Field` itself."""
    return function if isinstance(function, Field) else _Wrapped(function)
