"""A law of the contract."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from manifolds.testing.measurement import Measurement
from manifolds.testing.probe import Probe


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
    measure: Callable[[Probe], Iterator[Measurement]]
    every_dtype: bool
    applies: Callable[[Probe], str]


def law(
    name: str,
    *,
    means: str,
    remedy: str,
    needs: tuple[Law, ...] = (),
    every_dtype: bool = False,
    applies: Callable[[Probe], str] = lambda probe: "",
) -> Callable[[Callable[[Probe], Iterator[Measurement]]], Law]:
    """Turn a generator of measurements, documented by the claim, into a `Law`; for the arguments see there."""

    def decorate(measure: Callable[[Probe], Iterator[Measurement]]) -> Law:
        claim = " ".join((measure.__doc__ or "").split()).removesuffix(".")
        return Law(name, claim, means, remedy, needs, measure, every_dtype, applies)

    return decorate
