"""The path from noise to data: each position is still noise, or data already."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from manifolds.arguments import check_instance, integer
from rfm.paths.schedules import Kappa, LinearKappa


class LabelSource(ABC):
    """What positions hold at time 0, independent of each other: labels 0, 1, ... ``states - 1``.

    Args:
        classes: number of labels that data have, 0, 1, ... ``classes - 1``.
    """

    def __init__(self, classes: int) -> None:
        self.classes = integer(type(self).__name__, "classes", classes)

    @property
    @abstractmethod
    def states(self) -> int:
        """Number of labels that positions have on the way."""

    @property
    @abstractmethod
    def probabilities(self) -> Tensor:
        """Of the states at time 0, ``(states,)``, float64."""

    def sample(self, shape: tuple[int, ...], generator: torch.Generator | None, device: torch.device | str) -> Tensor:
        """Return independent labels ``shape``."""
        p = self.probabilities.to(device)
        count = int(torch.Size(shape).numel())
        return torch.multinomial(p, count, replacement=True, generator=generator).reshape(shape)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.classes})"


class UniformLabels(LabelSource):
    """All labels of the data alike: a position may jump several times."""

    @property
    def states(self) -> int:
        return self.classes

    @property
    def probabilities(self) -> Tensor:
        return torch.full((self.classes,), 1 / self.classes, dtype=torch.float64)


class MaskedLabels(LabelSource):
    """A label of its own, ``classes``, that says nothing: each position jumps once, to stay."""

    @property
    def states(self) -> int:
        return self.classes + 1

    @property
    def probabilities(self) -> Tensor:
        p = torch.zeros(self.classes + 1, dtype=torch.float64)
        p[-1] = 1
        return p


class MixturePath:
    """``p_t = kappa(t) p_0 + (1 - kappa(t)) delta_{x_1}`` at each position, independently.

    Given the posterior ``q`` of a label of the data, a position jumps at the rate ``-kappa' / kappa`` to a label drawn
    from it. While q stays the same, jumps from t to s leave a position as it is with probability
    ``kappa(s) / kappa(t)``, and else at a draw from q, however many there were: `jump_probability`. It is 1 at s = 1,
    where the rate is infinite.

    Args:
        source: what positions hold at time 0.
        kappa: the share of positions that is still noise; ``1 - t`` by default.

    References:
        Gat et al., Discrete Flow Matching, 2024, arXiv:2407.15595, equations 8 and 24.
    """

    def __init__(self, source: LabelSource, kappa: Kappa | None = None) -> None:
        check_instance("MixturePath", "source", source, LabelSource, "MaskedLabels(4)")
        self.source = source
        self.kappa = LinearKappa() if kappa is None else kappa

    def sample(self, x_1: Tensor, t: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return sequences at times ``t``, given data.

        Args:
            x_1: labels ``(*batch, length)``.
            t: times ``(*batch)``.
            generator: source of randomness.
        """
        like: dict[str, Any] = {"generator": generator, "device": x_1.device}
        noise = self.source.sample(tuple(x_1.shape), **like)
        left = self.kappa(t.double())[0][..., None]
        return torch.where(torch.rand(x_1.shape, dtype=torch.float64, **like) < left, noise, x_1)

    def jump_probability(self, t: float, s: float) -> float:
        """Return with which probability a position is drawn anew from time t to time s."""
        now, then = (float(self.kappa(torch.tensor(time, dtype=torch.float64))[0]) for time in (t, s))
        return 1.0 if now <= 0 else 1 - then / now

    def jumps(self, steps: int) -> list[tuple[float, float]]:
        """Return the time at which each of so many equal steps starts, and the probability to jump in it."""
        return [(i / steps, self.jump_probability(i / steps, (i + 1) / steps)) for i in range(steps)]

    def jump_rate(self, t: Tensor) -> Tensor:
        """Return the rate ``-kappa' / kappa`` of jumps at times ``t``, infinite at time 1."""
        left, slope = self.kappa(t)
        return -slope / left
