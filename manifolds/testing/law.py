"""A law, and what measuring it returns."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from manifolds.testing.probe import Probe


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


@dataclass(frozen=True, eq=False)
class Law:
    """A claim of the contract with the measurement that tests it.

    Attributes:
        name: short and unique.
        claim: the claim as a formula: the docstring of its measurement.
        means: what a violation usually means.
        remedy: what to do about it.
        needs: laws that must hold for this one to mean anything.
        measure: yields measurements; an exception that it raises is a violation too.
        every_dtype: tested in each dtype; otherwise once, in the most accurate one.
        applies: returns why the law says nothing about this manifold, or the empty string.
    """

    name: str
    claim: str
    means: str
    remedy: str
    needs: tuple["Law", ...]
    measure: Callable[["Probe"], Iterator[Measurement]]
    every_dtype: bool
    applies: Callable[["Probe"], str]


def law(
    name: str,
    *,
    means: str,
    remedy: str,
    needs: tuple[Law, ...] = (),
    every_dtype: bool = False,
    applies: Callable[["Probe"], str] = lambda probe: "",
) -> Callable[[Callable[["Probe"], Iterator[Measurement]]], Law]:
    """Turn a generator of measurements, documented by the claim, into a `Law`; for the arguments see there."""

    def decorate(measure: Callable[["Probe"], Iterator[Measurement]]) -> Law:
        claim = " ".join((measure.__doc__ or "").split()).removesuffix(".")
        return Law(name, claim, means, remedy, needs, measure, every_dtype, applies)

    return decorate
