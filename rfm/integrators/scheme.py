"""What makes a step, whatever controls its length.

A *scheme* is data: a tableau with coordinates to use it in, or an order. It makes a *stepper*, which remembers what one
solve needs of its last steps; `FixedStep` and `Adaptive` drive either kind through time.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from manifolds import Manifold
from rfm.integrators.march import March
from rfm.integrators.per_sample import Samples
from rfm.integrators.right_hand_side import RightHandSide
from rfm.integrators.step_control import Tolerance, Trial


class FixedStepper(Protocol):
    """Makes steps that are as long for all samples."""

    evaluations: int
    """Of the field, so far."""

    def begin(self, march: March, t: float) -> None:
        """Start at time ``t``."""
        ...

    def advance(self, march: March, start: float, end: float) -> None:
        """Move the samples from one time to another."""
        ...

    def output(self) -> Sequence[Tensor]:
        """Note an output time; return the integrals there, or the integrands since the last, which must be finite."""
        ...

    def integrals(self) -> list[Tensor]:
        """Return the integrals from the start up to each output time, none if nothing was integrated."""
        ...


@dataclass(frozen=True)
class Moving(Samples):
    """Samples on their way to the end of a solve, ``n`` of them."""

    index: Tensor
    """Their numbers."""
    x: Tensor
    t: Tensor
    h: Tensor
    """How long the next step is to be, positive."""
    integral: Tensor | None
    memory: Samples
    """What the stepper knows of the steps before."""
    steps: Tensor
    """How many were tried."""
    status: Tensor
    """Whether they can go on, see `rfm.integrators.solution`."""
    arrived: Tensor
    """Which are at the end."""


@dataclass(frozen=True)
class Attempt:
    """A step that was tried from where samples were, one for each."""

    x: Tensor
    """Where it ends."""
    integral: Tensor | None
    """The integrals there."""
    ratio: Tensor
    """The estimated error relative to the tolerated one ``(n)``."""
    outside: Tensor | None
    """Which left the domain ``(n)``; None if none can."""
    growth: Tensor
    """What to multiply the step's length by next ``(n)``."""
    accepted: Samples
    """What to remember if the step is accepted."""
    rejected: Samples
    """What to remember if it is not."""
    step: Any = None
    """What the stepper needs to interpolate inside the step."""


class AdaptiveStepper(Protocol):
    """Tries steps of a length for each sample, and estimates their errors."""

    order: int
    """Of the first step."""
    evaluations_per_step: int
    evaluations_between: int
    """For output times inside a step, however many."""

    def begin(self, x: Tensor, t: Tensor, first: tuple[Tensor, Tensor | None], span: float) -> Samples:
        """Return what to remember at the start, given the field there; ``span`` is the signed length of the solve."""
        ...

    def attempt(self, field: RightHandSide, at: Moving, trial: Trial) -> Attempt:
        """Try steps; ``field`` is that of the samples which are moving."""
        ...

    def between(
        self, rhs: RightHandSide, before: Moving, attempt: Attempt, after: Moving, row: Tensor, t: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Return where samples were at times inside the step, ``row`` and ``t`` one for each, and the integrals."""
        ...


class Scheme(ABC):
    """A way to make steps."""

    @property
    def estimates_errors(self) -> bool:
        """Whether it can be adaptive."""
        return True

    @abstractmethod
    def fixed(self, rhs: RightHandSide, manifold: Manifold) -> FixedStepper:
        """Return what makes steps of given lengths."""

    @abstractmethod
    def adaptive(self, rhs: RightHandSide, manifold: Manifold, tolerance: Tolerance) -> AdaptiveStepper:
        """Return what makes steps and estimates their errors."""
