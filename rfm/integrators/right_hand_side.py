"""What is integrated, as methods call it."""

from typing import Protocol

from torch import Tensor


class RightHandSide(Protocol):
    """Velocities, and scalars that are integrated along the path, of ``n`` samples."""

    def __call__(
        self, x: Tensor, t: Tensor, *, integrand: bool = True, index: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return velocities, and integrands ``(n)`` or ``(n, k)``, these None unless there are any and requested.

        ``index`` ``(n)`` names the samples that ``x`` holds, None all.
        """
        ...
