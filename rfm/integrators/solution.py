"""What a solve returns, also when it fails."""

from dataclasses import dataclass

import torch
from torch import Tensor

SUCCEEDED, STEP_TOO_SMALL, TOO_MANY_STEPS, NOT_FINITE, LEFT_DOMAIN = range(5)

_REASONS = {
    STEP_TOO_SMALL: "the step became too small for the precision (a singular field, or tolerances below rounding)",
    TOO_MANY_STEPS: "max_steps was reached (a stiff field, or tolerances too tight)",
    NOT_FINITE: "the field or the point became NaN or infinite",
    LEFT_DOMAIN: "a step left the manifold (steps too long, or a field that leads across the border)",
}


class IntegrationError(RuntimeError):
    """A solve that failed for some samples; `solution` holds what was computed."""

    def __init__(self, message: str, solution: "Solution") -> None:
        super().__init__(message)
        self.solution = solution


@dataclass(frozen=True)
class Solution:
    """The result of `rfm.integrate`.

    Where a sample failed, its entries from the failure on are NaN.
    """

    times: Tensor
    """The requested times ``(T,)``."""
    x: Tensor
    """Positions at those times ``(T, *batch, *event_shape)``; the first are the initial points."""
    integral: Tensor | None
    """Integrals of the field's second output up to those times ``(T, *batch)``, or ``(T, *batch, k)``; None if
    it has none."""
    status: Tensor
    """Per sample ``(*batch)``: 0 where the solve succeeded, otherwise a code that `describe_failure` words."""
    evaluations: Tensor
    """Evaluations of the field per sample ``(*batch)``."""

    @property
    def final(self) -> Tensor:
        """Positions at the last time ``(*batch, *event_shape)``."""
        return self.x[-1]

    @property
    def success(self) -> Tensor:
        """Whether each sample's solve succeeded ``(*batch)``, bool."""
        return self.status == SUCCEEDED

    def describe_failure(self) -> str:
        """Return a sentence on which samples failed and why; empty if none did."""
        parts = []
        flat = self.status.flatten()
        for code, reason in _REASONS.items():
            index = torch.nonzero(flat == code).flatten()
            if len(index):
                shown = ", ".join(str(int(i)) for i in index[:5]) + (", ..." if len(index) > 5 else "")
                parts.append(f"{len(index)} of {len(flat)} samples (numbers {shown}): {reason}")
        return "; ".join(parts)
