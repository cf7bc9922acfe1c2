"""Whether posteriors are calibrated: ranks of true points among draws."""

import torch
from scipy.stats import chisquare

from experiments.inverse.problems import Problem
from rfm.integrators import FixedStep
from rfm.posterior import Measurement, Sampler

SOLVER = FixedStep(steps=3)
"""Truths and posteriors are of the flow as this carries it, so it need not be exact."""

DRAWS = 63
"""Of each posterior that a true point is ranked among: 64 ranks, which bins of equal size divide."""


def calibration(problem: Problem, method: Sampler, replications: int, seed: int) -> float:
    """Return the p-value of uniform ranks of true points among posterior draws.

    Each time a point is drawn from the prior and measured; the ranks of its coordinates, and of its likelihood, among
    63 posterior draws are uniform if these are draws of the posterior. Ranks of coordinates alone are uniform for draws
    of the prior too. Of several quantities the least p-value counts, times their number.

    References:
        Talts et al., Validating Bayesian inference algorithms with simulation-based calibration, 2018,
        arXiv:1804.06788; Modrak et al., Simulation-based calibration checking for Bayesian computation: The choice of
        test quantities shapes sensitivity, 2023, arXiv:2211.02383, for the likelihood.
    """
    generator = torch.Generator().manual_seed(seed)
    flow, known, ranks = problem.flow, problem.measurement, []
    truths = flow.sample(replications, generator=generator, solver=SOLVER)
    for truth in truths:
        value = known.residual(truth[None])[0] + known.y.to(truth)
        y = value + known.noise.to(truth) * torch.randn(value.shape, generator=generator)
        measurement = Measurement(known.operator, y, known.noise, known.period)
        drawn = flow.posterior(measurement, 4 * DRAWS, method=method, solver=SOLVER, generator=generator).points
        # Every fourth: neighbours may be copies of one another.
        points = torch.cat([truth[None], drawn[::4]])
        values = torch.cat([flow.manifold.embed(points).double(), measurement(points).double()[:, None]], dim=-1)
        ranks.append((values[1:] < values[:1]).sum(0))
    bins = max(2, min(8, replications // 5))
    counts = [torch.histc(column.float(), bins, 0, DRAWS + 1) for column in torch.stack(ranks).unbind(1)]
    return min(1.0, len(counts) * min(float(chisquare(count.numpy()).pvalue) for count in counts))
