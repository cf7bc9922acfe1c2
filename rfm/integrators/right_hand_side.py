"""What is integrated, as methods call it."""

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor

from rfm.integrators.span import Span


class RightHandSide(Protocol):
    """Velocities, and scalars that are integrated along the path, of ``n`` samples."""

    def __call__(
        self, x: Tensor, t: Tensor, *, integrand: bool = True, index: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return velocities, and integrands ``(n)`` or ``(n, k)``, these None unless there are any and requested.

        ``index`` ``(n)`` names the samples that ``x`` holds, None all.
        """
        ...


class TimedRightHandSide(RightHandSide, Protocol):
    """A right-hand side that knows its times, for methods that need more than velocities per share of the span."""

    field: Callable[..., Any]
    """What is followed, called with times."""
    with_integral: bool
    """Whether it returns scalars to integrate, too."""
    span: Span
    """From shares to times."""

    def beside(self, function: Callable[..., Any], x: Tensor, t: Tensor) -> Any:
        """Return another function ``(x, t, **condition)`` at points and shares of the span."""
        ...
