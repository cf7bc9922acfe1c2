"""How far draws are from exact ones, and whether posteriors are calibrated."""

import math
from dataclasses import dataclass

import torch
from scipy.stats import chisquare
from torch import Tensor

from experiments.inverse.problems import SOLVER, Problem
from manifolds import Euclidean
from rfm.metrics import AmbientGaussianKernel, maximum_mean_discrepancy, wasserstein_distance
from rfm.posterior import Measurement, Sampler


@dataclass(frozen=True)
class Row:
    """One method on one problem, means over seeds.

    Args:
        problem: its name.
        method: its name.
        wasserstein: sliced in flat space, geodesic elsewhere, of order 2.
        mmd: unbiased squared maximum mean discrepancy, in units of the standard deviation between exact draws.
        coverage: share of exact draws in the method's central 90 % intervals, mean over coordinates.
        modes: share of the posterior's modes that hold at least half of their due; NaN where there are none.
        worth: effective sample size that the method claims; the number of draws for those that are not exact.
        evaluations: of the velocity, per draw.
        seconds: for all draws.
    """

    problem: str
    method: str
    wasserstein: float
    mmd: float
    coverage: float
    modes: float
    worth: float
    evaluations: float
    seconds: float


def sliced_wasserstein(x: Tensor, y: Tensor, slices: int = 100) -> float:
    """Return the sliced Wasserstein distance of order 2 between samples of equal size, ``(n, d)``."""
    directions = torch.randn(x.shape[1], slices, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    directions = directions / directions.norm(dim=0)
    a, b = ((z.double() @ directions).sort(0).values for z in (x, y))
    return float((a - b).square().mean().sqrt())


def distance(problem: Problem, x: Tensor, y: Tensor) -> float:
    """Return the Wasserstein distance between samples of equal size."""
    manifold = problem.flow.manifold
    if isinstance(manifold, Euclidean):
        return sliced_wasserstein(x, y)
    return wasserstein_distance(manifold, x, y, blocks=4).mean


def discrepancy(problem: Problem, x: Tensor, y: Tensor) -> float:
    """Return the unbiased squared maximum mean discrepancy between samples of equal size."""
    manifold = problem.flow.manifold
    scale = float(torch.pdist(manifold.embed(y[:300]).double()).median())
    return maximum_mean_discrepancy(x, y, AmbientGaussianKernel(manifold, scale)).mean


def coverage(problem: Problem, x: Tensor, exact: Tensor) -> float:
    """Return the share of exact draws in the central 90 % intervals of ``x``, mean over embedded coordinates."""
    own, true = (problem.flow.manifold.embed(z).double() for z in (x, exact))
    low, high = torch.quantile(own, torch.tensor([0.05, 0.95], dtype=torch.float64), dim=0)
    return float(((true >= low) & (true <= high)).double().mean())


def modes_found(problem: Problem, x: Tensor) -> float:
    """Return the share of modes of at least 2 % of the posterior that hold half of their due, or NaN."""
    if problem.modes is None:
        return math.nan
    nearest, weights = problem.modes
    due = weights > 0.02
    held = torch.bincount(nearest(x), minlength=len(weights)).double() / len(x)
    return float((held[due] >= weights[due] / 2).double().mean())


def calibration(problem: Problem, method: Sampler, replications: int, seed: int) -> float:
    """Return the p-value of uniform ranks of true points among posterior draws.

    Each time a point is drawn from the prior and measured; the ranks of its coordinates among 63 posterior draws are
    uniform if these are draws of the posterior: Talts et al., Validating Bayesian inference algorithms with simulation-
    based calibration, 2018, arXiv:1804.06788. Of several coordinates the least p-value counts, times their number.
    """
    generator = torch.Generator().manual_seed(seed)
    flow, known, ranks = problem.flow, problem.measurement, []
    truths = flow.sample(replications, generator=generator, solver=SOLVER)
    for truth in truths:
        value = known.residual(truth[None])[0] + known.y.to(truth)
        y = value + known.noise.to(truth) * torch.randn(value.shape, generator=generator)
        measurement = Measurement(known.operator, y, known.noise, known.period)
        drawn = flow.posterior(measurement, 252, method=method, solver=SOLVER, generator=generator).points
        # Every fourth: neighbours may be copies of one another.
        coordinates = flow.manifold.embed(torch.cat([truth[None], drawn[::4]]))
        ranks.append((coordinates[1:] < coordinates[:1]).sum(0))
    bins = max(2, min(8, replications // 5))
    counts = [torch.histc(column.float(), bins, 0, 64) for column in torch.stack(ranks).unbind(1)]
    return min(1.0, len(counts) * min(float(chisquare(count.numpy()).pvalue) for count in counts))
