"""Every schedule and every kappa, and a mixture whose marginals are known: what laws of paths are tested over."""

import math

import pytest
import torch
from torch import Tensor

from manifolds import Euclidean
from rfm.paths import GaussianPath
from rfm.paths.schedules import (
    Cosine,
    CosineKappa,
    ExponentialKappa,
    FunctionKappa,
    FunctionSchedule,
    Kappa,
    Linear,
    LinearKappa,
    Polynomial,
    PolynomialKappa,
    Schedule,
    VarianceExploding,
    VariancePreserving,
)

SCHEDULES: list[Schedule] = [
    Linear(),
    Cosine(),
    Polynomial(1),
    Polynomial(3),
    VariancePreserving(),
    VarianceExploding(0.05, 3.0),
    FunctionSchedule(lambda t: torch.sin(t) / math.sin(1), lambda t: 1 - t * t),
]
KAPPAS: list[Kappa] = [
    LinearKappa(),
    PolynomialKappa(1),
    PolynomialKappa(3),
    CosineKappa(),
    ExponentialKappa(10.0),
    FunctionKappa(lambda t: 1 - t * t),
]


def _name(value: object) -> str:
    return type(value).__name__ if "Function" in type(value).__name__ else repr(value)


EVERY_SCHEDULE = pytest.mark.parametrize("schedule", SCHEDULES, ids=_name)
EVERY_KAPPA = pytest.mark.parametrize("kappa", KAPPAS, ids=_name)


class Mixture:
    """Three data points on a line under a Gaussian path: marginal density and velocity by Bayes' rule.

    Integrals over the line are by the trapezoidal rule, which converges faster than any power for Gaussians.
    """

    centres = torch.tensor([[-1.0], [0.3], [1.2]], dtype=torch.float64)
    weights = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)

    def __init__(self, schedule: Schedule, t: float) -> None:
        self.path = GaussianPath(Euclidean(1), schedule)
        self.t = torch.tensor(t, dtype=torch.float64)

    def log_prob(self, x: Tensor, t: Tensor | None = None) -> Tensor:
        """Return the marginal log-density at ``x`` of shape ``(n, 1)``."""
        t = self.t if t is None else t
        return torch.logsumexp(self.path.log_prob(x[:, None], self.centres, t) + self.weights.log(), dim=-1)

    def mean(self, x: Tensor, conditional: Tensor) -> Tensor:
        """Return the mean over the data, given ``x``, of values ``(n, 3, 1)`` or ``(3, 1)``."""
        logits = self.path.log_prob(x[:, None], self.centres, self.t) + self.weights.log()
        return (torch.softmax(logits, dim=-1)[..., None] * conditional).sum(-2)

    def velocity(self, x: Tensor) -> Tensor:
        """Return the marginal velocity at ``x`` of shape ``(n, 1)``."""
        return self.mean(x, self.path.velocity(x[:, None], self.centres, self.t))

    def grid(self) -> tuple[Tensor, Tensor]:
        """Return nodes ``(n, 1)`` on the line, and the weight of each in the expectation over the marginal."""
        reach = 2 + 9 * float(self.path.schedule(self.t).sigma)
        x = torch.linspace(-reach, reach, 4001, dtype=torch.float64)[:, None]
        return x, torch.exp(self.log_prob(x)) * float(x[1] - x[0])

    def pairs(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return source points and data points ``(3 n, 1)``, and the probability of each pair."""
        z = torch.linspace(-9, 9, 1001, dtype=torch.float64)
        share = torch.exp(-z * z / 2) / math.sqrt(2 * math.pi) * float(z[1] - z[0])
        x_0 = (self.path.schedule.source_scale * z).repeat(3)[:, None]
        return x_0, self.centres.repeat_interleave(len(z), 0), torch.outer(self.weights, share).flatten()
