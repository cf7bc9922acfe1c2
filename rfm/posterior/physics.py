"""Operators that carry their adjoint, as `deepinv` writes them, as functions that torch can differentiate.

The derivative of a linear operator is the operator itself, and its transpose the adjoint. So neither needs to be
differentiated, which some cannot be: the derivative along a direction of an interpolation on a grid, as in tomography,
is not known to torch.
"""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

Linear = Callable[[Tensor], Tensor]

_TOLERANCE = 1e-4
"""Of the two sides of the adjoint's law, relative to the lengths of the vectors: single precision has it to 1e-6."""


@runtime_checkable
class Physics(Protocol):
    """A linear or other forward operator, as `deepinv` writes it."""

    def A(self, x: Tensor) -> Tensor:  # noqa: N802
        """Return what is measured of points, without noise."""
        ...


@runtime_checkable
class LinearPhysics(Physics, Protocol):
    """A linear operator with its adjoint, as `deepinv` writes it."""

    def A_adjoint(self, y: Tensor) -> Tensor:  # noqa: N802
        """Return the adjoint applied to measurements."""
        ...


def function_of(operator: Any, y: Tensor) -> Any:
    """Return an operator as a function of points: a physics' ``A``, whose derivatives are itself and its adjoint.

    Args:
        operator: a physics, or a function, which is returned as it is.
        y: a measurement, without batch axes.

    Raises:
        ValueError: the adjoint is none, or does not take the measurement.
    """
    if isinstance(operator, type):
        raise ValueError(
            f"Measurement: operator must be an object or a function, got the class {operator.__name__}; pass one of it"
        )
    if not isinstance(operator, LinearPhysics):
        return operator.A if isinstance(operator, Physics) else operator
    check_adjoint(operator, y)

    def apply(x: Tensor) -> Tensor:
        applied: Tensor = _Applied.apply(x, operator.A, operator.A_adjoint)  # type: ignore[no-untyped-call]
        return applied

    return apply


def check_adjoint(physics: LinearPhysics, y: Tensor) -> None:
    """Raise ValueError unless ``<A x, v> = <x, A' v>`` for random vectors, where ``v`` is of the shape of ``y``."""
    name = type(physics).__name__
    generator = torch.Generator().manual_seed(0)

    def normal(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, dtype=like.dtype).to(like.device)

    try:
        with torch.no_grad():
            v = normal(y[None])
            back = physics.A_adjoint(v)
            x = normal(back)
            ahead = physics.A(x)
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
        raise ValueError(
            f"Measurement: the adjoint of {name} does not take y, of shape {tuple(y.shape)} without an axis of the "
            f"batch ({str(error).splitlines()[0][:120] if str(error) else type(error).__name__})"
        ) from None
    if ahead.shape != v.shape:
        raise ValueError(
            f"Measurement: {name} measures {tuple(ahead.shape[1:])} of a point of shape {tuple(x.shape[1:])}, y has "
            f"shape {tuple(y.shape)}"
        )
    left, right = float((ahead * v).double().sum()), float((x * back).double().sum())
    scale = float(ahead.double().norm() * v.double().norm() + x.double().norm() * back.double().norm())
    if not abs(left - right) <= _TOLERANCE * scale:
        raise ValueError(
            f"Measurement: A_adjoint of {name} is not the adjoint of its A: <A x, v> is {left:.6g} and <x, A_adjoint "
            f"v> {right:.6g} for random x and v; correct it, or pass the method A alone, which torch differentiates"
        )


class _Applied(torch.autograd.Function):
    """A linear map, differentiated by its adjoint, and the adjoint by the map."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, ahead: Linear, adjoint: Linear) -> Tensor:
        return ahead(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Linear, Linear], output: Tensor) -> None:
        _, ctx.ahead, ctx.adjoint = inputs

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor, None, None]:
        pulled: Tensor = _Applied.apply(v, ctx.adjoint, ctx.ahead)  # type: ignore[no-untyped-call]
        return pulled, None, None

    @staticmethod
    def jvp(ctx: Any, dx: Tensor, *_: None) -> Tensor:
        moved: Tensor = _Applied.apply(dx, ctx.ahead, ctx.adjoint)  # type: ignore[no-untyped-call]
        return moved
