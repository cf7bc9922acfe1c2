"""What is known of a point besides its prior, as a log-likelihood."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from manifolds.arguments import check_function, shown

LogLikelihood = Callable[[Tensor], Tensor]
"""From points ``(*batch, *event_shape)`` to log-likelihoods ``(*batch)``, up to a constant; -inf where impossible."""


class Likelihood:
    """A log-likelihood that can say whether draws fit it. Plain functions are wrapped where they enter."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return log-likelihoods of points ``(*batch, *event_shape)`` in nats, ``(*batch)``."""
        raise NotImplementedError(f"{type(self).__name__} has no log-likelihood: define __call__")

    def doubts(self, draws: Tensor) -> tuple[str, ...]:
        """Return what is doubtful about posterior draws ``(n, *event_shape)``, a sentence each; nothing by default."""
        return ()


class _Function(Likelihood):
    def __init__(self, function: LogLikelihood) -> None:
        self.function = function

    def __call__(self, x: Tensor) -> Tensor:
        return self.function(x)


def as_likelihood(function: LogLikelihood) -> Likelihood:
    """Return the likelihood that a function is; a `Likelihood` itself."""
    check_function("Flow.posterior", "likelihood", function, "Measurement(operator, y, noise)")
    return function if isinstance(function, Likelihood) else _Function(function)


def inside(contains: Callable[[Tensor], Tensor]) -> LogLikelihood:
    """Return the log-likelihood of being where ``contains`` says so: 0 there, -inf elsewhere.

    Args:
        contains: from points to booleans ``(*batch)``, such as a `Polygon`.
    """

    def log_likelihood(x: Tensor) -> Tensor:
        within = contains(x)
        zero = torch.zeros(within.shape, dtype=x.dtype, device=x.device)
        return zero.masked_fill(~within, -math.inf)

    return log_likelihood


def checked_log_likelihood(likelihood: LogLikelihood, x: Tensor, batch: torch.Size) -> Tensor:
    """Return log-likelihoods of points, float64, ``(*batch)``.

    Raises:
        ValueError: they have another shape, are NaN or +inf.
    """
    value = likelihood(x)
    if not isinstance(value, Tensor) or value.shape != batch:
        raise ValueError(
            "posterior: the likelihood must return one log-likelihood per point, shape "
            f"{tuple(batch)}, got {tuple(value.shape) if isinstance(value, Tensor) else shown(value)}"
        )
    value = value.double()
    if bool((value.isnan() | (value == math.inf)).any()):
        raise ValueError(
            "posterior: the likelihood is NaN or infinite at a point of the prior; it must be a finite log-likelihood "
            "or -inf everywhere"
        )
    return value
