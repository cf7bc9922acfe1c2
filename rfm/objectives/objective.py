"""What a training step minimises."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from manifolds import Manifold
from manifolds.arguments import check_function
from rfm.integrators import Adaptive, integrate
from rfm.paths.times import UniformAndLateTimes
from rfm.sources import Source

_SOLVER = Adaptive(atol=1e-3, rtol=1e-3)

Loss = Callable[..., Tensor]
"""``loss(field, source, x_0, x_1, t, generator=, **condition)``: see `Objective.__call__`."""


class Floor(NamedTuple):
    """How a loss divides, each part a value per draw ``(*batch)``."""

    least: Tensor
    """What is left of the loss at its minimum over all fields: for flow matching, Jensen's gap."""
    above: Tensor
    """What a field's loss has besides."""


class Objective(ABC):
    """The loss of a training step, and its needs of the run; `rfm.FlowMatching` and `rfm.MaximumLikelihood` are two.

    A subclass writes `__call__`; the rest has defaults. A plain function is an objective with all of them, see
    `objective_of`. A run is resumed only with the same: a function of the same code, or an object of equal attributes.
    """

    pairs: ClassVar[bool] = True
    """Whether the loss looks at the source points, so that it matters which data points they are coupled with."""
    repeats: ClassVar[bool] = False
    """Whether its code does the same at every step, so that a GPU may replay the step as one graph."""
    refines: ClassVar[bool] = False
    """Whether it may go on from a trained field, whose own weights then compete with those that it finds."""
    by_likelihood: ClassVar[bool] = True
    """Whether the likelihood of held-out points tells what a step has improved, or else `validation_loss`."""
    learning_rate: ClassVar[float] = 3e-3
    """Peak learning rate where the run is given none."""

    jitter: float = 0.0
    """By how much data points are moved at random, anew in each batch: the standard deviation in each direction, as a
    share of the distance to the sixth nearest of the other places."""
    tolerance: float = 0.01
    """By how much, in nats, the mean of `log_prob` over validation points may differ from that of an accurate solve."""

    @property
    def splits(self) -> bool:
        """Whether the loss of a batch is the mean of those of its parts, so that several processes may share it."""
        return False

    @abstractmethod
    def __call__(
        self,
        field: Callable[..., Tensor],
        source: Source,
        x_0: Tensor,
        x_1: Tensor,
        t: Tensor,
        *,
        generator: torch.Generator | None = None,
        **condition: Any,
    ) -> Tensor:
        """Return the loss of a batch, a scalar.

        Args:
            field: the velocity field in training.
            source: the distribution at time 0.
            x_0: draws from it ``(*batch, *event_shape)``, coupled to the data.
            x_1: data points, the same shape.
            t: times ``(*batch)``, see `draw_times`.
            generator: source of randomness, seeded by the run and the step.
            condition: the points' ``condition``, where there is one, for the field.
        """

    def validation_loss(
        self,
        field: Callable[..., Tensor],
        source: Source,
        x_0: Tensor,
        x_1: Tensor,
        t: Tensor,
        *,
        generator: torch.Generator | None = None,
        **condition: Any,
    ) -> Tensor:
        """Return what is to be small for held-out points, where their likelihood is not known: by default the loss."""
        return self(field, source, x_0, x_1, t, generator=generator, **condition)

    def carried(self, field: Callable[..., Tensor], source: Source, x_0: Tensor, **condition: Any) -> Tensor:
        """Return where the field takes draws from the source, as samples of the flow are drawn.

        Raises:
            IntegrationError: the field cannot be integrated yet.
        """
        return integrate(field, source.manifold, x_0, (0.0, 1.0), _SOLVER, **condition).final

    @property
    def source(self) -> Source | None:
        """The source that the objective presumes, if any; it is the flow's unless the user names one."""
        return None

    def check(self, manifold: Manifold, source: Source, x: Tensor) -> None:
        """Raise ValueError unless the objective can train a flow on ``manifold`` from ``source`` to points ``x``."""
        self.check_source(manifold, source)

    def check_source(self, manifold: Manifold, source: Source) -> None:
        """Raise ValueError unless the objective can train a flow on ``manifold`` from ``source``, whatever the data."""
        return

    def on(self, manifold: Manifold) -> Self:
        """Return the objective on a manifold, with nothing left to default."""
        return self

    def to(self, device: torch.device) -> Self:
        """Return the objective with what it computes with on a device."""
        return self

    @property
    def candidates(self) -> Sequence[Self]:
        """The objective with ever finer solves: the first whose `log_prob` agrees with an accurate one is trained."""
        return (self,)

    @property
    def solver_steps(self) -> int | None:
        """How many steps the solve of `log_prob` takes; None where there is none."""
        return None

    def log_prob(self, field: Callable[..., Tensor], source: Source, x: Tensor, **condition: Any) -> Tensor | None:
        """Return the log-density that the loss minimises minus the mean of, ``(*batch)``; None where there is none.

        At each validation it is compared with that of an accurate solve, and training ends where they part.
        """
        return None

    def has_floor(self, source: Source) -> bool:
        """Whether `floor` is known in closed form, for a flow without conditions from ``source``."""
        return False

    def floor(
        self,
        field: Callable[..., Tensor],
        source: Source,
        data: Tensor,
        weights: Tensor | None,
        x_0: Tensor,
        x_1: Tensor,
        t: Tensor,
    ) -> Floor | None:
        """Return the least that any field's loss may be on training points, and how far a field lies above it.

        None where the field of least loss is not known in closed form, as by default.

        Args:
            field: a velocity field without conditions.
            source: the distribution at time 0, independent of the data.
            data: all training points ``(n, *event_shape)``.
            weights: of the points ``(n)``, or None for equal ones.
            x_0: draws to take the means over, as for `__call__`.
            x_1: draws from the data.
            t: their times.
        """
        return None

    def velocity_of(self, network: nn.Module) -> nn.Module:
        """Return the velocity field of the flow, for a network that predicts what the objective trains it to predict.

        By default the network itself is the velocity.
        """
        return network

    def draw_times(self, shape: tuple[int, ...], **like: Any) -> Tensor:
        """Return the times of a batch; by default half uniform and half crowded at the data.

        Args:
            shape: of the batch.
            like: ``generator``, ``dtype`` and ``device``, as for `rfm.paths.times.TimeSampler.sample`.
        """
        return UniformAndLateTimes().sample(shape, **like)


@dataclass(frozen=True)
class _FunctionObjective(Objective):
    """A plain function, of whose code nothing is known."""

    loss: Loss

    def __call__(self, *arguments: Any, **options: Any) -> Tensor:
        return self.loss(*arguments, **options)


def objective_of(owner: str, objective: Objective | Loss) -> Objective:
    """Return an objective as it is, and a function as one.

    Raises:
        ValueError: for anything else.
    """
    check_function(owner, "objective", objective, "MaximumLikelihood()")
    return objective if isinstance(objective, Objective) else _FunctionObjective(objective)
