"""Runs of a method put together, until their draws are worth what is requested."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from rfm.posterior.draws import PosteriorDraws, systematic

_COMBINED: Mapping[str, Callable[[Sequence[float]], float]] = {
    "bulk_ess": sum,
    "tail_ess": sum,
    "founders": sum,
    "exchange": min,
}
"""How diagnostics of several runs are one; of others, such as R-hat, the largest counts."""


def pooled(runs: Sequence[PosteriorDraws], log_masses: Sequence[float] | None = None) -> PosteriorDraws:
    """Return the draws of several independent runs as one.

    Each is weighted by its evidence: the estimates of sequential Monte Carlo and of importance sampling are unbiased,
    so that many runs are exact in the limit as many particles are. Runs that know no evidence weigh the same.

    Args:
        runs: of one posterior; or, with ``log_masses``, of the parts of a prior that is a mixture.
        log_masses: logarithms of the parts' shares of the prior.

    Raises:
        ValueError: a part knows no evidence.

    References:
        Verge, Dubarry, Del Moral, Moulines: On parallel implementation of sequential Monte Carlo methods, the island
        particle model, 2015, section 3.
    """
    if len(runs) == 1 and not any(log_masses or ()):
        return runs[0]
    evidence = torch.tensor([run.log_evidence for run in runs], dtype=torch.float64)
    if log_masses is not None:
        if bool(evidence.isnan().any()):
            raise ValueError(
                f"posterior: the parts of a refined flow are weighted by their evidence, which {runs[0].method} do not "
                "know here; use Tempering, or rungs"
            )
        evidence = evidence + torch.tensor(log_masses, dtype=torch.float64)
    known = not bool(evidence.isnan().any())
    log_shares = torch.log_softmax(evidence if known else torch.zeros_like(evidence), 0)
    parts = zip(runs, log_shares.to(runs[0].log_weights), strict=True)
    worths = torch.tensor([run.effective_sample_size for run in runs], dtype=torch.float64)
    count = 0.0 if log_masses is not None else math.log(len(runs))
    return PosteriorDraws(
        torch.cat([run.points for run in runs]),
        torch.cat([run.log_weights + own for run, own in parts]),
        runs[0].method,
        sum(run.evaluations for run in runs),
        float(1 / ((2 * log_shares).exp() / worths).sum()),
        acceptance=sum(float(s.exp()) * run.acceptance for run, s in zip(runs, log_shares, strict=True)),
        log_evidence=float(evidence.logsumexp(0)) - count if known else math.nan,
        diagnostics=_combined(runs),
        # Those of the run that does worst; many would say the same.
        warnings=min(runs, key=lambda run: (not run.warnings, run.effective_sample_size)).warnings,
        exact=all(run.exact for run in runs),
    )


def _combined(runs: Sequence[PosteriorDraws]) -> dict[str, float]:
    """Return the diagnostics of all runs; a run that took draws of the prior as they are has none of moves."""
    names = dict.fromkeys(name for run in runs for name in run.diagnostics)
    known = {name: [run.diagnostics[name] for run in runs if name in run.diagnostics] for name in names}
    return {name: float(_COMBINED.get(name, max)(values)) for name, values in known.items()}


def equally_weighted(draws: PosteriorDraws, n: int, generator: torch.Generator | None) -> PosteriorDraws:
    """Return ``n`` draws of equal weight, and what these are worth.

    To the variance of a mean over all draws comes that of the systematic choice, ``sum f (1 - f) / n^2`` with ``f`` the
    fractional part of how often a draw is due.

    Args:
        draws: weighted.
        n: how many.
        generator: source of randomness.
    """
    part = torch.frac(n * draws.weights)
    worth = 1 / (float((part * (1 - part)).sum()) / n**2 + 1 / draws.effective_sample_size)
    rows = systematic(draws.log_weights, n, generator)
    log_w = torch.full((n,), -math.log(n), dtype=torch.float64, device=rows.device)
    return replace(draws, points=draws.points[rows], log_weights=log_w, effective_sample_size=min(worth, float(n)))


def drawn_until(
    run: Callable[[], PosteriorDraws], n: int, share: float, repeats: int, generator: torch.Generator | None
) -> PosteriorDraws:
    """Return ``n`` draws of equal weight, of as many runs as make them worth a share of that.

    Args:
        run: draws anew, independently of before.
        n: how many draws are returned.
        share: of ``n`` that they are to be worth, in (0, 1); a method that is not exact runs once.
        repeats: runs at most; a warning says when they ended first.
        generator: source of randomness.
    """
    runs = [run()]
    while True:
        draws = equally_weighted(pooled(runs), n, generator)
        if draws.effective_sample_size >= share * n or not draws.exact:
            return draws
        if len(runs) == repeats:
            break
        runs.append(run())
    note = (
        f"the {n} draws are worth {draws.effective_sample_size:.1f} independent ones, fewer than the {share * n:.0f} "
        f"requested, after {repeats} runs; give the method more particles, draws or moves, or raise repeats"
    )
    return replace(draws, warnings=(*draws.warnings, note))


def at_points(draws: PosteriorDraws, points: Tensor, log_ratio: Tensor) -> PosteriorDraws:
    """Return draws moved to other points and reweighted, exact in the limit.

    Args:
        draws: weighted.
        points: where each goes, ``(n, *event_shape)``.
        log_ratio: logarithms of what their weights are multiplied by ``(n,)``.
    """
    log_w = draws.log_weights + log_ratio.double()
    total = log_w.logsumexp(0)
    log_w = log_w - total
    # The worth falls as much as the effective number of weights does.
    left = float(((2 * draws.log_weights).logsumexp(0) - (2 * log_w).logsumexp(0)).exp())
    return replace(
        draws,
        points=points,
        log_weights=log_w,
        effective_sample_size=draws.effective_sample_size * min(left, 1.0),
        log_evidence=draws.log_evidence + float(total),
    )
