"""Times to train at: densities on (0, 1), and how to draw from them.

The velocity that minimises the flow matching loss is the same for any density that is positive everywhere; the density
decides where a finite network is accurate. Two uses, one line apart::

    flow_matching_loss(field, path, x_0, x_1, times=times)                                  # errors count as drawn
    flow_matching_loss(field, path, x_0, x_1, times=times, weight=times.importance_weight)  # errors count equally

The second is an unbiased estimate of the loss with uniform times. No sampler returns exactly 0 or 1, where some
schedules are singular.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "BetaTimes",
    "DensityTimes",
    "EarlyTimes",
    "LogitNormalTimes",
    "StratifiedTimes",
    "TimeDensity",
    "TimeSampler",
    "UniformAndLateTimes",
    "UniformTimes",
]


class TimeSampler(ABC):
    """Draws times; each of a batch, taken alone, has the density that `density` returns."""

    @abstractmethod
    def sample(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Return times in (0, 1) of the given shape; global random state is not touched where a generator is given."""

    @abstractmethod
    def density(self, t: Tensor) -> Tensor:
        """Return the probability density at times ``(*batch)`` in (0, 1)."""

    def importance_weight(self, t: Tensor) -> Tensor:
        """Return ``1 / density``: a mean over draws, so weighted, estimates the mean over uniform times."""
        return 1 / self.density(t)


class TimeDensity(TimeSampler):
    """A density with a quantile function, which is all that drawing and stratifying need.

    A subclass writes `quantile` and `density`.
    """

    @abstractmethod
    def quantile(self, u: Tensor) -> Tensor:
        """Return the time below which a share ``u``, in (0, 1), of the probability lies."""

    def sample(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        return _inside(self.quantile(_inside(torch.rand(shape, generator=generator, dtype=dtype, device=device))))


@dataclass(frozen=True)
class UniformTimes(TimeDensity):
    """Every time alike."""

    def quantile(self, u: Tensor) -> Tensor:
        return u

    def density(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)


@dataclass(frozen=True)
class LogitNormalTimes(TimeDensity):
    """``log(t / (1 - t))`` is normal: the middle of the way, where velocities are hardest to predict, is visited most.

    Esser et al., Scaling Rectified Flow Transformers for High-Resolution Image Synthesis, 2024, arXiv:2403.03206,
    section 3.1. The density vanishes so fast at both ends that importance weights have no finite
    variance: use it unweighted.

    Args:
        mean: of the logit; positive for later times.
        std: of the logit.
    """

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.mean) or not 0 < self.std < math.inf:
            raise ValueError(
                f"LogitNormalTimes: needs a finite mean and a positive, finite std, got {self.mean} and {self.std}"
            )

    def quantile(self, u: Tensor) -> Tensor:
        return torch.sigmoid(self.mean + self.std * torch.special.ndtri(u))

    def density(self, t: Tensor) -> Tensor:
        z = (torch.logit(t) - self.mean) / self.std
        return torch.exp(-z * z / 2) / (self.std * math.sqrt(2 * math.pi) * t * (1 - t))


@dataclass(frozen=True)
class BetaTimes(TimeDensity):
    """The beta distribution, proportional to ``t^(a - 1) (1 - t)^(b - 1)``; ``b < 1`` crowds times at the data.

    Quantiles are scipy's: each draw goes by way of the CPU.

    Args:
        a: exponent at the source, plus 1.
        b: exponent at the data, plus 1.
    """

    a: float
    b: float

    def __post_init__(self) -> None:
        if not (0 < self.a < math.inf and 0 < self.b < math.inf):
            raise ValueError(f"BetaTimes: a and b must be positive and finite, got {self.a} and {self.b}")

    def quantile(self, u: Tensor) -> Tensor:
        from scipy.special import betaincinv

        return torch.as_tensor(np.asarray(betaincinv(self.a, self.b, u.detach().double().cpu().numpy()))).to(u)

    def density(self, t: Tensor) -> Tensor:
        log_beta = math.lgamma(self.a) + math.lgamma(self.b) - math.lgamma(self.a + self.b)
        return torch.exp((self.a - 1) * torch.log(t) + (self.b - 1) * torch.log1p(-t) - log_beta)


