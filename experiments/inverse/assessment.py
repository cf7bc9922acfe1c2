"""One method on one problem: how far its draws are off, and what they cost."""

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from experiments.inverse.measures import coverage, discrepancy, distance, modes_found
from experiments.inverse.problems import SOLVER, Problem
from rfm.posterior import DivergenceError, Sampler

WORTH = 0.8
"""Share of the draws that exact methods are to be worth."""

NULLS = 8
"""Pairs of exact samples that the noise of a discrepancy is measured on."""


@dataclass(frozen=True)
class Truth:
    """Exact draws of a problem, and how far apart two such samples are.

    Args:
        problem: the problem.
        exact: draws that others are compared with, ``(n, *event_shape)``.
        others: as many others.
        deviation: of the discrepancy between exact samples.
    """

    problem: Problem
    exact: Tensor
    others: Tensor
    deviation: float

    @classmethod
    def of(cls, problem: Problem, draws: int, seed: int) -> "Truth":
        """Return the truth for a seed."""
        generator = torch.Generator().manual_seed(seed)
        exact, others = (problem.exact(draws, generator) for _ in range(2))
        nulls = [discrepancy(problem, problem.exact(draws, generator), exact) for _ in range(NULLS)]
        return cls(problem, exact, others, statistics.stdev(nulls))

    def at_worth(self, value: float, worth: float, generator: torch.Generator) -> float:
        """Return a discrepancy in standard deviations from the mean of exact samples of the same worth.

        These are draws with replacement from as many exact ones as make them worth that, so that they share their
        error as dependent draws do.

        Args:
            value: discrepancy of draws from the exact ones.
            worth: how many independent draws they claim to be worth.
            generator: source of randomness.
        """
        n = len(self.exact)
        if worth > 0.99 * n:
            return value / self.deviation
        count = max(2, round(1 / (1 / worth - 1 / n)))
        nulls = []
        for _ in range(2 * NULLS):
            own = self.problem.exact(count, generator)
            rows = torch.randint(count, (n,), generator=generator)
            nulls.append(discrepancy(self.problem, own[rows], self.exact))
        return (value - statistics.fmean(nulls)) / statistics.stdev(nulls)


def assessed(make: Callable[[], Truth], method: Sampler | None, seed: int, repeats: int = 1) -> dict[str, float]:
    """Return how a method does.

    Args:
        make: what gives the truth.
        method: None for exact draws.
        seed: of the method.
        repeats: runs of an exact method, at most, to make its draws worth `WORTH` of their number.

    Returns:
        By name: ``wasserstein``, sliced in flat space and geodesic elsewhere, of order 2; ``mmd``, the unbiased squared
        maximum mean discrepancy in standard deviations between exact samples; ``mmd_at_worth``, the same relative to
        exact samples that are worth as much as the method claims; ``coverage``, the share of exact draws in
        the method's central 90 % intervals, mean over coordinates; ``modes``, the share of the posterior's modes that
        hold at least half of their due, NaN where there are none; ``worth``, the effective sample size that the method
        claims; ``evaluations`` of the velocity, per draw; ``seconds`` of processor time, for all draws. All are NaN
        where the draws left the range of numbers.
    """
    truth = make()
    problem, exact = truth.problem, truth.exact
    # Not the seed of the exact draws, with which a method could share its random numbers.
    generator, begun = torch.Generator().manual_seed(1000 + seed), time.process_time()
    x, evaluations, worth = truth.others, 0.0, float(len(exact))
    if method is not None:
        try:
            found = problem.flow.posterior(
                problem.measurement,
                len(exact),
                method=method,
                worth=WORTH,
                repeats=repeats,
                solver=SOLVER,
                generator=generator,
            )
        except DivergenceError:
            names = ("wasserstein", "mmd", "mmd_at_worth", "coverage", "modes", "worth", "evaluations", "seconds")
            return dict.fromkeys(names, math.nan)
        x, evaluations, worth = found.points, found.evaluations / len(exact), found.effective_sample_size
    seconds = time.process_time() - begun
    apart = discrepancy(problem, x, exact)
    return {
        "wasserstein": distance(problem, x, exact),
        "mmd": apart / truth.deviation,
        "mmd_at_worth": truth.at_worth(apart, worth, torch.Generator().manual_seed(2000 + seed)),
        "coverage": coverage(problem, x, exact),
        "modes": modes_found(problem, x),
        "worth": worth,
        "evaluations": evaluations,
        "seconds": seconds,
    }
