"""How far samples are from a density that is known, and how far log-densities of jumps are from it."""

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import rfm
from experiments.few_steps.densities import Mixture
from manifolds import Manifold
from rfm.integrators import Adaptive, Jumps
from rfm.likelihood import Inversion, jump_log_prob, jump_transport
from rfm.metrics import classifier_two_sample

FREQUENCIES = 128
DENSITY = Adaptive(atol=1e-4, rtol=1e-4)
"""How the equation is solved for log-densities."""
_BLOCK = 8192


def discrepancy(manifold: Manifold, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Return the unbiased squared maximum mean discrepancy of two samples, and its standard error.

    The kernel is the inner product of `FREQUENCIES` random Fourier features of ``embed``, half for a Gaussian kernel of
    the median distance and half for one of a quarter of it: positive definite whatever they are, of value 1 at
    coincident points, and linear in the number of points. The estimate is that of
    `rfm.metrics.maximum_mean_discrepancy`, and so is the jackknife's error.

    Rahimi & Recht, Random Features for Large-Scale Kernel Machines, 2007.
    """
    generator = torch.Generator().manual_seed(5)
    some = manifold.embed(y[:1000])
    scale = float(torch.pdist(some).median())
    frequency = torch.randn(FREQUENCIES, some.shape[-1], generator=generator) / scale
    frequency[FREQUENCIES // 2 :] *= 4
    total, parts = torch.zeros(2 * FREQUENCIES, dtype=torch.float64), []
    for a, b in zip(x.split(_BLOCK), y.split(_BLOCK), strict=True):
        parts.append(_features(manifold, a, frequency) - _features(manifold, b, frequency))
        total += parts[-1].double().sum(0)
    n = len(x)
    h = torch.cat([(d @ total.float() - d.square().sum(-1)).double() for d in parts])
    mean = h.sum() / (n * (n - 1))
    left_out = (h.sum() - 2 * h) / ((n - 1) * (n - 2))
    return float(mean), float(((n - 1) / n * (left_out - left_out.mean()).square().sum()).sqrt())


def _features(manifold: Manifold, x: Tensor, frequency: Tensor) -> Tensor:
    phase = manifold.embed(x) @ frequency.mT
    return torch.cat([phase.cos(), phase.sin()], dim=-1) / math.sqrt(FREQUENCIES)


def told_apart(manifold: Manifold, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Return the accuracy of a classifier between two samples, and its standard error; one half is chance."""
    found = classifier_two_sample(manifold, x, y, folds=2)
    return found.mean, found.standard_error


def samples(flow: rfm.Flow, count: int, seed: int, **how: Any) -> tuple[Tensor, float]:
    """Return draws, and the seconds of processor time that they took."""
    start = time.process_time()
    x = flow.sample(count, generator=torch.Generator().manual_seed(seed), **how)
    return x, time.process_time() - start


def misses(flow: rfm.Flow, jumps: rfm.Flow, count: int) -> dict[str, float]:
    """Return how far one jump misses where the equation leads, overall and in two tenths of the draws.

    They are those whose jumps are longest, and those about which the jump spreads points most.
    """
    manifold = flow.manifold
    x_0 = flow.source.sample((count,), generator=torch.Generator().manual_seed(4))
    field: Callable[..., Tensor] = jumps.field
    landed, log_det = jump_transport(field, manifold, x_0)
    missed = manifold.dist(landed, flow.transport(x_0, solver=DENSITY)).double()
    way = manifold.dist(x_0, landed)
    tenth = count // 10

    def size(rows: Tensor) -> float:
        return float(missed[rows].square().mean().sqrt())

    return {
        "median": float(missed.median()),
        "all": size(torch.arange(count)),
        "longest": size(way.argsort()[-tenth:]),
        "spread": size(log_det.argsort()[-tenth:]),
        "rest": size(log_det.argsort()[:-tenth]),
        "way": float(way.double().quantile(0.99)),
    }


def likelihoods(
    flow: rfm.Flow, density: Mixture, x: Tensor, equation: Tensor, steps: int, tolerance: float
) -> dict[str, float]:
    """Return how the density of jumps compares with the equation's and the exact one at draws from the latter.

    Args:
        flow: of a flow map.
        density: the exact one.
        x: draws from it.
        equation: log-densities there of the flow that was distilled.
        steps: how many jumps.
        tolerance: of the inverse, see `rfm.likelihood.Inversion`.
    """
    exact = density.log_prob(x)
    start = time.process_time()
    field: Callable[..., Tensor] = flow.field
    options: dict[str, Any] = {"inversion": Inversion(tolerance=tolerance), "check": False}
    found = jump_log_prob(field, flow.source, x, Jumps(steps), **options)
    seconds = time.process_time() - start
    known = found.log_prob.isfinite()
    log_p, n = found.log_prob[known].double(), int(known.sum())
    ratio = torch.where(known, (found.log_prob - exact).exp(), 0.0)
    return {
        "inverted": n / len(x),
        "evaluations": float(found.evaluations.mean()),
        "difference": float((log_p - equation[known]).mean()),
        "absolute_difference": float((log_p - equation[known]).abs().mean()),
        "divergence": float((exact[known] - log_p).mean()),
        "equation_divergence": float((exact - equation).mean()),
        "integral": float(ratio.mean()),
        "integral_error": float(ratio.std() / math.sqrt(len(x))),
        "equation_integral": float((equation - exact).exp().mean()),
        "seconds": seconds,
    }