@dataclass(frozen=True)
class EarlyTimes(TimeDensity):
    """``last (1 - b)`` with b from the beta distribution of exponents ``power`` and 1: crowded at the source.

    The law of pi-zero: Black et al., pi-zero: A Vision-Language-Action Flow Model for General Robot Control, 2024,
    arXiv:2410.24164, appendix B. The authors' program counts time from data to noise, where it is ``.001 + .999 b``;
    here time runs from noise to data, so that it is one minus that. An observation says nearly all of an action, so
    that the end of the way is easy, and predicting the mean from noise is hard.

    Args:
        power: above 1 for a density that falls from the source on, as ``(1 - t / last)^(power - 1)``.
        last: no time is later.
    """

    power: float = 1.5
    last: float = 0.999

    def __post_init__(self) -> None:
        if not 0 < self.power < math.inf or not 0 < self.last <= 1:
            raise ValueError(
                f"EarlyTimes: power must be positive and finite and last in (0, 1], got {self.power} and {self.last}"
            )

    def quantile(self, u: Tensor) -> Tensor:
        # 1 - (1 - u)^(1 / power), without cancellation near 0.
        return -self.last * torch.expm1(torch.log1p(-u) / self.power)

    def density(self, t: Tensor) -> Tensor:
        left = 1 - t / self.last
        inside = self.power / self.last * left.clamp(min=0) ** (self.power - 1)
        return torch.where(left > 0, inside, 0.0)


@dataclass(frozen=True)
class DensityTimes(TimeDensity):
    """Any density, given as a function, joined by straight lines between equally spaced nodes and normalised.

    What is drawn, and what `density` returns, is that interpolant: importance weights are exact whatever the nodes.

    Args:
        function: from times to values, not negative and finite on [0, 1]; it need not integrate to 1.
        nodes: how many.

    Raises:
        ValueError: if a value is negative or not finite, or all are zero.
    """

    function: Callable[[Tensor], Tensor]
    nodes: int = 1025
    values: Tensor = field(init=False, repr=False, compare=False)
    """The interpolant at the nodes."""
    cumulative: Tensor = field(init=False, repr=False, compare=False)
    """Its integral up to each node."""

    def __post_init__(self) -> None:
        if self.nodes != int(self.nodes) or self.nodes < 2:
            raise ValueError(f"DensityTimes: nodes must be a whole number, at least 2, got {self.nodes}")
        object.__setattr__(self, "nodes", int(self.nodes))
        t = torch.linspace(0, 1, self.nodes, dtype=torch.float64)
        values = self.function(t).detach().to(t).expand_as(t)
        bad = ~((values >= 0) & values.isfinite())
        if bool(bad.any()) or not bool((values > 0).any()):
            where = f"{float(values[bad][0]):g} at time {float(t[bad][0]):.3g}" if bool(bad.any()) else "0 everywhere"
            raise ValueError(f"DensityTimes: a density is finite, not negative and somewhere positive, got {where}")
        cumulative = torch.cat([t[:1], ((values[1:] + values[:-1]) / 2).cumsum(0)])
        object.__setattr__(self, "values", values * (self.nodes - 1) / cumulative[-1])
        object.__setattr__(self, "cumulative", cumulative / cumulative[-1])

    def quantile(self, u: Tensor) -> Tensor:
        values, cumulative = self.values.to(u), self.cumulative.to(u)
        cell = (torch.searchsorted(cumulative, u.contiguous(), right=True) - 1).clamp(0, self.nodes - 2)
        left, right = values[cell], values[cell + 1]
        # The share w of the cell with left w + (right - left) w^2 / 2 = mass, by the form that does not cancel.
        mass = (u - cumulative[cell]).clamp(min=0) * (self.nodes - 1)
        root = torch.sqrt((left**2 + 2 * (right - left) * mass).clamp(min=0))
        share = 2 * mass / torch.where(left + root > 0, left + root, 1.0)
        return (cell + share.clamp(0, 1)) / (self.nodes - 1)

    def density(self, t: Tensor) -> Tensor:
        values = self.values.to(t)
        cell = (t * (self.nodes - 1)).long().clamp(0, self.nodes - 2)
        return torch.lerp(values[cell], values[cell + 1], t * (self.nodes - 1) - cell)


