"""Checks of points and tangent vectors where data enters, and what to do with those that fail."""

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor

from manifolds.numerics import tolerance


class Shaped(Protocol):
    """What a check needs of a manifold, whose text names it in messages."""

    event_shape: torch.Size

    @property
    def other_forms(self) -> Mapping[tuple[int, ...], str]:
        """What to do with points in another usual form, by the shape of one such point."""


def check_shape(manifold: Shaped, what: str, x: Tensor) -> None:
    """Raise ValueError unless ``x`` has the shape of points and is floating point.

    Args:
        manifold: where they are points, or tangent vectors.
        what: they are, for the message.
        x: ``(*batch, *event_shape)``.
    """
    shape = manifold.event_shape
    if x.ndim < len(shape) or x.shape[x.ndim - len(shape) :] != shape:
        raise ValueError(
            f"{what} of {manifold} have shape (*batch, {', '.join(map(str, shape))}), got {tuple(x.shape)}; "
            f"{shape_remedy(manifold, x)}"
        )
    if not x.is_floating_point():
        raise ValueError(f"{what} of {manifold} are floating point, got {x.dtype}; convert with .float() or .double()")


def shape_remedy(manifold: Shaped, x: Tensor) -> str:
    """Return how to make points of what has another shape."""
    last, shape = x.shape[-1:], manifold.event_shape
    known = manifold.other_forms.get(tuple(x.shape[1:])) if x.ndim > 1 else None
    if known is not None:
        return known
    if len(shape) > 1 and last == (shape.numel(),):
        return f"reshape them with x.reshape(*x.shape[:-1], {', '.join(map(str, shape))})"
    if len(shape) == 1 and x.ndim == 2 and x.shape[0] == shape[0]:
        return "reshape or transpose them: x.T has that shape"
    if tuple(shape) == (1,) and x.ndim == 1:
        return "add an axis with x[:, None]"
    return "reshape or transpose them"


def relative_size(manifold: Shaped, difference: Tensor, x: Tensor) -> Tensor:
    """Return the Euclidean length of a difference relative to ``max(1, |x|)``, ``(*batch)``."""
    axes = tuple(range(-len(manifold.event_shape), 0))
    return torch.linalg.vector_norm(difference, dim=axes) / torch.linalg.vector_norm(x, dim=axes).clamp(min=1)


def check_deviation(
    manifold: Shaped, deviation: Tensor, x: Tensor, tol: float | None, what: str, finding: str, remedy: str
) -> None:
    """Raise ValueError, naming the first entry, unless all deviations are within a bound.

    Args:
        manifold: where they are points, or tangent vectors.
        deviation: how far each is off, ``(*batch)``.
        x: the points or vectors, ``(*batch, *event_shape)``.
        tol: the bound; by default 100 units of rounding (`manifolds.numerics.tolerance`).
        what: they are, for the message.
        finding: what a deviation means.
        remedy: what to do.
    """
    bound = tolerance(x.dtype) if tol is None else tol
    bad = ~(deviation <= bound)
    if not bool(bad.any()):
        return
    finite = torch.isfinite(x).flatten(x.ndim - len(manifold.event_shape)).all(-1)
    if not bool(finite.all()):
        index, fault = _first(~finite), "not finite"
        remedy = "remove or repair them"
    else:
        index = _first(bad)
        fault = f"{finding} {float(deviation[index]):.3g}, more than {bound:.3g}"
    where = f"the one at index {', '.join(map(str, index))}" if index else "this one"
    raise ValueError(f"{what} of {manifold}: {where} is {fault} ({int(bad.sum())} of {bad.numel()} are); {remedy}")


def name_errors(owner: str, check: Callable[..., None], *args: Tensor, tol: float | None) -> None:
    """Run a check, and say in the error whose part failed."""
    try:
        check(*args, tol=tol)
    except ValueError as error:
        raise ValueError(f"{owner}: {error}") from None


def _first(mask: Tensor) -> tuple[int, ...]:
    """Return the index of the first true entry."""
    return tuple(int(i) for i in mask.nonzero()[0])
