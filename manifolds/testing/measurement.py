"""What measuring a law returns."""

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Measurement:
    """By how much a law is broken, for a batch of inputs.

    Attributes:
        error: discrepancies ``(*batch)``.
        allowed: what is allowed ``(*batch)``; not a number, or more than this, breaks the law.
        inputs: the inputs by name, each ``(*batch, ...)``.
        what: what was compared, in words.
        found: replaces the sentence that states error and allowance, where numbers say little.
    """

    error: Tensor
    allowed: Tensor
    inputs: dict[str, Tensor] = field(default_factory=dict)
    what: str = ""
    found: str = ""