@dataclass(frozen=True)
class StratifiedTimes(TimeSampler):
    """One draw from each of as many equally probable slices as there are times, in random order.

    The mean over a batch has much less variance than that over independent draws, and the same expectation: each time
    taken alone has the density of ``base``.

    Args:
        base: the density; uniform by default.
    """

    base: TimeDensity = field(default_factory=UniformTimes)

    def sample(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        n = math.prod(shape)
        slices = torch.randperm(n, generator=generator, device=device)
        u = (slices + torch.rand(n, generator=generator, dtype=dtype, device=device)) / max(n, 1)
        return _inside(self.base.quantile(_inside(u))).reshape(shape)

    def density(self, t: Tensor) -> Tensor:
        return self.base.density(t)


@dataclass(frozen=True)
class UniformAndLateTimes(TimeSampler):
    """Half of the times uniform, half with ``1 - t`` log-uniform from 1 down to ``finest``; what `rfm.fit` draws.

    Structure of size r is decided while ``1 - t`` is about r, which uniform times hardly visit where r is small. Each
    half is stratified: one draw in each of as many equal slices. The late half comes first and both rise, so pair them
    with points in random order; of an odd number, the smaller half is late.

    Args:
        finest: the smallest ``1 - t`` of the late half.
    """

    finest: float = 0.003

    def __post_init__(self) -> None:
        if not 0 < self.finest < 1:
            raise ValueError(f"UniformAndLateTimes: finest must be between 0 and 1, got {self.finest}")

    def sample(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        n = math.prod(shape)
        late = n // 2
        slots = torch.arange(n, device=device)
        width = torch.where(slots < late, 1 / max(late, 1), 1 / max(n - late, 1))
        u = (slots - torch.where(slots < late, 0, late) + torch.rand(n, generator=generator, device=device)) * width
        t = torch.where(slots < late, 1 - self.finest**u, u)
        return _inside(t.to(dtype or t.dtype)).reshape(shape)

    def density(self, t: Tensor) -> Tensor:
        """Return the density of a full batch of even size: of its halves, each time has one density or the other."""
        late = torch.where(1 - t < self.finest, 0.0, 1 / ((1 - t) * -math.log(self.finest)))
        return (1 + late) / 2


def _inside(t: Tensor) -> Tensor:
    """Keep times, or shares, off 0 and 1 by half the distance between the numbers that ``torch.rand`` draws."""
    eps = torch.finfo(t.dtype).eps
    return t.clamp(eps / 4, 1 - eps / 2)


def check_times(owner: str, t: Tensor, batch: torch.Size) -> None:
    """Raise ValueError unless times broadcast to a batch without adding axes to it.

    Args:
        owner: the caller, for the message.
        t: times.
        batch: batch shape of the points.
    """
    if not isinstance(t, Tensor):
        raise ValueError(
            f"{owner}: t must be a tensor of shape {tuple(batch)}, got {t!r}; pass torch.full(shape, {t!r})"
        )
    axes = zip(reversed(t.shape), reversed(batch), strict=False)
    if t.ndim > len(batch) or not all(a == b or 1 in (a, b) for a, b in axes):
        raise ValueError(
            f"{owner}: t must hold one time per sample, shape {tuple(batch)}, or be one for all, got {tuple(t.shape)}; "
            "reshape it, or expand the points"
        )
