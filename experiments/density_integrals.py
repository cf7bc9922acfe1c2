"""Integrals of densities over their manifold, by importance sampling with kernels as control variates."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from rfm.metrics import Estimate, negative_log_likelihood
from rfm.sources import KernelMixture, Uniform

UNIFORM_SHARE = 0.2
"""Of the draws: kernels reach far, but not everywhere."""


class Integrator:
    """Draws from kernels mixed with uniform points, that weigh any density on the same manifold.

    The mean of ``p / q`` over draws from q is the integral of p. Each component of the kernel density, and the uniform
    density, integrate to 1 by their formulas. So the part of ``p / q`` that a linear combination of their ratios
    explains is known without error, and only the remainder has a variance: a regression's constant term.

    Args:
        kernels: a density near those that are to be integrated.
        count: number of draws, more than twice the components.

    References:
        Owen and Zhou, Safe and effective importance sampling, 2000: mixtures as proposals and as control variates.
    """

    def __init__(self, kernels: KernelMixture, count: int) -> None:
        if count <= 2 * len(kernels.weights):
            raise ValueError(f"Integrator: {len(kernels.weights)} components need more than twice as many draws")
        generator, uniform = torch.Generator().manual_seed(0), Uniform(kernels.manifold)
        n = round(UNIFORM_SHARE * count)
        parts = [kernels.sample(count - n, generator, torch.float64), uniform.sample(n, generator, torch.float64)]
        self.x = torch.cat(parts)
        log_p, used = kernels.component_log_prob(self.x, truncate=True), kernels.weights > 0
        components = torch.cat([log_p[:, used], uniform.log_prob(self.x)[:, None]], dim=-1)
        self.log_kernels = (components[:, :-1] + kernels.weights[used].log()).logsumexp(-1)
        own = torch.stack([self.log_kernels + math.log1p(-n / count), components[:, -1] + math.log(n / count)])
        self.log_q = own.logsumexp(0)
        controls = (components - self.log_q[:, None]).exp() - 1
        self.design = torch.cat([torch.ones_like(controls[:, :1]), controls], dim=-1)

    def integral(self, density: Callable[[Tensor], Tensor], every: int = 1) -> Estimate:
        """Return the integral of a density, from its logarithm, with its standard error.

        Args:
            density: from points to log-densities in nats.
            every: use each so-manieth draw, where the density takes long.
        """
        design = self.design[::every]
        ratio = (density(self.x[::every]).double() - self.log_q[::every]).exp()
        # The components may be linearly dependent: of all solutions the smallest will do.
        fit = torch.linalg.lstsq(design, ratio[:, None], driver="gelsd")
        remainder = ratio - (design @ fit.solution)[:, 0]
        n, rank = len(design), int(fit.rank)
        error = math.sqrt(float(remainder.square().sum()) / (n - rank) / n)
        return Estimate(float(fit.solution[0, 0]), error, n)

    def integral_of_kernels(self) -> Estimate:
        """Return the integral of the kernel density by the same draws, without control variates."""
        # The mean of the ratios and its error: those of a negative log-likelihood are the same sums.
        return negative_log_likelihood(-(self.log_kernels - self.log_q).exp())
