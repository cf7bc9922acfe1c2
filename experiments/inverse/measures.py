"""How far draws are from exact ones."""

import math

import torch
from torch import Tensor

from experiments.inverse.problems import Problem
from manifolds import Euclidean
from rfm.metrics import AmbientGaussianKernel, maximum_mean_discrepancy, wasserstein_distance


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
